// SPDX-License-Identifier: GPL-2.0

//! Commands of 128 bits.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), section 2.4.
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

use iommu::invalidation::Block;

use crate::dte::DomainId;

const OPCODE_SHIFT: u32 = 60;
const COMPLETION_WAIT: u64 = 1;
const INVALIDATE_ENTRY: u64 = 2;
const INVALIDATE_PAGES: u64 = 3;
const INVALIDATE_ALL: u64 = 8;

const WAIT_STORE: u64 = 1 << 0;
const WAIT_ADDRESS: u64 = 0x000f_ffff_ffff_fff8;

const PAGES_DOMAIN_SHIFT: u32 = 32;
/// S: the address also tells how many pages are meant.
const PAGES_SIZE: u64 = 1 << 0;
/// PDE: cached pointers to page tables go too.
const PAGES_TABLES: u64 = 1 << 1;
const PAGES_ADDRESS: u64 = !0xfff;
/// With S: every address there is.
const PAGES_ALL: u64 = 0x7fff_ffff_ffff_f000;

/// log2 of the most pages of 4 KiB that one command names. Larger blocks are read as all.
pub(crate) const MAX_BLOCK_ORDER: u32 = 38;

/// One command: low and high 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    words: [u64; 2],
}

impl Command {
    const fn new(opcode: u64, low: u64, high: u64) -> Self {
        Self {
            words: [opcode << OPCODE_SHIFT | low, high],
        }
    }

    /// Low and high word, in memory order.
    pub(crate) const fn words(self) -> [u64; 2] {
        self.words
    }

    /// When all commands before it are done, `data` is written to `status` (section 2.4.1, 64 bits).
    /// The low three bits of the address are taken for 0. These are written in the order of the commands, on
    /// which the kernel's own driver relies too.
    pub(crate) const fn wait(status: u64, data: u64) -> Self {
        Self::new(COMPLETION_WAIT, status & WAIT_ADDRESS | WAIT_STORE, data)
    }

    /// The device table entry of a requester id leaves the caches (section 2.4.2).
    pub(crate) const fn entry(id: u16) -> Self {
        // CAST: widening; `u64::from` is not const.
        Self::new(INVALIDATE_ENTRY, id as u64, 0)
    }

    /// All that is cached for a domain leaves the caches (section 2.4.3).
    pub(crate) const fn domain(id: DomainId) -> Self {
        Self::pages_at(id, PAGES_ALL | PAGES_SIZE | PAGES_TABLES)
    }

    /// The translations of some pages of a domain leave the caches (section 2.4.3). With `leaf_only`,
    /// cached pointers to page tables may stay.
    ///
    /// A block of more than one page is said by the lowest address bit, from bit 12 on, that is 0: all
    /// below it are 1, and the block is twice what they count.
    pub(crate) const fn pages(id: DomainId, block: Block, leaf_only: bool) -> Self {
        if block.order > MAX_BLOCK_ORDER {
            return Self::domain(id);
        }
        let tables = if leaf_only { 0 } else { PAGES_TABLES };
        let address = block.address & PAGES_ADDRESS;
        if block.order == 0 {
            return Self::pages_at(id, address | tables);
        }
        let half = 1u64 << (block.order - 1 + 12);
        let ones = (half - 1) & PAGES_ADDRESS;
        Self::pages_at(id, (address & !half | ones) | tables | PAGES_SIZE)
    }

    const fn pages_at(id: DomainId, high: u64) -> Self {
        // CAST: widening; `u64::from` is not const.
        Self::new(
            INVALIDATE_PAGES,
            (id.get() as u64) << PAGES_DOMAIN_SHIFT,
            high,
        )
    }

    /// Everything leaves the caches (section 2.4.8). Only where the feature IASup is there.
    pub(crate) const fn all() -> Self {
        Self::new(INVALIDATE_ALL, 0, 0)
    }
}
