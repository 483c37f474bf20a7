// SPDX-License-Identifier: GPL-2.0

//! Documentation/performance.rst and its plots, from a result file.

mod plots;
mod rst;
mod sweep;

use crate::plan::POLICIES;
use crate::result::{
    FEW_REPEAT, GUESTS_DIFFER, Known, MANY, Part, READ_REPEATS, REPEATS, Results, Row, Unit, WIDEST,
};
use crate::stats::{self, Interval};
use crate::table;
use anyhow::{Context, Result};
use rst::{heading, table as rows_of, words};
use std::path::Path;

/// With a line where the results go.
const TEXT: &str = include_str!("docs/performance.rst");

fn iommu_name(part: &Part) -> &str {
    match part.iommu.as_str() {
        "vtd" => "VT-d",
        "vtd-caching" => "VT-d with caching mode",
        "amd" => "AMD-Vi",
        "virtio" => "virtio-iommu",
        other => other,
    }
}

fn find<'a>(part: &'a Part, what: &str, unit: Unit, policy: &str) -> Option<&'a Row> {
    part.rows.iter().find(|r| r.key() == (what, unit, policy))
}

/// What is said of a ratio in a table. What is not known has its reason below the table.
fn ratio(known: &Known) -> String {
    match known {
        Known::Is(i) => format!("{:.2} ({:.2}-{:.2})", i.middle, i.low, i.high),
        Known::Not(_) => "not known".into(),
    }
}

/// One unit's rows: for each thing measured a line, for each policy a cell.
fn section(part: &Part, unit: Unit, cell: fn(&Row) -> String) -> String {
    let mut whats: Vec<&str> = Vec::new();
    for row in part.rows.iter().filter(|r| r.unit == unit) {
        if !whats.contains(&row.what.as_str()) {
            whats.push(&row.what);
        }
    }
    if whats.is_empty() {
        return String::new();
    }
    let policies = POLICIES.iter().map(|p| p.ours);
    let has = |p: &&str| part.rows.iter().any(|r| r.unit == unit && r.policy == *p);
    let policies: Vec<&str> = policies.filter(has).collect();
    let mut rows = vec![[vec![String::new()], words(&policies)].concat()];
    for what in whats {
        let cells = policies
            .iter()
            .map(|p| find(part, what, unit, p).map_or("-".into(), cell));
        rows.push([what.to_string()].into_iter().chain(cells).collect());
    }
    rows_of(&rows)
}

fn values(row: &Row) -> String {
    format!(
        "{} / {}",
        table::middle(&row.ours()),
        table::middle(&row.in_tree())
    )
}

fn medians(row: &Row) -> String {
    let median = |samples: &[f64]| stats::median(samples).map_or("-".into(), table::value);
    format!("{} / {}", median(&row.ours), median(&row.in_tree))
}

fn environment(results: &Results) -> String {
    let mut rows = vec![words(&[
        "",
        "commit",
        "kernel",
        "QEMU",
        "accelerator",
        "processor",
        "begun (UTC)",
        "minutes",
        "load",
    ])];
    for part in &results.parts {
        let e = &part.environment;
        let version = e.qemu.split_whitespace().nth(3).unwrap_or(&e.qemu);
        rows.push(vec![
            iommu_name(part).into(),
            e.commit.clone(),
            e.kernel.clone(),
            version.into(),
            e.accelerator.clone(),
            format!("{} x {}", e.cpus, e.cpu),
            e.begun.clone(),
            format!(
                "{:.0}{}",
                part.seconds / 60.0,
                if part.quick { ", QUICK=1" } else { "" }
            ),
            format!("{:.1} to {:.1}", e.load[0], e.load[1]),
        ]);
    }
    rows_of(&rows)
}

/// Which times are not known, and why.
fn unknown(part: &Part) -> String {
    let timed = part.rows.iter().filter(|r| !r.unit.counted());
    let lines: Vec<String> = timed
        .filter_map(|r| match r.ratio() {
            Known::Is(_) => None,
            Known::Not(why) => Some(format!("- {}, {}: {why}\n", r.what, r.policy)),
        })
        .collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("Not known are:\n\n{}\n", lines.concat()),
    }
}

/// Of what the kernel's driver takes, as much as ours may.
const DEARER: f64 = 1.05;

