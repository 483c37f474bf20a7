// SPDX-License-Identifier: GPL-2.0

//! What takes time. Two guests, one with each driver, measure the same at once, by turns (turns.rs). What one
//! of them needed is compared with what the other did then, as the host may have become slower a second later.

use crate::guest::{self, Guest, Machine};
use crate::plan::{Extent, FIO, PAIRS, POLICIES};
use crate::progress::Progress;
use crate::result::{Row, Unit};
use crate::stats;
use crate::turns;
use anyhow::{Context, Result, anyhow, bail};
use lab::monitor::Monitor;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// One thing to measure under one policy.
struct Item {
    what: String,
    unit: Unit,
    policy: usize,
    /// That of the kernel's driver
    against: usize,
    /// For the order, after the number of the policy
    words: String,
    /// Pairs of a slice: with our driver, with the kernel's
    pairs: [u64; 2],
}

impl Item {
    fn order(&self, driver: usize) -> String {
        let policy = [self.policy, self.against][driver] + 1;
        match self.unit {
            Unit::NsPerPair => format!("pair {policy} {} pairs={}", self.words, self.pairs[driver]),
            _ => format!("fio {policy} {}", self.words),
        }
    }
}

/// What is no news is left out, for more slices of the rest.
fn timed(extent: &Extent, item: &Item) -> bool {
    let policy = POLICIES[item.policy].ours;
    match item.unit {
        _ if extent.quick => match item.what.as_str() {
            "pair 4k" => ["strict", "fq", "lazy"].contains(&policy),
            _ => policy == "strict",
        },
        // Nothing is mapped, however large it is.
        Unit::NsPerPair if policy == "identity" => item.what == "pair 4k",
        _ => policy != "identity" || item.what == "fio 4k read depth 32",
    }
}

fn items(extent: &Extent) -> Vec<Item> {
    let mut items = Vec::new();
    let mut add = |what: String, unit, words: String| {
        let item = |policy| Item {
            what: what.clone(),
            unit,
            policy,
            against: extent.against(policy),
            words: words.clone(),
            pairs: [64; 2],
        };
        items.extend((0..POLICIES.len()).map(item));
    };
    for pair in PAIRS.iter().filter(|p| p.quick.1 || !extent.quick) {
        add(
            format!("pair {}", pair.name),
            Unit::NsPerPair,
            pair.words.into(),
        );
    }
    for fio in FIO.iter().filter(|f| f.quick || !extent.quick) {
        let words = format!("{} --time_based --runtime={}ms", fio.words, extent.fio_ms);
        add(format!("fio {}", fio.name), Unit::Iops, words);
    }
    items.retain(|i| timed(extent, i) && extent.has(&i.what, i.policy));
    items
}

/// I/Os in a second, of all kinds, from what fio says.
fn iops(json: &str) -> Result<(f64, Value)> {
    let value: Value = serde_json::from_str(json).context("fio's output")?;
    let job = &value["jobs"][0];
    if job["error"] != 0 {
        bail!("fio failed: {}", job["error"]);
    }
    let of = |kind: &str| {
        job[kind]["iops"]
            .as_f64()
            .with_context(|| format!("fio says no IOPS of {kind}"))
    };
    Ok((of("read")? + of("write")?, value))
}

/// What fio said, slice by slice.
struct Kept(File);

impl Kept {
    /// In this file, in which stays what was said of other items.
    fn new(file: &Path, items: &[Item]) -> Result<Kept> {
        let name = file.display();
        let older = match file.exists() {
            true => std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?,
            false => String::new(),
        };
        let anew = |line: &&str| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            let is =
                |i: &Item| value["what"] == i.what && value["policy"] == POLICIES[i.policy].ours;
            items.iter().any(is)
        };
        let write = || -> std::io::Result<File> {
            let mut kept = File::create(file)?;
            for line in older.lines().filter(|l| !anew(l)) {
                writeln!(kept, "{line}")?;
            }
            Ok(kept)
        };
        Ok(Kept(
            write().with_context(|| format!("cannot write {name}"))?,
        ))
    }

    fn keep(&mut self, item: &Item, driver: usize, fio: Value) -> Result<()> {
        let (policy, against) = (POLICIES[item.policy].ours, POLICIES[item.against].in_tree);
        let driver = ["ours", "in-tree"][driver];
        let line = serde_json::json!({
            "what": item.what, "policy": policy, "against": against, "driver": driver, "fio": fio
        });
        writeln!(self.0, "{line}").context("cannot write what fio said")
    }
}

