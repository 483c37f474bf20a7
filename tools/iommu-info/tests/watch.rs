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
    for (name, value) in [("invalidations", "400\n"), ("faults", "4\n")] {
        tree.file(name, value);
        let file = format!("sys/class/iommu/vtd0/rust_iommu/{name}");
        std::fs::rename(tree.path(name), tree.path(&file)).unwrap();
    }
    let mut counted = [0.0, 0.0];
    for line in std::iter::repeat_with(next).take(1000) {
        let seconds = line["seconds"].as_f64().unwrap();
        let unit = &line["units"][0];
        assert_eq!(unit["name"], "vtd0");
        for (sum, what) in counted.iter_mut().zip(["invalidations", "faults"]) {
            *sum += (unit[what].as_f64().unwrap() * seconds).round();
        }
        if counted[0] > 0.0 && counted[1] > 0.0 {
            break;
        }
    }
    assert_eq!(counted, [300.0, 3.0]);
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
    tree.remove(&format!("{attributes}/faults"));
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
