// SPDX-License-Identifier: GPL-2.0

//! The memory limit, against a model of what the kernel counts.

mod common;

use common::*;
use iommu_info::memlock::{Layout, Scope, memlock};
use iommu_info::model::{Group, Machine};
use iommu_info::window::{self, Reserved};
use proptest::prelude::*;
use std::collections::BTreeSet;

const PAGE: u64 = 4096;

fn machine(groups: impl IntoIterator<Item = u32>) -> Machine {
    let group = |number| (number, Group::default());
    Machine {
        groups: groups.into_iter().map(group).collect(),
        ..Machine::default()
    }
}

/// What the kernel does when memory is mapped: pages of a call are counted, and the call fails if more than the limit
/// would be locked.
struct Kernel {
    limit: u64,
    locked: u64,
}

impl Kernel {
    fn map(&mut self, pages: u64) -> bool {
        let fits = self.locked + pages <= self.limit;
        self.locked += if fits { pages } else { 0 };
        fits
    }

    /// Maps the parts of a guest's memory for `groups` groups as `layout` does.
    fn guest(limit: u64, layout: Layout, groups: usize, parts: &[u64]) -> bool {
        let mut kernel = Kernel {
            limit: limit / PAGE,
            locked: 0,
        };
        // What was pinned already, and is copied.
        let mut pinned = BTreeSet::new();
        (0..groups).all(|group| {
            parts.iter().enumerate().all(|(part, pages)| match layout {
                Layout::Type1Shared | Layout::IommufdShared => group > 0 || kernel.map(*pages),
                Layout::IommufdCopied => !pinned.insert(part) || kernel.map(*pages),
                Layout::Type1Each | Layout::IommufdEach => kernel.map(*pages),
            })
        })
    }
}

proptest! {
    #[test]
    fn the_figure_is_enough_and_a_page_less_is_not(
        groups in prop::collection::btree_set(0u32..100, 1..6),
        parts in prop::collection::vec(1u64..1 << 20, 1..8),
        odd in 0u64..PAGE,
    ) {
        let memory = parts.iter().sum::<u64>() * PAGE - odd;
        let numbers: Vec<u32> = groups.iter().copied().collect();
        let found = memlock(&machine(groups), &numbers, Some(memory)).unwrap();
        prop_assert_eq!(found.figures.len(), Layout::ALL.len());
        for figure in found.figures {
            let bytes = figure.bytes.unwrap();
            let enough = |limit| Kernel::guest(limit, figure.layout, numbers.len(), &parts);
            prop_assert!(enough(bytes), "{:?}", figure);
            prop_assert!(!enough(bytes - PAGE), "{:?}", figure);
            prop_assert!(!enough(bytes - 1), "{:?}", figure);
        }
    }

    #[test]
    fn any_size_gives_a_figure_or_an_error(memory in 1u64.., groups in 1u32..5) {
        let numbers: Vec<u32> = (0..groups).collect();
        match memlock(&machine(0..groups), &numbers, Some(memory)) {
            Ok(found) => prop_assert!(found.figures.iter().all(|f| f.bytes >= Some(memory))),
            Err(error) => prop_assert!(memory > u64::MAX / 8 && error.contains("too large")),
        }
    }
}

#[test]
fn a_group_counts_once() {
    let found = memlock(&machine([3, 4]), &[4, 3, 4], Some(PAGE)).unwrap();
    assert_eq!(found.groups, [3, 4]);
    let each = |f: &&iommu_info::memlock::Figure| f.layout == Layout::Type1Each;
    let figure = found.figures.iter().find(each).unwrap();
    assert_eq!((figure.times, figure.bytes), (2, Some(2 * PAGE)));
    assert_eq!(figure.counted_for, Scope::Process);
}

#[test]
fn without_a_size_there_are_multiples() {
    let found = memlock(&machine([1, 2, 3]), &[1, 2, 3], None).unwrap();
    let times: Vec<u64> = found.figures.iter().map(|f| f.times).collect();
    assert_eq!(times, [1, 3, 1, 1, 3]);
    assert!(found.figures.iter().all(|f| f.bytes.is_none()));
}

#[test]
fn what_is_not_there_is_named() {
    let error = memlock(&machine([1]), &[1, 7], None).unwrap_err();
    assert_eq!(error, "there is no IOMMU group 7");
}

#[test]
fn windows_are_intersected_and_too_small_ones_named() {
    let mut machine = machine([1, 2]);
    let reserved = window::parse_reserved("0x1000 0x1fff reserved\n");
    let set = |group: &mut Group, bits, reserved: &[Reserved]| {
        group.window = Some(window::usable(window::of_bits(bits), reserved));
    };
    set(machine.groups.get_mut(&1).unwrap(), 20, &[]);
    set(machine.groups.get_mut(&2).unwrap(), 39, &reserved);
    let found = memlock(&machine, &[1, 2], Some(2 << 20)).unwrap();
    let pairs: Vec<(u64, u64)> = found
        .window
        .unwrap()
        .iter()
        .map(|r| (r.start, r.last))
        .collect();
    assert_eq!(pairs, [(0, 0xfff), (0x2000, 0xf_ffff)]);
    let small = |n: &String| n.contains("group 1 has only 1048576 bytes");
    assert!(found.notes.iter().any(small), "{:?}", found.notes);
    assert!(
        !found.notes.iter().any(|n| n.contains("group 2")),
        "{:?}",
        found.notes
    );
}

#[test]
fn what_comes_on_top_depends_on_whose_pages_count() {
    let found = memlock(&machine([1]), &[1], None).unwrap();
    let one = |begin: &str| {
        let mut notes = found.notes.iter().filter(|n| n.starts_with(begin));
        let note = notes.next().unwrap();
        assert!(notes.next().is_none());
        note.split_once("on top").unwrap()
    };
    // mm->locked_vm has what is locked with mlock, user->locked_vm what io_uring pins.
    let (counts, does_not) = one("for the process");
    assert!(counts.contains("mlock") && !counts.contains("io_uring"));
    assert!(does_not.contains("io_uring") && !does_not.contains("mlock"));
    let (counts, does_not) = one("for the user");
    assert!(counts.contains("io_uring") && !counts.contains("mlock"));
    assert!(does_not.contains("mlock") && !does_not.contains("io_uring"));
    let all = |n: &&String| n.contains("video memory") && n.contains("ENOMEM");
    assert_eq!(found.notes.iter().filter(all).count(), 1);
}

#[test]
fn sealed_groups_share_no_ioas() {
    let tree = Tree::new();
    tree.ours();
    for (address, group) in [("01:00.0", 5), ("01:00.1", 5), ("02:00.0", 6)] {
        tree.add(&endpoint(address, &[], group));
        tree.seal(address, false);
    }
    let notes = |groups: &[u32]| {
        let mut notes = memlock(&tree.read(), groups, None).unwrap().notes;
        notes.retain(|note| note.contains("is sealed"));
        notes
    };
    assert!(notes(&[5, 6]).is_empty());
    for address in ["01:00.0", "01:00.1"] {
        tree.seal(address, true);
    }
    let said = notes(&[5, 6]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("group 5 is sealed"), "{said:?}");
    assert!(notes(&[5]).is_empty());
    assert!(notes(&[6]).is_empty());
}

#[test]
fn device_memory_is_shown_and_not_counted() {
    let tree = Tree::new();
    tree.ours();
    tree.add(&endpoint("01:00.0", &[], 5));
    let found = memlock(&tree.read(), &[5], Some(1 << 30)).unwrap();
    assert_eq!(found.device_memory, 0x4000);
    assert_eq!(found.figures[0].bytes, Some(1 << 30));
}