/// What an answer says; and what fio did is kept.
fn value(item: &Item, driver: usize, lines: &[String], kept: &mut Kept) -> Result<f64> {
    if item.unit == Unit::NsPerPair {
        // What has failed is no time at all, and so is not known.
        return Ok(guest::of_pairs("ns", lines)?.unwrap_or(f64::NAN));
    }
    let json = lines.iter().find_map(|l| l.strip_prefix("fio "));
    let (iops, fio) = iops(json.context("fio said nothing")?)?;
    kept.keep(item, driver, fio)?;
    Ok(iops)
}

/// How many pairs fill a slice, from the time of one and of the loop around it.
fn fill(lines: &[String], slice: Duration) -> Result<u64> {
    let each = guest::number("ns", lines)? + guest::number("loop", lines)?;
    // CAST: the time of a slice.
    Ok((slice.as_nanos() as f64 / each.max(50.0)) as u64 + 16)
}

/// How many of the items, from the first on, can have the fewest slices that say something: one round is over, in
/// which a slice of each took so long; and before each of the others guests boot.
fn affordable(took: &[Duration], boot: Duration, left: Duration) -> usize {
    // CAST: a few.
    let rounds = (stats::fewest() - 1) as u32;
    let fits = |all: &usize| (boot + took[..*all].iter().sum::<Duration>()) * rounds <= left;
    (1..=took.len())
        .take_while(fits)
        .last()
        .unwrap_or(took.len().min(1))
}

/// The two guests. They boot while something else is done.
pub fn start(machine: &Machine) -> Result<[Guest; 2]> {
    let machine = Machine {
        disks: true,
        count: false,
        ..machine.clone()
    };
    Ok([machine.start(true)?, machine.start(false)?])
}

/// Two guests that can be told something, and held.
struct Pair {
    guests: [Guest; 2],
    monitors: [Monitor; 2],
}

impl Pair {
    /// Waits until they have booted.
    fn ready(mut guests: [Guest; 2]) -> Result<Pair> {
        guests.iter().try_for_each(Guest::ready)?;
        let [ours, in_tree] = &mut guests;
        let mut monitors = [ours.monitor()?, in_tree.monitor()?];
        // A CPU of the host may be slow for a second: then that of both is.
        for monitor in &mut monitors {
            let pinned = monitor.pin();
            pinned.map_err(|e| anyhow!("the threads of a guest cannot be pinned: {e}"))?;
        }
        Ok(Pair { guests, monitors })
    }