/// Where strict or fq cost more than that, and where they may.
fn dearer(part: &Part) -> String {
    let compared =
        |r: &&Row| r.policy == r.against && r.policy != "identity" && !r.unit.more_is_better();
    let cost = |r: &&Row| matches!(r.unit, Unit::InsnsPerPair | Unit::NsPerPair);
    let known = part.rows.iter().filter(compared).filter(cost);
    let known: Vec<_> = known.filter_map(|r| Some((r, r.ratio().is()?))).collect();
    let list = |is: fn(&Interval) -> bool| -> String {
        let line = |(r, ratio): &(&Row, Interval)| {
            let (low, middle, high) = (ratio.low, ratio.middle, ratio.high);
            let (what, policy, unit) = (&r.what, &r.policy, r.unit);
            format!("- {what}, {policy} ({unit}): {middle:.2} ({low:.2}-{high:.2})\n")
        };
        known.iter().filter(|(_, i)| is(i)).map(line).collect()
    };
    let are = list(|i| i.middle > DEARER);
    let may_be = list(|i| i.middle <= DEARER && i.high > DEARER);
    let mut text = match are.is_empty() {
        true => format!(
            "Nowhere does a pair under ``strict`` or ``fq`` cost more than {DEARER} of what it does with the kernel's\ndriver, \
             as far as it is known.\n\n"
        ),
        false => {
            format!("More than {DEARER} of what they cost with the kernel's driver:\n\n{are}\n")
        }
    };
    if !may_be.is_empty() {
        text +=
            &format!("Not excluded, as the interval does not end below {DEARER}:\n\n{may_be}\n");
    }
    text
}

fn image(part: &Part, name: &str, text: &str) -> String {
    format!(
        ".. figure:: performance/{}-{name}.svg\n   :alt: {text}\n\n   {text}\n\n",
        part.iommu
    )
}

fn part_section(part: &Part) -> String {
    let mut text = heading(iommu_name(part), '=');
    text += &heading("Instructions", '-');
    text += "Of a pair of map and unmap, or of an I/O with all that belongs to it: ours / the kernel's.\n\n";
    text += &section(part, Unit::InsnsPerPair, values);
    text += &section(part, Unit::InsnsPerIo, values);
    text += &image(
        part,
        "insns",
        "Instructions of a pair, as a part of those with the kernel's driver",
    );
    text += &dearer(part);
    text += &heading("Commands and tables", '-');
    text += "Commands that invalidate translations, for 1000 pairs: ours / the kernel's.\n\n";
    text += &section(part, Unit::InvalidationsPer1000, values);
    text += "All commands to the unit, for 1000 pairs. Divided by those above, descriptors for each invalidation.\n\n";
    text += &section(part, Unit::CommandsPer1000, values);
    text += "Pages that tables took when 4 MB were mapped in pages for the first time.\n\n";
    text += &section(part, Unit::Pages, values);
    if part.rows.iter().any(|r| !r.unit.counted()) {
        text += &heading("Time", '-');
        text += "Of a pair, as a part of its time with the kernel's driver: less is better.\n\n";
        text += &section(part, Unit::NsPerPair, |r| ratio(&r.ratio()));
        text += "I/Os per second, as a part of those with the kernel's driver: more is better.\n\n";
        text += &section(part, Unit::Iops, |r| ratio(&r.ratio()));
        text += &image(
            part,
            "time",
            "Time of a pair, as a part of that with the kernel's driver",
        );
        text += &image(
            part,
            "iops",
            "I/Os per second, as a part of those with the kernel's driver",
        );
        text += "Medians of all slices, in ns and IOPS: ours / the kernel's. These depend on the machine.\n\n";
        text += &section(part, Unit::NsPerPair, medians);
        text += &section(part, Unit::Iops, medians);
        text += &unknown(part);
    } else {
        text +=
            "Times are not in the result file: it was made with ``tools/bench --only counts``.\n\n";
    }
    if let Some(sweep) = &part.sweep {
        text += &sweep::section(part, sweep);
    }
    text
}

/// The whole document.
pub fn document(results: &Results) -> String {
    let parts = results.parts.iter().map(part_section);
    let all = environment(results) + &parts.collect::<String>();
    TEXT.replace("@CONFIDENCE@", &format!("{:.0}", stats::CONFIDENCE * 100.0))
        .replace("@WIDEST@", &format!("{:.0}", WIDEST * 100.0))
        .replace("@REPEATS@", &format!("{:.0}", REPEATS * 100.0))
        .replace("@MANY@", &MANY.to_string())
        .replace("@FEW_REPEAT@", &format!("{:.0}", FEW_REPEAT * 100.0))
        .replace("@GUESTS_DIFFER@", &format!("{:.0}", GUESTS_DIFFER * 100.0))
        .replace("@READ_REPEATS@", &format!("{:.0}", READ_REPEATS * 100.0))
        .replace("@FEWEST@", &stats::fewest().to_string())
        .replace("@RESULTS@", all.trim_end())
}

