// SPDX-License-Identifier: GPL-2.0

//! Groups: `/sys/kernel/iommu_groups` (Documentation/ABI/testing/sysfs-kernel-iommu_groups).

use super::Root;
use crate::model::{Group, Other};
use crate::window;
use std::collections::BTreeMap;

fn read(root: &Root, dir: &str) -> Group {
    let mut group = Group {
        kind: root.text(&format!("{dir}/type")).ok(),
        reserved: window::parse_reserved(
            &root
                .text(&format!("{dir}/reserved_regions"))
                .unwrap_or_default(),
        ),
        ..Group::default()
    };
    for name in root.names(&format!("{dir}/devices")).unwrap_or_default() {
        match name.parse() {
            Ok(address) => {
                group.devices.insert(address);
            }
            Err(_) => {
                let driver = root.link_name(&format!("{dir}/devices/{name}/driver"));
                group.others.push(Other { name, driver });
            }
        }
    }
    group
}

/// All of them, with what the group's own files say.
pub(super) fn all(root: &Root) -> BTreeMap<u32, Group> {
    const ALL: &str = "sys/kernel/iommu_groups";
    let names = root.names(ALL).unwrap_or_default();
    let group = |name: &String| {
        let number = name.parse().ok()?;
        Some((number, read(root, &format!("{ALL}/{name}"))))
    };
    names.iter().filter_map(group).collect()
}
