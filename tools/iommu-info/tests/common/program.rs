// SPDX-License-Identifier: GPL-2.0

//! Runs the program.

#![allow(dead_code, reason = "each test file uses a part of it")]

use super::*;
use serde_json::Value;
use std::process::{Command, Output};

/// The disk of [`ours`].
pub const DISK: &str = "0000:01:00.0";

/// Runs the program on a tree.
pub fn run(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iommu-info"));
    command
        .arg("--root")
        .arg(root)
        .args(words)
        .output()
        .unwrap()
}

/// What it prints as text.
pub fn text(tree: &Tree, words: &[&str]) -> String {
    let out = run(tree.0.path(), words);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.is_empty(), "{words:?}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

/// What it prints as JSON.
pub fn json(tree: &Tree, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&text(tree, &words)).unwrap()
}

/// Its status, and the one line that it says.
pub fn fails(root: &Path, words: &[&str]) -> (i32, String) {
    let out = run(root, words);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.stdout.is_empty(), "{words:?}");
    assert!(
        said.starts_with("iommu-info: ") && said.ends_with('\n'),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    (out.status.code().unwrap(), said)
}

/// A disk behind our driver's unit.
pub fn ours() -> Tree {
    let tree = Tree::new();
    tree.ours();
    tree.add(
        &endpoint("00:01.0", &[], 4)
            .kind(Some(ROOT_PORT))
            .acs(ISOLATES)
            .driver("pcieport"),
    );
    tree.add(&endpoint(DISK, &["00:01.0"], 5).driver("nvme"));
    tree.file(
        &format!("{}/rust_iommu/policy", tree.device(DISK)),
        "lazy\n",
    );
    tree.file(
        &format!("{}/rust_iommu/max_age_ms", tree.device(DISK)),
        "250\n",
    );
    tree.link("sys/class/iommu/vtd0/devices/0000:01:00.0", "/nowhere");
    for device in [DISK, "00:01.0"] {
        tree.aperture(device, 0, (1 << 48) - 1);
    }
    tree
}

/// A disk behind a unit of the kernel's own driver.
pub fn in_tree() -> Tree {
    let tree = Tree::new();
    tree.in_tree();
    tree.add(&endpoint(DISK, &[], 5).driver("nvme"));
    tree.file("sys/kernel/iommu_groups/5/type", "DMA-FQ\n");
    tree
}
