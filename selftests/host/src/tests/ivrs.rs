// SPDX-License-Identifier: GPL-2.0

use super::dmar_bytes::{fix_checksum, seal};
use super::ivrs_bytes::{block, ivmd, long, named, short, table, Ivhd, BODY, QEMU};
use crate::{
    ivhd::{self, Entry, Settings, Special},
    ivrs::{Error, Flags, Ivrs, Reason, MAX_UNITS},
};
use iommu::acpi::structures::Fault as F;
use proptest::prelude::*;

const BASE: u64 = 0xfed8_0000;

fn unit(entries: &[Vec<u8>]) -> Vec<u8> {
    Ivhd::new(BASE, entries).bytes()
}

/// The error of a table with one good IOMMU and then this block.
fn error_of(bytes: Vec<u8>) -> (usize, Reason) {
    let first = Ivhd::new(0xfd00_0000, &[]).bytes();
    let start = BODY + first.len();
    let error = Ivrs::parse(&table(&[first, bytes])).unwrap_err();
    (error.offset - start, error.reason)
}

/// The error of an IOMMU with these device entries, and its offset from the first of them.
fn entry_error(entries: &[Vec<u8>]) -> (usize, ivhd::Reason) {
    let error = Ivrs::parse(&table(&[unit(entries)])).unwrap_err();
    match error.reason {
        Reason::Entry(reason) => (error.offset - BODY - 24, reason),
        other => panic!("{other:?}"),
    }
}

/// Every kind of entry, with a range of each kind.
fn entries() -> Vec<Vec<u8>> {
    vec![
        short(0x00, 0, 0),
        short(0x02, 0x0008, 0xd7),
        short(0x03, 0x0100, 0),
        short(0x04, 0x01ff, 0),
        long(0x42, 0x0210, 0, (0, 0x0200, 0)),
        long(0x43, 0x0308, 0x10, (0, 0x0300, 0)),
        short(0x04, 0x030f, 0),
        long(0x46, 0x0400, 1, (0, 0, 0x80)),
        long(0x47, 0x0500, 2, (0, 0, 0)),
        short(0x04, 0x0507, 0),
        long(0x48, 0, 0xd7, (4, 0x00a0, 1)),
        long(0x48, 0, 0, (1, 0x00a1, 2)),
        named(0x0600, b"\\_SB.FUR0"),
        long(0x40, 0, 0, (0, 0, 0)),
    ]
}

fn full() -> Vec<u8> {
    let mut newer = Ivhd::new(BASE, &entries());
    newer.kind = 0x40;
    newer.flags = 0b1111;
    let mut all = Ivhd::new(0xfec0_0000, &[short(0x01, 0, 0x30)]);
    all.function = 0x0102;
    let mut other = Ivhd::new(0xfeb0_0000, &[short(0x02, 0x0008, 0)]);
    other.segment = 1;
    table(&[
        unit(&[short(0x02, 0x0700, 0)]),
        newer.bytes(),
        all.bytes(),
        other.bytes(),
        block(0x77, 0, &[1, 2, 3]),
        ivmd(0x20, 1, (0, 0), 0x9000, 0x1000),
        ivmd(0x21, 0b111, (0x0008, 0), 0xa000, 0x2000),
        ivmd(0x22, 8, (0x0100, 0x0107), 0xb_0000, 0x1000),
        ivmd(0x21, 0, (0x0008, 0), 0x1, 0x1),
    ])
}

#[test]
fn qemus_table_is_read_as_it_is() {
    let ivrs = Ivrs::parse(QEMU).unwrap();
    let units: Vec<_> = ivrs.units().collect();
    assert_eq!(units.len(), 1);
    let unit = units[0];
    assert_eq!((unit.kind, unit.offset), (0x11, 0x80));
    assert_eq!(unit.register_base, BASE);
    assert_eq!((unit.function, unit.capability, unit.segment), (8, 0x40, 0));
    assert_eq!(unit.features, Some(0x29d3));
    assert!(unit.host_tables);
    assert_eq!(ivrs.address_bits(), 64, "it says nothing");
    assert_eq!(Ivrs::accepted(QEMU).units().next(), Some(unit));
    assert_eq!(unit.flags, Flags(0x11));
    assert_eq!(unit.last_id(), 0x02ff);
    for id in [0x0000, 0x0020, 0x0100, 0x01ff, 0x0200, 0x00a0] {
        assert_eq!(ivrs.owner(0, id).unwrap().offset, unit.offset, "{id:#x}");
    }
    assert!(ivrs.owner(0, 0x0300).is_none() && ivrs.owner(1, 0).is_none());
    assert_eq!(ivrs.memory().count(), 0);
}

