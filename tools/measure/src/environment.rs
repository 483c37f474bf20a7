// SPDX-License-Identifier: GPL-2.0

//! Where something was measured: figures of different machines are not the same.

use anyhow::{Context, Result};
use lab::kernel::{self, Kernel};
use lab::options::Options;
use serde::{Deserialize, Serialize};
use std::process::Command;

/// All that is known about it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Environment {
    /// Of this tree, with `-dirty` after it where something was not committed
    pub commit: String,
    /// The folder of our modules, where it is not the usual one
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modules: String,
    /// The guest's kernel
    pub kernel: String,
    /// QEMU's version
    pub qemu: String,
    /// `tcg` or `kvm`. Instructions are always counted with TCG
    pub accelerator: String,
    /// The host's processor
    pub cpu: String,
    /// How many of it
    pub cpus: usize,
    /// The host's kernel
    pub host: String,
    /// When it began, in UTC
    pub begun: String,
    /// The host's load (of the last minute) before and after
    pub load: [f64; 2],
}

fn output(program: &str, words: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(words)
        .current_dir(kernel::tree())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// The load of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|w| w.parse().ok()).unwrap_or(0.0)
}

impl Environment {
    /// Of a guest with these options; the load afterwards is yet to be filled in.
    pub fn of(options: &Options) -> Result<Environment> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find(|l| l.starts_with("model name"));
        let cpu = model
            .and_then(|l| l.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let kvm = lab::accel::use_kvm(options)?;
        // The tree may be another user's than the one that the toolbox has.
        let safe = format!("safe.directory={}", kernel::tree().display());
        let git = [
            "-c",
            &safe,
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
        ];
        let qemu = output("qemu-system-x86_64", &["--version"])?;
        let modules = options.modules.as_ref();
        Ok(Environment {
            commit: output("git", &git)?,
            modules: modules.map_or(String::new(), |m| m.display().to_string()),
            kernel: Kernel::find(&options.kernel)?.release,
            qemu: qemu.lines().next().unwrap_or_default().to_string(),
            accelerator: if kvm { "kvm" } else { "tcg" }.into(),
            cpu: cpu.into(),
            cpus: std::thread::available_parallelism()?.get(),
            host: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .into(),
            begun: output("date", &["-u", "+%Y-%m-%d %H:%M"])?,
            load: [load(), 0.0],
        })
    }

    /// How it differs from another one in what figures depend on, a sentence for each.
    pub fn differs(&self, other: &Environment) -> Vec<String> {
        differ(&[
            ("kernel", &self.kernel, &other.kernel),
            ("QEMU", &self.qemu, &other.qemu),
            ("accelerator", &self.accelerator, &other.accelerator),
            ("processor", &self.cpu, &other.cpu),
        ])
    }

    /// The same of our code.
    pub fn other_code(&self, other: &Environment) -> Vec<String> {
        differ(&[
            ("commit", &self.commit, &other.commit),
            ("modules", &self.modules, &other.modules),
        ])
    }
}

fn differ(pairs: &[(&str, &String, &String)]) -> Vec<String> {
    let differ = pairs.iter().filter(|(_, old, new)| old != new);
    differ
        .map(|(what, old, new)| format!("{what}: {old}, then {new}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let old = Environment {
            kernel: "1".into(),
            commit: "a".into(),
            ..Environment::default()
        };
        let new = Environment {
            kernel: "2".into(),
            commit: "b".into(),
            ..old.clone()
        };
        assert_eq!(old.differs(&new), ["kernel: 1, then 2"]);
        assert_eq!(old.other_code(&new), ["commit: a, then b"]);
        assert!(old.differs(&old).is_empty());
    }
}
