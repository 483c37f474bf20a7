// SPDX-License-Identifier: GPL-2.0

//! What is said of devices that cannot be assigned, and that the commands would change it.

mod common;

use common::explaining::*;
use common::*;
use iommu_info::explain::{Explanation, Kind, explain};
use iommu_info::model::Owner;
use std::collections::BTreeSet;

#[test]
fn a_sibling_is_named_with_its_driver() {
    let tree = two();
    let found = of(&tree.read(), DISK);
    assert_eq!(found.assignable, Some(false));
    assert_eq!(kinds(&found), [Kind::Sibling, Kind::Driver]);
    assert!(found.reasons[0].text.contains(SIBLING));
    assert!(found.reasons[0].text.contains("e1000e"));
    assert!(found.reasons[1].text.contains("nvme"));
    let at: Vec<String> = found
        .grouping
        .causes
        .iter()
        .map(|c| c.at.to_string())
        .collect();
    assert_eq!(at, [DISK, SIBLING]);
    carry_out(&tree, &found);
    let after = of(&tree.read(), DISK);
    assert_eq!(after.assignable, Some(true), "{:?}", after.reasons);
    assert!(after.commands.is_empty());
}

#[test]
fn everything_at_once_is_freed_by_the_commands() {
    let tree = two();
    tree.remove("sys/module/vfio_iommu_type1");
    tree.remove("sys/bus/pci/drivers/vfio-pci");
    tree.process(77, "qemu", "/dev/vfio/5");
    let found = of(&tree.read(), DISK);
    assert_eq!(
        kinds(&found),
        [Kind::Held, Kind::Sibling, Kind::Interrupts, Kind::Driver]
    );
    carry_out(&tree, &found);
    assert_eq!(of(&tree.read(), DISK).assignable, Some(true));
}

#[test]
fn pcieport_is_never_blamed() {
    let tree = two();
    tree.add(
        &endpoint("00:02.0", &[], 6)
            .kind(Some(ROOT_PORT))
            .driver("pcieport"),
    );
    tree.add(&endpoint("02:00.0", &["00:02.0"], 6).driver("vfio-pci"));
    let found = of(&tree.read(), "02:00.0");
    assert_eq!(found.assignable, Some(true), "{:?}", found.reasons);
}

#[test]
fn our_driver_says_which_drivers_use_the_dma_api() {
    let tree = two();
    let report = |state| {
        tree.groups(&format!(
            "group 5: not held\n  {SIBLING} driver e1000e, {state}, domain default\n"
        ));
        kinds(&of(&tree.read(), DISK))
    };
    assert_eq!(report("manages DMA itself"), [Kind::Driver]);
    assert_eq!(report("uses the DMA API"), [Kind::Sibling, Kind::Driver]);
}

#[test]
fn who_has_the_group_is_named() {
    let tree = two();
    tree.link(
        &format!("{}/vfio-dev/vfio3", tree.device(SIBLING)),
        "/nowhere",
    );
    tree.dir(&format!("{}/vfio-dev", tree.device(SIBLING)));
    let holds = |file: &str| {
        tree.process(77, "qemu", file);
        let machine = tree.read();
        tree.remove("proc/77");
        let holders = &machine.groups[&5].holders;
        assert!(machine.groups[&4].holders.is_empty());
        assert_eq!(
            kinds(&of(&machine, DISK)).contains(&Kind::Held),
            !holders.is_empty()
        );
        if let Some(holder) = holders.first() {
            assert_eq!((holder.pid, holder.name.as_str()), (77, "qemu"));
            assert_eq!(machine.groups[&5].owner, Owner::User(holders.clone()));
        }
        holders.len()
    };
    assert_eq!(holds("/dev/vfio/5"), 1);
    assert_eq!(holds("/dev/vfio/devices/vfio3"), 1);
    assert_eq!(holds("/dev/vfio/6"), 0);
    assert_eq!(holds("/dev/vfio/vfio"), 0);
    assert_eq!(holds("/dev/vfio/devices/vfio4"), 0);
}

