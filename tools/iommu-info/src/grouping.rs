// SPDX-License-Identifier: GPL-2.0

//! Why the kernel put devices into one group: its walk (`pci_device_group` in drivers/iommu/iommu.c),
//! repeated on configuration space. Pure.

use crate::address::Address;
use crate::config::{Bridge, Config, Isolation};
use crate::model::Machine;
use serde::Serialize;
use std::collections::BTreeSet;

/// A function that merges devices into one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Which one.
    pub at: Address,
    /// How.
    pub kind: Kind,
    /// The same in words, without the address.
    pub text: String,
    /// The devices of the group that it concerns.
    pub devices: BTreeSet<Address>,
}

/// How a function merges devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A bridge whose requester id all that is behind it has.
    SharedRequesterId,
    /// A port that may pass DMA from one device to another.
    PortWithoutAcs,
    /// A function of a device that may pass DMA to its other functions.
    FunctionWithoutAcs,
}

/// A line of an attribute `merged_by` of our drivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Which function.
    pub at: Address,
    /// How: `bridge`, `port`, `function` or `alias`.
    pub how: String,
}

/// Reads an attribute `merged_by`. Lines of another form are left out.
pub fn parse_merged(text: &str) -> Vec<Merged> {
    let line = |line: &str| {
        let (at, how) = line.split_once(' ')?;
        Some(Merged {
            at: at.parse().ok()?,
            how: how.to_string(),
        })
    };
    text.lines().filter_map(line).collect()
}

impl Merged {
    /// The same as what the walk finds.
    fn kind(&self) -> Option<(Kind, &'static str)> {
        match self.how.as_str() {
            "bridge" => Some((
                Kind::SharedRequesterId,
                "a bridge: what is behind it can have its requester id",
            )),
            "port" => Some((
                Kind::PortWithoutAcs,
                "a port that does not isolate what is behind it",
            )),
            "function" => Some((
                Kind::FunctionWithoutAcs,
                "a function of a device that does not isolate its functions",
            )),
            "alias" => Some((
                Kind::SharedRequesterId,
                "a function that shares requester ids with another one",
            )),
            _ => None,
        }
    }
}

/// What the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grouping {
    /// The functions that merged it.
    pub causes: Vec<Cause>,
    /// Functions whose configuration space was not readable.
    pub unreadable: BTreeSet<Address>,
}

impl Grouping {
    fn add(&mut self, at: Address, kind: Kind, text: String, device: Address) {
        let same = |c: &&mut Cause| c.at == at && c.kind == kind;
        if let Some(cause) = self.causes.iter_mut().find(same) {
            cause.devices.insert(device);
            return;
        }
        let devices = BTreeSet::from([device]);
        self.causes.push(Cause {
            at,
            kind,
            text,
            devices,
        });
    }
}

fn config(machine: &Machine, at: Address) -> Option<&Config> {
    machine.devices.get(&at)?.config.as_ref()
}

/// The walk for one device, with what it meets added to `found`.
fn walk(machine: &Machine, start: Address, members: &BTreeSet<Address>, found: &mut Grouping) {
    let Some(device) = machine.devices.get(&start) else {
        return;
    };
    // A bridge that is in another group has not merged this one, whatever its registers say: the
    // kernel knows of chipsets that isolate without ACS.
    let merges = |at: Address| {
        let group = machine.devices.get(&at).and_then(|d| d.group);
        members.contains(&at) || group.is_none()
    };
    // From the device to the root.
    let bridges: Vec<Address> = device.path.iter().rev().copied().collect();
    let mut top = start;
    let mut above = 0;
    for (i, &at) in bridges.iter().enumerate() {
        match config(machine, at).map(Config::bridge) {
            Some(Bridge::Port) => {}
            Some(Bridge::Replaces(name)) if merges(at) => {
                let text = format!("{name}: what is behind it has its requester id");
                found.add(at, Kind::SharedRequesterId, text, start);
                (top, above) = (at, i + 1);
            }
            Some(Bridge::Replaces(_)) => {}
            Some(Bridge::Unknown) | None => {
                found.unreadable.insert(at);
            }
        }
    }
    for &at in &bridges[above..] {
        match config(machine, at).map(|c| (c.isolation(), c.name())) {
            Some((Isolation::Isolated, _)) => {}
            Some((Isolation::Open(why), name)) if merges(at) => {
                let text = format!("{name} that does not isolate what is behind it: {why}");
                found.add(at, Kind::PortWithoutAcs, text, start);
                top = at;
            }
            Some((Isolation::Open(_), _)) => {}
            Some((Isolation::Unknown, _)) | None => {
                found.unreadable.insert(at);
            }
        }
    }
    functions(machine, top, start, members, found);
}

/// Functions of the device that `top` is one of.
fn functions(
    machine: &Machine,
    top: Address,
    start: Address,
    members: &BTreeSet<Address>,
    found: &mut Grouping,
) {
    let open = |at: Address| match config(machine, at) {
        Some(c) if c.multifunction => c.isolation(),
        Some(_) => Isolation::Isolated,
        None => Isolation::Unknown,
    };
    let mut others = machine.devices.keys().filter(|at| {
        **at != top
            && at.same_slot(&top)
            && members.contains(at)
            && open(**at) != Isolation::Isolated
    });
    if others.next().is_none() {
        return;
    }
    match open(top) {
        Isolation::Isolated => {}
        Isolation::Open(why) => {
            let text = format!("a function of a device that does not isolate its functions: {why}");
            found.add(top, Kind::FunctionWithoutAcs, text, start);
        }
        Isolation::Unknown => {
            found.unreadable.insert(top);
        }
    }
}

/// What our driver says, of functions that the walk has not named: it knows of quirks, and needs no
/// configuration space.
fn told(machine: &Machine, members: &BTreeSet<Address>, found: &mut Grouping) {
    let devices = members.iter().filter_map(|at| machine.devices.get(at));
    // Each of them has the whole list.
    let Some(list) = devices.map(|d| &d.merged_by).find(|list| !list.is_empty()) else {
        return;
    };
    found.unreadable.clear();
    for merged in list {
        let named = found.causes.iter().any(|cause| cause.at == merged.at);
        if let Some((kind, text)) = merged.kind().filter(|_| !named) {
            found.causes.push(Cause {
                at: merged.at,
                kind,
                text: text.into(),
                devices: members.clone(),
            });
        }
    }
}

/// Why these devices of `machine` are one group; nothing for a group of one.
pub fn explain(machine: &Machine, members: &BTreeSet<Address>) -> Grouping {
    let mut found = Grouping::default();
    if members.len() > 1 {
        for member in members {
            walk(machine, *member, members, &mut found);
        }
        told(machine, members, &mut found);
    }
    found.causes.sort_by_key(|cause| (cause.kind, cause.at));
    found
}
