// SPDX-License-Identifier: GPL-2.0

//! Runs a command: reads, decides, writes.

use crate::cli::{Command, Options};
use crate::counters::{self, Snapshot};
use crate::model::Machine;
use crate::output::{self, Form, text};
use crate::sysfs::{self, Root};
use crate::{explain, memlock};
use anyhow::{Result, anyhow, bail};
use std::io::Write;
use std::time::{Duration, Instant};

/// Errors: one line for the user.
pub fn run(o: &Options, out: &mut dyn Write) -> Result<()> {
    let root = Root::new(&o.root)?;
    let form = if o.json { Form::Json } else { Form::Text };
    match &o.command {
        Command::List => {
            let machine = sysfs::read(&root);
            output::write(out, form, &machine, text::list)
        }
        Command::Explain { device } => {
            let machine = sysfs::read(&root);
            let found = explain::explain(&machine, *device).map_err(|e| anyhow!(e))?;
            output::write(out, form, &found, text::explain)
        }
        Command::Memlock { groups, memory } => {
            let machine = sysfs::read(&root);
            let found = memlock::memlock(&machine, groups, *memory).map_err(|e| anyhow!(e))?;
            output::write(out, form, &found, text::memlock)
        }
        Command::Watch { interval, count } => {
            let form = if o.json { Form::JsonLine } else { Form::Text };
            watch(&root, form, *interval, *count, out)
        }
    }
}

/// What `watch` cannot count on this machine.
fn not_counted(machine: &Machine, snapshot: &Snapshot) -> Vec<String> {
    let mut missing: Vec<String> = machine.missing.iter().cloned().collect();
    if !snapshot.devices.values().any(|d| d.mapped.is_some()) {
        missing.push(
            "live mappings: no device has attributes of our driver that can be read by this user"
                .into(),
        );
    }
    missing
}

/// Why there is nothing to watch.
fn no_counters(machine: &Machine) -> String {
    if machine.units.is_empty() {
        return "no IOMMU driver is at work".into();
    }
    let missing: Vec<&str> = machine.missing.iter().map(String::as_str).collect();
    match missing.as_slice() {
        [] => "no unit has counters".into(),
        reasons => reasons.join("; "),
    }
}

fn watch(
    root: &Root,
    form: Form,
    interval: f64,
    count: Option<u64>,
    out: &mut dyn Write,
) -> Result<()> {
    let machine = sysfs::read(root);
    let mut before = sysfs::counters(root);
    if before.units.is_empty() {
        bail!("nothing to watch: {}", no_counters(&machine));
    }
    let mut start = Instant::now();
    let mut done = 0;
    while count.is_none_or(|count| done < count) {
        std::thread::sleep(Duration::from_secs_f64(interval));
        let after = sysfs::counters(root);
        let now = Instant::now();
        let mut rates = counters::rates(&before, &after, (now - start).as_secs_f64());
        rates.missing = not_counted(&machine, &after);
        output::write(out, form, &rates, |out, rates| {
            text::watch(out, rates, done == 0)
        })?;
        (before, start) = (after, now);
        done += 1;
    }
    Ok(())
}
