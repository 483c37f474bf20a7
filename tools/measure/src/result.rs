// SPDX-License-Identifier: GPL-2.0

//! What was measured, as it stands in the result file; and what can be said from it.

use crate::environment::Environment;
use crate::stats::{self, Interval};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Changes when an older program could not read the file, or would read something else.
pub const FORMAT: u32 = 1;

/// A wider interval (as a part of the median) says nothing.
pub const WIDEST: f64 = 0.15;

/// Two counts that differ by no more are taken for the same. Guests do not start in the same way twice: where
/// memory lies, and what a timer interrupts.
pub const REPEATS: f64 = 0.01;

/// The same where there are so few counts that they are of one guest, or one of each: how far guests differ is
/// not seen in them. Of three times two runs with QUICK=1, counts differed by 3 %, one by 13 %, and by 20 invalidations for
/// 1000 pairs.
pub const FEW_REPEAT: f64 = 0.10;

/// Counts that are not few.
pub const MANY: usize = 4;

/// The same of ratios of times that are of one pair of guests: where memory lies, and where the emulator put its code.
/// VT-d's `pair 4k` under strict was 0.94, 0.98 and 1.01 with three pairs of guests, however narrow the interval of each.
pub const GUESTS_DIFFER: f64 = 0.10;

/// The same of a read in the sweep, of which some lies in interrupts of an idle CPU and is not counted.
pub const READ_REPEATS: f64 = 0.05;

/// A whole file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// See [`FORMAT`].
    pub format: u32,
    /// One for each IOMMU, in the order in which they were measured
    pub parts: Vec<Part>,
}

/// What was measured with one IOMMU.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Part {
    /// `vtd`, `amd` or `virtio`
    pub iommu: String,
    /// Made with QUICK=1
    pub quick: bool,
    /// How long it took, in one run or several
    pub seconds: f64,
    /// Where; and when, and under which load: of the last run with times, if there was one
    pub environment: Environment,
    /// What
    pub rows: Vec<Row>,
    /// With invalidations that cost more
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Time of a pair of map and unmap, in ns
    NsPerPair,
    /// I/Os in a second
    Iops,
    /// Instructions of a pair
    InsnsPerPair,
    /// Instructions of an I/O
    InsnsPerIo,
    /// Commands that invalidate translations, for 1000 unmaps
    InvalidationsPer1000,
    /// All commands to the unit, for 1000 pairs
    CommandsPer1000,
    /// Of page tables
    Pages,
}

impl Unit {
    /// Whether the host's other work does not matter.
    pub fn counted(self) -> bool {
        !matches!(self, Unit::NsPerPair | Unit::Iops)
    }

    /// By how much two counts always may differ: of what comes now and then, a timer makes one more or less; and
    /// where memory lies, which only differs between guests.
    fn chance(self, few: bool) -> f64 {
        match (self, few) {
            (Unit::InvalidationsPer1000 | Unit::CommandsPer1000, true) => 25.0,
            (Unit::InvalidationsPer1000, false) => 2.0,
            (Unit::CommandsPer1000, false) => 4.0,
            _ => 0.0,
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        self == Unit::Iops
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Unit::NsPerPair => "ns",
            Unit::Iops => "IOPS",
            Unit::InsnsPerPair => "insns",
            Unit::InsnsPerIo => "insns/IO",
            Unit::InvalidationsPer1000 => "inv/1000",
            Unit::CommandsPer1000 => "cmds/1000",
            Unit::Pages => "pages",
        })
    }
}

/// Measurements of one thing with our driver, and each one's neighbour with the kernel's own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// Such as `pair 4k`
    pub what: String,
    /// Of the values
    pub unit: Unit,
    /// Of our driver
    pub policy: String,
    /// Of the kernel's driver
    pub against: String,
    /// Values with our driver
    pub ours: Vec<f64>,
    /// The n-th is the neighbour of our n-th
    pub in_tree: Vec<f64>,
    /// Pairs of guests that times are of; else 1
    #[serde(default = "one_pair")]
    pub guests: usize,
}

fn one_pair() -> usize {
    1
}

/// What can be said about a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// It lies here.
    Is(Interval),
    /// Nothing, for this reason.
    Not(String),
}

impl Known {
    /// The interval, if there is one.
    pub fn is(&self) -> Option<Interval> {
        match self {
            Known::Is(interval) => Some(*interval),
            Known::Not(_) => None,
        }
    }
}

impl Row {
    /// What two rows have to have in common to be the same measurement.
    pub fn key(&self) -> (&str, Unit, &str) {
        (&self.what, self.unit, &self.policy)
    }

