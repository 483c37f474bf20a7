// SPDX-License-Identifier: GPL-2.0

//! VIOT tables: QEMU's, and what is wrong with them.

use iommu::{acpi::structures::Fault as F, source_id::SourceId};
use proptest::prelude::*;

use crate::virtio::viot::{Reason, Viot, MAX_NODES};

const HEADER: usize = 48;

fn seal(mut table: Vec<u8>, nodes: u16) -> Vec<u8> {
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[36..38].copy_from_slice(&nodes.to_le_bytes());
    table[9] = 0;
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = 0u8.wrapping_sub(sum);
    table
}

fn header() -> Vec<u8> {
    let mut table = vec![0; HEADER];
    table[..4].copy_from_slice(b"VIOT");
    table[38] = HEADER as u8;
    table
}

fn unit(segment: u16, id: u16) -> Vec<u8> {
    let mut node = vec![3, 0, 16, 0];
    node.extend(segment.to_le_bytes());
    node.extend(id.to_le_bytes());
    node.extend([0; 8]);
    node
}

fn range(endpoint: u32, segments: (u16, u16), ids: (u16, u16), unit: u16) -> Vec<u8> {
    let mut node = vec![1, 0, 24, 0];
    node.extend(endpoint.to_le_bytes());
    for field in [segments.0, segments.1, ids.0, ids.1, unit] {
        node.extend(field.to_le_bytes());
    }
    node.extend([0; 6]);
    node
}

/// As QEMU makes it: the unit at 00:02.0, and all of segment 0 behind it.
fn qemu() -> Vec<u8> {
    let mut table = header();
    table.extend(unit(0, 0x10));
    table.extend(range(0, (0, 0), (0, 0xffff), HEADER as u16));
    seal(table, 2)
}

fn function(segment: u16, id: u16) -> SourceId {
    SourceId::from_requester_id(segment, id)
}

fn reason(table: &[u8]) -> Reason {
    Viot::parse(table).unwrap_err().reason
}

#[test]
fn qemus_table() {
    let table = qemu();
    let viot = Viot::parse(&table).unwrap();
    let units: Vec<_> = viot.pci_units().map(|unit| unit.id).collect();
    assert_eq!(units, [function(0, 0x10)]);
    let (unit, endpoint) = viot.endpoint(function(0, 0x100)).unwrap();
    assert_eq!((unit.id, endpoint), (function(0, 0x10), 0x100));
    let again = Viot::accepted(&table).endpoint(function(0, 0x100));
    assert_eq!(again, Some((unit, endpoint)));
    // The unit is not behind itself, and other segments are behind none.
    assert!(viot.endpoint(function(0, 0x10)).is_none());
    assert!(viot.endpoint(function(1, 0x100)).is_none());
    assert_eq!(
        viot.function(function(0, 0x10), 0x1ff),
        Some(function(0, 0x1ff))
    );
    assert_eq!(viot.function(function(0, 0x10), 0x1_0000), None);
    assert_eq!(viot.function(function(0, 0x18), 0x1ff), None);
}

#[test]
fn ranges_over_segments() {
    let mut table = header();
    table.extend(unit(0, 0x10));
    table.extend(unit(3, 0x20));
    table.extend(range(0x1000, (1, 2), (0x100, 0x1ff), HEADER as u16 + 16));
    table.extend(range(7, (0, 0), (0x30, 0x30), HEADER as u16));
    let table = seal(table, 4);
    let viot = Viot::parse(&table).unwrap();
    let at = |segment, id| {
        viot.endpoint(function(segment, id))
            .map(|(unit, id)| (unit.id, id))
    };
    assert_eq!(at(1, 0x100), Some((function(3, 0x20), 0x1000)));
    assert_eq!(at(2, 0x1ff), Some((function(3, 0x20), 0x1_10ff)));
    assert_eq!(at(0, 0x30), Some((function(0, 0x10), 7)));
    for (segment, id) in [(0, 0x100), (1, 0xff), (1, 0x200), (3, 0x100), (0, 0x31)] {
        assert_eq!(at(segment, id), None);
    }
    assert_eq!(
        viot.function(function(3, 0x20), 0x1_10ff),
        Some(function(2, 0x1ff))
    );
    assert_eq!(viot.function(function(3, 0x20), 7), None);
    assert_eq!(viot.function(function(0, 0x10), 7), Some(function(0, 0x30)));
}

