// SPDX-License-Identifier: GPL-2.0

//! Work that is asked for in any context and done in process context.

use crate::bindings;
use core::marker::PhantomPinned;
use kernel::{
    ffi::c_void,
    prelude::*,
    types::Opaque, //
};

/// What is done. Context: a thread of the kernel's, with nothing held; may sleep.
pub(crate) trait Run {
    fn run(&self);
}

/// Work in a value that it calls, which is pinned and outlives [`Work::stop`].
#[pin_data]
pub(crate) struct Work {
    #[pin]
    work: Opaque<bindings::rust_iommu_work>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Work of the kernel, which any thread may start and stop.
unsafe impl Send for Work {}
// SAFETY: As above.
unsafe impl Sync for Work {}

/// # Safety
///
/// `data` is a `T` that is not dropped meanwhile.
unsafe extern "C" fn run<T: Run>(data: *mut c_void) {
    // SAFETY: By the contract.
    unsafe { &*data.cast::<T>() }.run();
}

impl Work {
    /// # Safety
    ///
    /// `owner` is pinned, initialised before [`start`](Self::start) is called, and calls
    /// [`stop`](Self::stop) before it is dropped.
    pub(crate) unsafe fn new<T: Run + Sync>(owner: *const T) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(move |work: *mut bindings::rust_iommu_work| {
                // SAFETY: Memory for work, which stays in place. `owner` is what the callback of its
                // type expects, by the contract.
                unsafe {
                    bindings::rust_iommu_work_init(work, Some(run::<T>), owner.cast_mut().cast())
                };
            }),
            _pin: PhantomPinned,
        })
    }

    /// Has the owner called soon, once for all starts before that; also by the owner's call itself. Does
    /// nothing once the work was stopped. Context: any.
    pub(crate) fn start(&self) {
        // SAFETY: Initialised by `new`.
        unsafe { bindings::rust_iommu_work_start(self.work.get()) };
    }

    /// Has the owner called no more, and waits for a call that is under way. Context: process, not the
    /// owner's call.
    pub(crate) fn stop(&self) {
        // SAFETY: As above.
        unsafe { bindings::rust_iommu_work_stop(self.work.get()) };
    }
}
