// SPDX-License-Identifier: GPL-2.0

//! The output for people.

use crate::counters::Rates;
use crate::explain::Explanation;
use crate::memlock::{Memlock, Scope};
use crate::model::{Device, Group, Machine, Owner};
use crate::size;
use crate::window::Range;
use std::io::{Result, Write};

fn ranges(ranges: &[Range]) -> String {
    if ranges.is_empty() {
        return "empty".into();
    }
    let one = |r: &Range| format!("{:#x}-{:#x}", r.start, r.last);
    ranges.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Nobody => "nobody".into(),
        Owner::Kernel(drivers) => {
            let names: Vec<&str> = drivers.iter().map(String::as_str).collect();
            format!("kernel ({})", names.join(", "))
        }
        Owner::User(holders) => {
            let one = |h: &crate::model::Holder| format!("process {} ({})", h.pid, h.shown_name());
            let mut names: Vec<String> = holders.iter().map(one).collect();
            names.dedup();
            names.join(", ")
        }
        Owner::Claimed(claim) => claim.clone(),
    }
}

fn policy(device: &Device) -> String {
    match &device.policy {
        None => "policy unknown".into(),
        Some(p) => match p.max_age_ms {
            Some(age) => format!("policy {} (at most {age} ms)", p.name),
            None if p.attribute => format!("policy {}", p.name),
            None => format!("policy {} (from the group's type)", p.name),
        },
    }
}

fn device(out: &mut dyn Write, device: &Device) -> Result<()> {
    let driver = device.driver.as_deref().unwrap_or("none");
    write!(out, "  {}: driver {driver}", device.address)?;
    if device.group.is_some() {
        write!(out, ", {}", policy(device))?;
    }
    if device.sealed == Some(true) {
        write!(out, ", sealed")?;
    }
    if let Some(unit) = &device.unit {
        write!(out, ", {unit}")?;
    }
    if let Some(bits) = device.mask_bits {
        write!(out, ", DMA mask {bits} bits")?;
    }
    writeln!(out)
}

fn group(out: &mut dyn Write, machine: &Machine, number: u32, group: &Group) -> Result<()> {
    let kind = group.kind.as_deref().unwrap_or("unknown");
    let owned = owner(&group.owner);
    writeln!(out, "group {number}: type {kind}, owner {owned}")?;
    match &group.window {
        Some(window) => writeln!(out, "  window {}", ranges(window))?,
        None => writeln!(out, "  window unknown")?,
    }
    for region in &group.reserved {
        let range = ranges(&[region.range]);
        writeln!(out, "  reserved {range} {}", region.kind)?;
    }
    for address in &group.devices {
        if let Some(found) = machine.devices.get(address) {
            device(out, found)?;
        }
    }
    for other in &group.others {
        let driver = other.driver.as_deref().unwrap_or("none");
        writeln!(out, "  {}: not on PCI, driver {driver}", other.name)?;
    }
    Ok(())
}

fn listed(out: &mut dyn Write, title: &str, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        writeln!(out, "{title}")?;
    }
    lines.try_for_each(|line| writeln!(out, "  {line}"))
}

/// `list`.
pub fn list(out: &mut dyn Write, machine: &Machine) -> Result<()> {
    for unit in &machine.units {
        let width = match unit.bits {
            Some(bits) => format!("{bits} bits"),
            None => "unknown width".into(),
        };
        let count = plural(unit.devices.len(), "device");
        let (name, driver) = (&unit.name, &unit.driver);
        writeln!(out, "unit {name}: {driver}, {width}, {count}")?;
    }
    if machine.units.is_empty() {
        writeln!(out, "no unit: no IOMMU driver is at work")?;
    }
    for (number, found) in &machine.groups {
        group(out, machine, *number, found)?;
    }
    let mut alone = machine.devices.values().filter(|d| d.group.is_none());
    if let Some(first) = alone.next() {
        writeln!(out, "without a group, so not translated")?;
        device(out, first)?;
        alone.try_for_each(|d| device(out, d))?;
    }
    listed(out, "not known", machine.missing.iter().cloned())
}

