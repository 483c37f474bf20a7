// SPDX-License-Identifier: GPL-2.0

//! A timer that is started and expires in any context.

use crate::bindings;
use core::marker::PhantomPinned;
use kernel::{
    ffi::c_void,
    prelude::*,
    time::Delta,
    types::Opaque, //
};

/// What is called when the time has come. Context: atomic, an interrupt.
pub(crate) trait Expire {
    fn expire(&self);
}

/// A timer in a value that it calls, which is pinned and outlives [`Timer::stop`].
#[pin_data]
pub(crate) struct Timer {
    #[pin]
    timer: Opaque<bindings::rust_iommu_timer>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A timer of the kernel, which any thread may start and cancel.
unsafe impl Send for Timer {}
// SAFETY: As above.
unsafe impl Sync for Timer {}

/// # Safety
///
/// `data` is a `T` that is not dropped meanwhile.
unsafe extern "C" fn expired<T: Expire>(data: *mut c_void) {
    // SAFETY: By the contract.
    unsafe { &*data.cast::<T>() }.expire();
}

impl Timer {
    /// # Safety
    ///
    /// `owner` is pinned, initialised before [`start`](Self::start) is called, and calls
    /// [`stop`](Self::stop) before it is dropped; after that nobody starts the timer.
    pub(crate) unsafe fn new<T: Expire + Sync>(owner: *const T) -> impl PinInit<Self> {
        pin_init!(Self {
            timer <- Opaque::ffi_init(move |timer: *mut bindings::rust_iommu_timer| {
                // SAFETY: Memory for a timer, which stays in place. `owner` is what the
                // callback of its type expects, by the contract.
                unsafe {
                    bindings::rust_iommu_timer_init(
                        timer,
                        Some(expired::<T>),
                        owner.cast_mut().cast(),
                    )
                };
            }),
            _pin: PhantomPinned,
        })
    }

    /// Has the owner called after `delay`; an earlier start is forgotten. Context: any; also the
    /// owner's call.
    pub(crate) fn start(&self, delay: Delta) {
        // SAFETY: Initialised by `new`.
        unsafe { bindings::rust_iommu_timer_start(self.timer.get(), delay.as_nanos()) };
    }

    /// Calls it off, and waits for a call that is under way. Context: process.
    pub(crate) fn stop(&self) {
        // SAFETY: As above.
        unsafe { bindings::rust_iommu_timer_stop(self.timer.get()) };
    }
}
