// SPDX-License-Identifier: GPL-2.0

//! The program as a whole: what it prints, as text and as JSON, and its exit status.

mod common;

use common::program::*;
use common::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[test]
fn list_with_our_driver() {
    let tree = ours();
    let found = json(&tree, &["list"]);
    let unit = &found["units"][0];
    assert_eq!(unit["name"], "vtd0");
    assert_eq!(unit["driver"], "rust_vtd");
    assert_eq!((&unit["ours"], &unit["bits"]), (&true.into(), &48.into()));
    let disk = &found["devices"][1];
    assert_eq!(disk["address"], DISK);
    assert_eq!(disk["driver"], "nvme");
    assert_eq!(disk["policy"]["name"], "lazy");
    assert_eq!(disk["policy"]["max_age_ms"], 250);
    assert_eq!(disk["policy"]["attribute"], true);
    assert_eq!((&disk["group"], &disk["unit"]), (&5.into(), &"vtd0".into()));
    let groups = found["groups"].as_array().unwrap();
    let numbers: Vec<u64> = groups
        .iter()
        .map(|g| g["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [4, 5]);
    let group = &groups[1];
    assert_eq!(group["type"], "DMA");
    assert_eq!(group["owner"]["kind"], "kernel");
    assert_eq!(group["owner"]["by"][0], "nvme");
    assert_eq!(groups[0]["owner"]["kind"], "nobody");
    assert_eq!(group["reserved"][0]["kind"], "msi");
    assert_eq!(group["window"][1]["start"], "0xfef00000");
    assert_eq!(group["window"][1]["last"], "0xffffffffffff");
    assert_eq!(
        found["missing"].as_array().unwrap().len(),
        0,
        "{}",
        found["missing"]
    );

    let text = text(&tree, &["list"]);
    for line in [
        "unit vtd0: rust_vtd, 48 bits, 1 device",
        "group 5: type DMA, owner kernel (nvme)",
        "  window 0x0-0xfedfffff 0xfef00000-0xffffffffffff",
        "  reserved 0xfee00000-0xfeefffff msi",
        "  0000:01:00.0: driver nvme, policy lazy (at most 250 ms), vtd0, DMA mask 64 bits",
        "  0000:00:01.0: driver pcieport, policy strict (from the group's type), vtd0, DMA mask 64 bits",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
}

#[test]
fn the_window_is_what_all_devices_of_the_group_can_use() {
    let tree = ours();
    tree.aperture(DISK, 0, (1 << 39) - 1);
    let found = json(&tree, &["list"]);
    assert_eq!(found["units"][0]["bits"], 39);
    assert_eq!(found["groups"][0]["window"][1]["last"], "0xffffffffffff");
    assert_eq!(found["groups"][1]["window"][1]["last"], "0x7fffffffff");
    let other = endpoint("01:00.1", &["00:01.0"], 5);
    tree.add(&other);
    tree.aperture("01:00.1", 0x1000, (1 << 48) - 1);
    let window = json(&tree, &["list"])["groups"][1]["window"].clone();
    assert_eq!(window[0]["start"], "0x1000");
    assert_eq!(window[1]["last"], "0x7fffffffff");
    // The unit is as wide as the widest.
    tree.link("sys/class/iommu/vtd0/devices/0000:01:00.1", "/nowhere");
    tree.aperture("01:00.1", 0, (1 << 48) - 1);
    tree.aperture(DISK, 0, (1 << 30) - 1);
    let found = json(&tree, &["list"]);
    assert_eq!(found["units"][0]["bits"], 48);
    assert_eq!(found["groups"][1]["window"][0]["last"], "0x3fffffff");
    // A driver that does not say it of each is not guessed at.
    for device in [DISK, "01:00.1"] {
        tree.remove(&format!("{}/rust_iommu/aperture", tree.device(device)));
    }
    let found = json(&tree, &["list"]);
    assert_eq!(found["units"][0]["bits"], Value::Null);
    assert_eq!(found["groups"][1]["window"], Value::Null);
    let missing = found["missing"][0].as_str().unwrap();
    assert!(missing.contains("says how wide"), "{missing}");
}

#[test]
fn sealed_devices_are_named() {
    let tree = ours();
    tree.seal(DISK, false);
    assert!(!text(&tree, &["list"]).contains("sealed"));
    assert_eq!(json(&tree, &["list"])["devices"][1]["sealed"], false);
    tree.seal(DISK, true);
    let line =
        "  0000:01:00.0: driver nvme, policy lazy (at most 250 ms), sealed, vtd0, DMA mask 64 bits";
    let text = text(&tree, &["list"]);
    assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
}

#[test]
fn our_virtio_driver_is_known() {
    let tree = ours();
    tree.remove("sys/kernel/debug/rust_vtd");
    tree.remove("sys/class/iommu/vtd0");
    tree.link("sys/class/iommu/viommu0/devices/0000:01:00.0", "/nowhere");
    tree.file("sys/kernel/debug/rust_virtio_iommu/groups", "");
    tree.dir("sys/kernel/debug/rust_virtio_iommu/viommu0");
    tree.aperture(DISK, 0, u64::MAX);
    let unit = json(&tree, &["list"])["units"][0].clone();
    assert_eq!(
        (&unit["driver"], &unit["bits"]),
        (&"rust_virtio_iommu".into(), &64.into())
    );
    // Without debugfs, by the unit's name.
    tree.remove("sys/kernel/debug/rust_virtio_iommu");
    let before = json(&tree, &["list"])["units"][0].clone();
    assert_ne!(before["driver"], "rust_virtio_iommu");
    tree.dir("sys/module/rust_virtio_iommu");
    let unit = json(&tree, &["list"])["units"][0].clone();
    assert_eq!(unit["driver"], "rust_virtio_iommu");
}

#[test]
fn scalable_mode_has_no_known_width() {
    let tree = in_tree();
    let ecap = "sys/class/iommu/vtd0/intel-iommu/ecap";
    // FLTS, bit 47, and SMTS, bit 43: both are needed.
    for (text, bits) in [
        ("8000f0050da", Some(39)),
        ("80000f0050da", Some(39)),
        ("88000f0050da", None),
    ] {
        tree.file(ecap, format!("{text}\n"));
        let found = json(&tree, &["list"]);
        assert_eq!(found["units"][0]["bits"].as_u64(), bits, "{text}");
        let missing = found["missing"][0].as_str().unwrap();
        assert_eq!(missing.contains("sm_off"), bits.is_none(), "{missing}");
    }
}

/// All names of fields in `value`, with those of the objects that they are in.
fn keys(value: &Value, inside: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = format!("{inside}{name}");
                found.insert(name.clone());
                keys(value, &format!("{name}."), found);
            }
        }
        Value::Array(values) => values.iter().for_each(|v| keys(v, inside, found)),
        _ => {}
    }
}

