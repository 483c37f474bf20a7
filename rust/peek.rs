// SPDX-License-Identifier: GPL-2.0

//! Reading an atomic without a call.
//!
//! The kernel crate's operations are calls of C functions. Where a mapping is made that costs more than
//! what is read.

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// Reads as the kernel's `READ_ONCE()`; ordered against nothing but what depends on the value.
#[inline(always)]
pub(crate) fn peek<T: AtomicType>(atomic: &Atomic<T>) -> T {
    // SAFETY: Aligned and valid, as the reference is; all others who write do so atomically.
    unsafe { atomic.as_ptr().read_volatile() }
}
