// SPDX-License-Identifier: GPL-2.0

//! Mappings that end together, by a unit that remembers until it has been told, and may not listen.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use iommu::lazy::ending::{Ending, Ends};
use iommu::lazy::kept::Mapping;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the domain.
    Mapped,
    /// Out of the domain before the flush of this number.
    Unmapped(u32),
    Free,
}

#[derive(Default)]
struct Unit {
    at: BTreeMap<u64, At>,
    flushes: u32,
    /// The number of the last one that was answered.
    answered: u32,
    /// What does not come out of the domain.
    stuck: BTreeSet<u64>,
    silent: bool,
}

#[derive(Default)]
struct Units(RefCell<Unit>);

impl Units {
    fn at(&self, iova: u64) -> Option<At> {
        self.0.borrow().at.get(&iova).copied()
    }
}

impl Ends for Units {
    type Error = ();

    fn unmap(&self, mapping: &Mapping) -> bool {
        let mut unit = self.0.borrow_mut();
        if unit.stuck.contains(&mapping.iova) {
            return false;
        }
        let next = unit.flushes + 1;
        let before = unit.at.insert(mapping.iova, At::Unmapped(next));
        assert_eq!(before, Some(At::Mapped), "{mapping:?}");
        true
    }

    fn flush(&self) -> Result<(), ()> {
        let mut unit = self.0.borrow_mut();
        unit.flushes += 1;
        if unit.silent {
            return Err(());
        }
        unit.answered = unit.flushes;
        Ok(())
    }

    fn free(&self, mapping: &Mapping) {
        let mut unit = self.0.borrow_mut();
        let (answered, was) = (unit.answered, unit.at.insert(mapping.iova, At::Free));
        // A later answer would do, but there is one flush for all.
        assert_eq!(was, Some(At::Unmapped(answered)), "{mapping:?}");
    }
}

fn mapping(iova: u64) -> Mapping {
    Mapping {
        frame: iova + 7,
        iova,
        pages: 1,
        access: 2,
    }
}

fn ending(places: usize) -> Ending<Vec<Mapping>> {
    Ending::new(vec![Mapping::default(); places])
}

#[test]
fn without_places_one_is_given_back() {
    let mut two = ending(2);
    assert!(two.is_empty());
    assert_eq!((two.add(mapping(1)), two.add(mapping(2))), (Ok(()), Ok(())));
    assert_eq!(two.add(mapping(3)), Err(mapping(3)));
    let mut out = Vec::new();
    two.drain(|mapping| out.push(mapping.iova));
    assert_eq!((out, two.is_empty()), (vec![1, 2], true));
    assert_eq!(two.add(mapping(3)), Ok(()));
}

#[test]
fn a_flush_is_made_for_nobody_too() {
    let units = Units::default();
    assert_eq!(ending(4).end(&units), Ok(0));
    assert_eq!(units.0.borrow().answered, 1);
}

proptest! {
    /// A17: addresses are free after the one flush that follows all unmaps, if it was answered; and never if
    /// it was not, or if they are still mapped.
    #[test]
    fn a17_addresses_are_free_after_the_flush(
        rounds in prop::collection::vec((0usize..40, any::<u64>(), prop::bool::weighted(0.3)), 1..20),
    ) {
        let units = Units::default();
        let mut ending = ending(40);
        let mut next = 0;
        for (count, stuck, silent) in rounds {
            let batch: Vec<u64> = (next..next + count as u64).collect();
            next += count as u64;
            {
                let mut unit = units.0.borrow_mut();
                unit.silent = silent;
                for &iova in &batch {
                    unit.at.insert(iova, At::Mapped);
                    if stuck >> (iova % 64) & 7 == 7 {
                        unit.stuck.insert(iova);
                    }
                }
            }
            for &iova in &batch {
                prop_assert!(ending.add(mapping(iova)).is_ok());
            }
            let before = units.0.borrow().flushes;
            let ended = ending.end(&units);
            prop_assert_eq!(ended, if silent { Err(()) } else { Ok(count) });
            prop_assert_eq!(units.0.borrow().flushes, before + 1);
            prop_assert!(ending.is_empty());
            for iova in batch {
                let stuck = units.0.borrow().stuck.contains(&iova);
                let expected = match (stuck, silent) {
                    (true, _) => At::Mapped,
                    (false, true) => At::Unmapped(before + 1),
                    (false, false) => At::Free,
                };
                prop_assert_eq!(units.at(iova), Some(expected));
            }
        }
    }
}
