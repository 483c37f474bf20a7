// SPDX-License-Identifier: GPL-2.0

//! `pt/walk.rs` and `pt/second_stage.rs`: the walk of a table against the list of what was put into
//! it, and walks of garbage.

use iommu::pt::{
    second_stage::SecondStage,
    walk::{
        leaves,
        lowest_table,
        walk,
        Entry,
        Format,
        Range,
        Top,
        LEAST_TABLES, //
    }, //
};
use proptest::prelude::*;
use std::collections::{
    BTreeMap,
    HashMap, //
};
use std::ops::ControlFlow::{
    self,
    Break,
    Continue, //
};

/// Address bits below the index of a table.
fn shift(level: u32) -> u32 {
    12 + 9 * level
}

/// Where the topmost table is.
const TOP: u64 = 0x1000;

/// Second-stage tables in a memory that holds nothing else.
struct Tables {
    top: Top,
    memory: HashMap<u64, [u64; 512]>,
    /// Leaf entries: address and size.
    leaves: BTreeMap<u64, u64>,
    junk: u64,
}

impl Tables {
    /// Tables of which each entry has `junk` in the bits that say nothing.
    fn new(level: u32, address_bits: u32, junk: u64) -> Self {
        // Bits that are ignored, or that the hardware sets.
        let junk = junk & 0x7ff0_0000_0000_0f78;
        Self {
            top: Top {
                phys: TOP,
                level,
                address_bits,
            },
            memory: HashMap::from([(TOP, [junk; 512])]),
            leaves: BTreeMap::new(),
            junk,
        }
    }

    /// Maps a page of the size of a leaf at `level`, if nothing is in its way.
    fn map(&mut self, iova: u64, level: u32, permission: u64) {
        let size = 1 << shift(level);
        let iova = iova % (1 << self.top.address_bits) / size * size;
        let before = self.leaves.range(..iova + size).next_back();
        if level > self.top.level || before.is_some_and(|(at, bytes)| at + bytes > iova) {
            return;
        }
        self.leaves.insert(iova, size);

        let mut table = TOP;
        for above in (level + 1..=self.top.level).rev() {
            let index = (iova >> shift(above)) as usize % 512;
            let entry = self.memory[&table][index];
            table = if entry & 3 == 0 {
                let new = TOP * (self.memory.len() as u64 + 1);
                self.memory.insert(new, [self.junk; 512]);
                self.memory.get_mut(&table).unwrap()[index] = new | 3 | self.junk;
                new
            } else {
                entry & 0x000f_ffff_ffff_f000
            };
        }
        // Any address will do: a walk does not look at where a page is.
        let page = if level > 0 { 1 << 7 } else { 0 };
        let entry = 0x7_7777_7000 | page | permission | self.junk;
        self.memory.get_mut(&table).unwrap()[(iova >> shift(level)) as usize % 512] = entry;
    }

    /// What a walk has to find.
    fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (&iova, &bytes) in &self.leaves {
            match ranges.last_mut() {
                Some(last) if last.iova + last.bytes == iova => last.bytes += bytes,
                _ => ranges.push(Range { iova, bytes }),
            }
        }
        ranges
    }

    /// Puts a table on top, as one that grows does.
    fn grow(&mut self) {
        let new = TOP * (self.memory.len() as u64 + 1);
        let mut entries = [self.junk; 512];
        entries[0] = self.top.phys | 3 | self.junk;
        self.memory.insert(new, entries);
        self.top.phys = new;
        self.top.level += 1;
    }

    /// The lowest table for an address.
    fn lowest(&self, iova: u64) -> Option<u64> {
        lowest_table::<SecondStage>(self.top, iova, |table, index| self.memory[&table][index])
    }

    /// What a walk finds, of at most `tables` tables and until there are `most` ranges.
    fn walk(&self, tables: usize, most: usize) -> (ControlFlow<()>, Vec<Range>) {
        let mut found = Vec::new();
        let end = walk::<SecondStage>(
            self.top,
            tables as u32,
            |table, index| self.memory[&table][index],
            |range| {
                found.push(range);
                if found.len() == most {
                    Break(())
                } else {
                    Continue(())
                }
            },
        );
        (end, found)
    }
}

/// Pages to map: places near each other more often than not, some at the ends.
fn pages() -> impl Strategy<Value = Vec<(u64, u32, u64)>> {
    let near = prop_oneof![
        (0u64..3 << 21).boxed(),
        (0u64..3 << 30).boxed(),
        any::<u64>().boxed(),
        (0u64..4 << 12).prop_map(|n| !n).boxed(),
    ];
    let level = prop_oneof![6 => Just(0u32), 2 => Just(1u32), 1 => Just(2u32)];
    prop::collection::vec((near, level, 1u64..4), 0..200)
}

