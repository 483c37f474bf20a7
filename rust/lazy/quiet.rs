// SPDX-License-Identifier: GPL-2.0

//! Times in which nothing was invalidated.
//!
//! Pure: compiled into the kernel and into the host tests alike.

use super::word::Word;

/// Counts invalidations.
#[derive(Debug)]
pub struct Quiet<W> {
    /// How many are under way, in the low bits; how many were begun above.
    count: W,
}

/// Bits for those under way: more than a machine has tasks and interrupts in such a place.
const UNDER_WAY: u32 = 20;

fn under_way(count: u64) -> u64 {
    count & ((1 << UNDER_WAY) - 1)
}

impl<W: Word> Quiet<W> {
    /// Makes a counter of a word that is 0.
    pub const fn new(count: W) -> Self {
        Self { count }
    }

    /// Says that something is about to be invalidated, until the value returned is dropped.
    #[inline]
    pub fn begin(&self) -> UnderWay<'_, W> {
        // Full: before anything that the hardware is told.
        self.count.fetch_add((1 << UNDER_WAY) + 1);
        UnderWay { quiet: self }
    }

    /// Returns a number for a time in which neither counter's things are invalidated, or `None` if
    /// something is.
    ///
    /// Who gets the same number twice, with full operations after the first and before the second call,
    /// knows that nothing was invalidated in between, nor had been begun before and not ended: numbers of
    /// those begun do not fall, so their sum stays only if both do. 44 bits: at an invalidation a
    /// microsecond they last half a year.
    #[inline(always)]
    pub fn now(&self, other: &Self) -> Option<u64> {
        let count = self.count.load().wrapping_add(other.count.load());
        (under_way(count) == 0).then_some(count)
    }
}

/// An invalidation that has not ended.
#[derive(Debug)]
pub struct UnderWay<'a, W: Word> {
    quiet: &'a Quiet<W>,
}

impl<W: Word> UnderWay<'_, W> {
    /// Says that nobody knows whether it will end: it is never quiet again.
    #[cold]
    pub fn has_failed(self) {
        // Not counted down, unless there are so many of these that the bits could run over.
        if under_way(self.quiet.count.load()) < 1 << (UNDER_WAY - 2) {
            core::mem::forget(self);
        }
    }
}

impl<W: Word> Drop for UnderWay<'_, W> {
    #[inline]
    fn drop(&mut self) {
        self.quiet.count.fetch_add(1u64.wrapping_neg());
    }
}
