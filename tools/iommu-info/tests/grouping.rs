// SPDX-License-Identifier: GPL-2.0

//! Why a group is one: known topologies, and random ones against a second implementation.

mod common;

use common::*;
use iommu_info::address::Address;
use iommu_info::config::{Config, Isolation};
use iommu_info::grouping::{self, Kind};
use iommu_info::model::{Device, Machine};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn device(f: &Function) -> Device {
    let mut config = Config::parse(&f.config()).unwrap();
    config.multifunction |= f.address.function != 0;
    Device {
        address: f.address,
        path: f.path.clone(),
        class: 0,
        driver: None,
        driver_override: None,
        manages_dma: None,
        group: f.group,
        unit: None,
        policy: None,
        mask_bits: None,
        aperture: None,
        sealed: None,
        merged_by: Vec::new(),
        memory: 0,
        vfio: None,
        physical: None,
        uses: Vec::new(),
        config: Some(config),
    }
}

fn machine(functions: &[Function]) -> Machine {
    Machine {
        devices: functions.iter().map(|f| (f.address, device(f))).collect(),
        ..Machine::default()
    }
}

/// Who merged the group of the first function.
fn causes(functions: &[Function]) -> Vec<(Kind, Address)> {
    let machine = machine(functions);
    let members = functions.iter().filter(|f| f.group == functions[0].group);
    let members: BTreeSet<Address> = members.map(|f| f.address).collect();
    let found = grouping::explain(&machine, &members);
    assert!(found.unreadable.is_empty());
    found.causes.iter().map(|c| (c.kind, c.at)).collect()
}

#[test]
fn one_device_needs_no_reason() {
    let port = endpoint("00:01.0", &[], 1)
        .kind(Some(ROOT_PORT))
        .acs(ISOLATES);
    let disk = endpoint("01:00.0", &["00:01.0"], 2);
    assert_eq!(causes(&[disk, port]), []);
}

#[test]
fn ports_without_acs() {
    let a = endpoint("00:10.0", &[], 1)
        .kind(Some(ROOT_PORT))
        .multifunction();
    let b = endpoint("00:10.1", &[], 1).kind(Some(ROOT_PORT));
    let one = endpoint("01:00.0", &["00:10.0"], 1);
    let two = endpoint("02:00.0", &["00:10.1"], 1);
    assert_eq!(
        causes(&[a, b, one, two]),
        [
            (Kind::PortWithoutAcs, at("00:10.0")),
            (Kind::PortWithoutAcs, at("00:10.1")),
            (Kind::FunctionWithoutAcs, at("00:10.0")),
            (Kind::FunctionWithoutAcs, at("00:10.1")),
        ]
    );
}

#[test]
fn a_bridge_to_conventional_pci() {
    let port = endpoint("00:01.0", &[], 1)
        .kind(Some(ROOT_PORT))
        .acs(ISOLATES);
    let bridge = endpoint("01:00.0", &["00:01.0"], 2).kind(Some(TO_PCI_BRIDGE));
    let path = ["00:01.0", "01:00.0"];
    let one = endpoint("02:01.0", &path, 2).kind(None);
    let two = endpoint("02:02.0", &path, 2).kind(None);
    assert_eq!(
        causes(&[one, two, bridge, port]),
        [(Kind::SharedRequesterId, at("01:00.0"))]
    );
}

#[test]
fn a_switch() {
    let port = endpoint("00:01.0", &[], 1)
        .kind(Some(ROOT_PORT))
        .acs(ISOLATES);
    let up = endpoint("01:00.0", &["00:01.0"], 2).kind(Some(UPSTREAM));
    let path = ["00:01.0", "01:00.0"];
    let down = endpoint("02:00.0", &path, 3).kind(Some(DOWNSTREAM));
    let disk = endpoint("03:00.0", &["00:01.0", "01:00.0", "02:00.0"], 3);
    let down = down.acs(Some((0x5f, 0x04)));
    assert_eq!(
        causes(&[disk.clone(), down.clone(), up.clone(), port.clone()]),
        [(Kind::PortWithoutAcs, at("02:00.0"))]
    );
    let machine = machine(&[disk.clone(), down, up, port]);
    let members = BTreeSet::from([disk.address, at("02:00.0")]);
    let text = &grouping::explain(&machine, &members).causes[0].text;
    assert!(text.starts_with("a downstream port"), "{text}");
    assert!(
        text.contains("source validation, completion redirect, upstream"),
        "{text}"
    );
    assert!(!text.contains("request redirect"), "{text}");
}

