// SPDX-License-Identifier: GPL-2.0

//! Locks in statics, initialised when they are first used.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        GlobalLock,
        GlobalLockBackend, //
    },
};

/// A [`GlobalLock`] that nobody has to initialise.
pub(crate) struct LateLock<B: GlobalLockBackend> {
    lock: GlobalLock<B>,
    /// 0: `lock` is not initialised, 1: being initialised, 2: ready.
    state: Atomic<u32>,
}

impl<B: GlobalLockBackend> LateLock<B> {
    /// # Safety
    ///
    /// The type `B` is not used with any other lock.
    pub(crate) const unsafe fn new(item: B::Item) -> Self {
        Self {
            // SAFETY: `get` calls `init` before it gives the lock out; the rest is by the contract.
            lock: unsafe { GlobalLock::new(item) },
            state: Atomic::new(0),
        }
    }

    /// The lock.
    ///
    /// Errors: `EBUSY` while another caller initialises it.
    pub(crate) fn get(&'static self) -> Result<&'static GlobalLock<B>> {
        if self.state.cmpxchg(0, 1, Relaxed).is_ok() {
            // SAFETY: The state leaves 0 once, so this runs once.
            unsafe { self.lock.init() };
            self.state.store(2, Release);
        }
        if self.state.load(Acquire) == 2 {
            Ok(&self.lock)
        } else {
            Err(EBUSY)
        }
    }
}
