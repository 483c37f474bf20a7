// SPDX-License-Identifier: GPL-2.0

//! A page of 128-bit entries that hardware reads while software changes it.

use crate::{
    locked::Permit,
    pages::TablePage, //
};
use kernel::prelude::*;

pub use crate::pages::Coherency;

/// One page of 128-bit entries, with the valid bit of each in its first word.
///
/// An entry is stored with a [`Permit`] only, that is by the attach protocol.
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
        get(&self.0, index)
    }

    /// Stores an entry of a live page. Hardware sees the old or the new one, never a
    /// mixture.
    pub fn program(&self, index: usize, [low, high]: [u64; 2], _permit: &Permit<'_>) {
        self.0.write_pair(index, low, high);
    }
}

/// A page of 128-bit entries that point to pages of [`Entries`].
///
/// Its entries only ever go from not valid to valid: what they lead to refuses DMA
/// until the attach protocol says otherwise.
pub struct Directory(TablePage);

impl Directory {
    /// A page of entries that are all zero. Context: may sleep. Errors: `ENOMEM`.
    pub fn new(node: i32, coherency: Coherency) -> Result<Self> {
        Ok(Self(TablePage::new(0, node, GFP_KERNEL, coherency)?))
    }

    /// Where the page is, for the hardware.
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    /// Makes an entry lead to a page of entries. Errors: `EEXIST` if it leads to one.
    pub fn link(&mut self, index: usize, [low, high]: [u64; 2]) -> Result {
        if get(&self.0, index) != [0, 0] {
            return Err(EEXIST);
        }
        self.0.write_pair(index, low, high);
        Ok(())
    }
}

fn get(page: &TablePage, index: usize) -> [u64; 2] {
    [page.read(2 * index), page.read(2 * index + 1)]
}
