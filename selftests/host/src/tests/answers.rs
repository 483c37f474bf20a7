// SPDX-License-Identifier: GPL-2.0

//! What a virtio device may say of requests, and what of it is taken for an answer.

use iommu::virtio::answers::{Answers, Foreign};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SLOTS: usize = 6;

#[test]
fn what_is_no_answer() {
    let mut answers = Answers::<SLOTS>::new();
    // Nothing was asked.
    for token in [0, 1, SLOTS, SLOTS + 1, usize::MAX] {
        assert_eq!(answers.take(token, 4), Err(Foreign));
    }
    let first = answers.ask(0).unwrap();
    let last = answers.ask(SLOTS - 1).unwrap();
    assert!(first != 0 && last != 0 && first != last);
    // Once only, until it was answered; and there are no more slots.
    assert_eq!(answers.ask(0), None);
    assert_eq!(answers.ask(SLOTS), None);
    assert_eq!(answers.waiting(), 2);
    // Another one's; one beyond; NULL, which the queue takes for none.
    for token in [0, 2, SLOTS + 1, usize::MAX] {
        assert_eq!(answers.take(token, 4), Err(Foreign));
    }
    assert_eq!(answers.take(last, 3), Ok(()));
    assert_eq!((answers.written(SLOTS - 1), answers.waiting()), (3, 1));
    // Twice: what it said first stays.
    assert_eq!(answers.take(last, 4), Err(Foreign));
    assert_eq!((answers.written(SLOTS - 1), answers.waiting()), (3, 1));
    assert_eq!(answers.take(first, u32::MAX), Ok(()));
    assert_eq!(answers.waiting(), 0);
    // It has nothing to say of the request before.
    assert_eq!(answers.ask(0), Some(first));
    assert_eq!(answers.written(0), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    Take(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..SLOTS + 2).prop_map(Step::Ask),
        ((0..SLOTS + 3), any::<u32>()).prop_map(|(token, bytes)| Step::Take(token, bytes)),
        any::<usize>().prop_map(|token| Step::Take(token, 4)),
    ]
}

proptest! {
    /// The model has what is with the device, and what was said last of each slot.
    #[test]
    fn only_what_is_waited_for_is_an_answer(steps in prop::collection::vec(step(), 0..60)) {
        let mut answers = Answers::<SLOTS>::new();
        let mut with_device = BTreeMap::new();
        let mut said = [0; SLOTS];
        for step in steps {
            match step {
                Step::Ask(slot) => {
                    let wanted = slot < SLOTS && !with_device.values().any(|has| *has == slot);
                    let token = answers.ask(slot);
                    prop_assert_eq!(token.is_some(), wanted);
                    if let Some(token) = token {
                        prop_assert!(token != 0);
                        prop_assert_eq!(with_device.insert(token, slot), None);
                        said[slot] = 0;
                    }
                }
                Step::Take(token, bytes) => {
                    let slot = with_device.remove(&token);
                    prop_assert_eq!(answers.take(token, bytes), slot.map(|_| ()).ok_or(Foreign));
                    if let Some(slot) = slot {
                        said[slot] = bytes as usize;
                    }
                }
            }
            prop_assert_eq!(answers.waiting(), with_device.len());
            for (slot, bytes) in said.iter().enumerate() {
                prop_assert_eq!(answers.written(slot), *bytes);
            }
        }
    }
}
