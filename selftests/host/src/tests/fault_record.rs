// SPDX-License-Identifier: GPL-2.0

use crate::fault_record::{Access, FaultRecord, Reason, Request, F_WORD_CLEAR, F_WORD_OFFSET};
use iommu::source_id::SourceId;
use proptest::prelude::*;

const FAULT: u64 = 1 << 63;
const TYPE1: u64 = 1 << 62;
const TYPE2: u64 = 1 << 28;

#[test]
fn record_seen_in_qemu() {
    // edu reads an unmapped address; the low bits of the address are not the fault's.
    let record = FaultRecord::decode(0, [0xdead_b000 | 0x123, 0xc000_0006_0000_0018]).unwrap();
    assert_eq!(record.source, SourceId::new(0, 0, 3 << 3));
    assert_eq!(record.reason, Reason(6));
    let access = Access::Read;
    assert_eq!(
        record.request,
        Request::Memory {
            access,
            address: 0xdead_b000,
            pasid: None
        }
    );
    assert_eq!(
        record.to_string(),
        "0000:00:03.0: read at 0xdeadb000 refused: reason 0x06, page is not readable"
    );
}

#[test]
fn access_types() {
    for (bits, expected, text) in [
        (0, Access::Write, "write"),
        (TYPE1, Access::Read, "read"),
        (TYPE2, Access::PageRequest, "page request"),
        (TYPE1 | TYPE2, Access::Atomic, "atomic"),
    ] {
        let record = FaultRecord::decode(0, [0, FAULT | bits | (5 << 32)]).unwrap();
        let Request::Memory { access, .. } = record.request else {
            panic!("{record}");
        };
        assert_eq!(access, expected);
        assert_eq!(access.to_string(), text);
    }
}

#[test]
fn pasid_is_given_only_when_present() {
    let pasid_of = |high: u64| match FaultRecord::decode(0, [0, FAULT | high]).unwrap().request {
        Request::Memory { pasid, .. } => pasid,
        Request::Interrupt { .. } => panic!("not an interrupt"),
    };
    assert_eq!(pasid_of(0xa_bcde << 40), None);
    assert_eq!(pasid_of((0xa_bcde << 40) | (1 << 31)), Some(0xa_bcde));
    assert_eq!(pasid_of(1 << 31), Some(0));
    // AT (bits 61:60) is next to the PASID.
    assert_eq!(pasid_of((3 << 60) | (1 << 31)), Some(0));
    let record =
        FaultRecord::decode(0, [0, FAULT | (0x12 << 40) | (1 << 31) | (0x58 << 32)]).unwrap();
    assert_eq!(
        record.to_string(),
        "0000:00:00.0: write at 0x0 with PASID 0x12 refused: reason 0x58, refused in scalable mode"
    );
}

#[test]
fn interrupts_have_an_index_and_no_address() {
    let record = FaultRecord::decode(2, [0x1234 << 48, FAULT | (0x22 << 32) | 0xfa]).unwrap();
    assert_eq!(record.request, Request::Interrupt { index: 0x1234 });
    assert_eq!(
        record.to_string(),
        "0002:00:1f.2: interrupt 4660 refused: reason 0x22, no interrupt remapping entry"
    );
}

#[test]
fn an_empty_record_holds_no_fault() {
    assert_eq!(FaultRecord::decode(0, [u64::MAX, !FAULT]), None);
}

#[test]
fn the_fault_bit_is_cleared_where_it_stands() {
    // Bit 127 of the record, as seen in a 32-bit word.
    assert_eq!(F_WORD_OFFSET * 8 + 31, 127);
    assert_eq!(F_WORD_CLEAR, 1 << 31);
}

#[test]
fn reasons_of_legacy_mode_have_different_texts() {
    let texts: Vec<_> = (0x01..=0x0d)
        .chain(0x20..=0x26)
        .map(|raw| Reason(raw).text())
        .collect();
    for (at, text) in texts.iter().enumerate() {
        assert!(!texts[..at].contains(text), "{text}");
        assert_ne!(*text, Reason(0).text());
    }
    assert_eq!(Reason(0xff).text(), "unknown reason");
}

proptest! {
    #[test]
    fn every_record_is_decoded(segment: u16, low: u64, high: u64) {
        let record = FaultRecord::decode(segment, [low, high | FAULT]).unwrap();
        prop_assert_eq!(u64::from(record.source.requester_id()), high & 0xffff);
        prop_assert_eq!(record.source.segment(), segment);
        prop_assert_eq!(u64::from(record.reason.0), (high >> 32) & 0xff);
        let text = record.to_string();
        prop_assert!(text.starts_with(&record.source.to_string()) && !text.contains('\n'));
    }
}