/// What programs may rely on: changing one of these lists breaks them.
#[test]
fn json_has_these_fields() {
    let tree = ours();
    tree.process(77, "qemu", "/dev/vfio/5");
    let disk = endpoint(DISK, &["00:01.0"], 5).multifunction();
    tree.file(&format!("{}/config", Tree::directory(&disk)), disk.config());
    tree.add(&endpoint("01:00.1", &["00:01.0"], 5));
    tree.groups(&format!(
        "group 5: not held\n  {DISK} driver nvme, uses the DMA API, domain default\n    window at 0x1000, 16 pages, \
         3 mapped: 0 laps, 9 flushes, 0 failed, 0 searches\n"
    ));
    tree.file(
        &format!("{}/rust_iommu/merged_by", tree.device(DISK)),
        format!("{DISK} function\n"),
    );
    let other = "sys/kernel/iommu_groups/5/devices/INTC1000:00";
    tree.dir(other);
    let golden = |words: &[&str], wanted: &str| {
        let mut found = BTreeSet::new();
        keys(&json(&tree, words), "", &mut found);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        let wanted: Vec<&str> = wanted.split_whitespace().collect();
        assert_eq!(found, wanted, "{words:?}");
    };
    golden(
        &["list"],
        "devices devices.address devices.aperture devices.aperture.last devices.aperture.start devices.class devices.driver devices.driver_override devices.group \
         devices.manages_dma devices.mask_bits devices.memory devices.merged_by devices.merged_by.at devices.merged_by.how devices.path devices.physical devices.policy \
         devices.policy.attribute devices.policy.max_age_ms devices.policy.name devices.sealed devices.unit devices.uses \
         devices.vfio groups groups.bits groups.claim groups.devices groups.holders groups.holders.file \
         groups.holders.name groups.holders.pid groups.number groups.others groups.others.driver \
         groups.others.name groups.owner groups.owner.by groups.owner.by.file groups.owner.by.name \
         groups.owner.by.pid groups.owner.kind groups.reserved groups.reserved.kind groups.reserved.last \
         groups.reserved.start groups.type groups.window groups.window.last groups.window.start \
         hidden_processes missing platform platform.dma_entry_limit platform.iommufd \
         platform.iommufd_unsafe_interrupts platform.modules platform.remaps_interrupts platform.tables \
         platform.unsafe_interrupts platform.vfio_pci units units.bits units.devices units.driver \
         units.first_stage units.name units.ours",
    );
    golden(
        &["explain", DISK],
        "assignable commands device group grouping grouping.causes grouping.causes.at grouping.causes.devices \
         grouping.causes.kind grouping.causes.text grouping.unreadable notes reasons reasons.kind reasons.text \
         warnings",
    );
    golden(
        &["memlock", "5"],
        "device_memory figures figures.bytes figures.counted_for figures.layout figures.reason figures.times \
         groups memory notes window window.last window.start",
    );
    golden(
        &["watch", "--interval", "0.01", "--count", "1"],
        "devices devices.address devices.faults devices.flushes devices.invalidations devices.live_pages devices.mapped_bytes devices.mappings missing seconds units units.faults \
         units.invalidations units.name",
    );
}