#[test]
fn every_truncation_is_an_error() {
    let whole = qemu();
    assert!(Viot::parse(&whole).is_ok());
    for length in 0..whole.len() {
        // As it is, and with a length and a checksum that fit.
        assert!(Viot::parse(&whole[..length]).is_err(), "{length}");
        if length >= HEADER {
            let sealed = seal(whole[..length].to_vec(), 2);
            assert!(Viot::parse(&sealed).is_err(), "sealed at {length}");
        }
    }
    let mut longer = whole;
    longer.extend([0xff; 9]);
    assert!(Viot::parse(&longer).is_ok());
}

#[test]
fn every_node_length_is_checked() {
    for node in [unit(0, 0x10), range(0, (0, 0), (0, 0), 48)] {
        for length in 0..=255u8 {
            let mut table = header();
            table.extend(&node);
            table[HEADER + 2] = length;
            let table = seal(table, 1);
            match Viot::parse(&table) {
                Ok(_) => assert!(usize::from(length) == node.len() && node[0] == 3),
                Err(e) if usize::from(length) < node.len() => {
                    assert!(matches!(e.reason, Reason::Form(F::StructureLength { .. })));
                }
                // The range's unit is the range itself, which is none.
                Err(e) if usize::from(length) == node.len() => {
                    assert_eq!(e.reason, Reason::NoUnit(48));
                }
                Err(e) => assert!(matches!(e.reason, Reason::Form(F::StructureBeyond { .. }))),
            }
        }
    }
}

#[test]
fn what_else_is_wrong() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut table = qemu();
        change(&mut table);
        let nodes = u16::from_le_bytes([table[36], table[37]]);
        seal(table, nodes)
    };
    assert_eq!(reason(&with(&|t| t[0] = b'W')), Reason::Form(F::Signature));
    assert_eq!(reason(&with(&|t| t[38] = 47)), Reason::NodeOffset(47));
    assert_eq!(reason(&with(&|t| t[39] = 1)), Reason::NodeOffset(0x130));
    assert_eq!(
        reason(&with(&|t| t[36] = 3)),
        Reason::Form(F::ShortStructure)
    );
    assert_eq!(reason(&with(&|t| t[80] = 49)), Reason::NoUnit(49));
    // First of segments and ids behind the last one.
    assert_eq!(reason(&with(&|t| t[72] = 1)), Reason::RangeOrder);
    assert_eq!(
        reason(&with(&|t| {
            t[76] = 9;
            t[78] = 8;
            t[79] = 0;
        })),
        Reason::RangeOrder
    );
    assert_eq!(
        reason(&with(&|t| t[68..72].copy_from_slice(&[0xff; 4]))),
        Reason::RangeIds
    );
    let mut table = qemu();
    table[9] ^= 1;
    assert!(matches!(reason(&table), Reason::Form(F::Checksum(_))));
    // Unknown nodes are skipped.
    let mut table = header();
    for _ in 0..=MAX_NODES {
        table.extend([200, 0, 4, 0]);
    }
    assert!(Viot::parse(&seal(table.clone(), MAX_NODES)).is_ok());
    assert_eq!(
        reason(&seal(table, MAX_NODES + 1)),
        Reason::TooManyNodes(MAX_NODES + 1)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), nodes in 0..6u16) {
        let _ = Viot::parse(&bytes).map(|_| ());
        let mut table = header();
        table.extend(&bytes);
        let table = seal(table, nodes);
        if let Ok(viot) = Viot::parse(&table) {
            for id in [0, 0x10, 0xffff] {
                if let Some((unit, endpoint)) = viot.endpoint(function(0, id)) {
                    prop_assert!(viot.function(unit.id, endpoint).is_some());
                }
            }
        }
    }
}
