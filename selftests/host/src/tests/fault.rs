// SPDX-License-Identifier: GPL-2.0

//! Refused requests that wait to be reported, against a model; and what is reported of a unit's records.

use std::collections::VecDeque;

use iommu::{
    fault::{waiting::Waiting, Refused},
    source_id::SourceId,
};
use proptest::prelude::*;

use crate::{event::Event, fault_record::FaultRecord, virtio};

fn refused(iova: u64) -> Refused {
    Refused {
        source: SourceId::new(0, 0, 8),
        iova,
        write: iova % 2 == 1,
    }
}

#[test]
fn a_burst_keeps_its_beginning() {
    let mut waiting = Waiting::<6>::empty();
    for i in 0..5 {
        waiting.put(refused(i));
    }
    let all: Vec<_> = std::iter::from_fn(|| waiting.take()).collect();
    assert_eq!(all, [refused(0), refused(1), refused(2)]);
    assert_eq!(waiting.dropped(), 2);
    waiting.put(refused(7));
    assert_eq!(waiting.take(), Some(refused(7)));
    assert_eq!((waiting.take(), waiting.dropped()), (None, 2));
}

#[test]
fn one_device_leaves_room_for_others() {
    let mut waiting = Waiting::<8>::empty();
    for i in 0..20 {
        waiting.put(refused(i));
    }
    let other = Refused {
        source: SourceId::new(0, 0, 16),
        ..refused(7)
    };
    waiting.put(other);
    let all: Vec<_> = std::iter::from_fn(|| waiting.take()).collect();
    assert_eq!(all, [refused(0), refused(1), refused(2), refused(3), other]);
    assert_eq!(waiting.dropped(), 16);
}

proptest! {
    #[test]
    fn what_comes_is_taken_in_order_or_counted(steps in prop::collection::vec(prop::option::of(0..4u8), 0..300)) {
        let mut waiting = Waiting::<8>::empty();
        let mut model = VecDeque::new();
        let mut dropped = 0;
        for (i, step) in steps.into_iter().enumerate() {
            if let Some(device) = step {
                let came = Refused { source: SourceId::new(0, 0, device), ..refused(i as u64) };
                waiting.put(came);
                let own = model.iter().filter(|waiting: &&Refused| waiting.source == came.source);
                if model.len() < 8 && own.count() < 4 {
                    model.push_back(came);
                } else {
                    dropped += 1;
                }
            } else {
                prop_assert_eq!(waiting.take(), model.pop_front());
            }
            prop_assert_eq!(waiting.dropped(), dropped);
        }
    }
}

fn vtd(low: u64, high: u64) -> Option<(u64, bool)> {
    let record = FaultRecord::decode(0, [low, (1 << 63) | high | 8]).unwrap();
    let refused = record.refused()?;
    assert_eq!(refused.source, SourceId::new(0, 0, 8));
    Some((refused.iova, refused.write))
}

#[test]
fn vtd_reports_accesses_to_memory() {
    let (read, other, not_readable) = (1 << 62, 1 << 28, 6 << 32);
    assert_eq!(vtd(0x5123, read | not_readable), Some((0x5000, false)));
    assert_eq!(vtd(0x5123, not_readable), Some((0x5000, true)));
    assert_eq!(
        vtd(0x5123, read | other | not_readable),
        Some((0x5000, true))
    );
    assert_eq!(vtd(0x5123, other | not_readable), None);
    // With a PASID, and an interrupt.
    assert_eq!(vtd(0x5123, read | (1 << 31) | not_readable), None);
    assert_eq!(vtd(0x5123, read | (0x22 << 32)), None);
}

#[test]
fn vtd_reports_what_a_page_table_refused() {
    for reason in 0..=0xff_u64 {
        let reported = [0x04, 0x05, 0x06, 0x0c].contains(&reason);
        assert_eq!(vtd(0x5123, reason << 32).is_some(), reported, "{reason:#x}");
    }
}

fn amd(code: u64, flags: u64) -> Option<(u64, bool)> {
    let event = Event::decode(0, [(code << 60) | (flags << 48) | 8, 0x5123]).unwrap();
    let refused = event.refused()?;
    assert_eq!(refused.source, SourceId::new(0, 0, 8));
    Some((refused.iova, refused.write))
}

#[test]
fn amdvi_reports_page_faults() {
    let (present, write, translation, page_fault) = (1 << 4, 1 << 5, 1 << 8, 2);
    assert_eq!(amd(page_fault, present), Some((0x5123, false)));
    assert_eq!(amd(page_fault, present | write), Some((0x5123, true)));
    // What it was is not told.
    assert_eq!(amd(page_fault, write), Some((0x5123, false)));
    assert_eq!(amd(page_fault, translation), None);
    for code in [1, 3, 4, 5, 6, 7, 8, 9] {
        assert_eq!(amd(code, 0), None, "{code}");
    }
}

#[test]
fn virtio_reports_what_has_an_address() {
    let of = |flags: u32| {
        let mut bytes = [0; virtio::event::SIZE];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[16..].copy_from_slice(&0x5123u64.to_le_bytes());
        let fault = virtio::event::Fault::decode(&bytes, bytes.len()).unwrap();
        let refused = fault.refused(SourceId::new(0, 0, 8));
        refused.map(|refused| (refused.iova, refused.write))
    };
    let (read, write, address) = (1, 2, 1 << 8);
    assert_eq!(of(address | read), Some((0x5123, false)));
    assert_eq!(of(address | write), Some((0x5123, true)));
    assert_eq!(of(address), Some((0x5123, false)));
    assert_eq!(of(read | write), None);
}
