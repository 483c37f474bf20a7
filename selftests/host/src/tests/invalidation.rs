// SPDX-License-Identifier: GPL-2.0

use iommu::invalidation::{cover, Block, Invalidation, Plan, MAX_BLOCKS, PAGE_SHIFT};
use proptest::prelude::*;
use rand::{rngs::SmallRng, Rng, SeedableRng};

/// All pages of a 64-bit address space, as log2.
const ALL_PAGES: u32 = 52;

/// What mainline's driver does: the order of the one aligned block around the range, or `None`
/// where it flushes the whole domain.
fn mainline_order(start: u64, last: u64, max_order: u32) -> Option<u32> {
    let differing = u64::BITS - ((start >> 12) ^ (last >> 12)).leading_zeros();
    (differing <= max_order && differing < ALL_PAGES).then_some(differing)
}

fn blocks(plan: Plan) -> Option<Vec<Block>> {
    match plan {
        Plan::All => None,
        Plan::Blocks(blocks) => Some(blocks.collect()),
    }
}

/// Checks everything row E1 asks of one plan; the message of what is wrong.
fn check(start: u64, last: u64, max_order: u32) -> Result<(), String> {
    let (first, end) = (u128::from(start >> 12), u128::from(last >> 12) + 1);
    let pages = end - first;
    let mainline = mainline_order(start, last, max_order);
    let fail = |what: &str| Err(format!("{start:#x}..={last:#x}, order {max_order}: {what}"));

    let Some(blocks) = blocks(cover(start, last, max_order)) else {
        if mainline.is_some() {
            return fail("whole domain where one block does");
        }
        // Two blocks hold this much wherever it stands.
        if pages <= 1 << max_order {
            return fail("whole domain for a range of at most one block's size");
        }
        return Ok(());
    };
    if blocks.is_empty() || blocks.len() > MAX_BLOCKS {
        return fail("number of blocks");
    }
    let mut covered_from = None;
    let mut next = 0;
    let mut flushed = 0;
    for block in &blocks {
        let page = u128::from(block.address >> 12);
        let size = 1u128 << block.order;
        if block.order > max_order {
            return fail("order above the unit's");
        }
        if block.address & 0xfff != 0 || page % size != 0 {
            return fail("block is not aligned");
        }
        if covered_from.is_some() && page != next {
            return fail("hole or overlap");
        }
        covered_from.get_or_insert(page);
        next = page + size;
        flushed += size;
    }
    if covered_from.is_none_or(|from| from > first) || next < end {
        return fail("range is not covered");
    }
    if mainline.is_some_and(|order| flushed > 1 << order) {
        return fail("more than mainline's block");
    }
    if flushed * 3 > pages * 4 {
        return fail("over-flush of more than a third");
    }
    Ok(())
}

/// A range of any size, often close to a border of a large page or of the address space.
fn random_range(rng: &mut SmallRng) -> (u64, u64) {
    let length = rng.random::<u64>() >> rng.random_range(0..64);
    let start = match rng.random_range(0..4) {
        0 => rng.random::<u64>(),
        1 => rng.random::<u64>() >> rng.random_range(0..64),
        2 => (rng.random::<u64>() << rng.random_range(12..64)).wrapping_sub(length / 2),
        _ => u64::MAX - length,
    };
    (start, start.saturating_add(length))
}

#[test]
fn e1_cover_is_complete_and_tight() {
    let mut rng = SmallRng::seed_from_u64(0xe1);
    let mut split = 0;
    for _ in 0..1_000_000 {
        let (start, last) = random_range(&mut rng);
        // Half of them with QEMU's MAMV.
        let max_order = if rng.random() {
            18
        } else {
            rng.random_range(0..=63)
        };
        if let Err(message) = check(start, last, max_order) {
            panic!("{message}");
        }
        split += u32::from(matches!(cover(start, last, max_order), Plan::Blocks(b) if b.len() > 1));
    }
    assert!(
        split > 100_000,
        "only {split} ranges needed more than one block"
    );
}

proptest! {
    /// The same with ranges that shrink.
    #[test]
    fn e1_cover_is_complete_and_tight_shrinkable(
        page in 0u64..1 << ALL_PAGES, length in 0u64..1 << 24, max_order in 0u32..=63, offset in 0u64..0x2000,
    ) {
        let start = (page << PAGE_SHIFT) | offset & 0xfff;
        let last = start.saturating_add((length << PAGE_SHIFT) | (offset >> 1));
        prop_assert_eq!(check(start, last, max_order), Ok(()));
    }
}

/// Fewest pages and then fewest blocks that cover `from..=last`, by trying everything.
fn best(from: u64, last: u64, max_order: u32, budget: usize) -> Option<(u64, usize)> {
    if from > last {
        return Some((0, 0));
    }
    if budget == 0 {
        return None;
    }
    (0..=max_order)
        .filter_map(|order| {
            let size = 1 << order;
            let next = (from / size + 1) * size;
            let (pages, blocks) = best(next, last, max_order, budget - 1)?;
            Some((pages + size, blocks + 1))
        })
        .min()
}

