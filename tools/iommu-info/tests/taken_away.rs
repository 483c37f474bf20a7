// SPDX-License-Identifier: GPL-2.0

//! What is said of devices that have no group, and of what the commands take away from the machine.

mod common;

use common::explaining::*;
use common::*;
use iommu_info::explain::{Explanation, Kind};

#[test]
fn devices_without_a_group() {
    let tree = two();
    tree.add(
        &endpoint("03:00.0", &[], 0)
            .without_group()
            .driver("xhci_hcd"),
    );
    tree.add(&endpoint("03:00.1", &[], 0).without_group());
    let machine = tree.read();
    let found = of(&machine, "03:00.0");
    assert_eq!(kinds(&found), [Kind::NoGroup]);
    assert!(found.reasons[0].text.contains("if it had a driver"));
    assert!(found.reasons[0].text.contains("behind no unit (vtd0)"));
    assert_eq!(
        found.commands,
        [
            "echo 1 > /sys/bus/pci/devices/0000:03:00.0/remove",
            "echo 1 > /sys/bus/pci/rescan"
        ]
    );
    // A user may have unbound the driver that it had.
    let found = of(&machine, "03:00.1");
    assert_eq!(kinds(&found), [Kind::NoGroup]);
    assert_eq!(found.commands.len(), 2);
}

#[test]
fn nobody_takes_away_bridges_and_virtual_functions() {
    let tree = two();
    tree.add(
        &endpoint("04:00.0", &[], 0)
            .kind(Some(ROOT_PORT))
            .without_group(),
    );
    tree.add(&endpoint("05:00.0", &[], 0).without_group());
    tree.add(&endpoint("05:00.1", &[], 0).without_group());
    tree.make_virtual("05:00.1", "05:00.0");
    let machine = tree.read();
    let found = of(&machine, "04:00.0");
    assert_eq!(kinds(&found), [Kind::Bridge]);
    assert!(found.commands.is_empty());
    let found = of(&machine, "05:00.1");
    assert_eq!(kinds(&found), [Kind::NoGroup]);
    assert!(
        found.reasons[0]
            .text
            .contains("0000:05:00.0 has to make it anew")
    );
    assert!(found.commands.is_empty());
}

#[test]
fn what_has_one_requester_id_is_found_again_together() {
    let tree = two();
    tree.add(
        &endpoint("06:00.0", &[], 0)
            .kind(Some(TO_PCI_BRIDGE))
            .without_group(),
    );
    for address in ["07:01.0", "07:02.0"] {
        let f = endpoint(address, &["06:00.0"], 0).kind(None);
        tree.add(&f.without_group());
    }
    let found = of(&tree.read(), "07:01.0");
    assert_eq!(
        found.commands,
        [
            "echo 1 > /sys/bus/pci/devices/0000:07:01.0/remove",
            "echo 1 > /sys/bus/pci/devices/0000:07:02.0/remove",
            "echo 1 > /sys/bus/pci/rescan"
        ]
    );
}

#[test]
fn the_kernels_own_driver_leaves_nothing_alone() {
    let tree = Tree::new();
    tree.in_tree();
    tree.add(&endpoint(DISK, &[], 0).without_group().driver("nvme"));
    let found = of(&tree.read(), DISK);
    assert_eq!(kinds(&found), [Kind::NoIommu]);
    assert!(found.reasons[0].text.contains("behind no unit (vtd0)"));
    assert!(found.commands.is_empty());
}

#[test]
fn a_machine_without_an_iommu_driver() {
    let tree = Tree::new();
    tree.add(&endpoint(DISK, &[], 0).without_group().driver("nvme"));
    let found = of(&tree.read(), DISK);
    assert_eq!(kinds(&found), [Kind::NoIommu]);
    assert!(found.reasons[0].text.contains("no table"));
    tree.file("sys/firmware/acpi/tables/DMAR", "");
    assert!(of(&tree.read(), DISK).reasons[0].text.contains("DMAR"));
}