#[test]
fn functions_of_a_device() {
    let port = endpoint("00:01.0", &[], 1)
        .kind(Some(ROOT_PORT))
        .acs(ISOLATES);
    let one = endpoint("01:00.0", &["00:01.0"], 2).multifunction();
    let two = endpoint("01:00.1", &["00:01.0"], 2);
    assert_eq!(
        causes(&[one.clone(), two.clone(), port.clone()]),
        [
            (Kind::FunctionWithoutAcs, at("01:00.0")),
            (Kind::FunctionWithoutAcs, at("01:00.1")),
        ]
    );
    let [one, two] = [one, two].map(|f| f.acs(ISOLATES));
    assert_eq!(causes(&[one, two, port]), []);
}

#[test]
fn a_port_that_the_kernel_takes_for_isolating_is_not_blamed() {
    let port = endpoint("00:01.0", &[], 1).kind(Some(ROOT_PORT));
    let one = endpoint("01:00.0", &["00:01.0"], 2).multifunction();
    let two = endpoint("01:00.1", &["00:01.0"], 2);
    let found = causes(&[one, two, port]);
    assert!(
        found
            .iter()
            .all(|(kind, _)| *kind == Kind::FunctionWithoutAcs)
    );
}

#[test]
fn what_is_behind_an_open_port_needs_no_other_reason() {
    let port = endpoint("00:01.0", &[], 1).kind(Some(ROOT_PORT));
    let one = endpoint("01:00.0", &["00:01.0"], 1).multifunction();
    let two = endpoint("01:00.1", &["00:01.0"], 1);
    assert_eq!(
        causes(&[one, two, port]),
        [(Kind::PortWithoutAcs, at("00:01.0"))]
    );
}

#[test]
fn functions_of_different_devices_do_not_merge() {
    let one = endpoint("00:02.0", &[], 1).multifunction();
    let two = endpoint("00:03.0", &[], 1).multifunction();
    assert_eq!(causes(&[one, two]), []);
}

#[test]
fn only_ports_and_functions_of_several_need_acs() {
    let isolation = |kind, several| {
        let mut f = endpoint("01:00.0", &[], 1).kind(Some(kind));
        f.multifunction = several;
        Config::parse(&f.config()).unwrap().isolation()
    };
    let none = Isolation::Open("no ACS capability".into());
    for kind in [ENDPOINT, UPSTREAM, INTEGRATED] {
        assert_eq!(isolation(kind, false), Isolation::Isolated);
        assert_eq!(isolation(kind, true), none);
    }
    for kind in [ROOT_PORT, DOWNSTREAM] {
        assert_eq!(isolation(kind, false), none);
    }
    assert!(matches!(
        isolation(TO_PCI_BRIDGE, false),
        Isolation::Open(_)
    ));
}

#[test]
fn a_function_that_does_not_answer_has_no_configuration() {
    assert_eq!(Config::parse(&[0xff; 4096]), None);
    // As a virtual function: no ids, but a header.
    let mut bytes = endpoint("01:10.0", &[], 1).config();
    bytes[..4].fill(0xff);
    assert!(Config::parse(&bytes).is_some());
}

#[test]
fn what_is_not_readable_is_named() {
    let port = endpoint("00:01.0", &[], 2).kind(Some(ROOT_PORT));
    let disk = endpoint("01:00.0", &["00:01.0"], 2);
    let mut machine = machine(&[port.clone(), disk]);
    let config = Config::parse(&port.config()[..64]).unwrap();
    assert_eq!(config.isolation(), Isolation::Unknown);
    machine.devices.get_mut(&port.address).unwrap().config = Some(config);
    let members = machine.devices.keys().copied().collect();
    let found = grouping::explain(&machine, &members);
    assert_eq!(found.causes, []);
    assert_eq!(found.unreadable, BTreeSet::from([port.address]));
}

