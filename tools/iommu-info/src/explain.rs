// SPDX-License-Identifier: GPL-2.0

//! Why a device cannot be given to user space, and what would change that. Pure.

use crate::address::Address;
use crate::config::{Bridge, Config};
use crate::grouping::{self, Grouping};
use crate::model::{Device, Group, Machine};
use serde::Serialize;

/// What there is to say of one device.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Which one.
    pub device: Address,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Whether a process can open it with VFIO now; absent where nothing is in the way, but not all could be seen.
    pub assignable: Option<bool>,
    /// Why not.
    pub reasons: Vec<Reason>,
    /// What the commands take away from this machine, or allow; to be read before them.
    pub warnings: Vec<String>,
    /// What a shell of root has to do, in this order. It does all that commands can do: reasons without a
    /// remedy stay.
    pub commands: Vec<String>,
    /// Why the devices of the group are one.
    pub grouping: Grouping,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// One reason why a device cannot be assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs.
    pub kind: Kind,
    /// The same in words.
    pub text: String,
}

/// Kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No unit translates it.
    NoIommu,
    /// It has no group, though our driver is at work.
    NoGroup,
    /// It is a bridge.
    Bridge,
    /// The firmware wants memory of its group mapped at all times.
    DirectRegion,
    /// A process has its group.
    Held,
    /// A driver has claimed its group.
    Claimed,
    /// Another device of its group has a driver that uses the DMA API.
    Sibling,
    /// Its interrupts are not isolated.
    Interrupts,
    /// It has no driver of VFIO.
    Driver,
}

/// Collects reasons with their remedies.
#[derive(Default)]
struct Found {
    reasons: Vec<Reason>,
    warnings: Vec<String>,
    commands: Vec<String>,
    notes: Vec<String>,
}

/// Adds what is not there yet.
fn once(to: &mut Vec<String>, text: String) {
    if !to.contains(&text) {
        to.push(text);
    }
}

impl Found {
    fn reason(&mut self, kind: Kind, text: String) {
        self.reasons.push(Reason { kind, text });
    }

    fn command(&mut self, command: String) {
        once(&mut self.commands, command);
    }

    /// Warns of what goes when the driver of `device` does.
    fn takes_away(&mut self, machine: &Machine, device: &Device) {
        let address = device.address;
        for what in &device.uses {
            once(&mut self.warnings, format!("{address} goes: {what}"));
        }
        for virtual_one in virtual_functions(machine, address) {
            let text = format!(
                "{address} goes: {}, a virtual function of it, goes too",
                virtual_one.address
            );
            once(&mut self.warnings, text);
            for what in &virtual_one.uses {
                once(&mut self.warnings, format!("{address} goes: {what}"));
            }
        }
    }

    fn unbind(&mut self, machine: &Machine, device: &Device) {
        let address = device.address;
        self.takes_away(machine, device);
        self.command(format!(
            "echo {address} > /sys/bus/pci/devices/{address}/driver/unbind"
        ));
    }
}

fn virtual_functions(machine: &Machine, of: Address) -> impl Iterator<Item = &Device> {
    let devices = machine.devices.values();
    devices.filter(move |device| device.physical == Some(of))
}

/// Those that have to be found again together with `device`, which has no group: all without one that have the
/// requester id of the same bridge.
fn found_together<'a>(machine: &'a Machine, device: &'a Device) -> Vec<&'a Device> {
    let replaces = |at: &&Address| {
        let config = machine.devices.get(at).and_then(|d| d.config.as_ref());
        matches!(config.map(Config::bridge), Some(Bridge::Replaces(_)))
    };
    let Some(bridge) = device.path.iter().find(replaces) else {
        return vec![device];
    };
    let devices = machine.devices.values();
    let together = devices.filter(|d| d.group.is_none() && d.path.contains(bridge));
    together.filter(|d| !d.is_bridge()).collect()
}

fn bridge(found: &mut Found) {
    found.reason(
        Kind::Bridge,
        "it is a bridge, and vfio-pci takes none: name a device behind it".into(),
    );
}