#[test]
fn what_the_machine_loses_is_said() {
    let tree = two();
    let (disk, sibling) = directories();
    assert_eq!(of(&tree.read(), DISK).warnings, [""; 0]);
    let nvme = format!("{disk}/nvme/nvme0");
    tree.block("nvme0n1", "259:0", &nvme);
    tree.block("nvme0n1p1", "259:1", &format!("{nvme}/nvme0n1"));
    tree.block("nvme0n1p2", "259:2", &format!("{nvme}/nvme0n1"));
    tree.block("nvme0n1p3", "259:3", &format!("{nvme}/nvme0n1"));
    tree.block("nvme0n1p4", "259:4", &format!("{nvme}/nvme0n1"));
    for (part, holder) in [("nvme0n1p2", "dm-0"), ("nvme0n1p4", "md0")] {
        tree.link(
            &format!("{nvme}/nvme0n1/{part}/holders/{holder}"),
            "/nowhere",
        );
    }
    tree.block("dm-0", "253:0", "sys/devices/virtual/block");
    tree.block("md0", "9:0", "sys/devices/virtual/block");
    tree.block("dm-1", "253:1", "sys/devices/virtual/block");
    tree.link("sys/devices/virtual/block/md0/holders/dm-1", "/nowhere");
    tree.link("dev/mapper/root", "../dm-0");
    tree.file(
        "proc/swaps",
        "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p3 partition 1 0 -2\n",
    );
    tree.mounts(&[
        ["259:1", "/boot\\040x", "vfat", "/dev/nvme0n1p1", "rw"],
        // As btrfs, with a number that is no block device's.
        ["0:28", "/", "btrfs", "/dev/mapper/root", "rw"],
        ["253:1", "/srv", "ext4", "/dev/mapper/srv", "rw"],
        ["0:5", "/dev", "devtmpfs", "udev", "rw"],
    ]);
    tree.interface("eth0", "up", &sibling);
    tree.interface("eth1", "down", &sibling);
    let found = of(&tree.read(), DISK);
    assert_eq!(
        found.warnings,
        [
            format!("{SIBLING} goes: the network interface eth0 is in use (state up)"),
            format!("{DISK} goes: nvme0n1p1 is mounted on /boot\\\\040x"),
            format!("{DISK} goes: nvme0n1p2 is part of dm-0, which is mounted on /"),
            format!("{DISK} goes: nvme0n1p3 is swap"),
            format!("{DISK} goes: nvme0n1p4 is part of dm-1, which is mounted on /srv"),
            format!("{DISK} goes: nvme0n1p4 is part of md0"),
        ]
    );
    // With a driver of VFIO nothing is taken away.
    carry_out(&tree, &found);
    assert_eq!(of(&tree.read(), DISK).warnings, [""; 0]);
    // Removing takes as much away as unbinding.
    tree.remove(&format!("{disk}/iommu_group"));
    let found = of(&tree.read(), DISK);
    assert_eq!(kinds(&found), [Kind::NoGroup]);
    assert_eq!(found.warnings.len(), 5, "{:?}", found.warnings);
}

#[test]
fn a_disk_of_several_controllers_is_behind_each() {
    let tree = two();
    let (disk, _) = directories();
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    tree.dir(&format!("{disk}/nvme/nvme0"));
    tree.block("nvme0n1", "259:0", subsystem);
    tree.link(
        &format!("{subsystem}/nvme0"),
        format!("../../../../../{disk}/nvme/nvme0"),
    );
    tree.link(
        "sys/class/nvme-subsystem/nvme-subsys0",
        format!("../../../{subsystem}"),
    );
    tree.mounts(&[["259:0", "/", "ext4", "/dev/nvme0n1", "rw"]]);
    let found = of(&tree.read(), DISK);
    assert_eq!(
        found.warnings,
        [format!("{DISK} goes: nvme0n1 is mounted on /")]
    );
}

#[test]
fn virtual_functions_go_with_the_physical_one() {
    let tree = two();
    let f = endpoint("01:10.0", &["00:01.0"], 9);
    tree.add(&f);
    tree.make_virtual("01:10.0", DISK);
    tree.interface("vf0", "up", &Tree::directory(&f));
    let found = of(&tree.read(), DISK);
    assert_eq!(
        found.warnings,
        [
            format!("{DISK} goes: 0000:01:10.0, a virtual function of it, goes too"),
            format!("{DISK} goes: the network interface vf0 is in use (state up)"),
        ]
    );
}

#[test]
fn a_virtual_function_of_vfio_needs_a_token() {
    let tree = two();
    tree.add(&endpoint("01:10.1", &["00:01.0"], 9));
    tree.make_virtual("01:10.1", DISK);
    let machine = tree.read();
    // Its number says nothing of other functions, other than a physical one's.
    assert!(
        !machine.devices[&at("01:10.1")]
            .config
            .unwrap()
            .multifunction
    );
    assert!(machine.devices[&at(SIBLING)].config.unwrap().multifunction);
    let token = |found: &Explanation| found.notes.iter().any(|n| n.contains("VF token"));
    assert!(!token(&of(&machine, "01:10.1")));
    tree.remove(&format!("{}/driver", tree.device(DISK)));
    tree.link(
        &format!("{}/driver", tree.device(DISK)),
        "/sys/bus/pci/drivers/vfio-pci",
    );
    assert!(token(&of(&tree.read(), "01:10.1")));
}

#[test]
fn other_segments() {
    let tree = two();
    tree.add(&endpoint("0001:01:00.0", &["0001:00:01.0"], 7).driver("nvme"));
    // Behind a VMD, which is a function of segment 0 itself.
    let dir = "sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0";
    tree.file(
        &format!("{dir}/config"),
        endpoint("10000:e1:00.0", &[], 8).config(),
    );
    tree.link(
        "sys/bus/pci/devices/10000:e1:00.0",
        format!("../../../../{dir}"),
    );
    tree.interface("vmd0", "up", dir);
    tree.add(&endpoint("00:0e.0", &[], 10).driver("vmd"));
    let machine = tree.read();
    assert_eq!(
        machine.devices[&at("0001:01:00.0")].path,
        [at("0001:00:01.0")]
    );
    assert_eq!(
        machine.devices[&at("10000:e1:00.0")].path,
        [at("10000:e0:06.0")]
    );
    // But it goes with the VMD.
    let found = of(&machine, "00:0e.0");
    assert!(found.warnings[0].contains("vmd0"), "{:?}", found.warnings);
}
