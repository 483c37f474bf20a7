// SPDX-License-Identifier: GPL-2.0

//! Injection points: places where a test can hold, delay or fail who passes.
//!
//! They exist in test builds only (`--cfg inject`, see `Documentation/testing.rst`).
//! In all others the functions are empty, and the optimiser leaves nothing of them.
//!
//! Rules are armed through the file `/sys/kernel/debug/rust_iommu/inject`, a command a
//! write. DEVICE is a device's name, which is anything but a number; without it a rule
//! is for all.
//!
//! ```text
//! gate POINT [DEVICE] [SKIP]         hold the next arrival, after SKIP others
//! open POINT [DEVICE]                let it go, and disarm; ENOENT if there is no gate
//! wait POINT [DEVICE] [SECONDS]      until somebody is held, 30 s if not told; ETIMEDOUT,
//!                                    ENOENT if there is no gate (any more)
//! fail POINT ERRNO [N] [DEVICE]      the N-th arrival (default: the next) fails, once
//! delay POINT MICROSECONDS [DEVICE]  delay all arrivals
//! count POINT [DEVICE]               count them
//! clear                              open all gates, forget all rules
//! ```
//!
//! A place has one rule of each kind; arming it again starts it anew, with `EBUSY` while
//! somebody is held. Arrivals after the held one pass. Reading the file gives a line a
//! rule: `POINT KIND hits H waiting W`, then what it was armed with.
//!
//! A gate opens by itself after a minute (five seconds in atomic context), with a line in
//! the kernel's log, so that a test that went wrong ends.

#[cfg(inject)]
pub mod command;
#[cfg(inject)]
mod gates;
#[cfg(inject)]
pub mod rules;
#[cfg(inject)]
pub(crate) mod tables;

#[cfg(inject)]
pub(crate) use self::gates::Control;

use kernel::{
    device::Device,
    prelude::*, //
};

/// Passes `point`, on behalf of `dev` where one is known.
///
/// Errors: what a test asked for.
///
/// Context: may sleep. At a gate it sleeps with whatever locks the caller holds.
#[inline(always)]
pub fn reach(point: &'static str, dev: Option<&Device>) -> Result {
    #[cfg(inject)]
    return gates::reach(point, dev);
    #[cfg(not(inject))]
    {
        let _ = (point, dev);
        Ok(())
    }
}

/// Passes `point` where nothing can fail; a rule that asks for it is used up.
///
/// Context: any. At a gate it spins with whatever locks the caller holds.
#[inline(always)]
pub fn reach_atomic(point: &'static str) {
    // It cannot fail here.
    let _ = fails_atomic(point);
}

/// Passes `point` where sleeping is not allowed.
///
/// Errors: what a test asked for. Context: as for [`reach_atomic`].
#[inline(always)]
pub fn fails_atomic(point: &'static str) -> Result {
    #[cfg(inject)]
    return gates::reach_atomic(point);
    #[cfg(not(inject))]
    {
        let _ = point;
        Ok(())
    }
}
