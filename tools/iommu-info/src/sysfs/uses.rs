// SPDX-License-Identifier: GPL-2.0

//! What the machine itself has on a device: file systems, swap and network interfaces. They are gone when the
//! device is taken away.

use super::Root;
use crate::address::Address;
use crate::model::Machine;
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: &str = "sys/class/block";
const NET: &str = "sys/class/net";
const SUBSYSTEMS: &str = "sys/class/nvme-subsystem";

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Major and minor number; of the file system, where that has a number of its own.
    number: String,
    /// Where it is.
    at: String,
    /// `proc` and the like.
    pub(super) kind: String,
    /// What it is of.
    source: String,
    /// What the file system was told.
    pub(super) options: String,
}

/// Reads a line (proc_pid_mountinfo(5)). White space in names is `\040` and the like there.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let mut after = after.split(' ');
    Some(Mount {
        number: before.next()?.into(),
        at: before.nth(1)?.into(),
        kind: after.next()?.into(),
        source: after.next()?.into(),
        options: after.next().unwrap_or("").into(),
    })
}

/// What is mounted.
pub(super) fn mounts(root: &Root) -> Vec<Mount> {
    let text = root.text("proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(mount).collect()
}

/// What is used of each block device, by name.
fn used(root: &Root, mounts: &[Mount]) -> BTreeMap<String, BTreeSet<String>> {
    // `/dev/mapper/root` is a link to `../dm-0`.
    let block = |path: &str| {
        let name = path.strip_prefix("/dev/")?;
        let target = root.link_name(&format!("dev/{name}"));
        target.or_else(|| Some(name.rsplit('/').next()?.to_string()))
    };
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let swaps = root.text("proc/swaps").unwrap_or_default();
    for path in swaps
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().next())
    {
        if let Some(name) = block(path) {
            used.entry(name).or_default().insert("is swap".into());
        }
    }
    let names = root.names(BLOCK).unwrap_or_default();
    for name in names {
        let number = root
            .text(&format!("{BLOCK}/{name}/dev"))
            .unwrap_or_default();
        for mount in mounts {
            // btrfs has a number of its own.
            let is_source = || block(&mount.source).is_some_and(|source| source == name);
            if mount.number == number || is_source() {
                let text = format!("is mounted on {}", mount.at.escape_default());
                used.entry(name.clone()).or_default().insert(text);
            }
        }
    }
    used
}

/// Adds what is used of a block device, and of those that stand on it, to `found`.
fn with_holders(
    root: &Root,
    name: &str,
    used: &BTreeMap<String, BTreeSet<String>>,
    found: &mut BTreeSet<String>,
) {
    let mut seen = BTreeSet::new();
    let mut next = vec![name.to_string()];
    while let Some(one) = next.pop() {
        for what in used.get(&one).into_iter().flatten() {
            found.insert(match one == name {
                true => format!("{name} {what}"),
                false => format!("{name} is part of {one}, which {what}"),
            });
        }
        let holders = root.names(&format!("{BLOCK}/{one}/holders"));
        let holders = holders.unwrap_or_default();
        for holder in holders.iter().filter(|_| one == name) {
            if !used.contains_key(holder) {
                found.insert(format!("{name} is part of {holder}"));
            }
        }
        next.extend(
            holders
                .into_iter()
                .filter(|holder| seen.insert(holder.clone())),
        );
    }
}

/// The functions that a directory is below, also where Linux found several host bridges above it.
fn above(root: &Root, dir: &str) -> Vec<Address> {
    let names = root.components(dir);
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// Those that a block device is behind. A disk that several controllers may have (NVMe) is below none, but in
/// one directory with links to them.
fn controllers(root: &Root, name: &str) -> Vec<Address> {
    let names = root.components(&format!("{BLOCK}/{name}"));
    let subsystem = names
        .iter()
        .find(|n| n.starts_with("nvme-subsys") && *n != "nvme-subsystem");
    let mut found = above(root, &format!("{BLOCK}/{name}"));
    if let Some(subsystem) = subsystem {
        let dir = format!("{SUBSYSTEMS}/{subsystem}");
        for link in root.names(&dir).unwrap_or_default() {
            found.extend(above(root, &format!("{dir}/{link}")));
        }
    }
    found
}

/// Adds to the devices of `machine` what is on them.
pub(super) fn add(root: &Root, machine: &mut Machine, mounts: &[Mount]) {
    let used = used(root, mounts);
    let mut found: Vec<(Vec<Address>, BTreeSet<String>)> = Vec::new();
    for name in root.names(BLOCK).unwrap_or_default() {
        let mut uses = BTreeSet::new();
        with_holders(root, &name, &used, &mut uses);
        found.push((controllers(root, &name), uses));
    }
    for name in root.names(NET).unwrap_or_default() {
        let state = root
            .text(&format!("{NET}/{name}/operstate"))
            .unwrap_or_default();
        // Some drivers never say more than "unknown".
        if ["up", "unknown", "dormant", "testing"].contains(&state.as_str()) {
            let shown = name.escape_default();
            let text = format!("the network interface {shown} is in use (state {state})");
            found.push((
                above(root, &format!("{NET}/{name}")),
                BTreeSet::from([text]),
            ));
        }
    }
    for (addresses, uses) in found {
        for address in addresses {
            if let Some(device) = machine.devices.get_mut(&address) {
                let new = uses.iter().filter(|u| !device.uses.contains(u));
                let new: Vec<String> = new.cloned().collect();
                device.uses.extend(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_mountinfo() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let found = mount(line).unwrap();
        assert_eq!(
            (found.number.as_str(), found.at.as_str()),
            ("98:0", "/mnt2")
        );
        assert_eq!(
            (found.kind.as_str(), found.source.as_str()),
            ("ext3", "/dev/root")
        );
        assert_eq!(found.options, "rw,errors=continue");
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "([0-9:]{1,4}|/| - |[a-z]| ){0,20}") {
            mount(&line);
        }
    }
}