#[test]
fn every_entry_is_understood() {
    let bytes = full();
    let ivrs = Ivrs::parse(&bytes).unwrap();
    let units: Vec<_> = ivrs.units().collect();
    let bases: Vec<_> = units.iter().map(|u| u.register_base).collect();
    // Of the two descriptions of the first one, the newer.
    assert_eq!(bases, [BASE, 0xfec0_0000, 0xfeb0_0000]);
    let unit = units[0];
    assert!(unit.flags.tunnel() && unit.flags.pass_posted());
    assert!(unit.flags.response_pass_posted() && unit.flags.isochronous());
    assert_eq!(unit.entries().count(), 9);
    assert!(!unit.takes_all() && units[1].takes_all());

    let ids = |entry: &Entry| match *entry {
        Entry::Ids {
            first, last, alias, ..
        } => Some((first, last, alias)),
        _ => None,
    };
    let ranges: Vec<_> = unit.entries().filter_map(|e| ids(&e)).collect();
    assert_eq!(
        ranges,
        [
            (0x0008, 0x0008, None),
            (0x0100, 0x01ff, None),
            (0x0210, 0x0210, Some(0x0200)),
            (0x0308, 0x030f, Some(0x0300)),
            (0x0400, 0x0400, None),
            (0x0500, 0x0507, None),
        ]
    );
    let special: Vec<_> = unit
        .entries()
        .filter_map(|e| match e {
            Entry::Special { device, id, .. } => Some((device, id)),
            _ => None,
        })
        .collect();
    let wanted = [(Special::IoApic(4), 0x00a0), (Special::Hpet(1), 0x00a1)];
    assert_eq!(special, wanted);

    assert_eq!(unit.alias(0x0210), Some(0x0200));
    assert_eq!(unit.alias(0x030a), Some(0x0300));
    assert_eq!(unit.alias(0x0200), None);
    assert_eq!(unit.settings(0x0008), Settings(0xd7));
    assert_eq!(unit.settings(0x0300), Settings(0x10));
    assert_eq!(unit.settings(0x0999), Settings(0));
    assert_eq!(units[1].settings(0x0999), Settings(0x30));
    assert_eq!(unit.last_id(), 0x0600);
    assert_eq!(units[1].last_id(), 0xffff);
}

#[test]
fn ids_have_the_owner_that_names_them() {
    let bytes = full();
    let ivrs = Ivrs::parse(&bytes).unwrap();
    let owner = |segment, id| ivrs.owner(segment, id).map(|u| u.register_base);
    for id in [0x0008, 0x0155, 0x0200, 0x0210, 0x0300, 0x00a1, 0x0600] {
        assert_eq!(owner(0, id), Some(BASE), "{id:#x}");
    }
    // Not even what an older description of the first one names.
    assert_eq!(owner(0, 0x0700), Some(0xfec0_0000));
    assert_eq!(owner(1, 0x0008), Some(0xfeb0_0000));
    assert_eq!(owner(1, 0x0009), None);
    assert_eq!(owner(2, 0x0008), None);
}

#[test]
fn memory_is_for_whom_it_names() {
    let bytes = full();
    let ivrs = Ivrs::parse(&bytes).unwrap();
    let of = |segment, id| -> Vec<_> {
        let covering = ivrs.memory().filter(|m| m.covers(segment, id));
        covering.map(|m| (m.start, m.length)).collect()
    };
    assert_eq!(of(0, 0x0008), [(0x9000, 0x1000), (0xa000, 0x2000)]);
    assert_eq!(of(0, 0x0107), [(0x9000, 0x1000), (0xb_0000, 0x1000)]);
    assert_eq!(of(0, 0x0108), [(0x9000, 0x1000)]);
    assert_eq!(of(1, 0x0008), []);
}

/// Where the blocks of a table end, as the lengths in it say.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![BODY];
    while *ends.last().unwrap() < bytes.len() {
        let at = *ends.last().unwrap();
        ends.push(at + usize::from(u16::from_le_bytes([bytes[at + 2], bytes[at + 3]])));
    }
    ends
}

#[test]
fn every_cut_is_an_error() {
    for bytes in [full(), QEMU.to_vec()] {
        let ends = ends(&bytes);
        assert_eq!(ends.last(), Some(&bytes.len()));
        let mut tables = 0;
        for length in 0..bytes.len() {
            let mut cut = bytes[..length].to_vec();
            // As it is: the header's length says that something is missing.
            assert!(Ivrs::parse(&cut).is_err(), "{length}");
            // And with a header that fits: a cut between two blocks is a table, if an IOMMU is left.
            seal(&mut cut);
            let good = ends[1..].contains(&length);
            assert_eq!(Ivrs::parse(&cut).is_ok(), good, "{length}");
            tables += usize::from(good);
        }
        assert_eq!(tables, ends.len() - 2);
    }
}