/// It has no group: nothing translates its DMA.
fn without_group(machine: &Machine, device: &Device, found: &mut Found) {
    if machine.units.is_empty() {
        let mut text = String::from("no IOMMU driver is at work");
        match machine.platform.tables.as_slice() {
            [] => text += ", and the firmware has no table of an IOMMU (DMAR, IVRS, VIOT)",
            tables => {
                text += &format!(
                    "; the firmware has a table of an IOMMU: {}",
                    tables.join(", ")
                )
            }
        }
        found.reason(Kind::NoIommu, text);
        return;
    }
    if device.is_bridge() {
        bridge(found);
        return;
    }
    let names: Vec<&str> = machine.units.iter().map(|u| u.name.as_str()).collect();
    let names = names.join(", ");
    if !machine.units.iter().any(|unit| unit.ours) {
        let text = format!(
            "it has no group: it is behind no unit ({names}), or the unit's driver failed with it, which the \
             kernel's log says"
        );
        found.reason(Kind::NoIommu, text);
        return;
    }
    let mut text = format!(
        "it has no group: if it had a driver when the IOMMU driver was loaded, it is left untranslated until it is \
         removed and found again; or it is behind no unit ({names}), or the unit's driver failed with it, which the \
         kernel's log says"
    );
    if let Some(physical) = device.physical {
        text += &format!(
            ". A virtual function is not found again by a rescan: {physical} has to make it anew (sriov_numvfs)"
        );
        found.reason(Kind::NoGroup, text);
        return;
    }
    found.reason(Kind::NoGroup, text);
    for one in found_together(machine, device) {
        found.takes_away(machine, one);
        let address = one.address;
        found.command(format!("echo 1 > /sys/bus/pci/devices/{address}/remove"));
    }
    found.command("echo 1 > /sys/bus/pci/rescan".into());
}

fn holders(group: &Group, found: &mut Found) {
    for holder in &group.holders {
        let (pid, name, file) = (
            holder.pid,
            holder.shown_name(),
            holder.file.escape_default(),
        );
        found.reason(
            Kind::Held,
            format!("process {pid} ({name}) has {file} open"),
        );
        found.command(format!("kill {pid}"));
        let note = "kill does not wait: go on when the process is gone";
        once(&mut found.notes, note.into());
    }
    if let Some(claim) = group.claim.as_ref().filter(|_| group.holders.is_empty()) {
        found.reason(Kind::Claimed, format!("its group is {claim}"));
    }
}

fn siblings(machine: &Machine, device: &Device, group: &Group, found: &mut Found) {
    for address in group.devices.iter().filter(|a| **a != device.address) {
        let Some(sibling) = machine.devices.get(address) else {
            continue;
        };
        let Some(driver) = sibling.driver.as_ref().filter(|_| sibling.uses_dma_api()) else {
            continue;
        };
        let text = format!("{address} of the same group is bound to {driver}");
        found.reason(Kind::Sibling, text);
        found.unbind(machine, sibling);
    }
    for other in &group.others {
        if let Some(driver) = &other.driver {
            let name = other.name.escape_default();
            let text =
                format!("{name} of the same group, which is not on PCI, is bound to {driver}");
            found.reason(Kind::Sibling, text);
        }
    }
}

/// VFIO type1 and iommufd want interrupts of devices kept apart, or to be told that nobody minds.
fn interrupts(machine: &Machine, found: &mut Found) {
    let platform = &machine.platform;
    if platform.remaps_interrupts != Some(false) || platform.may_do_without_remapping() {
        return;
    }
    found.reason(
        Kind::Interrupts,
        "interrupts are not remapped, and neither vfio_iommu_type1 nor iommufd is told to do without".into(),
    );
    found.warnings.push(
        "allow_unsafe_interrupts lets whoever has a device, such as a guest, send this machine interrupts of its \
         choice; it holds for all devices that are assigned"
            .into(),
    );
    let type1 = platform.unsafe_interrupts.map(|_| "vfio_iommu_type1");
    let iommufd = platform.iommufd_unsafe_interrupts.map(|_| "iommufd");
    match type1.or(iommufd) {
        None => {
            found.command("modprobe vfio_iommu_type1 allow_unsafe_interrupts=1".into());
            found.notes.push(
                "a kernel without vfio_iommu_type1 has that parameter in iommufd: modprobe iommufd \
                 allow_unsafe_interrupts=1"
                    .into(),
            );
        }
        Some(module) => found.command(format!(
            "echo 1 > /sys/module/{module}/parameters/allow_unsafe_interrupts"
        )),
    }
}

