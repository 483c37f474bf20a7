// SPDX-License-Identifier: GPL-2.0

//! Keeping PCI functions, and who is bound to them, as they are.

use super::{
    for_each_function,
    rescan::RescanLock,
    Function,
    OwnedFunction, //
};
use crate::{
    bindings,
    raw, //
};
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    types::NotThreadSafe, //
};

/// How long [`Held::all`] waits for drivers that are just coming or going.
const PATIENCE: Delta = Delta::from_secs(10);
const PAUSE: Delta = Delta::from_millis(2);

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

/// While this lives no driver is bound to the functions that are held, or unbound from them, and
/// none of them goes.
///
/// It holds their device locks, which the driver core takes for that, and the rescan lock.
/// So nothing that takes one of these may be done under it, on no thread that is waited for:
/// binding, unbinding, adding and removing.
///
/// Functions may still be added by code that takes neither lock: virtual ones after the reset of
/// a physical one, or those of a host bridge that is found late.
///
/// # Invariants
///
/// The lock of every device in `functions` was taken by this thread.
pub struct Held {
    functions: KVec<OwnedFunction>,
    _all: AllLocks,
    _rescan: RescanLock,
}

impl Held {
    /// Holds none yet. Context: may sleep; no device lock and no rescan lock may be held.
    pub(crate) fn none() -> Self {
        Self {
            _rescan: RescanLock::new(),
            _all: AllLocks::new(),
            functions: KVec::new(),
        }
    }

    /// Holds one more.
    ///
    /// Errors: `EBUSY` while a driver is coming or going there; `ENOMEM`.
    pub(crate) fn add(&mut self, function: Function<'_>) -> Result {
        self.functions.reserve(1, GFP_KERNEL)?;
        let dev = raw::as_raw(function.as_device());
        // SAFETY: A registered device; `self` has the lock around all of them.
        if !unsafe { bindings::rust_iommu_device_trylock(dev) } {
            return Err(EBUSY);
        }
        // INVARIANT: Locked above. There is room.
        self.functions
            .push(function.to_owned(), GFP_KERNEL)
            .map_err(Error::from)
    }

    /// Holds every function there is, after waiting for drivers that are coming or going.
    ///
    /// Errors, with a line: `EBUSY` if a driver is at it for more than ten seconds; `ENOMEM`.
    ///
    /// Context: may sleep; no device lock and no rescan lock may be held.
    pub fn all() -> Result<Self> {
        let begin = Instant::<Monotonic>::now();
        loop {
            let mut this = Self::none();
            let mut last = None;
            let held = for_each_function(|function| {
                last = Some(function.source_id());
                this.add(function)
            });
            match held {
                Ok(()) => return Ok(this),
                Err(EBUSY) if begin.elapsed() < PATIENCE => {}
                Err(EBUSY) => {
                    if let Some(id) = last {
                        pr_err!("{id}: the driver core does not let go of it\n");
                    }
                    return Err(EBUSY);
                }
                Err(e) => {
                    pr_err!("holding all functions failed: error {}\n", e.to_errno());
                    return Err(e);
                }
            }
            drop(this);
            fsleep(PAUSE);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for function in &self.functions {
            // SAFETY: Locked by this thread, by the type invariant.
            unsafe { bindings::rust_iommu_device_unlock(raw::as_raw(function.get().as_device())) };
        }
    }
}
