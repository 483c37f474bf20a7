// SPDX-License-Identifier: GPL-2.0

//! Mappings that are kept after they were unmapped, against a model.

use std::collections::BTreeMap;

use iommu::lazy::kept::{Doubled, Kept, Mapping, Slot};
use proptest::prelude::*;

fn kept(places: usize) -> Kept<Vec<Slot>> {
    Kept::new(vec![Slot::default(); places], u64::MAX)
}

fn mapping(frame: u64, iova: u64) -> Mapping {
    Mapping {
        frame,
        iova,
        pages: 1,
        access: 2,
    }
}

fn all(kept: &mut Kept<Vec<Slot>>, any: bool) -> Vec<Mapping> {
    let mut at = 0;
    std::iter::from_fn(|| kept.next(&mut at, any)).collect()
}

#[test]
fn what_is_not_the_same_is_not_given_back() {
    let mut kept = kept(64);
    assert_eq!(kept.put(mapping(7, 0x1000)), Ok(None));
    assert_eq!(kept.take(8, 1, 2), None);
    assert_eq!(kept.take(7, 2, 2), None);
    assert_eq!(kept.take(7, 1, 1), None);
    assert_eq!((kept.take(7, 1, 2), kept.held()), (Some(0x1000), 0));
    assert_eq!(kept.take(7, 1, 2), None);
}

#[test]
fn nothing_stays_for_more_than_two_steps() {
    let mut kept = kept(64);
    kept.put(mapping(1, 0x1000)).unwrap();
    kept.step();
    kept.put(mapping(2, 0x2000)).unwrap();
    assert_eq!(all(&mut kept, false), []);
    kept.step();
    assert_eq!(all(&mut kept, false), [mapping(1, 0x1000)]);
    // What was used meanwhile starts anew.
    let iova = kept.take(2, 1, 2).unwrap();
    kept.put(mapping(2, iova)).unwrap();
    kept.step();
    assert_eq!(all(&mut kept, false), []);
    kept.step();
    assert_eq!(all(&mut kept, false), [mapping(2, 0x2000)]);
    assert_eq!(kept.held(), 0);
}

#[test]
fn without_room_the_oldest_goes() {
    let mut kept = kept(8);
    for i in 0..8 {
        assert_eq!(kept.put(mapping(i, i)), Ok(None));
        kept.step();
    }
    assert_eq!(kept.put(mapping(8, 8)), Ok(Some(mapping(0, 0))));
    assert_eq!(kept.put(mapping(9, 9)), Ok(Some(mapping(1, 1))));
    assert_eq!(kept.held(), 8);
    // No places at all.
    let mut none = Kept::new(Vec::new(), u64::MAX);
    assert_eq!(none.put(mapping(1, 1)), Ok(Some(mapping(1, 1))));
    assert_eq!((none.take(1, 1, 2), none.held()), (None, 0));
}

#[test]
fn what_is_kept_is_not_kept_again() {
    let mut kept = kept(64);
    kept.put(mapping(1, 0x1000)).unwrap();
    let again = Mapping {
        pages: 2,
        access: 1,
        ..mapping(1, 0x1000)
    };
    assert_eq!(kept.put(again), Err(Doubled));
    assert_eq!(all(&mut kept, true), [mapping(1, 0x1000)]);
    // When it has gone it may come again.
    assert_eq!(kept.put(again), Ok(None));
}

#[test]
fn pages_have_a_limit() {
    let mut kept = Kept::new(vec![Slot::default(); 8], 10);
    let of = |frame, pages| Mapping {
        pages,
        ..mapping(frame, frame)
    };
    assert_eq!(kept.put(of(1, 11)), Ok(Some(of(1, 11))));
    assert_eq!(kept.put(of(1, 4)), Ok(None));
    assert_eq!(kept.put(of(2, 6)), Ok(None));
    assert_eq!(kept.put(of(3, 1)), Ok(Some(of(3, 1))));
    assert_eq!(kept.take(1, 4, 2), Some(1));
    assert_eq!(kept.put(of(3, 1)), Ok(None));
    assert_eq!((kept.put(of(4, 4)), kept.held()), (Ok(Some(of(4, 4))), 2));
    assert_eq!(all(&mut kept, true).len(), 2);
    assert_eq!(kept.put(of(5, 10)), Ok(None));
    // One that is pushed out makes room.
    let mut full = Kept::new(vec![Slot::default(); 8], 8);
    for i in 0..8 {
        assert_eq!(full.put(of(i, 1)), Ok(None));
        full.step();
    }
    assert_eq!(full.put(of(8, 1)), Ok(Some(of(0, 1))));
    assert_eq!(full.put(of(9, 2)), Ok(Some(of(9, 2))));
}

