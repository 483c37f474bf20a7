// SPDX-License-Identifier: GPL-2.0

//! What has to leave the translation caches, and how to say it in few aligned blocks.
//!
//! Page-selective invalidation names an aligned block of 2^n pages. One block around an unaligned
//! range can be far larger than the range: two pages on both sides of a 1 GiB border need a block
//! of 2 GiB. [`Invalidation::plan`] therefore spends up to [`MAX_BLOCKS`] blocks.
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

/// log2 of the page that invalidation counts in.
pub const PAGE_SHIFT: u32 = 12;

/// log2 of all pages of a 64-bit address space: no larger block exists.
const MAX_ORDER: u32 = u64::BITS - PAGE_SHIFT;

/// Most blocks one plan uses.
///
/// Every range has one natural border: the most aligned address inside it. The best blocks shrink
/// from there to both sides. Two blocks a side flush less than 4/3 of the range whatever its
/// position; one block a side can flush twice the range, and further blocks gain little for a
/// queue slot and a cache walk each.
pub const MAX_BLOCKS: usize = 4;

/// A set of cached translations that must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Everything of the domain, including cached page-table pointers.
    All,
    /// The translations of some addresses.
    Range {
        /// First byte, an I/O virtual address.
        start: u64,
        /// Last byte, inclusive.
        last: u64,
        /// Only last-level entries changed: cached pointers to page tables may stay.
        leaf_only: bool,
    },
}

impl Invalidation {
    /// Blocks that cover the whole set.
    ///
    /// `max_order` is the largest block the hardware takes, as log2 of 4 KiB pages (VT-d:
    /// `CAP_REG.MAMV`), or `None` if it knows no page-selective invalidation.
    pub fn plan(&self, max_order: Option<u32>) -> Plan {
        match (*self, max_order) {
            (Self::Range { start, last, .. }, Some(max_order)) => cover(start, last, max_order),
            _ => Plan::All,
        }
    }

    /// Whether cached pointers to page tables may stay (VT-d: invalidation hint).
    pub const fn leaf_only(&self) -> bool {
        matches!(
            self,
            Self::Range {
                leaf_only: true,
                ..
            }
        )
    }
}

/// An aligned block of `2^order` pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// First byte; a multiple of the block's size.
    pub address: u64,
    /// log2 of the number of 4 KiB pages.
    pub order: u32,
}

/// How to carry out an [`Invalidation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Invalidate the whole domain.
    All,
    /// Invalidate these blocks.
    Blocks(Blocks),
}

/// One to [`MAX_BLOCKS`] blocks that do not overlap; an iterator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    blocks: [Block; MAX_BLOCKS],
    len: usize,
    next: usize,
}

impl Blocks {
    const fn new() -> Self {
        Self {
            blocks: [Block {
                address: 0,
                order: 0,
            }; MAX_BLOCKS],
            len: 0,
            next: 0,
        }
    }

    /// Adds a block; `false` if there is no room.
    fn push(&mut self, page: u64, order: u32) -> bool {
        let Some(slot) = self.blocks.get_mut(self.len) else {
            return false;
        };
        *slot = Block {
            address: page << PAGE_SHIFT,
            order,
        };
        self.len += 1;
        true
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let block = *self.blocks.get(..self.len)?.get(self.next)?;
        self.next += 1;
        Some(block)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Blocks {}

/// A number of pages, and how many blocks of at most the largest order it takes to cover them
/// from an aligned border.
#[derive(Clone, Copy)]
struct Side {
    pages: u64,
    blocks: u32,
}

impl Side {
    /// The fewest pages `>= pages` that at most `limit` blocks can cover.
    ///
    /// From an aligned border, a run of pages takes one block for each bit set in its length, and
    /// the next longer run with fewer bits set comes from rounding up to a power of two.
    fn fit(pages: u64, limit: u32, max_order: u32) -> Option<Self> {
        (0..=max_order)
            .map(|order| {
                let unit = 1u64 << order;
                // At most 2^51 pages on a side, and `unit` at most 2^52: no overflow.
                let pages = (pages + unit - 1) & !(unit - 1);
                let large = pages >> max_order;
                let small = (pages & ((1 << max_order) - 1)).count_ones();
                (pages, large + u64::from(small))
            })
            .find(|(_, blocks)| *blocks <= u64::from(limit))
            .and_then(|(pages, blocks)| {
                Some(Self {
                    pages,
                    blocks: u32::try_from(blocks).ok()?,
                })
            })
    }

    /// Orders of the blocks, the one at the border first.
    fn orders(self, max_order: u32) -> impl Iterator<Item = u32> {
        let mut left = self.pages;
        core::iter::from_fn(move || {
            let order = left.checked_ilog2()?.min(max_order);
            left -= 1 << order;
            Some(order)
        })
    }
}

/// Covers the bytes `start..=last` with at most [`MAX_BLOCKS`] blocks of at most `2^max_order`
/// pages, flushing as few pages as that allows; the whole domain if it is not possible.
///
/// A range that ends before it starts has no meaning, and more must be flushed rather than less:
/// it gives the whole domain too.
pub fn cover(start: u64, last: u64, max_order: u32) -> Plan {
    if start > last {
        return Plan::All;
    }
    let max_order = max_order.min(MAX_ORDER);
    let (first, last) = (start >> PAGE_SHIFT, last >> PAGE_SHIFT);
    let mut blocks = Blocks::new();

    // The highest bit in which first and last page differ is the alignment of the border.
    let Some(border_order) = (first ^ last).checked_ilog2() else {
        blocks.push(first, 0);
        return Plan::Blocks(blocks);
    };
    let border = (last >> border_order) << border_order;

    let single_order = border_order + 1;
    let single = (single_order <= max_order).then_some(1u64 << single_order);
    // The usual case: the core aligns what it maps to its size.
    if single.is_some_and(|pages| last - first == pages - 1) {
        blocks.push(first, single_order);
        return Plan::Blocks(blocks);
    }

    // CAST: `MAX_BLOCKS` is 4.
    let budget = MAX_BLOCKS as u32;
    let best = (1..budget)
        .filter_map(|below| {
            Some((
                Side::fit(border - first, below, max_order)?,
                Side::fit(last - border + 1, budget - below, max_order)?,
            ))
        })
        .min_by_key(|(below, above)| (below.pages + above.pages, below.blocks + above.blocks));

    match (single, best) {
        (Some(pages), best)
            if best.is_none_or(|(below, above)| pages <= below.pages + above.pages) =>
        {
            blocks.push((first >> single_order) << single_order, single_order);
        }
        (_, Some((below, above))) => {
            let mut page = border;
            for order in below.orders(max_order) {
                page -= 1 << order;
                if !blocks.push(page, order) {
                    return Plan::All;
                }
            }
            let mut page = border;
            for order in above.orders(max_order) {
                if !blocks.push(page, order) {
                    return Plan::All;
                }
                page += 1 << order;
            }
        }
        _ => return Plan::All,
    }
    Plan::Blocks(blocks)
}
