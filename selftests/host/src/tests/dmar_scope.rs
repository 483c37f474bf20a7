// SPDX-License-Identifier: GPL-2.0

use super::dmar_bytes::{
    drhd, rmrr, sample, scope, table, ENDPOINT, HPET, INCLUDE_PCI_ALL, IOAPIC, NAMESPACE,
    SUB_HIERARCHY,
};
use crate::dmar::Dmar;
use iommu::source_id::SourceId;
use proptest::prelude::*;

fn id(bus: u8, device: u8, function: u8) -> SourceId {
    SourceId::new(0, bus, (device << 3) | function)
}

/// Register base of the unit that owns a device of the sample table.
fn owner(path: &[SourceId]) -> Option<u64> {
    Dmar::parse(&sample())
        .unwrap()
        .owner(path)
        .map(|unit| unit.register_base)
}

const GRAPHICS: Option<u64> = Some(0xfed9_0000);
const SWITCH: Option<u64> = Some(0xfed9_2000);
const REST: Option<u64> = Some(0xfed9_1000);

#[test]
fn explicit_scopes_come_before_include_pci_all() {
    assert_eq!(owner(&[id(0, 2, 0)]), GRAPHICS);
    assert_eq!(owner(&[id(0, 2, 1)]), REST, "only function 0 is named");
    assert_eq!(owner(&[id(0, 3, 0)]), REST);
    assert_eq!(
        owner(&[id(0, 0x1c, 0)]),
        REST,
        "the port above the switch is not named"
    );

    // In whatever order the units stand.
    let bytes = table(&[
        drhd(INCLUDE_PCI_ALL, 0, 0, 0x1000, &[]),
        drhd(0, 0, 0, 0x2000, &[scope(ENDPOINT, 0, 0, &[(2, 0)])]),
    ]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!(dmar.owner(&[id(0, 2, 0)]).unwrap().register_base, 0x2000);
    assert_eq!(dmar.owner(&[id(0, 2, 1)]).unwrap().register_base, 0x1000);
}

#[test]
fn a_sub_hierarchy_is_the_bridge_and_everything_below() {
    let up = [id(0, 0x1c, 0), id(5, 0, 0)];
    let down = [id(0, 0x1c, 0), id(5, 0, 0), id(6, 1, 0)];
    assert_eq!(owner(&up), REST);
    assert_eq!(owner(&down), SWITCH, "the named bridge itself");
    assert_eq!(owner(&[down[0], down[1], down[2], id(7, 0, 0)]), SWITCH);
    assert_eq!(
        owner(&[down[0], down[1], down[2], id(7, 0, 0), id(8, 9, 3)]),
        SWITCH
    );
    let sibling = id(6, 2, 0);
    assert_eq!(owner(&[down[0], down[1], sibling]), REST);
    assert_eq!(owner(&[down[0], down[1], sibling, id(9, 0, 0)]), REST);
    // The same numbers behind another root port.
    assert_eq!(
        owner(&[id(0, 0x1c, 1), down[1], down[2], id(7, 0, 0)]),
        REST
    );
}

/// The start bus is one of a second root, or one below a bridge: both are a bus on the way.
#[test]
fn a_path_may_start_anywhere() {
    assert_eq!(owner(&[id(0x40, 3, 1)]), SWITCH);
    assert_eq!(owner(&[id(0, 0x1d, 0), id(0x40, 3, 1)]), SWITCH);
    assert_eq!(owner(&[id(0, 0x1d, 0), id(0x40, 3, 0)]), REST);
    assert_eq!(
        owner(&[id(0x40, 3, 1), id(0x41, 0, 0)]),
        REST,
        "an endpoint has nothing below"
    );
}

#[test]
fn segments_do_not_mix() {
    assert_eq!(owner(&[SourceId::new(1, 0, 2 << 3)]), Some(0xfed9_8000));
    assert_eq!(owner(&[SourceId::new(2, 0, 2 << 3)]), None);
    assert_eq!(owner(&[]), None);
}

#[test]
fn without_include_pci_all_unnamed_devices_have_no_unit() {
    let bytes = table(&[drhd(0, 0, 0, 0x1000, &[scope(ENDPOINT, 0, 0, &[(2, 0)])])]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert!(dmar.owner(&[id(0, 2, 0)]).is_some());
    assert!(dmar.owner(&[id(0, 3, 0)]).is_none());
}

#[test]
fn only_pci_scopes_name_pci_devices() {
    for kind in [IOAPIC, HPET, NAMESPACE, 0, 6] {
        let bytes = table(&[drhd(0, 0, 0, 0x1000, &[scope(kind, 0, 0, &[(2, 0)])])]);
        assert!(
            Dmar::parse(&bytes).unwrap().owner(&[id(0, 2, 0)]).is_none(),
            "type {kind}"
        );
    }
}

#[test]
fn reserved_regions_follow_the_same_rules() {
    let bytes = sample();
    let regions: Vec<_> = Dmar::parse(&bytes).unwrap().reserved_regions().collect();
    assert!(regions[0].covers(&[id(0, 2, 0)]));
    assert!(!regions[0].covers(&[SourceId::new(1, 0, 2 << 3)]));
    assert!(!regions[0].covers(&[id(0, 0x14, 0)]));
    assert!(regions[1].covers(&[id(0, 0x14, 0)]));
    assert!(regions[1].covers(&[id(0, 0x1c, 4), id(3, 0, 0)]));
    assert!(!regions[1].covers(&[]));
    let bytes = table(&[drhd(0, 0, 0, 0x1000, &[]), rmrr(0, 0, 0xfff, &[])]);
    let none = Dmar::parse(&bytes)
        .unwrap()
        .reserved_regions()
        .next()
        .unwrap();
    assert!(!none.covers(&[id(0, 2, 0)]), "a region for nobody");
}

proptest! {
    /// The specification's way: from the start bus through each bridge's secondary bus to one
    /// function, which the scope then names.
    #[test]
    fn matching_resolves_the_path_bus_by_bus(
        hops in prop::collection::vec((0u8..3, 0u8..2), 1..5),
        path in prop::collection::vec((0u8..3, 0u8..2), 1..4),
        start in 0u8..5,
        hierarchy: bool,
    ) {
        // The device's way: a bridge at each hop, with buses numbered 0, 1, 2...
        let way: Vec<_> = hops.iter().zip(0u8..).map(|((d, f), bus)| id(bus, *d, *f)).collect();
        let secondary = |bridge: SourceId| {
            way.iter().position(|id| *id == bridge).and_then(|at| way.get(at + 1)).map(|id| id.bus())
        };

        let mut bus = Some(start);
        let mut named = None;
        for (device, function) in &path {
            named = bus.map(|bus| id(bus, *device, *function));
            bus = named.and_then(secondary);
        }
        let expected = named.is_some_and(|named| {
            if hierarchy { way.contains(&named) } else { way.last() == Some(&named) }
        });

        let kind = if hierarchy { SUB_HIERARCHY } else { ENDPOINT };
        let bytes = table(&[drhd(0, 0, 0, 0x1000, &[scope(kind, 0, start, &path)])]);
        let dmar = Dmar::parse(&bytes).unwrap();
        prop_assert_eq!(dmar.owner(&way).is_some(), expected);
    }
}
