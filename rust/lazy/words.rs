// SPDX-License-Identifier: GPL-2.0

//! The kernel's atomics as the window's words.
//!
//! The kernel crate's operations are calls of C functions; a map of 1 MB would make 1536 of them, half of
//! what it costs. So those of each page are written out here, for x86 only.

use super::word::Word;
use crate::peek::peek;
use core::sync::atomic::{
    compiler_fence,
    AtomicU64,
    Ordering, //
};
use kernel::sync::atomic::{
    Atomic,
    Full, //
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("what these operations order has to be looked at");

/// Writes as the kernel's `WRITE_ONCE()`.
#[inline(always)]
fn write(word: &Atomic<u64>, value: u64) {
    // SAFETY: Aligned and valid, as the reference is; all others access the word atomically.
    unsafe { word.as_ptr().write_volatile(value) };
}

impl Word for Atomic<u64> {
    #[inline]
    fn new(value: u64) -> Self {
        Atomic::new(value)
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        peek(self)
    }

    #[inline(always)]
    fn load_acquire(&self) -> u64 {
        let value = peek(self);
        // The CPU does not move what follows before a load; the compiler must not either.
        compiler_fence(Ordering::Acquire);
        value
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        write(self, value);
    }

    #[inline(always)]
    fn store_release(&self, value: u64) {
        // The CPU does not move what precedes behind a store; the compiler must not either.
        compiler_fence(Ordering::Release);
        write(self, value);
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: Aligned and valid for as long as the reference; all others access the word atomically.
        let word = unsafe { AtomicU64::from_ptr(self.as_ptr()) };
        // `lock cmpxchg`, as the kernel's own: full.
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
            .map(|_| ())
    }

    #[inline]
    fn fetch_add(&self, value: u64) -> u64 {
        Atomic::fetch_add(self, value, Full)
    }
}