#[test]
fn list_with_an_in_tree_driver_says_what_is_missing() {
    let tree = in_tree();
    let found = json(&tree, &["list"]);
    let unit = &found["units"][0];
    assert_eq!(unit["driver"], "intel-iommu");
    assert_eq!((&unit["ours"], &unit["bits"]), (&false.into(), &39.into()));
    assert_eq!(found["devices"][0]["policy"]["name"], "fq");
    assert_eq!(found["devices"][0]["policy"]["attribute"], false);
    let missing = found["missing"][0].as_str().unwrap();
    for what in [
        "intel-iommu",
        "policy",
        "claims",
        "invalidations",
        "faults",
        "live mappings",
    ] {
        assert!(missing.contains(what), "no '{what}' in {missing}");
    }
    assert!(text(&tree, &["list"]).contains("not known\n  vtd0: not exported by intel-iommu"));
}

#[test]
fn a_unit_of_no_known_width_has_no_window() {
    let tree = in_tree();
    tree.remove("sys/class/iommu/vtd0/intel-iommu");
    tree.dir("sys/class/iommu/vtd0/amd-iommu");
    let found = json(&tree, &["list"]);
    assert_eq!(found["units"][0]["driver"], "amd-iommu");
    assert_eq!(found["groups"][0]["window"], Value::Null);
    let missing = found["missing"][0].as_str().unwrap();
    assert!(missing.contains("width of its tables"), "{missing}");
    assert!(text(&tree, &["list"]).contains("window unknown"));
    let text = text(&tree, &["memlock", "5"]);
    assert!(
        text.contains("the DMA window of group 5 is not known"),
        "{text}"
    );
}