    fn counted(&self, samples: &[f64], chance: f64) -> Known {
        let part = if samples.len() < MANY {
            FEW_REPEAT
        } else {
            REPEATS
        };
        let Some(span) = stats::span(samples) else {
            return Known::Not("it was not counted".into());
        };
        let mut span = span.at_least(chance.max(part * span.middle.abs()));
        span.low = span.low.max(0.0);
        Known::Is(span)
    }

    fn known(&self, samples: &[f64], chance: f64) -> Known {
        if self.unit.counted() {
            return self.counted(samples, chance);
        }
        let Some(interval) = stats::interval(samples) else {
            let (n, fewest) = (samples.len(), stats::fewest());
            return Known::Not(format!("only {n} of {fewest} slices"));
        };
        if interval.width() > WIDEST {
            let (low, high) = (interval.low, interval.high);
            return Known::Not(format!("somewhere from {low:.2} to {high:.2}"));
        }
        // Slices of the same guests do not show how guests differ.
        match self.guests < stats::fewest() {
            true => Known::Is(interval.at_least(GUESTS_DIFFER * interval.middle.abs())),
            false => Known::Is(interval),
        }
    }

    /// With our driver.
    pub fn ours(&self) -> Known {
        self.known(&self.ours, self.unit.chance(self.ours.len() < MANY))
    }

    /// With the kernel's.
    pub fn in_tree(&self) -> Known {
        self.known(&self.in_tree, self.unit.chance(self.in_tree.len() < MANY))
    }

    /// Ours as a part of the kernel's, neighbour by neighbour.
    pub fn ratio(&self) -> Known {
        let pairs = self.ours.iter().zip(&self.in_tree);
        let ratios: Vec<f64> = pairs
            .filter(|(_, t)| **t > 0.0)
            .map(|(o, t)| o / t)
            .collect();
        if ratios.is_empty() && !self.in_tree.is_empty() {
            return Known::Not("the kernel's has none".into());
        }
        self.known(&ratios, 0.0)
    }
}

/// How much policies suffer where an invalidation costs more.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sweep {
    /// The functions that were delayed: of our driver, of the kernel's
    pub delayed: [String; 2],
    /// One for each driver and policy
    pub curves: Vec<Curve>,
}

/// One driver under one policy.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Curve {
    /// Ours, or the kernel's
    pub ours: bool,
    /// Its policy
    pub policy: String,
    /// For each cost
    pub points: Vec<Point>,
}

/// At one cost.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Point {
    /// That an invalidation takes more, in microseconds
    pub cost_us: f64,
    /// CPU time of a pair of map and unmap of 4 KB, in ns of one instruction each
    pub pair_ns: f64,
    /// The same of a random read of 4 KB from NVMe
    pub read_ns: f64,
}

impl Curve {
    /// Whose it is, for reading.
    pub fn driver(&self) -> &'static str {
        if self.ours { "ours" } else { "the kernel's" }
    }
}

impl Point {
    /// Of a pair, and how far it repeats.
    pub fn pair(&self) -> Interval {
        Interval::of(self.pair_ns).at_least(REPEATS * self.pair_ns)
    }

    /// Of a read.
    pub fn read(&self) -> Interval {
        Interval::of(self.read_ns).at_least(READ_REPEATS * self.read_ns)
    }
}

impl Part {
    /// Whether both are of the same thing, and so can be one: an error names what differs.
    pub fn joins(&self, environment: &Environment, quick: bool) -> Result<()> {
        let mut differs = self.environment.other_code(environment);
        differs.extend(self.environment.differs(environment));
        if self.quick != quick {
            differs.push("one is with QUICK=1".into());
        }
        match differs.is_empty() {
            true => Ok(()),
            false => bail!(
                "{} is of something else: {}",
                self.iommu,
                differs.join("; ")
            ),
        }
    }

    fn has_times(&self) -> bool {
        self.rows.iter().any(|r| !r.unit.counted())
    }

    /// Takes what a newer one has.
    fn join(&mut self, newer: Part) -> Result<()> {
        self.joins(&newer.environment, newer.quick)?;
        // Only times depend on when they were measured, and on the load.
        if newer.has_times() || !self.has_times() {
            self.environment = newer.environment;
        }
        self.seconds += newer.seconds;
        // Slices of a run that was ended early take no place of what says something.
        let few = |r: &Row| !r.unit.counted() && r.ours.len() < stats::fewest();
        for row in newer.rows {
            match self.rows.iter_mut().find(|r| r.key() == row.key()) {
                Some(old) if few(&row) && !few(old) => {}
                Some(old) => *old = row,
                None => self.rows.push(row),
            }
        }
        self.sweep = newer.sweep.or(self.sweep.take());
        Ok(())
    }
}

