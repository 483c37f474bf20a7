// SPDX-License-Identifier: GPL-2.0

//! What tests of explanations have in common.

#![allow(dead_code, reason = "each test file uses a part of it")]

use super::*;
use iommu_info::explain::{Explanation, Kind, explain};

/// A disk, and another function of its device.
pub const DISK: &str = "0000:01:00.0";
/// The other function.
pub const SIBLING: &str = "0000:01:00.1";

/// A disk and its sibling in group 5, both with drivers.
pub fn two() -> Tree {
    let tree = Tree::new();
    tree.ours();
    tree.add(
        &endpoint("00:01.0", &[], 4)
            .kind(Some(ROOT_PORT))
            .acs(ISOLATES)
            .driver("pcieport"),
    );
    tree.add(
        &endpoint(DISK, &["00:01.0"], 5)
            .multifunction()
            .driver("nvme"),
    );
    tree.add(&endpoint(SIBLING, &["00:01.0"], 5).driver("e1000e"));
    tree
}

/// What is said of a device.
pub fn of(machine: &Machine, address: &str) -> Explanation {
    explain(machine, at(address)).unwrap()
}

/// The kinds of the reasons.
pub fn kinds(found: &Explanation) -> Vec<Kind> {
    found.reasons.iter().map(|r| r.kind).collect()
}

/// Carries out the commands of `found`, as far as they only change drivers.
pub fn carry_out(tree: &Tree, found: &Explanation) {
    for command in &found.commands {
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["echo", device, ">", path] if path.ends_with("/driver/unbind") => {
                assert_eq!(*path, format!("/{}/driver/unbind", tree.device(device)));
                tree.remove(&format!("{}/driver", tree.device(device)));
            }
            ["echo", text, ">", path] if path.ends_with("/driver_override") => {
                tree.file(&path[1..], text);
            }
            ["echo", device, ">", "/sys/bus/pci/drivers_probe"] => {
                let dir = tree.device(device);
                let over = std::fs::read_to_string(tree.path(&format!("{dir}/driver_override")));
                tree.dir("sys/bus/pci/drivers/vfio-pci");
                let driver = format!("/sys/bus/pci/drivers/{}", over.unwrap().trim());
                tree.link(&format!("{dir}/driver"), driver);
            }
            ["echo", "1", ">", path] if path.starts_with("/sys/module/") => {
                tree.file(&path[1..], "Y\n");
            }
            ["modprobe", module] => tree.dir(&format!("sys/bus/pci/drivers/{module}")),
            ["modprobe", module, "allow_unsafe_interrupts=1"] => tree.file(
                &format!("sys/module/{module}/parameters/allow_unsafe_interrupts"),
                "Y\n",
            ),
            ["kill", pid] => tree.remove(&format!("proc/{pid}")),
            _ => panic!("what is '{command}'?"),
        }
    }
}

/// The directories of the disk and of its sibling.
pub fn directories() -> (String, String) {
    let dir = |address| Tree::directory(&endpoint(address, &["00:01.0"], 5));
    (dir(DISK), dir(SIBLING))
}
