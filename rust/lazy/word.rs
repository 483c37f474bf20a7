// SPDX-License-Identifier: GPL-2.0

//! The atomic word that the lazy window is made of.
//!
//! Pure: compiled into the kernel and into the host tests alike. The kernel's atomics follow another
//! memory model than Rust's, and a model checker has its own. So the window is written for any
//! [`Word`], and what it relies on is said here, in one place.

/// A word of 64 bits that CPUs, and hardware as a reader, use at the same time.
///
/// A *full* operation is ordered against everything before and after it, for all CPUs: what comes
/// after it has not begun while it is not seen by all (LKMM: `Full`).
pub trait Word {
    /// Makes a word.
    fn new(value: u64) -> Self;

    /// Reads; ordered against nothing.
    fn load(&self) -> u64;

    /// Reads, before everything that follows.
    fn load_acquire(&self) -> u64;

    /// Writes; ordered against nothing.
    fn store(&self, value: u64);

    /// Writes, after everything that precedes.
    fn store_release(&self, value: u64);

    /// Writes `new` if `old` is there. Full if it does, else ordered against nothing.
    ///
    /// Errors: what is there instead.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64>;

    /// Adds, and returns the value before. Wraps. Full.
    fn fetch_add(&self, value: u64) -> u64;
}

/// A value in a cache line of its own, so that what one CPU writes does not slow others down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Line<T>(pub T);