/// Writes performance.rst into the folder and the plots into the folder performance in it.
pub fn write(results: &Results, folder: &Path) -> Result<()> {
    let plots_folder = folder.join("performance");
    std::fs::create_dir_all(&plots_folder)
        .with_context(|| format!("cannot make {}", plots_folder.display()))?;
    results
        .parts
        .iter()
        .try_for_each(|part| plots::write(part, &plots_folder))?;
    let file = folder.join("performance.rst");
    std::fs::write(&file, document(results))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests as sample;
    use crate::result::{Curve, Point, Sweep};

    fn results() -> Results {
        let mut results = Results::new();
        let mut part = sample::part(
            "vtd",
            vec![
                sample::row(Unit::InsnsPerPair, &[1100.0; 4], &[1000.0; 4]),
                sample::row(Unit::NsPerPair, &[500.0; 8], &[1000.0; 8]),
                Row {
                    what: "fio 4k read depth 32".into(),
                    ..sample::row(Unit::Iops, &[1.0], &[1.0])
                },
            ],
        );
        let point = |cost: f64, part: f64| Point {
            cost_us: cost,
            pair_ns: 1.0,
            read_ns: 10_000.0 + cost * 1000.0 * part,
        };
        let curve = |policy: &str, part| Curve {
            ours: true,
            policy: policy.into(),
            points: vec![point(0.0, part), point(20.0, part)],
        };
        part.sweep = Some(Sweep {
            delayed: ["submit".into(), "qi_submit_sync".into()],
            curves: vec![curve("strict", 1.0), curve("lazy", 0.0)],
        });
        results.join(part).unwrap();
        results
    }

    #[test]
    fn figures_are_those_of_the_file() {
        let text = document(&results());
        for part in [
            "pair 4k  1100 / 1000",
            "pair 4k  0.50 (0.50-0.50)",
            "- pair 4k, strict (insns): 1.10 (1.09-1.11)",
            "- fio 4k read depth 32, strict: only 1 of 8 slices",
            "costs\n10.0 us more",
            "\tsubmit\n\tqi_submit_sync\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('@'), "{text}");
    }

    #[test]
    fn everything_that_is_shown_is_written() {
        let dir = tempfile::tempdir().unwrap();
        write(&results(), dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("performance.rst")).unwrap();
        let images: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix(".. figure:: "))
            .collect();
        assert_eq!(images.len(), 5);
        for image in images {
            assert!(dir.path().join(image).exists(), "{image}");
            assert!(
                dir.path().join(image.replace(".svg", ".png")).exists(),
                "{image}"
            );
        }
    }

    /// The middle decides what is dearer, and an interval that goes beyond is not hidden.
    #[test]
    fn what_is_dearer_is_said() {
        // Ten of 12 lie in the interval.
        let row = |what: &str, low: f64, middle: f64, high: f64| {
            let ours = [vec![low; 3], vec![middle; 6], vec![high; 3]].concat();
            Row {
                what: what.into(),
                ..sample::row(Unit::NsPerPair, &ours, &[1.0; 12])
            }
        };
        let all = [
            row("dear", 1.04, 1.10, 1.16),
            row("perhaps", 1.00, 1.04, 1.06),
            row("cheap", 0.90, 0.95, 1.00),
        ];
        let said = dearer(&sample::part("vtd", all.to_vec()));
        assert_eq!(
            said,
            "More than 1.05 of what they cost with the kernel's driver:\n\n\
             - dear, strict (ns): 1.10 (1.04-1.16)\n\n\
             Not excluded, as the interval does not end below 1.05:\n\n\
             - perhaps, strict (ns): 1.04 (1.00-1.06)\n\n"
        );
        let said = dearer(&sample::part("vtd", all[2..].to_vec()));
        assert!(
            said.starts_with("Nowhere") && !said.contains("Not excluded"),
            "{said}"
        );
    }

    /// The document in the tree is what the result file in the tree gives.
    #[test]
    fn the_document_is_of_the_file() {
        let folder = lab::kernel::tree().join("Documentation");
        let file = folder.join("performance/result.json");
        let results = Results::read(&file).unwrap();
        let text = std::fs::read_to_string(folder.join("performance.rst")).unwrap();
        assert!(
            text == document(&results),
            "make bench-docs has not been run for {}",
            file.display()
        );
    }
}
