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
    #[inline]
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

/// One to [`MAX_BLOCKS`] blocks next to each other, lowest address first; an iterator.
///
/// What is left stands around a border that is more aligned than all of it. So the number of pages on
/// each side says which blocks these are: one for each bit, the largest at the border, and of those that
/// would be larger than the largest as many as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// First page of the next block.
    page: u64,
    /// Pages left in front of the border.
    below: u64,
    /// Pages left from the border on.
    above: u64,
    max_order: u32,
}

impl Blocks {
    /// `page` is aligned to `pages`, a power of two of at most `2^max_order`.
    #[inline]
    const fn one(page: u64, pages: u64, max_order: u32) -> Self {
        Self {
            page,
            below: 0,
            above: pages,
            max_order,
        }
    }
}

impl Iterator for Blocks {
    type Item = Block;

    #[inline]
    fn next(&mut self) -> Option<Block> {
        let address = self.page << PAGE_SHIFT;
        let order = if self.below != 0 {
            let order = self.below.trailing_zeros().min(self.max_order);
            self.below -= 1 << order;
            order
        } else {
            let order = self.above.checked_ilog2()?.min(self.max_order);
            self.above -= 1 << order;
            order
        };
        self.page += 1 << order;
        Some(Block { address, order })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = number(self.below, self.max_order) + number(self.above, self.max_order);
        // CAST: at most `MAX_BLOCKS`.
        (left as usize, Some(left as usize))
    }
}

impl ExactSizeIterator for Blocks {}

/// The number of blocks of at most `2^max_order` that a run of pages takes from an aligned border on:
/// one for each bit set in its length.
fn number(pages: u64, max_order: u32) -> u64 {
    let small = (pages & ((1 << max_order) - 1)).count_ones();
    (pages >> max_order) + u64::from(small)
}

/// A number of pages, and how many blocks of at most the largest order it takes to cover them
/// from an aligned border.
#[derive(Clone, Copy)]
struct Side {
    pages: u64,
    blocks: u64,
}

impl Side {
    /// The fewest pages `>= pages` that at most `limit` blocks can cover.
    ///
    /// The next longer run that takes fewer blocks comes from rounding up to a power of two.
    fn fit(pages: u64, limit: u64, max_order: u32) -> Option<Self> {
        (0..=max_order)
            .map(|order| {
                let unit = 1u64 << order;
                // At most 2^51 pages on a side, and `unit` at most 2^52: no overflow.
                let pages = (pages + unit - 1) & !(unit - 1);
                let blocks = number(pages, max_order);
                Self { pages, blocks }
            })
            .find(|side| side.blocks <= limit)
    }
}

/// Covers the bytes `start..=last` with at most [`MAX_BLOCKS`] blocks of at most `2^max_order`
/// pages, flushing as few pages as that allows; the whole domain if it is not possible.
///
/// A range that ends before it starts has no meaning, and more must be flushed rather than less:
/// it gives the whole domain too.
#[inline]
pub fn cover(start: u64, last: u64, max_order: u32) -> Plan {
    if start > last {
        return Plan::All;
    }
    let max_order = max_order.min(MAX_ORDER);
    let (first, last) = (start >> PAGE_SHIFT, last >> PAGE_SHIFT);
    let pages = last - first + 1;
    // The usual case, a block of its own: the core aligns what it maps to its size.
    if pages.is_power_of_two() && first & (pages - 1) == 0 && pages >> max_order <= 1 {
        return Plan::Blocks(Blocks::one(first, pages, max_order));
    }
    cover_unaligned(first, last, max_order)
}

/// [`cover`] for two pages, first and last, that differ.
#[inline(never)]
fn cover_unaligned(first: u64, last: u64, max_order: u32) -> Plan {
    // The highest bit in which first and last page differ is the alignment of the border.
    let Some(border_order) = (first ^ last).checked_ilog2() else {
        return Plan::All;
    };
    let border = (last >> border_order) << border_order;

    let single_order = border_order + 1;
    let single = (single_order <= max_order).then_some(1u64 << single_order);

    let budget = MAX_BLOCKS as u64;
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
            Plan::Blocks(Blocks::one(first & !(pages - 1), pages, max_order))
        }
        (_, Some((below, above))) => Plan::Blocks(Blocks {
            page: border - below.pages,
            below: below.pages,
            above: above.pages,
            max_order,
        }),
        _ => Plan::All,
    }
}
