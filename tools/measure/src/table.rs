// SPDX-License-Identifier: GPL-2.0

//! Results in lines of text.

use crate::result::{Known, Part, Row};
use crate::stats::Interval;
use std::fmt::Write;

/// A number with as many digits as say something.
pub fn value(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The ends of an interval, unless it has no width.
pub fn ends(interval: &Interval) -> String {
    format!("{}-{}", value(interval.low), value(interval.high))
}

/// A value that is known, or a dash.
pub fn middle(known: &Known) -> String {
    known.is().map_or("-".into(), |i| value(i.middle))
}

/// A ratio with its interval, or why it is not known.
pub fn ratio(known: &Known) -> String {
    match known {
        Known::Is(i) => format!("{:.3} ({:.2}-{:.2})", i.middle, i.low, i.high),
        Known::Not(why) => format!("not known: {why}"),
    }
}

fn line(row: &Row) -> String {
    format!(
        "{:<34} {:<9} {:<9} {:>9} {:>9} {:<9} {}",
        row.what,
        row.policy,
        row.against,
        middle(&row.ours()),
        middle(&row.in_tree()),
        row.unit,
        ratio(&row.ratio())
    )
}

/// All rows of an IOMMU.
pub fn part(part: &Part) -> String {
    let mut text = String::new();
    let (e, iommu) = (&part.environment, &part.iommu);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{iommu}: commit {}, kernel {}, {}, {} s, load {:.1} to {:.1}",
        e.commit,
        e.kernel,
        e.accelerator,
        part.seconds.round(),
        e.load[0],
        e.load[1]
    );
    let _ = writeln!(
        text,
        "{:<34} {:<9} {:<9} {:>9} {:>9} {:<9} ours/in-tree",
        "", "ours", "in-tree", "ours", "in-tree", ""
    );
    for row in &part.rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Unit, tests as sample};

    #[test]
    fn digits() {
        assert_eq!(
            [0.5, 5.0, 50.0, 500.4].map(value),
            ["0.50", "5.00", "50.0", "500"]
        );
    }

    #[test]
    fn unknown_values_are_said_to_be() {
        let rows = vec![
            sample::row(Unit::InsnsPerPair, &[90.0; 4], &[100.0; 4]),
            sample::row(Unit::Iops, &[1.0], &[1.0]),
        ];
        let text = part(&sample::part("vtd", rows));
        assert!(
            text.contains("90.0       100 insns     0.900 (0.89-0.91)"),
            "{text}"
        );
        assert!(text.contains("not known: only 1 of 8 slices"), "{text}");
    }
}
