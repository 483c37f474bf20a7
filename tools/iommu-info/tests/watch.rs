// SPDX-License-Identifier: GPL-2.0

//! `watch`: what it counts, and how it ends.

mod common;

use common::program::{text as text_of, *};
use common::*;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `watch` with a pipe to read from.
fn watching(tree: &Tree, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iommu-info"));
    command
        .arg("--root")
        .arg(tree.0.path())
        .args(["watch", "--interval", "0.01"])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn watch_counts() {
    let tree = ours();
    tree.counters(100, 1);
    let of_unit = "sys/class/iommu/vtd0/rust_iommu";
    let of_disk = format!("{}/rust_iommu", tree.device(DISK));
    tree.file(&format!("{of_disk}/invalidations"), "50\n");
    tree.file(&format!("{of_disk}/faults"), "0\n");
    let mut child = watching(&tree, &["--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    // The first line is there, so the first look was before what is counted now.
    let first = next();
    assert_eq!(first["units"][0]["invalidations"], 0.0);
    assert!(
        first["missing"][0]
            .as_str()
            .unwrap()
            .contains("live mappings")
    );
    // Each in one go: a look finds the old file or the new one.
    for (dir, name, value) in [
        (of_unit, "invalidations", "400\n"),
        (of_unit, "faults", "4\n"),
        (&of_disk, "invalidations", "270\n"),
        (&of_disk, "faults", "2\n"),
    ] {
        tree.file(name, value);
        std::fs::rename(tree.path(name), tree.path(&format!("{dir}/{name}"))).unwrap();
    }
    let mut counted = [0.0; 4];
    for line in std::iter::repeat_with(next).take(1000) {
        let seconds = line["seconds"].as_f64().unwrap();
        let (unit, device) = (&line["units"][0], &line["devices"][0]);
        assert_eq!(unit["name"], "vtd0");
        // With nothing mapped it is there only when something happens.
        assert!(device.is_null() || device["address"] == DISK);
        let rates = [unit, device].map(|of| [&of["invalidations"], &of["faults"]]);
        for (sum, rate) in counted.iter_mut().zip(rates.as_flattened()) {
            *sum += (rate.as_f64().unwrap_or(0.0) * seconds).round();
        }
        if counted.iter().all(|sum| *sum > 0.0) {
            break;
        }
    }
    assert_eq!(counted, [300.0, 3.0, 220.0, 2.0]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    for words in [&["--json"][..], &[]] {
        let tree = ours();
        let mut child = watching(&tree, words);
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{words:?}: {out:?}"
        );
    }
}

#[test]
fn watch_shows_what_is_mapped() {
    let tree = ours();
    let attributes = format!("{}/rust_iommu", tree.device(DISK));
    tree.file(&format!("{attributes}/mappings"), "17\n");
    tree.file(&format!("{attributes}/mapped_bytes"), "69632\n");
    tree.groups(&format!(
        "group 5: not held\n  {DISK} driver nvme, uses the DMA API, domain default\n    window at 0x1000, 16 pages, \
         3 mapped: 0 laps, 9 flushes, 0 failed, 0 searches\n"
    ));
    let text = text_of(&tree, &["watch", "--interval", "0.01", "--count", "2"]);
    let line =
        "0000:01:00.0: 17 mappings of 69632 bytes, 0.0 flushes/s, 3 live pages in its lazy window";
    assert_eq!(text.lines().filter(|l| *l == line).count(), 2, "{text}");
    assert!(!text.contains("not known"), "{text}");
    tree.file(&format!("{attributes}/faults"), "4\n");
    let text = text_of(&tree, &["watch", "--interval", "0.01", "--count", "1"]);
    assert!(text.contains(&format!("{line}, 0.0 faults/s\n")), "{text}");
    tree.file(&format!("{attributes}/invalidations"), "5\n");
    let text = text_of(&tree, &["watch", "--interval", "0.01", "--count", "1"]);
    let line = line.replace(", 0.0 flushes/s", ", 0.0 invalidations/s, 0.0 flushes/s");
    assert!(text.contains(&format!("{line}, 0.0 faults/s\n")), "{text}");
    tree.remove(&format!("{attributes}/faults"));
    tree.remove(&format!("{attributes}/invalidations"));
    // Without a window, and with nothing mapped.
    tree.groups("");
    let words = ["watch", "--interval", "0.01", "--count", "1"];
    let with = text_of(&tree, &words);
    assert!(
        with.contains("\n0000:01:00.0: 17 mappings of 69632 bytes\n"),
        "{with}"
    );
    tree.file(&format!("{attributes}/mappings"), "0\n");
    assert!(!text_of(&tree, &words).contains("0000:01:00.0"));
}

#[test]
fn watch_with_an_in_tree_driver_says_what_is_missing() {
    let (status, said) = fails(in_tree().0.path(), &["watch", "--count", "1"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("nothing to watch: vtd0: not exported by intel-iommu"),
        "{said}"
    );
    let (status, said) = fails(Tree::new().0.path(), &["watch", "--count", "1"]);
    assert_eq!(status, 1);
    assert!(said.contains("no IOMMU driver is at work"), "{said}");
}
