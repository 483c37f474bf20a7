// SPDX-License-Identifier: GPL-2.0

//! Puts the parts together, and says what is missing.

use super::{Absence, Found, Root, device, group, process, report, unit, uses};
use crate::address::Address;
use crate::config::Isolation;
use crate::model::{Device, Group, Machine, Owner, Platform, Policy, Unit};
use crate::window::{self, Range};
use std::collections::BTreeSet;

/// Whether an interrupt's chip is one of interrupt remapping: their names start with `IR-`. `None`
/// where the kernel does not show chips.
fn remaps_interrupts(root: &Root) -> Option<bool> {
    const ALL: &str = "sys/kernel/irq";
    let names = root.names(ALL).ok()?;
    let chips: Vec<String> = names
        .iter()
        .filter_map(|irq| root.text(&format!("{ALL}/{irq}/chip_name")).ok())
        .collect();
    let any = chips.iter().any(|chip| chip.starts_with("IR-"));
    (!chips.is_empty()).then_some(any)
}

fn platform(root: &Root) -> Platform {
    const TYPE1: &str = "sys/module/vfio_iommu_type1/parameters";
    let mut modules = root.names("sys/module").unwrap_or_default();
    modules.retain(|name| name.starts_with("rust_"));
    let tables = ["DMAR", "IVRS", "VIOT"];
    let has = |table: &&str| root.exists(&format!("sys/firmware/acpi/tables/{table}"));
    let allows = |module: &str| {
        let file = format!("sys/module/{module}/parameters/allow_unsafe_interrupts");
        root.text(&file).ok().map(|text| text == "Y")
    };
    Platform {
        tables: tables.into_iter().filter(has).map(String::from).collect(),
        modules,
        vfio_pci: root.exists("sys/bus/pci/drivers/vfio-pci"),
        unsafe_interrupts: allows("vfio_iommu_type1"),
        iommufd_unsafe_interrupts: allows("iommufd"),
        dma_entry_limit: root
            .number(&format!("{TYPE1}/dma_entry_limit"))
            .and_then(|n| u32::try_from(n).ok()),
        remaps_interrupts: remaps_interrupts(root),
        iommufd: root.exists("dev/iommu"),
    }
}

/// What the type of a group's default domain says of its devices' policy.
fn policy_of(group: &Group) -> Option<Policy> {
    let name = match group.kind.as_deref()? {
        "DMA" => "strict",
        "DMA-FQ" => "fq",
        "identity" => "identity",
        _ => return None,
    };
    Some(Policy {
        name: name.into(),
        max_age_ms: None,
        attribute: false,
    })
}

fn owner(machine: &Machine, group: &Group) -> Owner {
    if !group.holders.is_empty() {
        return Owner::User(group.holders.clone());
    }
    if let Some(claim) = &group.claim {
        return Owner::Claimed(claim.clone());
    }
    let devices = group.devices.iter().filter_map(|a| machine.devices.get(a));
    let drivers: BTreeSet<String> = devices
        .filter(|device| device.uses_dma_api())
        .filter_map(|device| device.driver.clone())
        .collect();
    if drivers.is_empty() {
        return Owner::Nobody;
    }
    Owner::Kernel(drivers)
}

/// What our driver says that all devices of a group can use; `None` if it does not say so of each.
fn aperture(machine: &Machine, group: &Group) -> Option<Option<Range>> {
    let of = |address| machine.devices.get(address)?.aperture;
    let all: Option<Vec<Range>> = group.devices.iter().map(of).collect();
    let (first, rest) = all.as_deref()?.split_first()?;
    let both = |sofar: Option<Range>, next: &Range| window::common(sofar?, *next);
    Some(rest.iter().fold(Some(*first), both))
}

/// The bits of an aperture that begins at 0.
fn bits_of(aperture: Range) -> Option<u8> {
    let bits = 64 - aperture.last.leading_zeros();
    // At most 64.
    let bits = bits as u8;
    (window::of_bits(bits) == Some(aperture)).then_some(bits)
}

/// The narrowest of the units that a group's devices are behind; `None` if one is not known.
fn bits(machine: &Machine, group: &Group) -> Option<u8> {
    let unit = |name: &str| machine.units.iter().find(|u| u.name == name);
    let of = |address| {
        let device = machine.devices.get(address)?;
        unit(device.unit.as_deref()?)?.bits
    };
    let bits: Option<Vec<u8>> = group.devices.iter().map(of).collect();
    bits?.into_iter().min()
}

/// Why a file of our driver in debugfs could not be read.
fn in_debugfs(absence: Absence) -> &'static str {
    match absence {
        Absence::Denied => "debugfs can be read by root only, and with kernel lockdown by nobody",
        Absence::Missing => "debugfs is not there (mount -t debugfs debugfs /sys/kernel/debug)",
    }
}

/// What is not known of a unit.
fn missing_of(unit: &Unit, counted: Found<()>) -> Option<String> {
    let (name, driver) = (&unit.name, &unit.driver);
    match (unit.ours, counted) {
        (true, Err(_)) => Some(format!(
            "{name}: window and counters are not known: {driver} has no attributes in sysfs"
        )),
        (true, Ok(())) if unit.bits.is_none() => Some(format!(
            "{name}: no device behind it says how wide its tables are"
        )),
        (true, Ok(())) => None,
        (false, _) => {
            let width = match (unit.bits, unit.first_stage) {
                (Some(_), _) => "",
                (None, false) => ", width of its tables",
                (None, true) => {
                    ", width of its tables (it has scalable mode, where they are first-stage ones of 47 or 56 bits, \
                     unless intel_iommu=sm_off was given)"
                }
            };
            Some(format!(
                "{name}: not exported by {driver}: policy of a device, claims of groups, counters of \
                 invalidations and faults, live mappings{width}"
            ))
        }
    }
}

