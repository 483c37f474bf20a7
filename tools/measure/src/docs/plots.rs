// SPDX-License-Identifier: GPL-2.0

//! The plots of an IOMMU.

use super::{find, iommu_name};
use crate::plan::{FIO, PAIRS, POLICIES};
use crate::plot::{self, Bars, Line, Lines};
use crate::result::{Part, Point, Sweep, Unit};
use anyhow::Result;
use std::path::Path;

/// Ratios of one unit as bars.
fn bars(part: &Part, unit: Unit, title: &str, names: &[String]) -> Bars {
    let names: Vec<String> = names
        .iter()
        .filter(|n| part.rows.iter().any(|r| r.unit == unit && r.what == **n))
        .cloned()
        .collect();
    let series = POLICIES.iter().map(|p| {
        let bar = |n: &String| find(part, n, unit, p.ours)?.ratio().is();
        let name = match p.ours == p.in_tree {
            true => p.ours.to_string(),
            false => format!("{} (to {})", p.ours, p.in_tree),
        };
        (name, names.iter().map(bar).collect())
    });
    let short = |n: &String| {
        n.split_once(' ')
            .map_or(n.clone(), |(_, rest)| rest.to_string())
    };
    Bars {
        title: format!("{}: {title}", iommu_name(part)),
        axis: "ours / the kernel's".into(),
        baseline: "the kernel's driver".into(),
        series: series.collect(),
        groups: names.iter().map(short).collect(),
    }
}

/// Curves of the sweep, of a value of each point.
fn sweep_lines(part: &Part, sweep: &Sweep, y: &str, value: fn(&Point) -> f64) -> Lines {
    let series = sweep.curves.iter().map(|c| Line {
        name: format!("{}, {}", c.driver(), c.policy),
        points: c.points.iter().map(|p| (p.cost_us, value(p))).collect(),
        baseline: !c.ours,
    });
    Lines {
        title: format!("{}: where an invalidation costs more", iommu_name(part)),
        x: "what an invalidation costs more (us)".into(),
        y: y.into(),
        series: series.collect(),
    }
}

/// Draws all of them.
pub(super) fn write(part: &Part, folder: &Path) -> Result<()> {
    let pairs: Vec<String> = PAIRS.iter().map(|p| format!("pair {}", p.name)).collect();
    let fio: Vec<String> = FIO.iter().map(|f| format!("fio {}", f.name)).collect();
    let name = |plot: &str| format!("{}-{plot}", part.iommu);
    let insns = bars(
        part,
        Unit::InsnsPerPair,
        "instructions of a pair of map and unmap (less is better)",
        &pairs,
    );
    plot::write(&insns, folder, &name("insns"))?;
    if part.rows.iter().any(|r| !r.unit.counted()) {
        let time = bars(
            part,
            Unit::NsPerPair,
            "time of a pair of map and unmap (less is better)",
            &pairs,
        );
        plot::write(&time, folder, &name("time"))?;
        let iops = bars(
            part,
            Unit::Iops,
            "I/Os per second from NVMe (more is better)",
            &fio,
        );
        plot::write(&iops, folder, &name("iops"))?;
    }
    let Some(sweep) = &part.sweep else {
        return Ok(());
    };
    let reads = "thousand reads of 4 KB per s of CPU time";
    let reads = sweep_lines(part, sweep, reads, |p| 1e6 / p.read_ns);
    plot::write(&reads, folder, &name("sweep"))?;
    let pairs = "CPU time of a pair of 4 KB (us)";
    let pairs = sweep_lines(part, sweep, pairs, |p| p.pair_ns / 1e3);
    plot::write(&pairs, folder, &name("sweep-pairs"))
}