/// A port or bridge of a random machine with its functions below.
#[derive(Clone, Debug)]
enum Node {
    Port(bool, Vec<Node>),
    Bridge(Vec<Node>),
    Device(Vec<bool>),
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let device = prop::collection::vec(any::<bool>(), 1..4).prop_map(Node::Device);
    let node = device.prop_recursive(3, 12, 3, |inner| {
        let inside = prop::collection::vec(inner, 0..3);
        prop_oneof![
            (any::<bool>(), inside.clone()).prop_map(|(acs, below)| Node::Port(acs, below)),
            inside.prop_map(Node::Bridge),
        ]
    });
    prop::collection::vec(node, 1..4)
}

/// Makes the functions of `nodes` on a bus.
fn build(nodes: &[Node], path: &[Address], bus: u8, next: &mut u8, all: &mut Vec<Function>) {
    for (slot, node) in nodes.iter().enumerate() {
        let address = |function: usize| Address {
            segment: 0,
            bus,
            device: slot as u8,
            function: function as u8,
        };
        let template = Function {
            address: address(0),
            express: Some(ENDPOINT),
            multifunction: false,
            acs: None,
            path: path.to_vec(),
            group: None,
            driver: None,
        };
        let below = match node {
            Node::Device(functions) => {
                for (number, isolates) in functions.iter().enumerate() {
                    let mut f = template.clone();
                    f.address = address(number);
                    f.multifunction = functions.len() > 1;
                    f.acs = if *isolates { ISOLATES } else { None };
                    all.push(f);
                }
                continue;
            }
            Node::Port(acs, below) => {
                let kind = if path.is_empty() {
                    ROOT_PORT
                } else {
                    DOWNSTREAM
                };
                let acs = if *acs { ISOLATES } else { None };
                all.push(template.kind(Some(kind)).acs(acs));
                below
            }
            Node::Bridge(below) => {
                all.push(template.kind(Some(TO_PCI_BRIDGE)));
                below
            }
        };
        let mut path = path.to_vec();
        path.push(address(0));
        *next += 1;
        let bus = *next;
        build(below, &path, bus, next, all);
    }
}

/// The groups, from what has to be in one: sets are joined until nothing is left to join, where the tool, as the
/// kernel, walks upwards from each device.
fn groups(functions: &[Function]) -> BTreeMap<Address, Address> {
    let mut of: BTreeMap<Address, Address> =
        functions.iter().map(|f| (f.address, f.address)).collect();
    let mut join = |a: Address, b: Address| {
        let (from, to) = (of[&a], of[&b]);
        of.values_mut()
            .filter(|g| **g == from)
            .for_each(|g| *g = to);
    };
    let find = |a: &Address| functions.iter().find(|f| f.address == *a).unwrap();
    let is_bridge = |a: &Address| find(a).express == Some(TO_PCI_BRIDGE);
    for f in functions {
        let bridge = f.path.iter().position(is_bridge);
        for (i, above) in f.path.iter().enumerate() {
            // What is below a bridge is one with it, a port with what is below if it, or one above, does not
            // isolate.
            let below_bridge = bridge.is_some_and(|b| b <= i);
            if below_bridge || f.path[..=i].iter().any(|a| find(a).acs.is_none()) {
                join(f.address, *above);
            }
        }
        for other in functions.iter().filter(|o| o.address.same_slot(&f.address)) {
            if f.acs.is_none() && other.acs.is_none() {
                join(f.address, other.address);
            }
        }
    }
    of
}