impl Results {
    /// Without anything.
    pub fn new() -> Results {
        Results {
            format: FORMAT,
            parts: Vec::new(),
        }
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Results> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let results = Results::parse(&text);
        results.with_context(|| format!("{name} is no result of make bench"))
    }

    fn parse(text: &str) -> Result<Results> {
        let results: Results = serde_json::from_str(text)?;
        if results.format != FORMAT {
            bail!(
                "its format is {}, and this program reads {FORMAT}",
                results.format
            );
        }
        Ok(results)
    }

    /// Into a file, which is never there by half.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let part = path.with_extension("part");
        let write = || std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds a part. What the IOMMU already has stays, but for what was measured anew.
    pub fn join(&mut self, part: Part) -> Result<()> {
        match self.parts.iter_mut().find(|p| p.iommu == part.iommu) {
            Some(old) => old.join(part),
            None => {
                self.parts.push(part);
                Ok(())
            }
        }
    }

    /// Removes the part of an IOMMU.
    pub fn remove(&mut self, iommu: &str) {
        self.parts.retain(|p| p.iommu != iommu);
    }

    /// The part of an IOMMU.
    pub fn part(&self, iommu: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.iommu == iommu)
    }
}

impl Default for Results {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(unit: Unit, ours: &[f64], in_tree: &[f64]) -> Row {
        Row {
            what: "pair 4k".into(),
            unit,
            policy: "strict".into(),
            against: "strict".into(),
            ours: ours.to_vec(),
            in_tree: in_tree.to_vec(),
            guests: ours.len(),
        }
    }