#[test]
fn a_unit_that_is_a_virtio_device() {
    let tree = in_tree();
    tree.remove("sys/class/iommu/vtd0");
    let unit = "sys/class/iommu/0000:00:01.0";
    tree.link(
        &format!("{unit}/device/driver"),
        "/sys/bus/virtio/drivers/virtio_iommu",
    );
    let found = text(&tree, &["list"]);
    assert!(
        found.starts_with("unit 0000:00:01.0: virtio_iommu, unknown width, 0 devices\n"),
        "{found}"
    );
    assert!(found.contains("not exported by virtio_iommu"), "{found}");
}

#[test]
fn our_driver_without_debugfs() {
    let tree = ours();
    tree.remove("sys/kernel/debug");
    let found = json(&tree, &["list"]);
    assert_eq!(found["units"][0]["driver"], "rust_vtd");
    assert_eq!(found["units"][0]["bits"], 48);
    let missing = found["missing"].to_string();
    assert!(missing.contains("debugfs has no report"), "{missing}");
    let watched = text(&tree, &["watch", "--interval", "0.01", "--count", "1"]);
    assert!(watched.contains("vtd0: 0.0 invalidations/s"), "{watched}");
}

#[test]
fn a_report_that_cannot_be_read_loses_no_other() {
    let tree = ours();
    tree.groups("group 5: claimed past this framework\n");
    // As a file that gives an error: it is there and cannot be read.
    tree.dir("sys/kernel/debug/rust_amdvi/groups");
    let found = json(&tree, &["list"]);
    assert_eq!(found["groups"][1]["owner"]["kind"], "claimed");
    assert_eq!(found["units"][0]["bits"], 48);
    let missing = found["missing"].to_string();
    assert!(
        missing.contains("rust_amdvi: claims of groups are not known"),
        "{missing}"
    );
    assert!(!missing.contains("vtd"), "{missing}");
}