#[test]
fn an_iommu_without_host_tables_says_so() {
    for kind in [0x10, 0x11, 0x40] {
        let mut one = Ivhd::new(BASE, &[]);
        one.kind = kind;
        let mut tables = |attributes| {
            one.attributes = attributes;
            let bytes = table(&[one.bytes()]);
            let first = Ivrs::parse(&bytes).unwrap().units().next().unwrap();
            first.host_tables
        };
        // In the oldest type the bit means something else.
        assert_eq!([!1, 1].map(&mut tables), [true, kind == 0x10], "{kind:#x}");
    }
}

#[test]
fn addresses_have_the_bits_that_the_header_says() {
    let mut bytes = table(&[unit(&[])]);
    for (field, bits) in [(0, 64), (32, 32), (40, 40), (48, 48), (64, 64), (127, 127)] {
        // All other fields are ones.
        let info = !(0x7fu32 << 15) | field << 15;
        bytes[36..40].copy_from_slice(&info.to_le_bytes());
        fix_checksum(&mut bytes);
        assert_eq!(Ivrs::parse(&bytes).unwrap().address_bits(), bits);
    }
}

#[test]
fn every_cut_of_the_entries_is_an_error() {
    let whole = entries().concat();
    let mut starts = vec![0];
    for entry in entries() {
        starts.push(starts.last().unwrap() + entry.len());
    }
    for length in 0..whole.len() {
        let cut = vec![whole[..length].to_vec()];
        let result = Ivrs::parse(&table(&[unit(&cut)])).map(|_| ());
        // Between two entries, but not within a range.
        let good = starts.contains(&length) && !matches!(length, 12 | 32 | 52);
        assert_eq!(result.is_ok(), good, "{length}: {result:?}");
    }
}

#[test]
fn mistakes_of_the_header_are_found() {
    let error = |bytes: &[u8]| {
        let Error { offset, reason } = Ivrs::parse(bytes).unwrap_err();
        (offset, reason)
    };
    let good = table(&[unit(&[])]);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(error(&with(0, b'X')), (0, Reason::Form(F::Signature)));
    let sum = with(20, 0x55)[20].wrapping_sub(good[20]);
    assert_eq!(error(&with(20, 0x55)), (9, Reason::Form(F::Checksum(sum))));
    assert_eq!(error(&with(4, 47)), (4, Reason::Form(F::TableLength(47))));
    let longer = good.len() as u32 + 1;
    assert_eq!(
        error(&with(4, longer as u8)),
        (4, Reason::Form(F::TableLength(longer)))
    );
    let mut bytes = good.clone();
    bytes.extend([1, 2, 3]);
    assert!(Ivrs::parse(&bytes).is_ok(), "what follows is not looked at");
    assert_eq!(error(&table(&[])), (BODY, Reason::NoUnits));
}

#[test]
fn mistakes_of_blocks_are_found() {
    let kind = 0x10;
    assert_eq!(
        error_of(vec![0x10, 0]),
        (0, Reason::Form(F::ShortStructure))
    );
    let short_one = block(0x10, 0, &[0; 19]);
    let length = 23;
    assert_eq!(
        error_of(short_one),
        (0, Reason::Form(F::StructureLength { kind, length }))
    );
    for (kind, least) in [(0x11, 40), (0x40, 40), (0x20, 32), (0x21, 32), (0x22, 32)] {
        let length = least - 1;
        let bytes = block(kind, 0, &vec![0; usize::from(length) - 4]);
        assert_eq!(
            error_of(bytes),
            (
                0,
                Reason::Form(F::StructureLength {
                    kind: kind.into(),
                    length
                })
            )
        );
    }
    // One that never ends, as its length is 0.
    let (kind, length) = (0x99, 0);
    assert_eq!(
        error_of(vec![0x99, 0, 0, 0]),
        (0, Reason::Form(F::StructureLength { kind, length }))
    );
    let length = 5;
    assert_eq!(
        error_of(vec![0x99, 0, 5, 0]),
        (0, Reason::Form(F::StructureBeyond { kind, length }))
    );
    for base in [0, BASE + 0x1000, 1 << 52, u64::MAX & !0x3fff] {
        let bytes = Ivhd::new(base, &[]).bytes();
        assert_eq!(
            error_of(bytes),
            (0, Reason::RegisterBase(base)),
            "{base:#x}"
        );
    }
    let mut twin = Ivhd::new(0xfd00_0000, &[]);
    assert_eq!(
        error_of(twin.bytes()),
        (0, Reason::DuplicateBase(twin.base))
    );
    twin.kind = 0x11;
    assert!(Ivrs::parse(&table(&[Ivhd::new(twin.base, &[]).bytes(), twin.bytes()])).is_ok());
    twin.function = 3;
    assert_eq!(
        error_of(twin.bytes()),
        (0, Reason::DuplicateBase(twin.base))
    );
}