/// Root levels and address bits that go together.
fn shapes() -> impl Strategy<Value = (u32, u32)> {
    (2u32..5).prop_flat_map(|level| (Just(level), shift(level) + 1..=shift(level + 1)))
}

proptest! {
    #[test]
    fn y16_finds_what_is_mapped((level, bits) in shapes(), pages in pages(), junk: u64) {
        let mut tables = Tables::new(level, bits, junk);
        for (iova, level, permission) in pages {
            tables.map(iova, level, permission);
        }
        let all = tables.ranges();
        let count = tables.memory.len();
        prop_assert_eq!(tables.walk(count, usize::MAX), (Continue(()), all.clone()));
        if !all.is_empty() {
            let most = all.len() / 2 + 1;
            prop_assert_eq!(tables.walk(count, most), (Break(()), all[..most].to_vec()));
        }
        // Cut short, it finds what comes first.
        if count > 1 {
            let (end, found) = tables.walk(count / 2, usize::MAX);
            prop_assert_eq!(end, Break(()));
            if let Some((last, whole)) = found.split_last() {
                prop_assert_eq!(whole, &all[..whole.len()]);
                prop_assert_eq!(last.iova, all[whole.len()].iova);
                prop_assert!(last.bytes <= all[whole.len()].bytes);
            }
        }
    }

    /// Read in pieces, from wherever the last one ended, a table has the same leaves: each once.
    #[test]
    fn leaves_in_pieces((level, bits) in shapes(), pages in pages(), junk: u64, tables_read in 0u32..3) {
        let mut tables = Tables::new(level, bits, junk);
        for (iova, level, permission) in pages {
            tables.map(iova, level, permission);
        }
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let mut reads = 0;
            let most = LEAST_TABLES + tables_read;
            let end = leaves::<SecondStage>(
                tables.top,
                from,
                most,
                |table, index| {
                    reads += 1;
                    tables.memory[&table][index]
                },
                |leaf| {
                    found.push((leaf.iova, leaf.bytes));
                    Continue(())
                },
            );
            prop_assert!(reads <= 512 * most);
            next = end.break_value();
            prop_assert!(next.is_none_or(|next| next > from));
        }
        prop_assert_eq!(found, tables.leaves.into_iter().collect::<Vec<_>>());
    }

    /// Where a table goes between two pieces, the next one goes on behind it, or counts the rest of a
    /// larger page that has come in its place.
    #[test]
    fn leaves_from_anywhere(page in 0u64..1 << 18, large: bool) {
        let mut tables = Tables::new(3, 48, 0);
        if large {
            tables.map(0, 2, 3);
        }
        let behind = 1 << 30;
        tables.map(behind, 0, 3);
        let from = page << 12;
        let mut found = Vec::new();
        let end = leaves::<SecondStage>(
            tables.top,
            from,
            100,
            |table, index| tables.memory[&table][index],
            |leaf| {
                found.push((leaf.iova, leaf.bytes));
                Continue(())
            },
        );
        prop_assert_eq!(end, Continue(()));
        let rest = large.then_some((from, behind - from));
        prop_assert_eq!(found, rest.into_iter().chain([(behind, 4096)]).collect::<Vec<_>>());
    }

    /// Whatever stands in memory, and whatever the caller claims about the table.
    #[test]
    fn y16_garbage_ends(seed: u64, mask: u64, phys: u64, level in 0u32..40, bits in 0u32..100, limit in 0u32..300) {
        let top = Top { phys, level, address_bits: bits };
        let mut reads = 0u64;
        let mut last: Option<Range> = None;
        let word = |table: u64, index: usize| {
            let mut x = seed ^ table.rotate_left(17) ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (x ^ (x >> 32)) & mask
        };
        let _ = walk::<SecondStage>(
            top,
            limit,
            |table, index| {
                reads += 1;
                word(table, index)
            },
            |range| {
                assert!(range.bytes > 0 && range.iova % 4096 == 0 && range.bytes % 4096 == 0);
                // Not even neighbours: those are one range.
                assert!(last.is_none_or(|last| last.iova + last.bytes < range.iova));
                last = Some(range);
                Continue(())
            },
        );
        prop_assert!(reads <= 512 * u64::from(limit.max(1)));
        if let Some(last) = last {
            // An entry of the topmost table may reach further than the address bits.
            let end = 1u64 << bits.max(shift(level.min(4))).min(57);
            prop_assert!(last.iova + last.bytes <= end);
        }
    }

    /// Address for address.
    #[test]
    fn y16_without_holes(iova in 0u64..64, bytes in 0u64..64, holes in prop::collection::vec((0u64..128, 0u64..20), 0..6)) {
        let mut holes: Vec<Range> = holes.iter().map(|(iova, bytes)| Range { iova: *iova, bytes: *bytes }).collect();
        holes.push(Range { iova: u64::MAX - 1, bytes: u64::MAX });
        let mut left = Vec::new();
        let mut last = None;
        let _ = Range { iova, bytes }.without(&holes, |part| {
            assert!(part.bytes > 0 && last.is_none_or(|end| end < part.iova));
            last = Some(part.iova + part.bytes);
            left.extend(part.iova..part.iova + part.bytes);
            Continue(())
        });
        let covered = |at: &u64| holes.iter().any(|h| h.iova <= *at && at - h.iova < h.bytes);
        let expected: Vec<u64> = (iova..iova + bytes).filter(|at| !covered(at)).collect();
        prop_assert_eq!(left, expected);
    }
}

