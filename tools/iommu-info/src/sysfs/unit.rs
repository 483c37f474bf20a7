// SPDX-License-Identifier: GPL-2.0

//! Units: `/sys/class/iommu`, and the counters of our drivers in debugfs.

use super::{Absence, Found, Root};
use crate::counters::{self, Snapshot};
use crate::model::Unit;
use crate::window;

const DEBUG: &str = "sys/kernel/debug";

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

/// The unit's folder in debugfs, and the module that has it, where it is one of ours.
fn of_ours(root: &Root, unit: &str) -> Option<(String, String)> {
    let found = |module: String| {
        let dir = format!("{DEBUG}/{module}/{unit}");
        root.exists(&dir).then_some((module, dir))
    };
    folders(root).ok()?.into_iter().find_map(found)
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

/// Whether the counters of one of our units can be read.
pub(super) fn counted(root: &Root, unit: &str) -> Found<()> {
    folders(root)?;
    let (_, folder) = of_ours(root, unit).ok_or(Absence::Missing)?;
    root.text(&format!("{folder}/stats")).map(drop)
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
    if let Some((module, folder)) = of_ours(root, name) {
        // Not the capabilities: a module parameter can make tables narrower.
        let stats = root.text(&format!("{folder}/stats")).unwrap_or_default();
        let bits = counters::parse_unit(&stats).get("iova_bits").copied();
        unit.bits = bits.and_then(|bits| u8::try_from(bits).ok());
        (unit.driver, unit.ours) = (module, true);
    } else if let Some(module) = module_by_name(root, name) {
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
        for unit in root.names(&format!("{DEBUG}/{module}")).unwrap_or_default() {
            if let Ok(stats) = root.text(&format!("{DEBUG}/{module}/{unit}/stats")) {
                snapshot.units.insert(unit, counters::parse_unit(&stats));
            }
        }
        if let Ok(report) = root.text(&format!("{DEBUG}/{module}/groups")) {
            snapshot.devices.extend(counters::parse_windows(&report));
        }
    }
    snapshot
}