fn driver(machine: &Machine, device: &Device, found: &mut Found) {
    if device.has_vfio() {
        return;
    }
    let address = device.address;
    match &device.driver {
        Some(driver) => found.reason(
            Kind::Driver,
            format!("it is bound to {driver}, not to vfio-pci"),
        ),
        None => found.reason(
            Kind::Driver,
            "no driver is bound, vfio-pci has to be".into(),
        ),
    }
    if !machine.platform.vfio_pci {
        found.command("modprobe vfio-pci".into());
    }
    found.command(format!(
        "echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override"
    ));
    if device.driver.is_some() {
        found.unbind(machine, device);
    }
    found.command(format!("echo {address} > /sys/bus/pci/drivers_probe"));
}

fn with_group(machine: &Machine, device: &Device, group: &Group, found: &mut Found) {
    if device.is_bridge() {
        bridge(found);
        return;
    }
    for region in group.reserved.iter().filter(|r| r.kind == "direct") {
        found.reason(
            Kind::DirectRegion,
            format!(
                "the firmware wants {:#x} to {:#x} of its group mapped one to one at all times (RMRR and \
                 the like): only a setting of the firmware ends that",
                region.range.start, region.range.last
            ),
        );
    }
    holders(group, found);
    siblings(machine, device, group, found);
    interrupts(machine, found);
    driver(machine, device, found);
}

fn notes(
    machine: &Machine,
    device: &Device,
    group: Option<&Group>,
    grouping: &Grouping,
) -> Vec<String> {
    let mut notes = Vec::new();
    let many = group.is_some_and(|g| g.devices.len() > 1);
    if many && grouping.causes.is_empty() && grouping.unreadable.is_empty() {
        notes.push(
            "configuration space does not show what merged the group: a rule of the kernel for this \
             chipset, or of the IOMMU's driver"
                .into(),
        );
    }
    if group.is_some() && machine.platform.remaps_interrupts.is_none() {
        notes.push("the kernel does not say whether interrupts are remapped".into());
    }
    let physical = device.physical.and_then(|at| machine.devices.get(&at));
    if let Some(physical) = physical.filter(|p| p.has_vfio()) {
        notes.push(format!(
            "its physical function {} has a driver of VFIO: who opens it has to give that one's VF token",
            physical.address
        ));
    }
    notes.extend(machine.missing.iter().cloned());
    notes
}

/// Whether something may be in the way that was not seen.
fn uncertain(machine: &Machine) -> bool {
    let platform = &machine.platform;
    let interrupts = platform.remaps_interrupts.is_none() && !platform.may_do_without_remapping();
    machine.hidden_processes || interrupts
}

/// Errors: there is no such device, in words.
pub fn explain(machine: &Machine, address: Address) -> Result<Explanation, String> {
    let device = machine
        .devices
        .get(&address)
        .ok_or_else(|| format!("there is no PCI device {address}"))?;
    let group = device.group.and_then(|number| machine.groups.get(&number));
    let mut found = Found::default();
    match group {
        None => without_group(machine, device, &mut found),
        Some(group) => with_group(machine, device, group, &mut found),
    }
    let grouping = match group {
        Some(group) => grouping::explain(machine, &group.devices),
        None => Grouping::default(),
    };
    let assignable = match found.reasons.is_empty() {
        false => Some(false),
        true if uncertain(machine) => None,
        true => Some(true),
    };
    found.notes.extend(notes(machine, device, group, &grouping));
    Ok(Explanation {
        device: address,
        group: device.group,
        assignable,
        reasons: found.reasons,
        warnings: found.warnings,
        commands: found.commands,
        grouping,
        notes: found.notes,
    })
}