proptest! {
    // Every group of several has a cause for each member: it is named, or stands at a cause.
    #[test]
    fn every_member_of_a_group_has_a_cause(nodes in nodes()) {
        let mut functions = Vec::new();
        build(&nodes, &[], 0, &mut 0, &mut functions);
        let groups = groups(&functions);
        let mut numbers = BTreeMap::new();
        for f in &mut functions {
            let number = numbers.len() as u32;
            f.group = Some(*numbers.entry(groups[&f.address]).or_insert(number));
        }
        let machine = machine(&functions);
        for number in numbers.values() {
            let members = functions.iter().filter(|f| f.group == Some(*number));
            let members: BTreeSet<Address> = members.map(|f| f.address).collect();
            let found = grouping::explain(&machine, &members);
            let named: BTreeSet<Address> = found
                .causes
                .iter()
                .flat_map(|c| c.devices.iter().copied().chain([c.at]))
                .collect();
            if members.len() > 1 {
                prop_assert_eq!(&named, &members, "{:?}", found.causes);
            } else {
                prop_assert!(found.causes.is_empty(), "{:?}", found.causes);
            }
        }
    }

    #[test]
    fn any_configuration_space_is_read(
        bytes in prop::collection::vec(any::<u8>(), 0..600), capability in 0u8..=255
    ) {
        let mut bytes = bytes;
        if bytes.len() > 0x34 {
            (bytes[6], bytes[0x34]) = (0x10, capability);
        }
        let dead = bytes.iter().take(64).all(|b| *b == 0xff);
        prop_assert_eq!(Config::parse(&bytes).is_some(), bytes.len() >= 64 && !dead);
        if let Some(config) = Config::parse(&bytes) {
            let _ = (config.isolation(), config.bridge(), config.name());
        }
    }

    // The controls of pci_acs_flags_enabled: those that are offered have to be on.
    #[test]
    fn acs_that_is_not_offered_need_not_be_on(offered: u16, on: u16) {
        let port = endpoint("00:01.0", &[], 1).kind(Some(ROOT_PORT)).acs(Some((offered, on)));
        let wanted = 0x1d & offered;
        let isolation = Config::parse(&port.config()).unwrap().isolation();
        prop_assert_eq!(isolation == Isolation::Isolated, on & wanted == wanted);
    }

    // However much of it can be read: what is concluded is right, or that it is not known.
    #[test]
    fn a_cut_configuration_space_misleads_nobody(
        kind in prop::option::of(0u8..11), multifunction: bool, acs in prop::option::of(any::<(u16, u16)>()),
        length in 64usize..0x160,
    ) {
        let mut f = endpoint("01:00.0", &[], 1).kind(kind).acs(acs);
        f.multifunction = multifunction;
        let whole = f.config();
        let length = length.min(whole.len());
        // 256 bytes is what a function has whose extended space cannot be reached.
        prop_assume!(length != 256);
        let full = Config::parse(&whole).unwrap().isolation();
        let part = Config::parse(&whole[..length]).unwrap().isolation();
        prop_assert!(part == full || part == Isolation::Unknown, "{:?} {:?}", part, full);
    }
}

/// What our driver says counts where the walk finds nothing, or could not read.
#[test]
fn what_our_driver_says() {
    let functions = [endpoint("01:00.0", &[], 1), endpoint("01:01.0", &[], 1)];
    let mut machine = machine(&functions);
    let members: BTreeSet<Address> = functions.iter().map(|f| f.address).collect();
    assert_eq!(grouping::explain(&machine, &members).causes, []);
    let at = functions[1].address;
    for (how, kind) in [
        ("bridge", Kind::SharedRequesterId),
        ("port", Kind::PortWithoutAcs),
        ("function", Kind::FunctionWithoutAcs),
        ("alias", Kind::SharedRequesterId),
    ] {
        for device in machine.devices.values_mut() {
            device.merged_by =
                grouping::parse_merged(&format!("{at} {how}\nrubbish\n{at} unknown\n"));
            device.config = None;
        }
        let found = grouping::explain(&machine, &members);
        assert!(found.unreadable.is_empty());
        let causes: Vec<_> = found.causes.iter().map(|c| (c.kind, c.at)).collect();
        assert_eq!(causes, [(kind, at)], "{how}");
        assert_eq!(found.causes[0].devices, members);
    }
}