    /// Has both make tables, and says how many pairs fill a slice.
    fn fill(&self, item: &mut Item, slice: Duration) -> Result<()> {
        for (driver, guest) in self.guests.iter().enumerate() {
            guest.order(&item.order(driver))?;
            let lines = guest.order(&item.order(driver))?;
            // Both threads count, each with its own pairs.
            item.pairs[driver] = fill(&lines, slice)?;
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.guests.into_iter().try_for_each(Guest::end)
    }
}

/// Measures until then, everything by turns. After each round has saved what there is; into the file `fio` goes
/// what fio said. Each round has guests of its own, but for a quick run.
pub fn run(
    machine: &Machine,
    guests: [Guest; 2],
    extent: &Extent,
    end: Instant,
    fio: &Path,
    mut save: impl FnMut(&[Row]) -> Result<()>,
) -> Result<()> {
    let mut progress = Progress::new(&format!("{}: times", machine.iommu.name()));
    let mut items = items(extent);
    let mut kept = Kept::new(fio, &items)?;
    let mut pair = Pair::ready(guests)?;
    for item in items.iter_mut().filter(|i| i.unit == Unit::NsPerPair) {
        pair.fill(item, Duration::from_millis(extent.pair_ms))?;
    }
    let empty = |i: &Item| Row {
        what: i.what.clone(),
        unit: i.unit,
        policy: POLICIES[i.policy].ours.into(),
        against: POLICIES[i.against].in_tree.into(),
        ours: Vec::new(),
        in_tree: Vec::new(),
        guests: 1,
    };
    let mut rows: Vec<Row> = items.iter().map(empty).collect();
    // How long an item took, for both drivers.
    let mut took = vec![Duration::ZERO; items.len()];
    let mut boot = Duration::ZERO;
    let mut all = items.len();
    'time: for round in 0.. {
        if all == 0 {
            break;
        }
        for n in 0..all {
            let begin = Instant::now();
            if begin + took[n] > end {
                break 'time;
            }
            let item = &items[n];
            let orders = [item.order(0), item.order(1)];
            // Who is first takes turns too.
            let lines = turns::both(&mut pair.guests, &mut pair.monitors, orders, round % 2)?;
            let mut values = [0.0; 2];
            for (driver, lines) in lines.iter().enumerate() {
                values[driver] = value(item, driver, lines, &mut kept)?;
            }
            if values.iter().all(|v| v.is_finite()) {
                rows[n].ours.push(values[0]);
                rows[n].in_tree.push(values[1]);
                if !extent.quick {
                    rows[n].guests = rows[n].ours.len();
                }
            }
            took[n] = took[n].max(begin.elapsed());
            progress.until(&format!("round {}", round + 1), end);
        }
        save(&rows)?;
        let begin = Instant::now();
        if !extent.quick {
            if begin + boot + took[0] > end {
                break;
            }
            pair.end()?;
            pair = Pair::ready(start(machine)?)?;
            boot = begin.elapsed();
        }
        if round == 0 {
            let left = end.saturating_duration_since(Instant::now());
            all = affordable(&took, boot, left);
            for item in &items[all..] {
                let policy = POLICIES[item.policy].ours;
                eprintln!(
                    "bench: {}, {policy}: no time for as many slices as say something (--minutes)",
                    item.what
                );
            }
        }
    }
    save(&rows)?;
    pair.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_both_io() {
        let json = r#"{"jobs":[{"error":0,"read":{"iops":70.5},"write":{"iops":30}}]}"#;
        assert_eq!(iops(json).unwrap().0, 100.5);
        assert!(iops(&json.replace("0,", "5,")).is_err());
        assert!(iops("{}").is_err());
        assert!(iops("fio: no").is_err());
    }

    #[test]
    fn what_fio_said_is_kept_until_it_says_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fio.jsonl");
        let items = items(&Extent::new(false));
        let fio: Vec<Item> = items.into_iter().filter(|i| i.unit == Unit::Iops).collect();
        let keep = |items: &[Item], said: u32| {
            let mut kept = Kept::new(&file, items).unwrap();
            for item in items {
                kept.keep(item, 0, said.into()).unwrap();
            }
        };
        keep(&fio, 1);
        keep(&fio[..1], 2);
        let text = std::fs::read_to_string(&file).unwrap();
        let of = |said| text.matches(&format!("\"fio\":{said},")).count();
        assert!(fio.len() > 1);
        assert_eq!((of(1), of(2)), (fio.len() - 1, 1), "{text}");
        assert!(Kept::new(dir.path(), &fio).is_err());
    }

    #[test]
    fn slices_are_filled() {
        let lines = |text: &str| vec![text.to_string()];
        let slice = Duration::from_millis(100);
        assert_eq!(
            fill(&lines("ns 900 loop 100 pairs 64"), slice).unwrap(),
            100_016
        );
        assert_eq!(
            fill(&lines("ns -20 loop 0 pairs 64"), slice).unwrap(),
            2_000_016
        );
        assert!(fill(&lines("no answer"), slice).is_err());
    }

    #[test]
    fn there_is_time_for_what_can_be_known() {
        let took = [1, 1, 2].map(Duration::from_secs);
        let of = |seconds| affordable(&took, Duration::ZERO, Duration::from_secs(seconds));
        let again = stats::fewest() as u64 - 1;
        assert_eq!(of(4 * again), 3);
        assert_eq!(of(4 * again - 1), 2);
        assert_eq!(of(2 * again - 1), 1);
        // One thing is measured, however long it takes.
        assert_eq!(of(0), 1);
        assert_eq!(affordable(&[], Duration::ZERO, Duration::ZERO), 0);
        let boot = Duration::from_secs(6);
        let of = |seconds| affordable(&took, boot, Duration::from_secs(seconds));
        assert_eq!((of(10 * again), of(10 * again - 1)), (3, 2));
    }
}
