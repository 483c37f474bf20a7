// SPDX-License-Identifier: GPL-2.0

//! Tables of entries that hardware reads while software changes them, and logs that it writes.

use crate::{
    bindings,
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

/// Pages of 256-bit entries, of which the lower half changes, and the upper half stays as it was
/// made. Every entry is valid all the time.
pub struct WideEntries(TablePage);

impl WideEntries {
    /// `2^order` pages of entries, in one piece. `fill` gives each of them, by its index.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `EOPNOTSUPP` on a CPU that cannot store half an entry at once.
    pub fn new(
        order: u32,
        node: i32,
        coherency: Coherency,
        fill: impl Fn(usize) -> [u64; 4],
    ) -> Result<Self> {
        // SAFETY: Asks for a property of the CPU.
        if !unsafe { bindings::rust_iommu_has_store_pair() } {
            return Err(EOPNOTSUPP);
        }
        let pages = TablePage::new(order, node, GFP_KERNEL, coherency)?;
        for index in 0..pages.words() / 4 {
            let [low, high, upper_low, upper_high] = fill(index);
            pages.write_pair(2 * index + 1, upper_low, upper_high);
            pages.write_pair(2 * index, low, high);
        }
        Ok(Self(pages))
    }

    /// Where the entries are, for the hardware.
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    /// Has the entries stay for ever, as the hardware may still read them; only what is around them
    /// is freed. Context: any.
    pub fn keep(&self) {
        self.0.keep();
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.0.words() / 4
    }

    /// The lower half of an entry; zeroes beyond the end.
    pub fn get(&self, index: usize) -> [u64; 2] {
        get(&self.0, 2 * index)
    }

    /// Stores the lower half of a live entry. Hardware sees the old or the new one, never a
    /// mixture, nor one that is not valid; `low` has bit 0 set.
    pub fn program(&self, index: usize, [low, high]: [u64; 2], _permit: &Permit<'_>) {
        self.0.write_pair(2 * index, low, high);
    }
}

/// A table that maps nothing: a page of zeroes, for entries that have to name one.
pub struct NoMappings(TablePage);

impl NoMappings {
    /// Context: may sleep. Errors: `ENOMEM`.
    pub fn new(node: i32, coherency: Coherency) -> Result<Self> {
        Ok(Self(TablePage::new(0, node, GFP_KERNEL, coherency)?))
    }

    /// Where the page is, for the hardware.
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    /// Has the page stay for ever; see [`WideEntries::keep`].
    pub fn keep(&self) {
        self.0.keep();
    }
}

/// A ring of 128-bit records that hardware writes. A record that is all zero was not written yet.
pub struct Records(TablePage);

impl Records {
    /// A ring of `2^order` pages. Context: may sleep. Errors: `ENOMEM`.
    pub fn new(order: u32, node: i32) -> Result<Self> {
        // Hardware writes to memory go through the CPU's caches.
        let pages = TablePage::new(order, node, GFP_KERNEL, Coherency::Snooped)?;
        Ok(Self(pages))
    }

    /// Where the ring is, for the hardware.
    pub fn phys(&self) -> u64 {
        self.0.phys()
    }

    /// A record, as far as it was written. Context: any.
    pub fn get(&self, index: usize) -> [u64; 2] {
        get(&self.0, index)
    }

    /// Makes the place of a record ready for the next one. Context: any.
    pub fn clear(&self, index: usize) {
        self.0.write(2 * index, 0);
        self.0.write(2 * index + 1, 0);
    }
}

fn get(page: &TablePage, index: usize) -> [u64; 2] {
    [page.read(2 * index), page.read(2 * index + 1)]
}
