// SPDX-License-Identifier: GPL-2.0

//! Leaf entries as the only record of who has which page.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! An entry is *present*, *leaving* (cleared, its stamp is still to come), *reserved*, or *freed* with
//! a stamp. A freed page may be taken if its stamp is below `flushed` (see [`super::clock`]).
//!
//! ::
//!
//!     freed(s), s < flushed  --claim: compare_exchange---->  present
//!     present                --release: compare_exchange-->  leaving
//!     leaving                --epoch is read, store------->  freed(epoch)
//!
//! Why there is *leaving*: the epoch must be read after the entry was cleared. Were the stamp read
//! first, and stored by the same write that clears the entry, a whole flush could come in between. It
//! would not cover the entry, which the hardware may still read and cache; but the page would look as
//! if it did.
//!
//! Only who has cleared an entry writes to it while it is leaving. So a plain store is enough for the
//! stamp.
//!
//! Where there are places for runs that are kept (see [`super::recent`]), an entry may also be *kept*. It
//! belongs to whoever has marked it, until the run is in its place, and then to whoever takes it out::
//!
//!     present                --keep: compare_exchange----->  kept
//!     kept                   --use_again: store----------->  present
//!     kept                   --retire: compare_exchange--->  leaving

use super::{
    clock::{Clock, Hardware},
    format::{Format, LEAVING, RESERVED},
    word::{Line, Word},
};
use core::slice::from_ref;

/// The memory of a window.
pub trait Table {
    /// Its words.
    type Word: Word;
    /// What the bits of its entries mean.
    type Format: Format;

    /// Returns the leaf entries by index; always the same ones, at least as many as the window has
    /// pages. Zero at first.
    fn leaves(&self) -> &[Self::Word];

    /// Returns a word for each CPU, for its place in the window. Zero at first.
    fn cursors(&self) -> &[Line<Self::Word>];

    /// Returns places for runs that are kept; none if nothing is gained by it. Zero at first.
    #[inline]
    fn recent(&self) -> &[Self::Word] {
        &[]
    }

    /// Makes the hardware see entries that were written. Does nothing if its walks are coherent;
    /// else it returns when they would find the new entries, and is ordered like a full operation.
    #[inline]
    fn written(&self, _entries: &[Self::Word]) {}
}

/// Most entries that are leaving at a time for one unmap: others may be waiting for them.
const BATCH: usize = 64;

/// Some pages were to be unmapped that are not mapped. Those that were mapped are unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMapped {
    /// How many were not mapped.
    pub pages: usize,
}

/// Why a run cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The page at this place in the run is not free.
    Busy(usize),
    /// The new entry is not present.
    Invalid,
}

/// Returns the place of the last page of a run that is not free.
#[inline]
pub(super) fn last_busy<T: Table>(run: &[T::Word], flushed: u64) -> Option<usize> {
    run.iter()
        .rposition(|word| !T::Format::is_below(word.load(), flushed))
}

/// Claims a page. `flushed` may be old. Returns whether it was free, and `new` is present.
#[inline]
pub(super) fn claim_one<E: Table>(env: &E, word: &E::Word, flushed: u64, new: u64) -> bool {
    let claimed = E::Format::is_present(new) && replace::<E>(word, flushed, new);
    if claimed {
        env.written(from_ref(word));
    }
    claimed
}

/// Writes an entry if its page is free, and returns whether it was.
#[inline]
fn replace<T: Table>(word: &T::Word, flushed: u64, new: u64) -> bool {
    let old = word.load();
    T::Format::is_below(old, flushed) && word.compare_exchange(old, new).is_ok()
}

/// Claims all pages of a run, or none. `flushed` may be old, and `leaf` returns the new entry for a
/// place in the run; it is called in order, from 0 on.
#[inline]
pub(super) fn claim<E: Table + Hardware>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
    flushed: u64,
    leaf: &mut impl FnMut(usize) -> u64,
) -> Result<(), Refusal> {
    for (place, word) in run.iter().enumerate() {
        let refusal = match leaf(place) {
            new if !E::Format::is_present(new) => Refusal::Invalid,
            new if replace::<E>(word, flushed, new) => continue,
            _ => Refusal::Busy(place),
        };
        // The hardware may have read what is here already, so it is no less than an unmap.
        let _ = release_run(env, clock, run.get(..place).unwrap_or_default());
        return Err(refusal);
    }
    env.written(run);
    Ok(())
}

/// Unmaps all pages of a run.
///
/// Errors: not all were mapped.
#[inline]
pub(super) fn release<E: Table + Hardware>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
) -> Result<(), NotMapped> {
    if let [word] = run {
        // The usual case in a few instructions.
        if vacate::<E, false>(env, clock, from_ref(word)) == 1 {
            clock.age(env);
            return Ok(());
        }
        return Err(NotMapped { pages: 1 });
    }
    release_run(env, clock, run)
}

/// [`release`] where it is not the usual case.
#[inline(never)]
fn release_run<E: Table + Hardware>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
) -> Result<(), NotMapped> {
    let wrong = release_all::<E, false>(env, clock, run);
    if wrong < run.len() {
        clock.age(env);
    }
    match wrong {
        0 => Ok(()),
        pages => Err(NotMapped { pages }),
    }
}