#[test]
fn aligned_buffers_find_their_places() {
    // 512 single pages, of buffers aligned to 128 KB; and 64 that are 2 MB apart.
    for step in [1, 32, 512] {
        let mut kept = kept(1016);
        for i in 0..512 {
            assert_eq!(kept.put(mapping(i * step, i)), Ok(None), "{step} {i}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u32, i32),
    Unmap(usize),
    /// What was unmapped, once more.
    Again(usize),
    Tick,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..20u64, 1..3u32, 0..3i32).prop_map(|(f, p, a)| Step::Map(f, p, a)),
        8 => any::<prop::sample::Index>().prop_map(|i| Step::Unmap(i.index(1000))),
        2 => any::<prop::sample::Index>().prop_map(|i| Step::Again(i.index(1000))),
        2 => Just(Step::Tick),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Each DMA address is in use, kept or gone; kept ones lead where they did.
    #[test]
    fn nothing_is_lost_and_nothing_given_twice(steps in prop::collection::vec(step(), 1..200)) {
        const MOST: u64 = 16;
        let mut kept = Kept::new(vec![Slot::default(); 24], MOST);
        let mut used: Vec<Mapping> = Vec::new();
        let mut parked: BTreeMap<u64, (Mapping, u32)> = BTreeMap::new();
        let (mut next, mut now) = (0, 0);
        for step in steps {
            match step {
                Step::Map(frame, pages, access) => {
                    let iova = kept.take(frame, pages, access);
                    let wanted = |m: &Mapping| (m.frame, m.pages, m.access) == (frame, pages, access);
                    match iova {
                        Some(iova) => {
                            let (mapping, _) = parked.remove(&iova).expect("given twice");
                            prop_assert!(wanted(&mapping));
                            used.push(mapping);
                        }
                        None => {
                            prop_assert!(!parked.values().any(|(m, _)| wanted(m)));
                            used.push(Mapping { frame, iova: next, pages, access });
                            next += 1;
                        }
                    }
                }
                Step::Unmap(i) => {
                    if used.is_empty() {
                        continue;
                    }
                    let mapping = used.swap_remove(i % used.len());
                    parked.insert(mapping.iova, (mapping, now));
                    if let Some(gone) = kept.put(mapping).expect("not doubled") {
                        prop_assert_eq!(parked.remove(&gone.iova).map(|(m, _)| m), Some(gone));
                    }
                }
                Step::Again(i) => {
                    let Some((mapping, _)) = parked.values().nth(i % parked.len().max(1)) else {
                        continue;
                    };
                    prop_assert_eq!(kept.put(*mapping), Err(Doubled));
                }
                Step::Tick => {
                    kept.step();
                    now += 1;
                    for gone in all(&mut kept, false) {
                        let (mapping, since) = parked.remove(&gone.iova).expect("gone twice");
                        prop_assert!(mapping == gone && now - since >= 2);
                    }
                    prop_assert!(parked.values().all(|(_, since)| now - since < 2));
                }
                Step::Drain => {
                    for gone in all(&mut kept, true) {
                        prop_assert!(parked.remove(&gone.iova).is_some());
                    }
                    prop_assert!(parked.is_empty());
                }
            }
            prop_assert_eq!(kept.held(), parked.len());
            let pages: u64 = parked.values().map(|(m, _)| u64::from(m.pages)).sum();
            prop_assert!(pages <= MOST);
        }
    }
}