    pub(crate) fn part(iommu: &str, rows: Vec<Row>) -> Part {
        Part {
            iommu: iommu.into(),
            quick: true,
            seconds: 1.5,
            environment: Environment::default(),
            rows,
            sweep: None,
        }
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        let mut results = Results::new();
        let rows = vec![row(Unit::Iops, &[1.0, 2.5], &[0.1, 3.0])];
        results.join(part("vtd", rows)).unwrap();
        let mut swept = part("amd", vec![]);
        let point = Point {
            cost_us: 0.0,
            pair_ns: 1.0,
            read_ns: 2.0,
        };
        let curve = Curve {
            ours: true,
            policy: "fq".into(),
            points: vec![point],
        };
        swept.sweep = Some(Sweep {
            delayed: ["a".into(), "b".into()],
            curves: vec![curve],
        });
        results.join(swept).unwrap();
        results.write(&file).unwrap();
        assert_eq!(Results::read(&file).unwrap(), results);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_files_are_refused() {
        let error = |text: &str| format!("{:#}", Results::parse(text).unwrap_err());
        assert!(error("{\"format\":7,\"parts\":[]}").contains("format is 7"));
        assert!(error("{\"fio version\":\"fio-3\"}").contains("missing field"));
        assert!(error("").contains("EOF"));
    }

    /// A part of this commit and load.
    fn of(commit: &str, load: f64, rows: Vec<Row>) -> Part {
        let mut part = part("vtd", rows);
        part.environment.commit = commit.into();
        part.environment.load = [load; 2];
        part
    }

    #[test]
    fn what_was_not_measured_anew_stays() {
        let swept = |pair_ns| {
            let point = Point {
                cost_us: 0.0,
                pair_ns,
                read_ns: 2.0,
            };
            let curve = Curve {
                ours: true,
                policy: "fq".into(),
                points: vec![point],
            };
            let delayed = [String::new(), String::new()];
            let curves = vec![curve];
            let sweep = Some(Sweep { delayed, curves });
            Part {
                sweep,
                ..of("a", 7.0, vec![])
            }
        };
        let counted = |value| row(Unit::Pages, &[value], &[1.0]);
        let timed = |value| row(Unit::Iops, &[value; 8], &[1.0; 8]);
        let few = row(Unit::Iops, &[3.0], &[1.0]);
        let mut results = Results::new();
        results.join(part("amd", vec![])).unwrap();
        for part in [
            of("a", 9.0, vec![counted(5.0)]),
            swept(3.0),
            of("a", 9.0, vec![few.clone()]),
            of("a", 9.0, vec![timed(1.0)]),
            of("a", 0.5, vec![timed(2.0)]),
            of("a", 0.5, vec![few]),
            swept(4.0),
            of("a", 8.0, vec![counted(6.0)]),
        ] {
            results.join(part).unwrap();
        }
        let part = results.part("vtd").unwrap();
        assert_eq!(part.rows, [counted(6.0), timed(2.0)]);
        assert_eq!(
            part.sweep.as_ref().unwrap().curves[0].points[0].pair_ns,
            4.0
        );
        // That of the times.
        assert_eq!(part.environment.load, [0.5; 2]);
        assert_eq!(part.seconds, 8.0 * 1.5);
        assert_eq!(results.parts.len(), 2);
    }

    #[test]
    fn parts_of_other_code_or_machines_do_not_join() {
        let mut results = Results::new();
        results.join(of("a", 0.0, vec![])).unwrap();
        let before = results.clone();
        let mut kernel = of("a", 0.0, vec![]);
        kernel.environment.kernel = "7".into();
        let full = Part {
            quick: false,
            ..of("a", 0.0, vec![])
        };
        for (part, why) in [
            (of("b", 0.0, vec![]), "commit: a, then b"),
            (kernel, "kernel: , then 7"),
            (full, "QUICK=1"),
        ] {
            let error = results.join(part).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        assert_eq!(results, before);
        results.remove("vtd");
        results.join(of("b", 0.0, vec![])).unwrap();
    }

    #[test]
    fn ratios_are_of_neighbours() {
        // The machine became twice as slow in the middle: no value is known, but each ratio is 0.5.
        let in_tree: Vec<f64> = (0..16).map(|i| if i < 8 { 100.0 } else { 200.0 }).collect();
        let ours: Vec<f64> = in_tree.iter().map(|v| v / 2.0).collect();
        let row = row(Unit::NsPerPair, &ours, &in_tree);
        assert!(matches!(row.ours(), Known::Not(_)));
        let ratio = row.ratio().is().unwrap();
        assert_eq!((ratio.low, ratio.middle, ratio.high), (0.5, 0.5, 0.5));
    }

    #[test]
    fn what_is_not_known_says_why() {
        let not = |known| match known {
            Known::Not(why) => why,
            Known::Is(i) => panic!("{i:?}"),
        };
        let few = row(Unit::Iops, &[1.0; 7], &[1.0; 7]);
        assert_eq!(not(few.ratio()), "only 7 of 8 slices");
        let wide: Vec<f64> = (1..=12).map(f64::from).collect();
        let wide = row(Unit::Iops, &wide, &[1.0; 12]);
        assert_eq!(not(wide.ratio()), "somewhere from 2.00 to 11.00");
        let none = row(Unit::CommandsPer1000, &[1.0], &[0.0]);
        assert_eq!(not(none.ratio()), "the kernel's has none");
        assert_eq!(
            not(row(Unit::Pages, &[], &[]).ratio()),
            "it was not counted"
        );
    }

    #[test]
    fn slices_of_one_pair_of_guests_say_less() {
        let ratio = |guests| {
            let row = Row {
                guests,
                ..row(Unit::NsPerPair, &[2.0; 8], &[1.0; 8])
            };
            row.ratio().is().map(|i| (i.low, i.high))
        };
        assert_eq!(ratio(1), Some((1.8, 2.2)));
        assert_eq!(ratio(stats::fewest()), Some((2.0, 2.0)));
        let older = r#"{"what":"pair 4k","unit":"iops","policy":"fq","against":"fq","ours":[],"in_tree":[]}"#;
        assert_eq!(serde_json::from_str::<Row>(older).unwrap().guests, 1);
    }

    #[test]
    fn counts_need_no_repetition() {
        let ends = |known: Known| known.is().map(|i| (i.low, i.high));
        let insns = |n: usize| row(Unit::InsnsPerPair, &vec![1000.0; n], &vec![500.0; n]).ratio();
        assert_eq!(ends(insns(1)), Some((1.8, 2.2)));
        assert_eq!(ends(insns(MANY)), Some((1.98, 2.02)));
        let wide = row(Unit::InsnsPerPair, &[100.0, 130.0], &[100.0, 100.0]);
        assert_eq!(ends(wide.ours()), Some((100.0, 130.0)));
        let none = |n: usize| row(Unit::InvalidationsPer1000, &vec![0.0; n], &[]).ours();
        assert_eq!(ends(none(1)), Some((0.0, 25.0)));
        assert_eq!(ends(none(MANY)), Some((0.0, 2.0)));
    }
}
