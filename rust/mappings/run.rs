// SPDX-License-Identifier: GPL-2.0

//! What is mapped side by side.
//!
//! A *piece* is what a unit was told as one mapping; it forgets whole pieces only. A *run* is a
//! number of pieces of one size that follow each other, in DMA addresses and in memory, with the
//! same rights.
//!
//! This file is pure: it is also built and tested on the host.

use core::num::NonZero;

/// What a device may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
    /// It is no memory.
    pub mmio: bool,
}

/// Whether the units know of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its mapper has not told them yet.
    Fresh,
    /// They know, as far as they have an endpoint in the domain.
    Told,
}

/// Pieces of one size that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First DMA address.
    pub iova: u64,
    /// Last DMA address.
    pub last: u64,
    /// Physical address of the first.
    pub phys: u64,
    /// Bytes of a piece.
    pub piece: NonZero<u64>,
    /// What is allowed.
    pub rights: Rights,
    /// Who knows of it.
    pub state: State,
}

impl Run {
    /// A run of one piece that nobody was told of.
    ///
    /// `None` if it is empty, or ends beyond the last address.
    pub fn new(iova: u64, phys: u64, bytes: u64, rights: Rights) -> Option<Self> {
        let piece = NonZero::new(bytes)?;
        let more = bytes - 1;
        phys.checked_add(more)?;
        Some(Self {
            iova,
            last: iova.checked_add(more)?,
            phys,
            piece,
            rights,
            state: State::Fresh,
        })
    }

    /// All its bytes; 0 if it has all addresses that there are.
    pub fn bytes(&self) -> u64 {
        (self.last - self.iova).wrapping_add(1)
    }

    /// Whether it is one piece.
    pub(super) fn is_piece(&self) -> bool {
        self.last - self.iova == self.piece.get() - 1
    }

    /// Its pieces, each as a run of its own.
    pub fn pieces(&self) -> impl Iterator<Item = Run> + '_ {
        (0..=(self.last - self.iova) / self.piece).map(|i| {
            let offset = i * self.piece.get();
            Run {
                iova: self.iova + offset,
                last: self.iova + offset + (self.piece.get() - 1),
                phys: self.phys + offset,
                ..*self
            }
        })
    }

    /// What there is of it before `at`, one of its addresses.
    pub(super) fn before(&self, at: u64) -> Option<Self> {
        let last = at.checked_sub(1).filter(|last| *last >= self.iova)?;
        Some(Self { last, ..*self })
    }

    /// What there is of it after `at`, one of its addresses.
    pub(super) fn after(&self, at: u64) -> Option<Self> {
        let iova = at.checked_add(1).filter(|iova| *iova <= self.last)?;
        Some(Self {
            iova,
            phys: self.phys + (iova - self.iova),
            ..*self
        })
    }

    /// This and `next`, which goes on where this ends with the same rights. `None` if it does not.
    fn with(&self, next: &Run) -> Option<Self> {
        let follows = self.last.checked_add(1) == Some(next.iova)
            && self.phys.checked_add(self.bytes()) == Some(next.phys)
            && self.rights == next.rights
            && self.state == next.state;
        follows.then_some(Self {
            last: next.last,
            ..*self
        })
    }

    /// This and `next` as one piece, if it goes on where this ends and no unit was told of either.
    pub(super) fn as_piece(&self, next: &Run) -> Option<Self> {
        let both = self.with(next).filter(|_| self.state == State::Fresh)?;
        let piece = NonZero::new(both.bytes())?;
        Some(Self { piece, ..both })
    }

    /// This and `next` as one run, if it goes on where this ends and units were told of both, in pieces
    /// of one size.
    pub(super) fn as_run(&self, next: &Run) -> Option<Self> {
        let alike = self.state == State::Told && self.piece == next.piece;
        self.with(next).filter(|_| alike)
    }
}