/// A table that leads to itself at every level but the last.
#[test]
fn y16_a_table_that_leads_to_itself() {
    for level in 0..=4 {
        let top = Top {
            phys: TOP,
            level,
            address_bits: 57,
        };
        let mut found = Vec::new();
        let end = walk::<SecondStage>(
            top,
            1000,
            |table, _| {
                assert_eq!(table, TOP);
                TOP | 3
            },
            |range| {
                found.push(range);
                Continue(())
            },
        );
        // 1000 tables do for two levels, and end in the third.
        assert_eq!(end.is_continue(), level < 2, "level {level}");
        assert_eq!(found.len(), 1, "level {level}");
        assert_eq!(found[0].iova, 0);
        if level < 2 {
            assert_eq!(found[0].bytes, 1 << shift(level + 1));
        }
    }
}

/// No more of the topmost table is read than the address bits need: it may be that short.
#[test]
fn y16_short_topmost_table() {
    for (level, bits, entries) in [(2, 39, 512), (2, 31, 2), (3, 39, 1), (4, 57, 512)] {
        let top = Top {
            phys: TOP,
            level,
            address_bits: bits,
        };
        let mut seen = Vec::new();
        let end = walk::<SecondStage>(
            top,
            1,
            |_, index| {
                seen.push(index);
                0
            },
            |_| unreachable!(),
        );
        assert_eq!(end, Continue(()));
        assert_eq!(seen, (0..entries).collect::<Vec<_>>());
    }
}

#[test]
fn entries_of_second_stage_tables() {
    for level in 0..5 {
        for absent in [0, 0xffff_ffff_ffff_fffc] {
            assert_eq!(SecondStage::decode(level, absent), Entry::Empty);
        }
    }
    for permission in 1..4 {
        assert_eq!(
            SecondStage::decode(0, 0x1234_5000 | permission),
            Entry::Leaf
        );
        assert_eq!(
            SecondStage::decode(1, 0x1220_0080 | permission),
            Entry::Leaf
        );
        let table = 0xfff0_0000_1234_5f78 | permission;
        assert_eq!(SecondStage::decode(2, table), Entry::Table(0x1234_5000));
    }
}

#[test]
fn a_table_that_grows_keeps_what_it_has() {
    let mut tables = Tables::new(2, 57, 0);
    let beyond = 1u64 << shift(3);
    // As long as the top does not reach so far; the same index of the top has a table.
    tables.top.address_bits = shift(3);
    for iova in [0x5000, 0x4000_0000, beyond - 0x1000] {
        tables.map(iova, 0, 3);
    }
    tables.top.address_bits = 57;
    let before = tables.ranges();
    let places = [0x5000, 0x4000_0000, beyond - 0x1000].map(|iova| tables.lowest(iova));
    assert!(places.iter().all(Option::is_some));
    for _ in 0..2 {
        assert_eq!(tables.lowest(beyond | 0x5000), None);
        assert_eq!(tables.lowest(beyond << 9 | 0x5000), None);
        assert_eq!(tables.walk(100, 100), (Continue(()), before.clone()));
        tables.grow();
        let now = [0x5000, 0x4000_0000, beyond - 0x1000].map(|iova| tables.lowest(iova));
        assert_eq!(now, places);
    }
    assert_eq!(tables.walk(100, 100), (Continue(()), before));
}