#[test]
fn e1_cover_is_the_best_there_is() {
    for max_order in 0..=6 {
        for first in 0..48 {
            for last in first..64 {
                let plan = cover(first << PAGE_SHIFT, (last << PAGE_SHIFT) | 0xfff, max_order);
                let found = blocks(plan).map(|blocks| {
                    (
                        blocks.iter().map(|block| 1 << block.order).sum(),
                        blocks.len(),
                    )
                });
                assert_eq!(
                    found,
                    best(first, last, max_order, MAX_BLOCKS),
                    "pages {first}..={last}, order {max_order}"
                );
            }
        }
    }
}

#[test]
fn e1_two_pages_on_a_large_border_do_not_flush_gigabytes() {
    for border in [1u64 << 21, 1 << 30, 1 << 39, 1 << 48, 1 << 56, 1 << 63] {
        let found = blocks(cover(border - 0x1000, border + 0xfff, 18)).unwrap();
        assert_eq!(
            found,
            [
                Block {
                    address: border - 0x1000,
                    order: 0
                },
                Block {
                    address: border,
                    order: 0
                }
            ]
        );
    }
    // 4 MiB that straddle a border of 1 GiB.
    let border = 1 << 30;
    let found = blocks(cover(border - (2 << 20), border + (2 << 20) - 1, 18)).unwrap();
    assert_eq!(
        found,
        [
            Block {
                address: border - (2 << 20),
                order: 9
            },
            Block {
                address: border,
                order: 9
            }
        ]
    );
}

#[test]
fn e1_aligned_ranges_take_one_block() {
    for order in 0..=18 {
        let size = 0x1000u64 << order;
        for start in [0, size, 5 * size, (1 << 57) - size, u64::MAX - size + 1] {
            let found = blocks(cover(start, start + (size - 1), 18)).unwrap();
            assert_eq!(
                found,
                [Block {
                    address: start,
                    order
                }]
            );
        }
    }
}

#[test]
fn e1_the_ends_of_the_address_space_do_not_overflow() {
    assert_eq!(
        blocks(cover(0, 0, 0)).unwrap(),
        [Block {
            address: 0,
            order: 0
        }]
    );
    let top = !0xfff;
    assert_eq!(
        blocks(cover(u64::MAX, u64::MAX, 18)).unwrap(),
        [Block {
            address: top,
            order: 0
        }]
    );
    assert_eq!(cover(0, u64::MAX, 18), Plan::All);
    assert_eq!(
        blocks(cover(0, u64::MAX, 63)).unwrap(),
        [Block {
            address: 0,
            order: ALL_PAGES
        }]
    );
    let end = (1u64 << 57) - 1;
    assert_eq!(
        blocks(cover(0, end, 45)).unwrap(),
        [Block {
            address: 0,
            order: 45
        }]
    );
    assert_eq!(cover(0, end, 18), Plan::All);
    for max_order in 0..=63 {
        check(0, u64::MAX, max_order).unwrap();
        check(0x1000, u64::MAX - 0x1000, max_order).unwrap();
        check(end, end + 1, max_order).unwrap();
    }
}

#[test]
fn what_cannot_be_named_flushes_the_domain() {
    let range = |start, last| Invalidation::Range {
        start,
        last,
        leaf_only: true,
    };
    assert_eq!(Invalidation::All.plan(Some(18)), Plan::All);
    assert_eq!(
        range(0, 0xfff).plan(None),
        Plan::All,
        "no page-selective invalidation"
    );
    assert_eq!(
        range(0x1000, 0xfff).plan(Some(18)),
        Plan::All,
        "ends before it starts"
    );
    assert_eq!(
        range(u64::MAX, 0).plan(Some(18)),
        Plan::All,
        "an untouched gather"
    );
    assert_eq!(
        range(0x1000, 0x1fff).plan(Some(18)),
        cover(0x1000, 0x1fff, 18)
    );
}

#[test]
fn leaf_only_is_kept_and_never_assumed() {
    let range = |leaf_only| Invalidation::Range {
        start: 0,
        last: 0xfff,
        leaf_only,
    };
    assert!(range(true).leaf_only());
    assert!(!range(false).leaf_only());
    assert!(!Invalidation::All.leaf_only());
}

#[test]
fn blocks_know_how_many_are_left() {
    let Plan::Blocks(mut blocks) = cover(0x1000, 0x8fff, 18) else {
        panic!("no blocks");
    };
    let mut left = blocks.len();
    assert_eq!(left, 4);
    while blocks.next().is_some() {
        left -= 1;
        assert_eq!(blocks.len(), left);
    }
    assert_eq!((left, blocks.next()), (0, None));
}
