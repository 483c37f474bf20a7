// SPDX-License-Identifier: GPL-2.0

use super::dmar_bytes::{
    drhd, fix_checksum, rmrr, sample, sample_structures, scope, seal, structure, table, BODY,
    ENDPOINT, HPET, INCLUDE_PCI_ALL, IOAPIC, NAMESPACE, SUB_HIERARCHY,
};
use crate::{
    dmar::{Dmar, Error, Reason, MAX_UNITS},
    scope::{Reason as S, ScopeKind},
};
use iommu::{acpi::structures::Fault as F, source_id::SourceId};
use proptest::prelude::*;

fn unit() -> Vec<u8> {
    drhd(0, 0, 0, 0xfed9_0000, &[])
}

/// The error of a table with one good unit and then this structure.
fn error_of(bytes: Vec<u8>) -> (usize, Reason) {
    let first = unit();
    let start = BODY + first.len();
    let error = Dmar::parse(&table(&[first, bytes])).unwrap_err();
    (error.offset - start, error.reason)
}

#[test]
fn sample_is_read_as_it_is() {
    let bytes = sample();
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.host_address_width(), 48);
    let flags = dmar.flags();
    assert!(
        flags.interrupt_remapping() && !flags.x2apic_opt_out() && flags.dma_protection_opt_in()
    );

    let units: Vec<_> = dmar.units().collect();
    let facts: Vec<_> = units
        .iter()
        .map(|u| {
            (
                u.include_pci_all,
                u.segment,
                u.register_base,
                u.register_size,
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            (false, 0, 0xfed9_0000, 4096),
            (false, 0, 0xfed9_2000, 8192),
            (true, 1, 0xfed9_8000, 4096),
            (true, 0, 0xfed9_1000, 4096),
        ]
    );
    assert_eq!(units[0].offset, BODY);
    assert_eq!(units[1].offset, BODY + 24);

    let scopes: Vec<_> = units[1].scopes().collect();
    assert_eq!(scopes[0].kind, ScopeKind::SubHierarchy);
    assert_eq!(scopes[0].start_bus, 0);
    assert_eq!(
        scopes[0].path().collect::<Vec<_>>(),
        [(0x1c, 0), (0, 0), (1, 0)]
    );
    assert_eq!(scopes[1].kind, ScopeKind::Endpoint);
    assert_eq!(scopes[1].start_bus, 0x40);
    assert_eq!(scopes.len(), 2);

    let others: Vec<_> = units[3]
        .scopes()
        .map(|s| (s.kind, s.enumeration_id))
        .collect();
    assert_eq!(
        others,
        [
            (ScopeKind::IoApic, 2),
            (ScopeKind::Hpet, 0),
            (ScopeKind::Namespace, 1),
            (ScopeKind::Unknown(0x77), 9),
        ]
    );

    let regions: Vec<_> = dmar.reserved_regions().collect();
    assert_eq!(
        (regions[0].base, regions[0].limit),
        (0xbdc0_0000, 0xbfff_ffff)
    );
    assert_eq!(
        (regions[1].base, regions[1].limit),
        (0x8b5a_8000, 0x8b5a_8fff)
    );
    assert_eq!((regions[1].segment, regions[1].scopes().count()), (0, 2));
    assert_eq!(regions.len(), 2);
    assert!(regions[1].offset > regions[0].offset);
}

#[test]
fn bytes_after_the_table_are_not_part_of_it() {
    let mut bytes = sample();
    let expected = Dmar::parse(&bytes).unwrap().units().count();
    bytes.extend([0xff; 100]);
    assert_eq!(Dmar::parse(&bytes).unwrap().units().count(), expected);
}

/// A table that is cut but still claims its length never parses; one whose length and checksum say
/// that it is shorter parses where a structure ends, with what stands before that.
#[test]
fn truncated_at_every_length_is_an_error_or_a_whole_prefix() {
    let bytes = sample();
    let full: Vec<_> = Dmar::parse(&bytes)
        .unwrap()
        .units()
        .map(|u| u.register_base)
        .collect();
    let mut ends = vec![BODY];
    for structure in sample_structures() {
        ends.push(ends[ends.len() - 1] + structure.len());
    }
    let mut parsed = 0;
    for length in 0..bytes.len() {
        let mut cut = bytes[..length].to_vec();
        let error = Dmar::parse(&cut).unwrap_err();
        let expected = match length {
            0..BODY => Reason::Form(F::ShortTable),
            _ => Reason::Form(F::TableLength(u32::try_from(bytes.len()).unwrap())),
        };
        assert_eq!(error.reason, expected, "cut at {length}");

        fix_checksum(&mut cut);
        assert_eq!(
            Dmar::parse(&cut).unwrap_err().reason,
            expected,
            "cut at {length}"
        );

        seal(&mut cut);
        match Dmar::parse(&cut) {
            Ok(dmar) => {
                assert!(ends[1..].contains(&length), "cut at {length}");
                let units: Vec<_> = dmar.units().map(|u| u.register_base).collect();
                assert!(
                    !units.is_empty() && full.starts_with(&units),
                    "cut at {length}"
                );
                parsed += 1;
            }
            Err(error) if length == BODY => assert_eq!(error.reason, Reason::NoUnits),
            Err(error) => {
                assert!(!ends.contains(&length), "cut at {length}: {error}");
                assert!(error.offset <= length, "cut at {length}: {error}");
            }
        }
    }
    assert_eq!(
        parsed,
        ends.len() - 2,
        "every end but that of the whole table"
    );
}