#[test]
fn too_many_are_refused() {
    let units: Vec<_> = (0..=MAX_UNITS as u64)
        .map(|n| {
            let mut one = Ivhd::new(BASE + n * 0x4000, &[]);
            one.function = u16::try_from(n).unwrap();
            one.bytes()
        })
        .collect();
    assert!(Ivrs::parse(&table(&units[1..])).is_ok());
    let error = Ivrs::parse(&table(&units)).unwrap_err();
    assert_eq!(error.reason, Reason::TooManyUnits);
}

#[test]
fn mistakes_of_entries_are_found() {
    use ivhd::Reason::*;
    let one = short(0x02, 8, 0);
    assert_eq!(entry_error(&[one.clone(), vec![0x02, 8]]), (4, Short(0x02)));
    assert_eq!(entry_error(&[vec![0x48, 0, 0, 0]]), (0, Short(0x48)));
    assert_eq!(entry_error(&[vec![0x80, 0, 0, 0]]), (0, Unknown(0x80)));
    let mut name = named(1, b"UID");
    name.pop();
    assert_eq!(entry_error(&[name]), (0, Short(0xf0)));
    let (begin, end) = (short(0x03, 0x100, 0), short(0x04, 0x1ff, 0));
    assert_eq!(entry_error(&[end.clone()]), (0, RangeClosed));
    assert_eq!(entry_error(&[begin.clone()]), (4, RangeOpen));
    assert_eq!(entry_error(&[begin.clone(), one, end]), (4, RangeOpen));
    assert_eq!(
        entry_error(&[begin, short(0x04, 0xff, 0)]),
        (4, RangeOrder(0x100, 0xff))
    );
}

#[test]
fn mistakes_of_memory_are_found() {
    for (start, length) in [(0x1000, 0), (u64::MAX & !0xfff, 0x2000), (1 << 52, 0x1000)] {
        let bytes = ivmd(0x20, 1, (0, 0), start, length);
        assert_eq!(error_of(bytes), (0, Reason::Range { start, length }));
    }
    for (start, length) in [(0x1001, 0x1000), (0x1000, 0xfff)] {
        let bytes = ivmd(0x20, 8, (0, 0), start, length);
        assert_eq!(
            error_of(bytes),
            (0, Reason::RangeAlignment { start, length })
        );
    }
    let bytes = ivmd(0x22, 1, (9, 8), 0x1000, 0x1000);
    assert_eq!(error_of(bytes), (0, Reason::RangeOrder(9, 8)));
    // A range that says nothing may say anything.
    let bytes = ivmd(0x22, 6, (9, 8), 0x1001, 0);
    assert!(Ivrs::parse(&table(&[unit(&[]), bytes])).is_ok());
}

#[test]
fn errors_are_one_line() {
    let error = Ivrs::parse(&table(&[unit(&[short(0x04, 8, 0)])])).unwrap_err();
    let wanted = "IVRS table, offset 0x48: a range of devices ends that was not begun";
    assert_eq!(error.to_string(), wanted);
}

proptest! {
    /// Any bytes are read, or refused, without a panic; and what is accepted can be walked.
    #[test]
    fn anything_is_read_or_refused(at in 0usize..400, value: u8, more in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = full();
        let at = at % bytes.len();
        bytes[at] = value;
        let end = (at + more.len()).min(bytes.len());
        let room = end - at;
        bytes[at..end].copy_from_slice(&more[..room]);
        fix_checksum(&mut bytes);
        if let Ok(ivrs) = Ivrs::parse(&bytes) {
            for unit in ivrs.units() {
                prop_assert!(unit.offset >= BODY && unit.offset < bytes.len());
                for entry in unit.entries() {
                    prop_assert!(entry.last_id() <= unit.last_id());
                    let owner = ivrs.owner(unit.segment, entry.last_id());
                    prop_assert!(owner.is_some());
                }
            }
            for memory in ivrs.memory() {
                prop_assert!(memory.covers(memory.segment, memory.last));
            }
        }
    }

    /// A requester id is named by those ranges that it lies in.
    #[test]
    fn ranges_name_what_lies_in_them(first: u16, length in 0u16..512, id: u16) {
        let last = first.saturating_add(length);
        let bytes = table(&[unit(&[short(0x03, first, 0), short(0x04, last, 0)])]);
        let ivrs = Ivrs::parse(&bytes).unwrap();
        prop_assert_eq!(ivrs.owner(0, id).is_some(), (first..=last).contains(&id));
        prop_assert_eq!(ivrs.units().next().unwrap().last_id(), last);
    }
}
