// SPDX-License-Identifier: GPL-2.0

//! The section on expensive invalidations.

use super::image;
use super::rst::{heading, table, words};
use crate::result::{Part, Sweep};
use crate::table::value;

/// Row A13: five ratios, and the thread's own.
fn a13(sweep: &Sweep) -> String {
    let Some(cost) = sweep.calibration() else {
        return "Under ``strict`` the speed was never half of that under ``lazy``: there is no cost to compare at.\n\n".into();
    };
    let of = |ours, policy| {
        sweep
            .of_lazy(ours, policy, cost)
            .map_or("-".into(), |v| format!("{v:.2}"))
    };
    let row = |what: &str, thread: &str, ours: String, in_tree: String| {
        vec![what.to_string(), thread.into(), ours, in_tree]
    };
    let rows = [
        words(&["", "the thread", "ours", "the kernel's"]),
        row(
            "flush when the addresses run out (``lazy``)",
            "1",
            "1".into(),
            "has none".into(),
        ),
        row(
            "a queue of 32768 entries, 1 s (``fq-single``)",
            "0.91",
            of(true, "fq-single"),
            "has none here".into(),
        ),
        row(
            "a queue of 8192 entries",
            "0.76",
            "has none".into(),
            "has none".into(),
        ),
        row(
            "``strict``",
            "0.50",
            of(true, "strict"),
            of(false, "strict"),
        ),
        row(
            "the default queue (``fq``)",
            "less than 0.08",
            of(true, "fq"),
            of(false, "fq"),
        ),
    ];
    format!(
        "Row A13: reads per second as a part of those under our ``lazy``, where an invalidation costs\n{cost:.1} us more, at which \
         ``strict`` has one half, as in the thread that the row is from:\n\n{}{NOTE}",
        table(&rows)
    )
}

/// What is missing in that table, and what is otherwise than in the thread.
const NOTE: &str = "\
The core's queues have 256 entries for each CPU, or 32768: constants, so that a queue of 8192 takes another kernel. And the
rows do not fall as the thread's do: a delay that is the same whatever is invalidated spares the default queue, which has
everything invalidated far more often.

";

/// The section.
pub(super) fn section(part: &Part, sweep: &Sweep) -> String {
    let mut text = heading("Where an invalidation is expensive", '-');
    text += &format!(
        "Delayed are, in our driver and in the kernel's::\n\n\t{}\n\t{}\n\n\
         CPU time of tasks for a random read of 4 KB, depth 32, in ns:\n\n",
        sweep.delayed[0], sweep.delayed[1]
    );
    let mut rows = vec![words(&["driver, policy"])];
    let costs = sweep
        .curves
        .first()
        .map(|c| c.points.iter().map(|p| format!("{} us", p.cost_us)));
    rows[0].extend(costs.into_iter().flatten());
    for of_pairs in [false, true] {
        let mut rows = rows.clone();
        for curve in &sweep.curves {
            let name = format!("{}, {}", curve.driver(), curve.policy);
            let cells = curve
                .points
                .iter()
                .map(|p| value(if of_pairs { p.pair_ns } else { p.read_ns }));
            rows.push([name].into_iter().chain(cells).collect());
        }
        if of_pairs {
            text += "And of a pair of map and unmap of 4 KB:\n\n";
        }
        text += &table(&rows);
    }
    text += &image(
        part,
        "sweep",
        "Reads per second of CPU time over what an invalidation costs more",
    );
    text += &image(
        part,
        "sweep-pairs",
        "CPU time of a pair of map and unmap of 4 KB over what an invalidation costs more",
    );
    text + &a13(sweep)
}
