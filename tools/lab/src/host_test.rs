// SPDX-License-Identifier: GPL-2.0

//! Tests that need no guest: one command of the table each, run by sh in the
//! checkout, where status 0 is a pass.

use crate::kernel;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

pub struct HostTest {
    pub name: &'static str,
    pub command: &'static str,
}

pub const TESTS: &[HostTest] = &[
    HostTest {
        name: "lab-test",
        command: "cargo test --quiet --locked --manifest-path tools/lab/Cargo.toml",
    },
    HostTest {
        name: "lab-fmt",
        command: "cargo fmt --check --manifest-path tools/lab/Cargo.toml",
    },
    HostTest {
        name: "lab-clippy",
        command: "cargo clippy --quiet --locked --all-targets \
                  --manifest-path tools/lab/Cargo.toml -- -D warnings",
    },
    HostTest {
        name: "races-test",
        command: "cargo test --quiet --locked --manifest-path selftests/races/Cargo.toml",
    },
    HostTest {
        name: "races-fmt",
        command: "cargo fmt --check --manifest-path selftests/races/Cargo.toml",
    },
    HostTest {
        name: "races-clippy",
        command: "cargo clippy --quiet --locked --all-targets \
                  --manifest-path selftests/races/Cargo.toml -- -D warnings",
    },
    HostTest {
        name: "info-test",
        command: "cargo test --quiet --locked --manifest-path tools/iommu-info/Cargo.toml",
    },
    HostTest {
        name: "info-fmt",
        command: "cargo fmt --check --manifest-path tools/iommu-info/Cargo.toml",
    },
    HostTest {
        name: "info-clippy",
        command: "cargo clippy --quiet --locked --all-targets \
                  --manifest-path tools/iommu-info/Cargo.toml -- -D warnings",
    },
    HostTest {
        name: "measure-test",
        command: "cargo test --quiet --locked --manifest-path tools/measure/Cargo.toml",
    },
    HostTest {
        name: "measure-fmt",
        command: "cargo fmt --check --manifest-path tools/measure/Cargo.toml",
    },
    HostTest {
        name: "measure-clippy",
        command: "cargo clippy --quiet --locked --all-targets \
                  --manifest-path tools/measure/Cargo.toml -- -D warnings",
    },
    HostTest {
        name: "pure-test",
        command: "cargo test --quiet --locked --manifest-path selftests/host/Cargo.toml",
    },
    HostTest {
        name: "compile-fail",
        command: "tools/compile-fail",
    },
    HostTest {
        name: "kernel-fmt",
        command: "tools/lint fmt-check",
    },
    HostTest {
        name: "kernel-clippy",
        command: "tools/lint clippy",
    },
    HostTest {
        name: "rules",
        command: "tools/lint rules",
    },
];

/// Those of the Debian package: what selftests/package/install found.
pub const PACKAGE: &[HostTest] = &[HostTest {
    name: "package-install",
    command: "cat build/system/results && tail -n 1 build/system/results | grep -q '^1\\.\\.' &&
              ! grep -q '^not ok' build/system/results",
}];

impl HostTest {
    /// Whether it passed; its output is kept in `logs` and returned on failure.
    pub fn run(&self, logs: &Path) -> Result<(bool, Vec<String>)> {
        let log = logs.join(format!("host-{}.log", self.name));
        // Guests have time limits.
        let out = Command::new("nice")
            .args(["sh", "-c", &format!("exec 2>&1; {}", self.command)])
            .current_dir(kernel::tree())
            .env("TERM", "dumb")
            .output()
            .context("cannot run nice")?;
        std::fs::write(&log, &out.stdout)
            .with_context(|| format!("cannot write {}", log.display()))?;
        if out.status.success() {
            return Ok((true, Vec::new()));
        }
        let text = String::from_utf8_lossy(&out.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        let mut quote: Vec<String> = tail.iter().map(|l| l.to_string()).collect();
        quote.push(format!("log: {}", log.display()));
        Ok((false, quote))
    }
}