#[test]
fn header_errors() {
    let bytes = table(&[unit()]);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let Error { offset, reason } = Dmar::parse(&bytes).unwrap_err();
        (offset, reason)
    };
    assert_eq!(with(Vec::clear), (0, Reason::Form(F::ShortTable)));
    assert_eq!(with(|b| b[3] = b'P'), (0, Reason::Form(F::Signature)));
    assert_eq!(with(|b| b[4] = 47), (4, Reason::Form(F::TableLength(47))));
    assert_eq!(with(|b| b[4] += 1), (4, Reason::Form(F::TableLength(65))));
    assert_eq!(
        with(|b| b[7] = 0xff),
        (4, Reason::Form(F::TableLength(0xff00_0040)))
    );
    assert_eq!(
        with(|b| b[9] = b[9].wrapping_add(3)),
        (9, Reason::Form(F::Checksum(3)))
    );
    let width = |b: &mut Vec<u8>, width| {
        b[36] = width;
        fix_checksum(b);
    };
    assert_eq!(
        [0, 64, 255].map(|value| {
            let mut bytes = bytes.clone();
            width(&mut bytes, value);
            Dmar::parse(&bytes).unwrap_err().reason
        }),
        [
            Reason::AddressWidth(1),
            Reason::AddressWidth(65),
            Reason::AddressWidth(256)
        ]
    );
    let mut bytes = bytes.clone();
    width(&mut bytes, 63);
    assert_eq!(Dmar::parse(&bytes).unwrap().host_address_width(), 64);
    assert_eq!(
        Dmar::parse(&table(&[])).unwrap_err().reason,
        Reason::NoUnits
    );
    assert_eq!(
        Dmar::parse(&table(&[structure(3, &[0; 16])]))
            .unwrap_err()
            .reason,
        Reason::NoUnits
    );
}

#[test]
fn every_wrong_checksum_is_refused() {
    let bytes = sample();
    for off in 1..=255u8 {
        let mut bytes = bytes.clone();
        bytes[9] = bytes[9].wrapping_add(off);
        let error = Dmar::parse(&bytes).unwrap_err();
        assert_eq!(
            (error.offset, error.reason),
            (9, Reason::Form(F::Checksum(off)))
        );
    }
}

#[test]
fn structure_lengths() {
    assert_eq!(error_of(vec![0]), (0, Reason::Form(F::ShortStructure)));
    assert_eq!(
        error_of(vec![9, 0, 4]),
        (0, Reason::Form(F::ShortStructure))
    );
    let short = |kind: u16, length: u16| {
        let mut bytes = structure(kind, &[0; 40]);
        bytes[2..4].copy_from_slice(&length.to_le_bytes());
        error_of(bytes)
    };
    for (kind, fixed) in [
        (0, 16),
        (1, 24),
        (2, 8),
        (3, 20),
        (4, 8),
        (5, 8),
        (6, 8),
        (7, 4),
        (999, 4),
    ] {
        for length in 0..fixed {
            assert_eq!(
                short(kind, length),
                (0, Reason::Form(F::StructureLength { kind, length }))
            );
        }
        assert_eq!(
            short(kind, 45),
            (0, Reason::Form(F::StructureBeyond { kind, length: 45 }))
        );
        assert_eq!(
            short(kind, 0xffff),
            (
                0,
                Reason::Form(F::StructureBeyond {
                    kind,
                    length: 0xffff
                })
            )
        );
    }
}

