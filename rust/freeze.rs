// SPDX-License-Identifier: GPL-2.0

//! Keeping drivers away from endpoints while units go.
//!
//! `iommu_device_unregister()` takes the domains from under whoever uses them. Who wants to
//! unregister has to make sure that nobody does, and that nobody starts to meanwhile.

use crate::{
    bindings,
    driver::Driver,
    ops,
    pci::{
        self,
        ports,
        rescan::RescanLock,
        Function,
        OwnedFunction, //
    },
    raw,
    registration::Registration, //
};
use kernel::{
    prelude::*,
    types::NotThreadSafe, //
};

/// No endpoint has a driver, and none gets one while this lives; nor does any function come
/// or go.
///
/// It holds the device lock of every endpoint, which the driver core takes to bind. So
/// nothing may be bound or unbound under it.
///
/// # Invariants
///
/// The lock of every device in `held` was taken by this thread.
pub struct Frozen {
    held: KVec<OwnedFunction>,
    _all: AllLocks,
    _functions: RescanLock,
}

/// The lock that says to lockdep that many device locks are held in no particular order:
/// they are tried, never waited for.
struct AllLocks(NotThreadSafe);

impl AllLocks {
    fn new() -> Self {
        // SAFETY: No requirements but that the caller may sleep; unlocked by the drop.
        unsafe { bindings::rust_iommu_device_locks_begin() };
        Self(NotThreadSafe)
    }
}

impl Drop for AllLocks {
    fn drop(&mut self) {
        // SAFETY: Taken by `new`, on this thread: the type is not `Send`.
        unsafe { bindings::rust_iommu_device_locks_end() };
    }
}

/// Whether an endpoint is in nobody's hands. Errors: `EBUSY`, with a message.
///
/// # Safety
///
/// The device is an endpoint and is not released meanwhile.
unsafe fn check_idle(function: Function<'_>) -> Result {
    if function.has_driver() {
        pr_info!("{function}: has a driver, unbind it first\n");
        return Err(EBUSY);
    }
    // SAFETY: The reference keeps the device.
    let group = unsafe { (*raw::as_raw(function.as_device())).iommu_group };
    // SAFETY: An endpoint has a group until it is released.
    if unsafe { bindings::iommu_group_dma_owner_claimed(group) } {
        pr_info!("{function}: its group is claimed\n");
        return Err(EBUSY);
    }
    Ok(())
}

/// Calls `visitor` for every endpoint of `D`.
fn for_each_endpoint<D: Driver>(
    _lock: &RescanLock,
    mut visitor: impl FnMut(Function<'_>) -> Result,
) -> Result {
    pci::for_each_function(|function| {
        // SAFETY: The rescan lock keeps the core from releasing devices, and what is on the
        // bus it has not released.
        if unsafe { ops::is_endpoint::<D>(function.as_device()) } {
            visitor(function)
        } else {
            Ok(())
        }
    })
}

/// Whether a registration could be [ended](crate::registration::Registration::end) once its
/// ports are [released](ports::ReleasedPorts); a look in advance, so that they need not be
/// if it cannot.
///
/// Errors: `EBUSY`, with one line that names the first device which is in the way.
///
/// Context: may sleep; the rescan lock may not be held.
pub fn look<D: Driver>(_registration: &Registration<D>) -> Result {
    let lock = RescanLock::new();
    for_each_endpoint::<D>(&lock, |function| {
        if ports::is_port(function) {
            return Ok(());
        }
        // SAFETY: As said there, the lock keeps it from being released.
        unsafe { check_idle(function) }
    })
}

impl Frozen {
    /// Freezes the endpoints of `D`.
    ///
    /// Errors: `EBUSY`, with one line that names the first device which is in the way: a
    /// driver is bound to it or just coming or going, or its group's DMA is claimed;
    /// `ENOMEM`.
    ///
    /// Context: may sleep; no device lock and no rescan lock may be held.
    pub(crate) fn new<D: Driver>() -> Result<Self> {
        let mut held = KVec::new();
        let functions = RescanLock::new();
        let all = AllLocks::new();
        let locked = for_each_endpoint::<D>(&functions, |function| {
            held.reserve(1, GFP_KERNEL)?;
            let dev = raw::as_raw(function.as_device());
            // SAFETY: A registered device; `all` is held.
            if !unsafe { bindings::rust_iommu_device_trylock(dev) } {
                pr_info!("{function}: in use by the driver core, try again\n");
                return Err(EBUSY);
            }
            held.push(function.to_owned(), GFP_KERNEL)?;
            // SAFETY: The rescan lock keeps it from being released.
            unsafe { check_idle(function) }
        });
        // INVARIANT: All of them were locked above.
        let this = Self {
            held,
            _all: all,
            _functions: functions,
        };
        locked?;
        Ok(this)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for function in &self.held {
            // SAFETY: Locked by this thread, by the type invariant.
            unsafe { bindings::rust_iommu_device_unlock(raw::as_raw(function.get().as_device())) };
        }
    }
}