#[test]
fn a_device_that_is_open_by_itself_has_a_holder() {
    let tree = two();
    tree.process(78, "vmm", "anon_inode:[vfio-device]");
    tree.file(
        "proc/78/fdinfo/7",
        format!("pos:\t0\nvfio-device-syspath: /sys/devices/pci0000:00/0000:00:01.0/{SIBLING}\n"),
    );
    let found = of(&tree.read(), DISK);
    assert_eq!(found.reasons[0].kind, Kind::Held);
    assert_eq!(
        found.reasons[0].text,
        format!("process 78 (vmm) has device {SIBLING} open")
    );
}

#[test]
fn a_claim_of_a_driver_is_named() {
    let tree = two();
    tree.groups(&format!(
        "group 5: claimed through 1 of 2 devices\n  {SIBLING} driver e1000e, manages DMA itself, has claimed, \
         domain of its owner\n"
    ));
    let machine = tree.read();
    let found = of(&machine, DISK);
    assert_eq!(kinds(&found), [Kind::Claimed, Kind::Driver]);
    assert!(
        found.reasons[0]
            .text
            .contains(&format!("by e1000e through {SIBLING}"))
    );
    let claim = format!("claimed by e1000e through {SIBLING}");
    assert_eq!(machine.groups[&5].owner, Owner::Claimed(claim));
}

#[test]
fn a_direct_region_has_no_remedy() {
    let tree = two();
    let file = "sys/kernel/iommu_groups/5/reserved_regions";
    tree.file(file, "0x00000000000a0000 0x00000000000affff direct\n");
    let found = of(&tree.read(), DISK);
    assert_eq!(found.reasons[0].kind, Kind::DirectRegion);
    assert!(found.reasons[0].text.contains("0xa0000 to 0xaffff"));
    carry_out(&tree, &found);
    assert_eq!(kinds(&of(&tree.read(), DISK)), [Kind::DirectRegion]);
    tree.file(
        file,
        "0x00000000000a0000 0x00000000000affff direct-relaxable\n",
    );
    assert_eq!(of(&tree.read(), DISK).assignable, Some(true));
}

#[test]
fn a_bridge_cannot_be_assigned() {
    let tree = two();
    let found = of(&tree.read(), "00:01.0");
    assert_eq!(kinds(&found), [Kind::Bridge]);
    assert!(found.commands.is_empty());
}

#[test]
fn interrupts_that_are_not_isolated() {
    let tree = two();
    let file = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    tree.file(file, "N\n");
    let found = of(&tree.read(), DISK);
    assert!(kinds(&found).contains(&Kind::Interrupts));
    let command = format!("echo 1 > /{file}");
    assert!(found.commands.contains(&command));
    assert!(found.warnings[0].contains("interrupts of its choice"));
    // Where there is iommufd only, that has the parameter.
    let iommufd = "sys/module/iommufd/parameters/allow_unsafe_interrupts";
    tree.remove("sys/module/vfio_iommu_type1");
    tree.file(iommufd, "N\n");
    let found = of(&tree.read(), DISK);
    assert!(found.commands.contains(&format!("echo 1 > /{iommufd}")));
    tree.remove("sys/module/iommufd");
    tree.file(file, "N\n");
    tree.file("sys/kernel/irq/9/chip_name", "IR-PCI-MSI-0000:01:00.0\n");
    assert!(!kinds(&of(&tree.read(), DISK)).contains(&Kind::Interrupts));
    // One of the two ways to open it is enough.
    tree.remove("sys/kernel/irq/9");
    assert!(kinds(&of(&tree.read(), DISK)).contains(&Kind::Interrupts));
    tree.file(
        "sys/module/iommufd/parameters/allow_unsafe_interrupts",
        "Y\n",
    );
    assert!(!kinds(&of(&tree.read(), DISK)).contains(&Kind::Interrupts));
    tree.remove("sys/module/iommufd");
    // Neither is it claimed where the kernel does not say.
    tree.remove("sys/kernel/irq");
    let found = of(&tree.read(), DISK);
    assert!(!kinds(&found).contains(&Kind::Interrupts));
    assert!(found.notes.iter().any(|n| n.contains("remapped")));
}