#[test]
fn a_driver_without_attributes() {
    let tree = ours();
    tree.remove("sys/class/iommu/vtd0/rust_iommu");
    let missing = json(&tree, &["list"])["missing"].to_string();
    assert!(
        missing.contains("vtd0: window and counters are not known"),
        "{missing}"
    );
    assert!(!missing.contains("says how wide"), "{missing}");
    let (status, said) = fails(tree.0.path(), &["watch", "--count", "1"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("nothing to watch: vtd0: window and counters"),
        "{said}"
    );
    let (_, said) = fails(tree.0.path(), &["watch", "--count", "1"]);
    assert!(
        said.contains("nothing to watch: vtd0: window and counters"),
        "{said}"
    );
}

#[test]
fn explain_as_text() {
    let tree = ours();
    let before = text(&tree, &["explain", "01:00.0"]);
    assert!(
        before.starts_with("0000:01:00.0 in group 5: not assignable\nbecause\n"),
        "{before}"
    );
    let commands: Vec<&str> = before
        .lines()
        .filter_map(|l| l.strip_prefix("  $ "))
        .collect();
    assert_eq!(
        commands,
        [
            "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override",
            "echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        ]
    );
    assert!(!before.contains("careful"), "{before}");
    let json = json(&tree, &["explain", DISK]);
    assert_eq!(json["assignable"], false);
    assert_eq!(json["reasons"][0]["kind"], "driver");
}

#[test]
fn warnings_stand_above_the_commands() {
    let tree = ours();
    let disk = Tree::directory(&endpoint(DISK, &["00:01.0"], 5));
    tree.block("nvme0n1", "259:0", &format!("{disk}/nvme/nvme0"));
    tree.mounts(&[["259:0", "/", "ext4", "/dev/nvme0n1", "rw"]]);
    let found = text(&tree, &["explain", DISK]);
    let together = "careful\n  - 0000:01:00.0 goes: nvme0n1 is mounted on /\nto free it\n  $ ";
    assert!(found.contains(together), "{found}");
    let json = json(&tree, &["explain", DISK]);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_not_certain_is_said_in_the_first_line() {
    let tree = ours();
    let driver = format!("{}/driver", tree.device(DISK));
    tree.remove(&driver);
    tree.link(&driver, "/sys/bus/pci/drivers/vfio-pci");
    let first = || {
        text(&tree, &["explain", DISK])
            .lines()
            .next()
            .unwrap()
            .to_string()
    };
    assert_eq!(first(), "0000:01:00.0 in group 5: assignable");
    assert_eq!(json(&tree, &["explain", DISK])["assignable"], true);
    tree.remove("proc");
    assert!(first().contains("group 5: not known whether it is assignable"));
    assert_eq!(json(&tree, &["explain", DISK])["assignable"], Value::Null);
}

#[test]
fn a_process_prints_no_lines_of_its_own() {
    let tree = ours();
    tree.process(77, "x\n  $ reboot", "/dev/vfio/5");
    for words in [&["list"][..], &["explain", DISK]] {
        let text = text(&tree, words);
        assert!(text.contains("process 77"), "{text}");
        assert!(
            !text
                .lines()
                .any(|l| l.contains("$ reboot") && !l.contains("process 77")),
            "{text}"
        );
    }
}

#[test]
fn names_that_are_not_utf8() {
    let tree = ours();
    let odd = OsStr::from_bytes(b"\xff\xfe");
    for dir in [
        "proc",
        "sys/class/net",
        "sys/class/block",
        "sys/class/iommu",
    ] {
        std::fs::create_dir_all(tree.path(dir).join(odd)).unwrap();
    }
    let text = text(&tree, &["list"]);
    assert!(text.contains("group 5: type DMA"), "{text}");
}

#[test]
fn memlock_as_text_and_json() {
    let tree = ours();
    let words = ["memlock", "5", "4", "--memory", "1G"];
    let found = json(&tree, &words);
    let figure = |layout: &str| {
        let figures = found["figures"].as_array().unwrap();
        let figure = figures.iter().find(|f| f["layout"] == layout).unwrap();
        (
            figure["bytes"].as_u64().unwrap(),
            figure["counted_for"].clone(),
        )
    };
    assert_eq!(figure("type1-shared"), (1 << 30, "process".into()));
    assert_eq!(figure("type1-each"), (2 << 30, "process".into()));
    assert_eq!(figure("iommufd-shared"), (1 << 30, "user".into()));
    assert_eq!(figure("iommufd-copied"), (1 << 30, "user".into()));
    assert_eq!(figure("iommufd-each"), (2 << 30, "user".into()));
    let text = text(&tree, &words);
    assert!(
        text.starts_with("RLIMIT_MEMLOCK for M = 1G and groups 4, 5\n"),
        "{text}"
    );
    assert!(
        text.contains("a container each: 2147483648 bytes (2 x M), for the process: "),
        "{text}"
    );
}

#[test]
fn failures_have_one_line_and_status_1() {
    let tree = ours();
    let root = tree.0.path();
    assert_eq!(fails(root, &["explain", "09:00.0"]).0, 1);
    assert_eq!(fails(root, &["memlock", "99"]).0, 1);
    assert_eq!(
        fails(root, &["memlock", "5", "4", "--memory", "16777215T"]).0,
        1
    );
    assert_eq!(fails(Path::new("/nonexistent"), &["list"]).0, 1);
    assert_eq!(fails(&tree.path("sys/class/iommu/nothing"), &["list"]).0, 1);
    assert_eq!(fails(&tree.path("dev/iommu"), &["list"]).0, 1);
}

#[test]
fn wrong_usage_has_one_line_and_status_2() {
    let tree = ours();
    let root = tree.0.path();
    for words in [
        &["explain", "nonsense"][..],
        &["explain"],
        &["memlock"],
        &["memlock", "five"],
        &["memlock", "5", "--memory", "lots"],
        &["watch", "--interval", "0"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(fails(root, words).0, 2, "{words:?}");
    }
}

#[test]
fn a_machine_without_anything() {
    let tree = Tree::new();
    assert_eq!(
        text(&tree, &["list"]),
        "no unit: no IOMMU driver is at work\n"
    );
}
