// SPDX-License-Identifier: GPL-2.0

//! Units: `/sys/class/iommu`, and what our drivers count there, for each device and in debugfs.

use super::{Found, Root};
use crate::counters::{self, Mapped, Snapshot};
use crate::model::Unit;
use crate::window;

const DEBUG: &str = "sys/kernel/debug";
const DEVICES: &str = "sys/bus/pci/devices";

/// The folders of our drivers in debugfs, by the names of their modules.
fn folders(root: &Root) -> Found<Vec<String>> {
    let mut names = root.names(DEBUG)?;
    names
        .retain(|name| name.starts_with("rust_") && root.exists(&format!("{DEBUG}/{name}/groups")));
    Ok(names)
}

/// The reports `groups` of our drivers, by the names of their modules.
pub(super) fn reports(root: &Root) -> Vec<(String, Found<String>)> {
    let text = |name: String| {
        let report = root.text(&format!("{DEBUG}/{name}/groups"));
        (name, report)
    };
    let folders = folders(root).unwrap_or_default();
    folders.into_iter().map(text).collect()
}

/// The module that has the unit's folder in debugfs, where it is one of ours.
fn of_ours(root: &Root, unit: &str) -> Option<String> {
    let has = |module: &String| root.exists(&format!("{DEBUG}/{module}/{unit}"));
    folders(root).ok()?.into_iter().find(has)
}

/// Without debugfs: a unit `vtd0` is of `rust_vtd` if that is loaded.
fn module_by_name(root: &Root, unit: &str) -> Option<String> {
    let module = match unit.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "viommu" => "rust_virtio_iommu".to_string(),
        kind => format!("rust_{kind}"),
    };
    root.exists(&format!("sys/module/{module}"))
        .then_some(module)
}

/// The attributes of a unit of ours that are counters.
const COUNTERS: [&str; 3] = ["invalidations", "timeouts", "faults"];

/// The directory with the attributes of a unit of ours.
fn attributes(unit: &str) -> String {
    format!("sys/class/iommu/{unit}/rust_iommu")
}

/// Whether the counters of one of our units can be read.
pub(super) fn counted(root: &Root, unit: &str) -> Found<()> {
    root.names(&attributes(unit)).map(drop)
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

fn read(root: &Root, name: &str) -> Unit {
    let dir = format!("sys/class/iommu/{name}");
    let devices = root.names(&format!("{dir}/devices")).unwrap_or_default();
    let mut unit = Unit {
        name: name.to_string(),
        driver: "unknown".into(),
        ours: false,
        bits: None,
        first_stage: false,
        devices,
    };
    if let Some(module) = of_ours(root, name).or_else(|| module_by_name(root, name)) {
        (unit.driver, unit.ours) = (module, true);
    } else if let Ok(capabilities) = root.text(&format!("{dir}/intel-iommu/cap")) {
        unit.driver = "intel-iommu".into();
        let extended = root.text(&format!("{dir}/intel-iommu/ecap"));
        let extended = extended.ok().and_then(|text| hex(&text));
        unit.first_stage = extended.is_some_and(window::may_use_first_stage);
        unit.bits = hex(&capabilities)
            .and_then(window::vtd_bits)
            .filter(|_| !unit.first_stage);
    } else if root.exists(&format!("{dir}/amd-iommu")) {
        unit.driver = "amd-iommu".into();
        // Two registers, with a colon between.
        let features = root.text(&format!("{dir}/amd-iommu/features")).ok();
        let first = features.and_then(|text| hex(text.split(':').next()?));
        unit.bits = first.and_then(window::amd_bits);
    } else if let Some(driver) = root.link_name(&format!("{dir}/device/driver")) {
        // That of virtio has the name of the device it is on, and nothing of its own.
        unit.driver = driver;
    }
    unit
}

/// All of them.
pub(super) fn all(root: &Root) -> Vec<Unit> {
    let names = root.names("sys/class/iommu").unwrap_or_default();
    names.iter().map(|name| read(root, name)).collect()
}

/// The counters of all our units and devices, as they are now.
pub fn counters(root: &Root) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for module in folders(root).unwrap_or_default() {
        if let Ok(report) = root.text(&format!("{DEBUG}/{module}/groups")) {
            for (address, window) in counters::parse_windows(&report) {
                snapshot.devices.entry(address).or_default().window = Some(window);
            }
        }
    }
    for unit in root.names("sys/class/iommu").unwrap_or_default() {
        let value = |name: &str| {
            let value = root.number(&format!("{}/{name}", attributes(&unit)))?;
            Some((name.to_string(), value))
        };
        let values: Vec<(String, u64)> = COUNTERS.into_iter().filter_map(value).collect();
        if !values.is_empty() {
            snapshot.units.insert(unit, values.into_iter().collect());
        }
    }
    for name in root.names(DEVICES).unwrap_or_default() {
        let number = |file: &str| root.number(&format!("{DEVICES}/{name}/rust_iommu/{file}"));
        if let (Ok(address), Some(mappings)) = (name.parse(), number("mappings")) {
            let counts = snapshot.devices.entry(address).or_default();
            counts.mapped = number("mapped_bytes").map(|bytes| Mapped { mappings, bytes });
        }
        if let (Ok(address), Some(invalidations)) = (name.parse(), number("invalidations")) {
            snapshot.devices.entry(address).or_default().invalidations = Some(invalidations);
        }
        if let (Ok(address), Some(faults)) = (name.parse(), number("faults")) {
            snapshot.devices.entry(address).or_default().faults = Some(faults);
        }
    }
    snapshot
}