#[test]
fn what_a_process_calls_itself_is_no_output() {
    let tree = two();
    tree.process(77, "q\n  $ rm -r /\x1b[2J", "/dev/vfio/5");
    let found = of(&tree.read(), DISK);
    let text = &found.reasons[0].text;
    assert!(
        text.chars().all(|c| c.is_ascii_graphic() || c == ' '),
        "{text:?}"
    );
    assert!(text.contains(r"(q\n  $ rm -r /\u{1b}[2J)"), "{text}");
    tree.remove("proc/77");
    tree.process(77, b"\xff\xfe", "/dev/vfio/5");
    assert_eq!(kinds(&of(&tree.read(), DISK))[0], Kind::Held);
}

#[test]
fn what_cannot_be_seen_leaves_it_open() {
    let tree = two();
    carry_out(&tree, &of(&tree.read(), DISK));
    let assignable = || of(&tree.read(), DISK).assignable;
    assert_eq!(assignable(), Some(true));
    // As proc(5) mounts it.
    tree.mounts(&[["0:22", "/proc", "proc", "proc", "rw,hidepid=invisible"]]);
    assert_eq!(assignable(), None);
    let found = of(&tree.read(), DISK);
    assert!(found.notes.iter().any(|n| n.contains("hidepid")));
    tree.process(1, "init", "/dev/null");
    assert_eq!(assignable(), Some(true));
    tree.link("proc/self/ns/pid", "pid:[4026531836]");
    assert_eq!(assignable(), Some(true));
    tree.remove("proc/self/ns/pid");
    tree.link("proc/self/ns/pid", "pid:[4026532001]");
    assert_eq!(assignable(), None);
    tree.remove("proc");
    assert_eq!(assignable(), None);
    // What is in the way is so all the same.
    tree.remove(&format!("{}/driver", tree.device(DISK)));
    assert_eq!(assignable(), Some(false));
}

#[test]
fn interrupts_that_are_not_known_leave_it_open() {
    let tree = two();
    carry_out(&tree, &of(&tree.read(), DISK));
    tree.remove("sys/kernel/irq");
    assert_eq!(of(&tree.read(), DISK).assignable, Some(true));
    tree.file(
        "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        "N\n",
    );
    assert_eq!(of(&tree.read(), DISK).assignable, None);
}

#[test]
fn configuration_space_that_is_not_readable_is_no_other_rule() {
    let tree = two();
    let (disk, sibling) = directories();
    let rule = |found: &Explanation| found.notes.iter().any(|n| n.contains("does not show"));
    for dir in [&disk, &sibling] {
        let bytes = std::fs::read(tree.path(&format!("{dir}/config"))).unwrap();
        tree.file(&format!("{dir}/config"), &bytes[..64]);
    }
    let found = of(&tree.read(), DISK);
    assert!(!rule(&found), "{:?}", found.notes);
    let beyond = |n: &String| n.contains("by root only") && n.contains(SIBLING);
    assert!(found.notes.iter().any(beyond), "{:?}", found.notes);
    tree.remove(&format!("{sibling}/config"));
    let found = of(&tree.read(), DISK);
    let gone = |n: &String| n.contains("does not answer") && n.contains(SIBLING);
    assert!(found.notes.iter().any(gone), "{:?}", found.notes);
}

#[test]
fn devices_that_are_not_on_pci() {
    let tree = two();
    let other = "sys/devices/platform/INTC1000:00";
    tree.dir(other);
    tree.link(
        "sys/kernel/iommu_groups/5/devices/INTC1000:00",
        format!("../../../../../{other}"),
    );
    let of_it = |found: &Explanation| {
        let mut texts = found.reasons.iter().map(|r| r.text.as_str());
        texts.any(|t| t.contains("INTC1000:00"))
    };
    // Only drivers keep a group.
    assert!(!of_it(&of(&tree.read(), DISK)));
    tree.link(&format!("{other}/driver"), "/sys/bus/platform/drivers/intc");
    assert!(of_it(&of(&tree.read(), DISK)));
}

#[test]
fn no_such_device() {
    let error = explain(&two().read(), at("07:00.0")).unwrap_err();
    assert_eq!(error, "there is no PCI device 0000:07:00.0");
}

#[test]
fn members_are_those_of_the_group() {
    let machine = two().read();
    assert_eq!(
        machine.groups[&5].devices,
        BTreeSet::from([at(DISK), at(SIBLING)])
    );
    assert_eq!(machine.devices[&at(DISK)].path, [at("00:01.0")]);
}