#[test]
fn scope_lengths() {
    for (fixed, make) in [
        (
            16,
            (|scopes| drhd(0, 0, 0, 0xfed9_1000, scopes)) as fn(&[Vec<u8>]) -> Vec<u8>,
        ),
        (24, |scopes| rmrr(0, 0x1000, 0x1fff, scopes)),
    ] {
        let good = scope(ENDPOINT, 0, 0, &[(1, 0)]);
        let at = fixed + good.len();
        let error = |bad: Vec<u8>| error_of(make(&[good.clone(), bad]));
        let with_length = |kind: u8, length: u8| vec![kind, length, 0, 0, 0, 0, 1, 0, 0, 0];
        for kind in [ENDPOINT, SUB_HIERARCHY, IOAPIC, HPET, NAMESPACE] {
            for length in 0..8 {
                assert_eq!(
                    error(with_length(kind, length)),
                    (at, Reason::Scope(S::Length(length)))
                );
            }
            assert_eq!(error(with_length(kind, 9)), (at, Reason::Scope(S::Path(9))));
            assert_eq!(
                error(with_length(kind, 12)),
                (at, Reason::Scope(S::Beyond(12)))
            );
            assert_eq!(
                error(with_length(kind, 254)),
                (at, Reason::Scope(S::Beyond(254)))
            );
        }
        // An unknown type need not hold a path, but its length must be right.
        assert_eq!(error(with_length(6, 5)), (at, Reason::Scope(S::Length(5))));
        assert_eq!(
            error(with_length(6, 11)),
            (at, Reason::Scope(S::Beyond(11)))
        );
        let unknown = make(&[vec![6, 7, 0, 0, 0, 0, 0xff], good.clone()]);
        assert!(Dmar::parse(&table(&[unit(), unknown])).is_ok());
        for cut in 1..6 {
            assert_eq!(
                error(with_length(ENDPOINT, 8)[..cut].to_vec()),
                (at, Reason::Scope(S::Short))
            );
        }
        assert_eq!(
            error(scope(HPET, 0, 0, &[(32, 0)])),
            (at, Reason::Scope(S::PathElement(32, 0)))
        );
        let bad = scope(SUB_HIERARCHY, 0, 0, &[(31, 7), (0, 8)]);
        assert_eq!(error(bad), (at, Reason::Scope(S::PathElement(0, 8))));
    }
}

#[test]
fn units_must_make_sense() {
    let base = |base| error_of(drhd(0, 0, 0, base, &[]));
    for bad in [0, 0xfed9_0800, 0xfed9_0001, !0xfff] {
        assert_eq!(base(bad), (0, Reason::RegisterBase(bad)));
    }
    // 2^15 pages of registers reach beyond the end of memory.
    let high = !0x3ff_ffff;
    assert_eq!(
        error_of(drhd(0, 0xf, 0, high, &[])),
        (0, Reason::RegisterBase(high))
    );
    assert!(Dmar::parse(&table(&[drhd(0, 0, 0, high, &[])])).is_ok());
    assert_eq!(base(0xfed9_0000), (0, Reason::DuplicateBase(0xfed9_0000)));

    let all = |segment, base| drhd(INCLUDE_PCI_ALL, 0, segment, base, &[]);
    let error = Dmar::parse(&table(&[all(5, 0x1000), all(6, 0x2000), all(5, 0x3000)])).unwrap_err();
    assert_eq!(error.reason, Reason::DuplicateIncludeAll(5));
    assert_eq!(error.offset, BODY + 32);
    assert!(Dmar::parse(&table(&[all(5, 0x1000), all(6, 0x2000)])).is_ok());

    // Bits 7:4 of the size field are reserved.
    let bytes = table(&[drhd(0, 0xf3, 0, 0x1000, &[])]);
    assert_eq!(
        Dmar::parse(&bytes)
            .unwrap()
            .units()
            .next()
            .unwrap()
            .register_size,
        0x8000
    );

    let many = |count: usize| {
        let units: Vec<_> = (1..=count)
            .map(|n| drhd(0, 0, 0, u64::try_from(n).unwrap() << 12, &[]))
            .collect();
        Dmar::parse(&table(&units))
            .map(|_| ())
            .map_err(|error| error.reason)
    };
    assert_eq!(many(MAX_UNITS), Ok(()));
    assert_eq!(many(MAX_UNITS + 1), Err(Reason::TooManyUnits));
}

#[test]
fn reserved_regions_must_make_sense() {
    let region = |base, limit| error_of(rmrr(0, base, limit, &[]));
    for (base, limit) in [(0x2000, 0x1fff), (0x2000, 0x2000), (u64::MAX, 0)] {
        assert_eq!(
            region(base, limit),
            (0, Reason::RegionOrder { base, limit })
        );
    }
    for (base, limit) in [(0x2800, 0x2fff), (0x2000, 0x3000), (0x2000, 0x2ffe)] {
        assert_eq!(
            region(base, limit),
            (0, Reason::RegionAlignment { base, limit })
        );
    }
    for (base, limit) in [(0, u64::MAX), (1 << 52, (1 << 52) + 0xfff)] {
        assert_eq!(
            region(base, limit),
            (0, Reason::RegionBeyond { base, limit })
        );
    }
    for (base, limit) in [(0, 0xfff), (0, (1 << 52) - 1)] {
        assert!(Dmar::parse(&table(&[unit(), rmrr(0, base, limit, &[])])).is_ok());
    }
}

