// SPDX-License-Identifier: GPL-2.0

//! Runs that a driver has unmapped, and whose entries are as they were: to be used again.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! Where hardware has to be told of each new mapping, one that never went costs nothing to have again. So
//! the entries of a run that is unmapped stay, marked by a bit that hardware ignores
//! ([`Format::KEPT`]), until the next flush is about to begin; then they are cleared like all others
//! that wait for it.
//!
//! A kept run is in one place here, and belongs to whoever takes it out. The place says all about it
//! in one word, so that it does not matter whether it was taken out and put back meanwhile.

use super::{format::Format, word::Word};
use core::ops::Range;

/// Places that one run may be in. A disk completes many requests at once, and starts as many again: with
/// fewer, one in five was pushed out.
const WAYS: usize = 8;

/// Most pages of a run that is kept.
pub(super) const LONGEST: usize = 1 << PAGES_BITS;

/// How many places there are for a window of so many pages: 2 bits a page at most. Most of a small window may
/// be kept; the next lap frees it. Of a larger one so much that clearing it does not take long.
pub(super) fn places_for(pages: usize) -> usize {
    (pages / 32).min(2048)
}

// A word: access, number of the page frame, number of pages less one, index of the first page.
const INDEX_BITS: u32 = 25;
const PAGES_BITS: u32 = 5;
const FRAME_BITS: u32 = 32;

/// No run is here; none has such a word, as no access is one that is not present.
pub(super) const NONE: u64 = 0;

/// A run of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) pages: usize,
}

/// Where an entry's address is, in all formats.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// All of a place's word but the first page's index: what is asked for. `None` if such a run cannot be
/// kept.
#[inline]
fn key<F: Format>(leaf: u64, pages: usize) -> Option<u64> {
    let frame = (leaf & ADDRESS) >> 12;
    if pages.wrapping_sub(1) >= LONGEST || frame >> FRAME_BITS != 0 {
        return None;
    }
    let access = F::access(leaf) << (FRAME_BITS + PAGES_BITS);
    Some(access | frame << PAGES_BITS | (pages as u64 - 1))
}

/// What the place of a run says whose first page has the entry `leaf`. `None` if it cannot be kept.
#[inline]
pub(super) fn word<F: Format>(leaf: u64, run: Run) -> Option<u64> {
    let index = run.first as u64;
    (index >> INDEX_BITS == 0).then_some(key::<F>(leaf, run.pages)? << INDEX_BITS | index)
}

/// Returns the run of a word that is not [`NONE`].
#[inline]
pub(super) fn run(word: u64) -> Run {
    // CAST: less bits.
    let first = (word & ((1 << INDEX_BITS) - 1)) as usize;
    let pages = ((word >> INDEX_BITS) & (LONGEST as u64 - 1)) as usize + 1;
    Run { first, pages }
}

/// Which of `count` places may have what begins at the page frame of this number.
///
/// Memory that is in use at once often lies side by side, or every other page of it does: that fills
/// all sets alike, as their number is odd.
#[inline]
pub(super) fn places(count: usize, frame: u64) -> Range<usize> {
    let sets = (count / WAYS).saturating_sub(1) | 1;
    // CAST: 64 bits each.
    let set = frame as usize % sets;
    // Of few there is less than one set.
    set * WAYS..count.min((set + 1) * WAYS)
}

/// The places of what has this key.
#[inline]
fn ways<W>(all: &[W], key: u64) -> &[W] {
    let frame = (key >> PAGES_BITS) & ((1 << FRAME_BITS) - 1);
    all.get(places(all.len(), frame)).unwrap_or_default()
}

/// Takes out a run of so many pages whose first page has the entry `leaf`, if it `suits`: it is the
/// caller's then. Returns the index of its first page.
#[inline]
pub(super) fn take<F: Format, W: Word>(
    all: &[W],
    leaf: u64,
    pages: usize,
    suits: impl Fn(usize) -> bool,
) -> Option<usize> {
    let key = key::<F>(leaf, pages)?;
    ways(all, key).iter().find_map(|place| {
        let word = place.load();
        if word >> INDEX_BITS != key {
            return None;
        }
        let Run { first, .. } = run(word);
        (suits(first) && place.compare_exchange(word, NONE).is_ok()).then_some(first)
    })
}

/// Keeps a run, if there is an empty place for it.
#[inline]
pub(super) fn put<W: Word>(all: &[W], word: u64) -> bool {
    ways(all, word >> INDEX_BITS)
        .iter()
        .any(|place| place.load() == NONE && place.compare_exchange(NONE, word).is_ok())
}

/// Keeps a run in the place of another one, which is the caller's then. `None` if that was taken out
/// just then: nothing was done.
pub(super) fn push<W: Word>(all: &[W], word: u64) -> Option<Run> {
    let ways = ways(all, word >> INDEX_BITS);
    let Run { first, pages } = run(word);
    // Long runs often begin where a multiple of their length is.
    let which = (first / pages).checked_rem(ways.len())?;
    let place = ways.get(which)?;
    let old = place.load();
    let pushed = old != NONE && place.compare_exchange(old, word).is_ok();
    pushed.then(|| run(old))
}