/// Unmaps all pages of any run that are kept, or that are mapped, and returns how many are not.
#[inline(never)]
fn release_all<E: Table + Hardware, const KEPT: bool>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
) -> usize {
    let mut wrong = 0;
    for batch in run.chunks(BATCH) {
        let mut rest = batch;
        while !rest.is_empty() {
            let cleared = vacate::<E, KEPT>(env, clock, rest);
            // The one that `clear()` stopped at.
            wrong += usize::from(cleared < rest.len());
            rest = rest.get(cleared + 1..).unwrap_or_default();
        }
    }
    wrong
}

/// Unmaps pages up to the first one that is not mapped, or not kept, and returns how many.
#[inline(always)]
fn vacate<E: Table + Hardware, const KEPT: bool>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
) -> usize {
    env.promptly(|| {
        let cleared = clear::<E, KEPT>(run);
        if let Some(ours) = run.get(..cleared).filter(|ours| !ours.is_empty()) {
            env.written(ours);
            let freed = E::Format::vacant(clock.epoch());
            for word in ours {
                word.store_release(freed);
            }
        }
        cleared
    })
}

/// Marks all pages of a run as kept, if they map memory that is side by side, from the entry `first` on.
///
/// If it returns false nothing has changed, but that pages of a run that somebody else unmaps too may be
/// freed. Full if it returns true. The caller is within [`Hardware::promptly`].
#[inline]
pub(super) fn keep<E: Table + Hardware>(
    env: &E,
    clock: &Clock<E::Word>,
    run: &[E::Word],
    first: u64,
) -> bool {
    let follows = |(place, word): (usize, &E::Word)| word.load() == at(first, place);
    if !E::Format::is_mapped(first) || !run.iter().enumerate().all(follows) {
        return false;
    }
    for (place, word) in run.iter().enumerate() {
        let old = at(first, place);
        if word.compare_exchange(old, old | E::Format::KEPT).is_err() {
            retire(env, clock, run.get(..place).unwrap_or_default());
            return false;
        }
    }
    true
}

/// The entry of a page at `place` behind one that has the entry `first`, if its memory is too. The
/// address of a page is in place in all formats.
pub(super) fn at(first: u64, place: usize) -> u64 {
    first.wrapping_add((place as u64) << 12)
}

/// Maps again all pages of a kept run, which is the caller's. The hardware has seen no other entries.
pub(super) fn use_again<T: Table>(run: &[T::Word], first: u64) {
    for (place, word) in run.iter().enumerate() {
        word.store(at(first, place));
    }
}

/// Unmaps all pages of a kept run, which is the caller's. Whoever has kept it sees to its age.
pub(super) fn retire<E: Table + Hardware>(env: &E, clock: &Clock<E::Word>, run: &[E::Word]) {
    // All are kept: nobody else changes them.
    release_all::<E, true>(env, clock, run);
}

/// Clears entries up to the first one that is not mapped, or not kept, and returns how many.
#[inline]
fn clear<T: Table, const KEPT: bool>(run: &[T::Word]) -> usize {
    let leaving = T::Format::vacant(LEAVING);
    run.iter()
        .position(|word| {
            let mut old = word.load();
            // Only what is mapped is written, so a mistake of the caller changes nothing. Hardware
            // that sets accessed and dirty bits may come between: at most once for each bit.
            while T::Format::is_present(old) && (old & T::Format::KEPT != 0) == KEPT {
                match word.compare_exchange(old, leaving) {
                    Ok(()) => return false,
                    Err(now) => old = now,
                }
            }
            true
        })
        .unwrap_or(run.len())
}

/// Takes a free page out of use for good.
pub(super) fn reserve<T: Table>(word: &T::Word, flushed: u64) -> bool {
    let reserved = T::Format::vacant(RESERVED);
    word.load() == reserved || replace::<T>(word, flushed, reserved)
}

/// What keeps the pages of a run from being taken that are not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pending {
    /// There are no such pages.
    Nothing,
    /// Another CPU is about to free them, or to keep them.
    Leaving,
    /// They wait for a flush.
    Freed,
}

/// Returns what keeps the pages of a run that are not mapped; if several things do, the greatest. And
/// a value that all entries have gone into: the same one if none has changed.
pub(super) fn survey<T: Table>(run: &[T::Word], flushed: u64) -> (Pending, u64) {
    let mut pending = Pending::Nothing;
    let mut digest = 0u64;
    for word in run {
        let entry = word.load();
        // Multiplying by an odd number loses nothing.
        digest = (digest ^ entry).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest ^= digest >> 32;
        if T::Format::is_mapped(entry) {
            continue;
        }
        if T::Format::is_present(entry) {
            // Or it is in its place by now.
            pending = pending.max(Pending::Leaving);
            continue;
        }
        pending = pending.max(match T::Format::stamp(entry) {
            RESERVED => Pending::Nothing,
            LEAVING => Pending::Leaving,
            stamp if stamp >= flushed => Pending::Freed,
            _ => Pending::Nothing,
        });
    }
    (pending, digest)
}