#[test]
fn each_error_is_one_clear_line() {
    for (reason, text) in [
        (Reason::Form(F::ShortTable), "no room for the table header"),
        (Reason::Form(F::Signature), "wrong signature"),
        (
            Reason::Form(F::TableLength(47)),
            "table length 47 is not possible",
        ),
        (Reason::Form(F::Checksum(5)), "checksum is off by 0x05"),
        (
            Reason::AddressWidth(65),
            "host address width 65 is not possible",
        ),
        (
            Reason::Form(F::ShortStructure),
            "no room for a structure header",
        ),
        (
            Reason::Form(F::StructureLength { kind: 1, length: 0 }),
            "structure of type 0x1 has length 0, too short",
        ),
        (
            Reason::Form(F::StructureBeyond {
                kind: 0,
                length: 99,
            }),
            "structure of type 0x0 has length 99, beyond the table",
        ),
        (Reason::Scope(S::Short), "no room for a device scope"),
        (
            Reason::Scope(S::Length(6)),
            "device scope length 6 is too short",
        ),
        (
            Reason::Scope(S::Path(9)),
            "device scope length 9 cuts a path element in half",
        ),
        (
            Reason::Scope(S::Beyond(200)),
            "device scope length 200 is beyond its structure",
        ),
        (
            Reason::Scope(S::PathElement(32, 0)),
            "path element 0x20.0 is not possible",
        ),
        (Reason::RegisterBase(1), "register base 0x1 is not possible"),
        (
            Reason::DuplicateBase(0x1000),
            "second unit with register base 0x1000",
        ),
        (
            Reason::DuplicateIncludeAll(1),
            "second unit with INCLUDE_PCI_ALL in segment 0001",
        ),
        (Reason::TooManyUnits, "more than 1024 remapping units"),
        (Reason::NoUnits, "no remapping unit"),
        (
            Reason::RegionOrder {
                base: 0x2000,
                limit: 0,
            },
            "reserved region 0x2000..=0x0 ends before it starts",
        ),
        (
            Reason::RegionBeyond {
                base: 0,
                limit: u64::MAX,
            },
            "reserved region 0x0..=0xffffffffffffffff is above all physical addresses",
        ),
        (
            Reason::RegionAlignment {
                base: 1,
                limit: 0xfff,
            },
            "reserved region 0x1..=0xfff is not made of 4 KiB pages",
        ),
    ] {
        let line = Error {
            offset: 0x30,
            reason,
        }
        .to_string();
        assert_eq!(line, format!("DMAR table, offset 0x30: {text}"));
    }
}

/// Uses everything a parsed table offers.
fn exercise(bytes: &[u8]) {
    let Ok(dmar) = Dmar::parse(bytes) else {
        return;
    };
    assert!((2..=64).contains(&dmar.host_address_width()));
    let path = [SourceId::new(0, 0, 0x1c << 3), SourceId::new(0, 3, 0)];
    assert!((1..=MAX_UNITS).contains(&dmar.units().count()));
    for unit in dmar.units() {
        assert!(whole_pages(unit.register_base) && unit.register_base != 0);
        unit.register_base.checked_add(unit.register_size).unwrap();
        for scope in unit.scopes() {
            scope.covers(&path);
            assert!(scope.path().len() > 0 || matches!(scope.kind, ScopeKind::Unknown(_)));
        }
    }
    for region in dmar.reserved_regions() {
        assert!(region.limit > region.base);
        assert!(whole_pages(region.base) && whole_pages(region.limit.wrapping_add(1)));
        region.covers(&path);
    }
    dmar.owner(&path);
}

fn whole_pages(address: u64) -> bool {
    address & 0xfff == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Firmware with wrong bytes: an error, or a table whose parts keep their promises.
    #[test]
    fn mutated_bytes_never_panic(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
        seals: bool,
    ) {
        let mut bytes = sample();
        for (index, value) in mutations {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if seals {
            seal(&mut bytes);
        } else {
            fix_checksum(&mut bytes);
        }
        exercise(&bytes);
    }

    /// Bytes that are only right in the header.
    #[test]
    fn random_structures_never_panic(body in prop::collection::vec(0u8..40, 0..200)) {
        let mut bytes = table(&[unit()]);
        bytes.extend(body);
        seal(&mut bytes);
        exercise(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }
}
