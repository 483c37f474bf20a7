// SPDX-License-Identifier: GPL-2.0

use iommu::source_id::{
    AliasSet, Bridge, BridgeKind, DevfnMask, SourceId, TooManyAliases, MAX_BRIDGE_ALIASES,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NO_QUIRKS: DevfnMask = [0; 4];

fn id(bus: u8, device: u8, function: u8) -> SourceId {
    SourceId::new(0, bus, (device << 3) | function)
}

fn bridge(kind: BridgeKind, own: SourceId, secondary: u8) -> Bridge {
    Bridge::new(own, secondary, kind)
}

fn aliases(device: SourceId, mask: &DevfnMask, path: &[Bridge]) -> Vec<SourceId> {
    AliasSet::walk(device, mask, path.iter().copied())
        .unwrap()
        .iter()
        .collect()
}

#[test]
fn source_id_parts() {
    let source = SourceId::new(0x1234, 0xab, 0xfd);
    assert_eq!(source, SourceId::from_requester_id(0x1234, 0xabfd));
    assert_eq!(source.segment(), 0x1234);
    assert_eq!((source.bus(), source.devfn()), (0xab, 0xfd));
    assert_eq!((source.device(), source.function()), (0x1f, 5));
    assert_eq!(source.requester_id(), 0xabfd);
    assert_eq!(source.to_string(), "1234:ab:1f.5");
    assert_eq!(id(0, 3, 0).to_string(), "0000:00:03.0");
}

#[test]
fn port_types_of_the_express_capability() {
    use BridgeKind::*;
    for (port_type, kind) in [
        (None, Conventional),
        (Some(0x0), OtherExpress),
        (Some(0x1), OtherExpress),
        (Some(0x4), ExpressPort),
        (Some(0x5), ExpressPort),
        (Some(0x6), ExpressPort),
        (Some(0x7), ExpressToPci),
        (Some(0x8), PciToExpress),
        (Some(0x9), OtherExpress),
        (Some(0xa), OtherExpress),
        (Some(0xf), OtherExpress),
    ] {
        assert_eq!(BridgeKind::from_port_type(port_type), kind, "{port_type:?}");
    }
}

/// Topologies (a), (b) and (e): root ports change nothing, and functions have no aliases.
#[test]
fn behind_root_ports_the_own_id_arrives() {
    let port = bridge(BridgeKind::ExpressPort, id(0, 4, 0), 1);
    for function in 0..8 {
        let device = id(1, 0, function);
        assert_eq!(aliases(device, &NO_QUIRKS, &[port]), [device]);
    }
    assert_eq!(aliases(id(0, 0x1f, 2), &NO_QUIRKS, &[]), [id(0, 0x1f, 2)]);
}

/// Topology (c): three devices behind a PCI Express to PCI bridge share its alias, which is not
/// the bridge's own id. Without it the device at 02:01.0 faults as 02:00.0.
#[test]
fn behind_a_pcie_pci_bridge_the_secondary_bus_arrives() {
    let path = [
        bridge(BridgeKind::ExpressToPci, id(1, 0, 0), 2),
        bridge(BridgeKind::ExpressPort, id(0, 4, 0), 1),
    ];
    for device in [id(2, 1, 0), id(2, 2, 0), id(2, 3, 0)] {
        assert_eq!(aliases(device, &NO_QUIRKS, &path), [device, id(2, 0, 0)]);
    }
    // The device that has the alias as its own id has one id.
    assert_eq!(aliases(id(2, 0, 0), &NO_QUIRKS, &path), [id(2, 0, 0)]);
}

/// Topology (d): a switch passes ids on.
#[test]
fn behind_a_switch_the_own_id_arrives() {
    let path = [
        bridge(BridgeKind::ExpressPort, id(2, 1, 0), 4),
        bridge(BridgeKind::ExpressPort, id(1, 0, 0), 2),
        bridge(BridgeKind::ExpressPort, id(0, 4, 0), 1),
    ];
    assert_eq!(aliases(id(4, 0, 0), &NO_QUIRKS, &path), [id(4, 0, 0)]);
}

#[test]
fn conventional_bridges_use_their_own_id() {
    let path = [
        bridge(BridgeKind::Conventional, id(2, 5, 0), 3),
        bridge(BridgeKind::ExpressToPci, id(1, 0, 0), 2),
        bridge(BridgeKind::ExpressPort, id(0, 4, 0), 1),
    ];
    assert_eq!(
        aliases(id(3, 7, 1), &NO_QUIRKS, &path),
        [id(3, 7, 1), id(2, 5, 0), id(2, 0, 0)]
    );
    // The ICH's bridge on the root bus.
    let path = [bridge(BridgeKind::Conventional, id(0, 0x1e, 0), 5)];
    assert_eq!(
        aliases(id(5, 1, 0), &NO_QUIRKS, &path),
        [id(5, 1, 0), id(0, 0x1e, 0)]
    );
    let path = [bridge(BridgeKind::PciToExpress, id(1, 2, 0), 6)];
    assert_eq!(
        aliases(id(6, 0, 0), &NO_QUIRKS, &path),
        [id(6, 0, 0), id(1, 2, 0)]
    );
    let path = [bridge(BridgeKind::OtherExpress, id(1, 2, 0), 6)];
    assert_eq!(aliases(id(6, 0, 0), &NO_QUIRKS, &path), [id(6, 0, 0)]);
}

#[test]
fn bridge_quirks() {
    let device = id(2, 1, 0);
    let with = |kind, change: fn(&mut Bridge)| {
        let mut quirky = bridge(kind, id(1, 3, 0), 2);
        change(&mut quirky);
        let above = bridge(BridgeKind::Conventional, id(0, 0x1e, 0), 1);
        aliases(device, &NO_QUIRKS, &[quirky, above])
    };
    let (own, secondary, above) = (id(1, 3, 0), id(2, 0, 0), id(0, 0x1e, 0));
    assert_eq!(
        with(BridgeKind::ExpressToPci, |b| b.no_alias = true),
        [device, above]
    );
    assert_eq!(
        with(BridgeKind::Conventional, |b| b.express_alias = true),
        [device, secondary, above]
    );
    // Each flag means one kind only.
    assert_eq!(
        with(BridgeKind::Conventional, |b| b.no_alias = true),
        [device, own, above]
    );
    assert_eq!(
        with(BridgeKind::ExpressToPci, |b| b.express_alias = true),
        [device, secondary, above]
    );
    assert_eq!(
        with(BridgeKind::Conventional, |b| b.translation_root = true),
        [device]
    );
}

#[test]
fn device_quirks_add_ids_on_the_same_bus() {
    // Function 1 that also sends as function 0 (a Marvell controller does), and slot 31.
    let mask = [1, 0, 0, 1 << 63];
    let path = [bridge(BridgeKind::ExpressToPci, id(1, 0, 0), 2)];
    assert_eq!(
        aliases(id(2, 0, 1), &mask, &path),
        [id(2, 0, 1), id(2, 0, 0), id(2, 31, 7)],
        "the bridge's alias 02:00.0 is there already"
    );
    let all = AliasSet::walk(id(2, 0, 1), &[u64::MAX; 4], []).unwrap();
    assert_eq!(all.count(), 256);
    assert_eq!(all.own(), id(2, 0, 1));
    assert_eq!(
        AliasSet::single(id(2, 0, 1)).iter().collect::<Vec<_>>(),
        [id(2, 0, 1)]
    );
}

#[test]
fn too_many_bridges_are_an_error_and_not_a_shorter_set() {
    let chain = |length: u8| {
        let path = (0..length).map(|at| bridge(BridgeKind::Conventional, id(99 - at, 1, 0), 100));
        AliasSet::walk(id(100, 1, 0), &NO_QUIRKS, path)
    };
    let most = u8::try_from(MAX_BRIDGE_ALIASES).unwrap();
    assert_eq!(chain(most).unwrap().count(), MAX_BRIDGE_ALIASES + 1);
    assert_eq!(chain(most + 1), Err(TooManyAliases(id(100, 1, 0))));
    assert_eq!(
        chain(most + 1).unwrap_err().to_string(),
        "0000:64:01.0: more than 8 bridges above it replace its requester id"
    );
}

fn any_bridge() -> impl Strategy<Value = Bridge> {
    let kind = prop_oneof![
        Just(BridgeKind::ExpressPort),
        Just(BridgeKind::ExpressToPci),
        Just(BridgeKind::PciToExpress),
        Just(BridgeKind::Conventional),
        Just(BridgeKind::OtherExpress),
    ];
    // Few buses, so that ids often meet.
    (kind, 0u8..4, 0u8..8, 0u8..4, any::<[bool; 2]>()).prop_map(
        |(kind, bus, devfn, secondary, flags)| {
            let [no_alias, express_alias] = flags;
            Bridge {
                no_alias,
                express_alias,
                ..Bridge::new(SourceId::new(7, bus, devfn), secondary, kind)
            }
        },
    )
}

proptest! {
    #[test]
    fn the_set_holds_exactly_what_the_rules_give(
        device: u16, mask: DevfnMask, path in prop::collection::vec(any_bridge(), 0..MAX_BRIDGE_ALIASES),
    ) {
        let device = SourceId::from_requester_id(7, device);
        let mut expected = BTreeSet::from([device]);
        for devfn in 0..=255u8 {
            if (mask[usize::from(devfn) / 64] >> (devfn % 64)) & 1 == 1 {
                expected.insert(SourceId::new(7, device.bus(), devfn));
            }
        }
        for b in &path {
            let secondary = SourceId::new(7, b.secondary, 0);
            expected.extend(match (b.kind, b.no_alias, b.express_alias) {
                (BridgeKind::ExpressToPci, false, _) => Some(secondary),
                (BridgeKind::Conventional, _, true) => Some(secondary),
                (BridgeKind::Conventional, _, false) => Some(b.id),
                (BridgeKind::PciToExpress, _, _) => Some(b.id),
                _ => None,
            });
        }
        let set = AliasSet::walk(device, &mask, path).unwrap();
        let found: Vec<_> = set.iter().collect();
        prop_assert_eq!(found[0], device);
        prop_assert_eq!(found.len(), expected.len(), "no id twice");
        prop_assert!(found.iter().all(|id| expected.contains(id) && set.contains(*id)));
        prop_assert!(!set.contains(SourceId::from_requester_id(8, device.requester_id())));
    }
}
