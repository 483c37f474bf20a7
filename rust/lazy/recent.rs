// SPDX-License-Identifier: GPL-2.0

//! What was unmapped last, to be mapped again where it was.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! With caching mode a new mapping takes an invalidation: who emulates the unit has a copy of the table,
//! which follows only what is told. What is mapped again before anything was invalidated (see
//! [`super::quiet`]) is still in that copy, as it was. So neither its unmap nor its map has to be told.
//!
//! Slots are hints like all else but the entries. Who finds one in use goes without.

use super::word::Word;
use core::ops::Range;

/// Slots that one run may be in. A disk completes many requests at once, and starts as many again: with
/// fewer, one in five was pushed out.
const WAYS: usize = 8;

/// Most pages of a run that is remembered.
pub(crate) const LONGEST: usize = 64;

/// In the place of an entry: somebody reads or writes the slot. No format has such an entry, which maps
/// nothing.
const BUSY: u64 = 1 << 63;

/// A run that was unmapped.
#[derive(Debug)]
pub struct Slot<W> {
    /// What its first page mapped; 0 if there is nothing.
    leaf: W,
    /// Index of its first page, and number of pages.
    run: W,
    /// When it was unmapped.
    quiet: W,
}

impl<W: Word> Slot<W> {
    /// Makes an empty slot.
    pub fn empty() -> Self {
        Self {
            leaf: W::new(0),
            run: W::new(0),
            quiet: W::new(0),
        }
    }

    /// Reads or writes the slot if it has `leaf`, and nobody else is at it; `f` says what it has then.
    fn hold<R>(&self, leaf: u64, f: impl FnOnce() -> (u64, R)) -> Option<R> {
        if leaf == BUSY {
            return None;
        }
        self.leaf.compare_exchange(leaf, BUSY).ok()?;
        let (leaf, result) = f();
        self.leaf.store_release(leaf);
        Some(result)
    }
}

fn pack(first: usize, pages: usize) -> u64 {
    ((first as u64) << 32) | pages as u64
}

/// Which of so many slots something may be in that begins at this page of memory.
///
/// Memory that is in use at once often lies side by side, or every other page of it does: that fills
/// all sets alike, as their number is odd.
#[inline]
pub(super) fn places(slots: usize, frame: u64) -> Range<usize> {
    let sets = (slots / WAYS).saturating_sub(1) | 1;
    // CAST: 64 bits each.
    let first = frame as usize % sets * WAYS;
    first..first + WAYS
}

/// The slots that a run with this first entry may be in.
#[inline]
fn ways<W>(slots: &[Slot<W>], leaf: u64) -> &[Slot<W>] {
    slots
        .get(places(slots.len(), leaf >> 12))
        .unwrap_or_default()
}

/// Remembers a run that was unmapped at the time `quiet`.
pub(super) fn put<W: Word>(slots: &[Slot<W>], leaf: u64, first: usize, pages: usize, quiet: u64) {
    let ways = ways(slots, leaf);
    let useless = |slot: &&Slot<W>| slot.leaf.load() == 0 || slot.quiet.load() != quiet;
    if let Some(slot) = ways.iter().find(useless).or(ways.get(first % WAYS)) {
        slot.hold(slot.leaf.load(), || {
            slot.run.store(pack(first, pages));
            slot.quiet.store(quiet);
            (leaf, ())
        });
    }
}

/// Forgets a run that was unmapped at the time `quiet`, and returns where it begins.
pub(super) fn take<W: Word>(
    slots: &[Slot<W>],
    leaf: u64,
    pages: usize,
    quiet: u64,
) -> Option<usize> {
    let slot = ways(slots, leaf)
        .iter()
        // CAST: the lower half.
        .find(|slot| slot.leaf.load() == leaf && slot.run.load() as u32 as usize == pages)?;
    slot.hold(leaf, || {
        let run = slot.run.load();
        // CAST: 32 bits each.
        let (first, count) = ((run >> 32) as usize, run as u32 as usize);
        let same = slot.quiet.load() == quiet && count == pages;
        (0, same.then_some(first))
    })?
}