/// The first few addresses of many.
fn some(addresses: &[Address]) -> String {
    const SHOWN: usize = 4;
    let names: Vec<String> = addresses
        .iter()
        .take(SHOWN)
        .map(Address::to_string)
        .collect();
    match addresses.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// What of configuration spaces was not readable.
fn missing_config(machine: &Machine) -> Vec<String> {
    let those = |what: &dyn Fn(&Device) -> bool| -> Vec<Address> {
        let devices = machine.devices.values().filter(|d| what(d));
        devices.map(|device| device.address).collect()
    };
    let part = those(&|d| {
        d.config
            .as_ref()
            .is_some_and(|c| c.isolation() == Isolation::Unknown)
    });
    let none = those(&|d| d.config.is_none());
    let mut sentences = Vec::new();
    if !part.is_empty() {
        sentences.push(format!(
            "what merged a group is not known: configuration space of {} beyond 64 bytes can be read by root only",
            some(&part)
        ));
    }
    if !none.is_empty() {
        sentences.push(format!(
            "what merged a group is not known: configuration space of {} cannot be read, or does not answer",
            some(&none)
        ));
    }
    sentences
}

/// What is not there, or not to be read, in words.
fn missing(root: &Root, machine: &Machine) -> Vec<String> {
    let of_units = machine.units.iter().filter_map(|u| {
        let counted = unit::counted(root, &u.name);
        missing_of(u, counted)
    });
    let mut sentences: Vec<String> = of_units.collect();
    let reports = unit::reports(root);
    for (module, report) in &reports {
        if let Err(absence) = report {
            sentences.push(format!(
                "{module}: claims of groups are not known: {}",
                in_debugfs(*absence)
            ));
        }
    }
    let ours = machine.units.iter().any(|unit| unit.ours);
    if ours && reports.is_empty() {
        sentences
            .push("claims of groups are not known: debugfs has no report of our driver".into());
    }
    sentences.extend(missing_config(machine));
    sentences
}

/// Reads everything. What is not there is left out, and named in [`Machine::missing`].
pub fn read(root: &Root) -> Machine {
    let mut machine = Machine {
        units: unit::all(root),
        groups: group::all(root),
        devices: device::all(root),
        platform: platform(root),
        hidden_processes: false,
        missing: BTreeSet::new(),
    };
    for text in unit::reports(root)
        .into_iter()
        .filter_map(|(_, text)| text.ok())
    {
        report::apply(&mut machine, &text);
    }
    for unit in &mut machine.units {
        let names = unit.devices.iter().filter_map(|name| name.parse().ok());
        let devices = names.filter_map(|at: Address| machine.devices.get(&at));
        // Any of them may have been narrowed.
        let bits = devices.filter_map(|device| device.aperture.and_then(bits_of));
        if unit.ours {
            unit.bits = bits.max();
        }
    }
    let mounts = uses::mounts(root);
    process::add(root, &mut machine, &mounts);
    uses::add(root, &mut machine, &mounts);
    let numbers: Vec<u32> = machine.groups.keys().copied().collect();
    for number in numbers {
        let group = &machine.groups[&number];
        let (owner, aperture, bits, policy) = (
            owner(&machine, group),
            aperture(&machine, group),
            bits(&machine, group),
            policy_of(group),
        );
        for address in group.devices.clone() {
            let device = machine.devices.get_mut(&address);
            if let Some(device) = device.filter(|d| d.policy.is_none()) {
                device.policy = policy.clone();
            }
        }
        if let Some(group) = machine.groups.get_mut(&number) {
            let space = aperture.or_else(|| bits.map(window::of_bits));
            group.window = space.map(|space| window::usable(space, &group.reserved));
            (group.owner, group.bits) = (owner, bits);
        }
    }
    let sentences = missing(root, &machine);
    machine.missing.extend(sentences);
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_is_told_so() {
        let unit = Unit {
            name: "vtd0".into(),
            driver: "rust_vtd".into(),
            ours: true,
            bits: Some(48),
            first_stage: false,
            devices: Vec::new(),
        };
        let text = |counted| missing_of(&unit, counted).unwrap_or_default();
        assert!(text(Err(Absence::Denied)).contains("no attributes in sysfs"));
        assert_eq!(text(Ok(())), "");
        let denied = in_debugfs(Absence::Denied);
        assert!(
            denied.contains("root only") && denied.contains("lockdown"),
            "{denied}"
        );
        assert!(in_debugfs(Absence::Missing).contains("mount -t debugfs"));
        let denied = std::io::Error::from_raw_os_error(1);
        assert_eq!(super::super::absence(denied), Absence::Denied);
    }

    #[test]
    fn many_addresses_are_a_few() {
        let address = |device| Address {
            segment: 0,
            bus: 0,
            device,
            function: 0,
        };
        let all: Vec<Address> = (0..6).map(address).collect();
        assert_eq!(some(&all[..1]), "0000:00:00.0");
        assert!(some(&all[..4]).ends_with("0000:00:03.0"));
        assert!(some(&all).ends_with("0000:00:03.0 and 2 more"));
    }
}
