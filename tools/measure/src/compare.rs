// SPDX-License-Identifier: GPL-2.0

//! What a change has changed: two result files, before and after.
//!
//! Counts of our driver are compared as they are. Times are compared as ratios to the kernel's own driver, which
//! was measured at the same time: so the host may have been slower one day than the other. Two values differ
//! where their intervals have nothing in common.

use crate::result::{Known, Part, Results, Row};
use std::fmt;

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The intervals meet.
    Same,
    /// It costs less now, or there are more I/Os.
    Better,
    /// The other way round.
    Worse,
    /// Nothing can be said, for this reason.
    NotKnown(String),
    /// There was no such row before.
    New,
    /// There is no such row any more.
    Gone,
}

/// A row and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// IOMMU, row, policy
    pub name: String,
    /// What became of it
    pub change: Change,
    /// Both values, for reading
    pub text: String,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match &self.change {
            Change::Same => "same",
            Change::Better => "better",
            Change::Worse => "worse",
            Change::NotKnown(_) => "not known",
            Change::New => "new",
            Change::Gone => "gone",
        };
        write!(f, "{word:<10} {:<58} {}", self.name, self.text)
    }
}

/// What is compared of a row.
fn known(row: &Row) -> Known {
    if row.unit.counted() {
        row.ours()
    } else {
        row.ratio()
    }
}

fn rows(old: &Row, new: &Row) -> (Change, String) {
    let (before, after) = match (known(old), known(new)) {
        (Known::Is(before), Known::Is(after)) => (before, after),
        (Known::Not(why), _) => return (Change::NotKnown(why.clone()), format!("before: {why}")),
        (_, Known::Not(why)) => return (Change::NotKnown(why.clone()), format!("after: {why}")),
    };
    let of = if old.unit.counted() {
        ""
    } else {
        " of the kernel's"
    };
    let digits = if old.unit.counted() { 1 } else { 3 };
    let interval = |i: &crate::stats::Interval| {
        format!(
            "{:.digits$} ({:.digits$}-{:.digits$})",
            i.middle, i.low, i.high
        )
    };
    let text = format!(
        "{} to {} {}{of}",
        interval(&before),
        interval(&after),
        old.unit
    );
    let more = after.middle > before.middle;
    let change = match before.meets(&after) {
        true => Change::Same,
        false if more == old.unit.more_is_better() => Change::Better,
        false => Change::Worse,
    };
    (change, text)
}

fn parts(old: &Part, new: &Part) -> Vec<Compared> {
    let name = |row: &Row| format!("{} {} {} {}", new.iommu, row.what, row.unit, row.policy);
    let find = |part: &'_ Part, row: &Row| part.rows.iter().position(|r| r.key() == row.key());
    let mut all = Vec::new();
    for row in &old.rows {
        let (change, text) = match find(new, row) {
            Some(at) => rows(row, &new.rows[at]),
            None => (Change::Gone, String::new()),
        };
        all.push(Compared {
            name: name(row),
            change,
            text,
        });
    }
    for row in new.rows.iter().filter(|r| find(old, r).is_none()) {
        all.push(Compared {
            name: name(row),
            change: Change::New,
            text: String::new(),
        });
    }
    all
}

/// Every row of the IOMMUs that are in both.
pub fn compare(old: &Results, new: &Results) -> Vec<Compared> {
    let both = new
        .parts
        .iter()
        .filter_map(|n| Some((old.part(&n.iommu)?, n)));
    both.flat_map(|(o, n)| parts(o, n)).collect()
}

/// Reasons why the comparison may mislead.
pub fn warnings(old: &Results, new: &Results) -> Vec<String> {
    let mut all = Vec::new();
    for part in &new.parts {
        match old.part(&part.iommu) {
            None => all.push(format!("{}: only the new file has it", part.iommu)),
            Some(o) => {
                let differs = o.environment.differs(&part.environment);
                all.extend(differs.iter().map(|d| format!("{}: {d}", part.iommu)));
            }
        }
    }
    let gone = old.parts.iter().filter(|o| new.part(&o.iommu).is_none());
    all.extend(gone.map(|o| format!("{}: only the old file has it", o.iommu)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Unit, tests as sample};

    fn results(iommu: &str, rows: Vec<Row>) -> Results {
        let mut results = Results::new();
        results.join(sample::part(iommu, rows)).unwrap();
        results
    }

    fn change(old: Row, new: Row) -> Change {
        let all = compare(&results("vtd", vec![old]), &results("vtd", vec![new]));
        assert_eq!(all.len(), 1);
        all[0].change.clone()
    }

    #[test]
    fn counts_change_by_more_than_they_repeat() {
        let row = |v: f64| sample::row(Unit::InsnsPerPair, &[v], &[1000.0]);
        assert_eq!(change(row(1000.0), row(1010.0)), Change::Same);
        assert_eq!(change(row(1000.0), row(1030.0)), Change::Worse);
        assert_eq!(change(row(1030.0), row(1000.0)), Change::Better);
    }

    #[test]
    fn times_are_compared_with_the_kernels() {
        // A host that is half as fast changes nothing.
        let row = |unit, slow: f64, ours: f64| {
            let values: Vec<f64> = (0..12).map(|i| 1000.0 * slow + f64::from(i)).collect();
            let ours: Vec<f64> = values.iter().map(|v| v * ours).collect();
            sample::row(unit, &ours, &values)
        };
        assert_eq!(
            change(
                row(Unit::NsPerPair, 1.0, 0.9),
                row(Unit::NsPerPair, 2.0, 0.9)
            ),
            Change::Same
        );
        assert_eq!(
            change(
                row(Unit::NsPerPair, 1.0, 0.9),
                row(Unit::NsPerPair, 1.0, 1.0)
            ),
            Change::Worse
        );
        assert_eq!(
            change(row(Unit::Iops, 1.0, 0.9), row(Unit::Iops, 1.0, 1.0)),
            Change::Better
        );
    }

    #[test]
    fn what_is_not_known_is_not_the_same() {
        let few = sample::row(Unit::Iops, &[1.0; 3], &[1.0; 3]);
        let enough = sample::row(Unit::Iops, &[1.0; 8], &[1.0; 8]);
        assert!(matches!(
            change(few.clone(), enough.clone()),
            Change::NotKnown(_)
        ));
        assert!(matches!(change(enough, few), Change::NotKnown(_)));
    }

    #[test]
    fn rows_come_and_go() {
        let old = sample::row(Unit::Iops, &[1.0; 8], &[1.0; 8]);
        let new = sample::row(Unit::Pages, &[1.0], &[1.0]);
        let all = compare(&results("vtd", vec![old]), &results("vtd", vec![new]));
        assert_eq!(
            all.iter().map(|c| c.change.clone()).collect::<Vec<_>>(),
            [Change::Gone, Change::New]
        );
    }

    #[test]
    fn parts_of_one_file_are_named() {
        let (old, new) = (results("vtd", vec![]), results("amd", vec![]));
        assert!(compare(&old, &new).is_empty());
        assert_eq!(
            warnings(&old, &new),
            [
                "amd: only the new file has it",
                "vtd: only the old file has it"
            ]
        );
    }
}
