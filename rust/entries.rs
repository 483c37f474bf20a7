// SPDX-License-Identifier: GPL-2.0

//! A page of 128-bit entries that hardware reads while software changes it.

use crate::{
    locked::Permit,
    pages::{
        Coherency,
        TablePage, //
    },
};
use kernel::prelude::*;

/// One page of 128-bit entries, with the valid bit of each in its first word.
///
/// Entries of a page that is not shared yet are written with `&mut`; from then on
/// only with a [`Permit`], that is by the attach protocol.
pub struct Entries(TablePage);

impl Entries {
    /// A page of entries that are all zero. Context: may sleep. Errors: `ENOMEM`.
    pub fn new(node: i32, coherency: Coherency) -> Result<Self> {
        Ok(Self(TablePage::new(0, node, GFP_KERNEL, coherency)?))
    }

    /// Where the page is, for the hardware.
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    /// An entry's two words; zeroes beyond the page's end.
    pub fn get(&self, index: usize) -> [u64; 2] {
        [self.0.read(2 * index), self.0.read(2 * index + 1)]
    }

    /// Stores an entry of a page that nobody else can reach yet, or that `&mut`
    /// keeps other writers from.
    pub fn build(&mut self, index: usize, [low, high]: [u64; 2]) {
        self.0.write_pair(index, low, high);
    }

    /// Stores an entry of a live page. Hardware sees the old or the new one, never a
    /// mixture.
    pub fn program(&self, index: usize, [low, high]: [u64; 2], _permit: &Permit<'_>) {
        self.0.write_pair(index, low, high);
    }
}