/// `explain`.
pub fn explain(out: &mut dyn Write, found: &Explanation) -> Result<()> {
    write!(out, "{}", found.device)?;
    match found.group {
        Some(group) => write!(out, " in group {group}")?,
        None => write!(out, " in no group")?,
    }
    let assignable = match found.assignable {
        Some(true) => "assignable",
        Some(false) => "not assignable",
        None => "not known whether it is assignable: nothing is in the way of what can be seen",
    };
    writeln!(out, ": {assignable}")?;
    let reasons = found.reasons.iter().map(|r| format!("- {}", r.text));
    listed(out, "because", reasons)?;
    let warnings = found.warnings.iter().map(|w| format!("- {w}"));
    listed(out, "careful", warnings)?;
    let commands = found.commands.iter().map(|c| format!("$ {c}"));
    listed(out, "to free it", commands)?;
    let causes = found.grouping.causes.iter().map(|cause| {
        let names = cause.devices.iter().map(|d| d.to_string());
        let names: Vec<String> = names.collect();
        format!("- {}, {} ({})", cause.at, cause.text, names.join(", "))
    });
    listed(out, "the group is one because of", causes)?;
    let notes = found.notes.iter().map(|n| format!("- {n}"));
    listed(out, "note", notes)
}

/// `memlock`.
pub fn memlock(out: &mut dyn Write, found: &Memlock) -> Result<()> {
    let names: Vec<String> = found.groups.iter().map(|g| g.to_string()).collect();
    let memory = match found.memory {
        Some(bytes) => format!("M = {}", size::show(bytes)),
        None => "all memory M that is mapped".into(),
    };
    let word = match found.groups.len() {
        1 => "group",
        _ => "groups",
    };
    writeln!(
        out,
        "RLIMIT_MEMLOCK for {memory} and {word} {}",
        names.join(", ")
    )?;
    for figure in &found.figures {
        let name = figure.layout.name();
        match figure.bytes {
            Some(bytes) => write!(out, "  {name}: {bytes} bytes ({} x M)", figure.times)?,
            None => write!(out, "  {name}: {} x M", figure.times)?,
        }
        let scope = match figure.counted_for {
            Scope::Process => "for the process",
            Scope::User => "for all processes of the user",
        };
        writeln!(out, ", {scope}: {}", figure.reason)?;
    }
    let device_memory = size::show(found.device_memory);
    writeln!(
        out,
        "  device memory (BARs, {device_memory}) is never counted, also where it is mapped for peer-to-peer DMA"
    )?;
    match &found.window {
        Some(window) => writeln!(out, "  window of all together: {}", ranges(window))?,
        None => writeln!(out, "  window of all together: unknown")?,
    }
    listed(out, "note", found.notes.iter().map(|n| format!("- {n}")))
}

fn per_second(rate: Option<f64>, what: &str) -> String {
    match rate {
        Some(rate) => format!("{rate:.1} {what}/s"),
        None => format!("{what} not counted"),
    }
}

/// One look of `watch`; `first` says what is missing too.
pub fn watch(out: &mut dyn Write, rates: &Rates, first: bool) -> Result<()> {
    if first {
        listed(out, "not known", rates.missing.iter().cloned())?;
    }
    for unit in &rates.units {
        let invalidations = per_second(unit.invalidations, "invalidations");
        let faults = per_second(unit.faults, "faults");
        writeln!(out, "{}: {invalidations}, {faults}", unit.name)?;
    }
    for device in &rates.devices {
        write!(out, "{}: ", device.address)?;
        match (device.mappings, device.mapped_bytes) {
            (Some(mappings), Some(bytes)) => write!(out, "{mappings} mappings of {bytes} bytes")?,
            _ => write!(out, "mappings not counted")?,
        }
        if device.invalidations.is_some() {
            let invalidations = per_second(device.invalidations, "invalidations");
            write!(out, ", {invalidations}")?;
        }
        if let Some(live) = device.live_pages {
            let flushes = per_second(device.flushes, "flushes");
            write!(out, ", {flushes}, {live} live pages in its lazy window")?;
        }
        if device.faults.is_some() {
            write!(out, ", {}", per_second(device.faults, "faults"))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
