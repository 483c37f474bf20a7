// SPDX-License-Identifier: GPL-2.0

//! What a change has changed: two result files, before and after.
//!
//! Counts of our driver are compared as they are. Times are compared as ratios to the kernel's own driver, which
//! was measured at the same time: so the host may have been slower one day than the other. Two values differ
//! where their intervals have nothing in common.

use crate::result::{Curve, Known, Part, Point, Results, Row};
use crate::stats::Interval;
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

/// One thing that is compared.
struct Value {
    name: String,
    known: Known,
    unit: String,
    digits: usize,
    more_is_better: bool,
}

fn of_row(iommu: &str, row: &Row) -> Value {
    let counted = row.unit.counted();
    let of = if counted { "" } else { " of the kernel's" };
    Value {
        name: format!("{iommu} {} {} {}", row.what, row.unit, row.policy),
        known: if counted { row.ours() } else { row.ratio() },
        unit: format!("{}{of}", row.unit),
        digits: if counted { 1 } else { 3 },
        more_is_better: row.unit.more_is_better(),
    }
}

fn of_point(iommu: &str, curve: &Curve, point: &Point) -> [Value; 2] {
    let value = |what, known| Value {
        name: format!(
            "{iommu} sweep {what} +{} us {}, {}",
            point.cost_us,
            curve.driver(),
            curve.policy
        ),
        known: Known::Is(known),
        unit: "ns".into(),
        digits: 0,
        more_is_better: false,
    };
    [value("pair", point.pair()), value("read", point.read())]
}

fn values(part: &Part) -> Vec<Value> {
    let iommu = &part.iommu;
    let rows = part.rows.iter().map(|row| of_row(iommu, row));
    let curves = part.sweep.iter().flat_map(|s| &s.curves);
    let points = curves.flat_map(|c| c.points.iter().map(move |p| (c, p)));
    let points = points.flat_map(|(c, p)| of_point(iommu, c, p));
    rows.chain(points).collect()
}

fn change(old: &Value, new: &Value) -> (Change, String) {
    let (before, after) = match (&old.known, &new.known) {
        (Known::Is(before), Known::Is(after)) => (before, after),
        (Known::Not(why), _) => return (Change::NotKnown(why.clone()), format!("before: {why}")),
        (_, Known::Not(why)) => return (Change::NotKnown(why.clone()), format!("after: {why}")),
    };
    let digits = old.digits;
    let interval = |i: &Interval| {
        let (low, middle, high) = (i.low, i.middle, i.high);
        format!("{middle:.digits$} ({low:.digits$}-{high:.digits$})")
    };
    let text = format!("{} to {} {}", interval(before), interval(after), old.unit);
    let more = after.middle > before.middle;
    let change = match before.meets(after) {
        true => Change::Same,
        false if more == old.more_is_better => Change::Better,
        false => Change::Worse,
    };
    (change, text)
}

fn parts(old: &Part, new: &Part) -> Vec<Compared> {
    let (old, new) = (values(old), values(new));
    let find = |values: &[Value], name: &str| values.iter().position(|v| v.name == name);
    let mut all = Vec::new();
    let mut add = |name: &str, (change, text)| {
        all.push(Compared {
            name: name.into(),
            change,
            text,
        });
    };
    for value in &old {
        let at = find(&new, &value.name);
        add(
            &value.name,
            at.map_or((Change::Gone, String::new()), |at| change(value, &new[at])),
        );
    }
    for value in new.iter().filter(|v| find(&old, &v.name).is_none()) {
        add(&value.name, (Change::New, String::new()));
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

/// How many of these there are.
pub struct Count {
    /// Their intervals have nothing in common
    pub better: usize,
    /// The same
    pub worse: usize,
    /// Their intervals meet
    pub same: usize,
    /// Of at least one nothing can be said
    pub not_known: usize,
    /// Only one of the files has them
    pub one_file: usize,
}

impl Count {
    /// Of these.
    pub fn of(all: &[Compared]) -> Count {
        let count = |is: fn(&Change) -> bool| all.iter().filter(|c| is(&c.change)).count();
        Count {
            better: count(|c| *c == Change::Better),
            worse: count(|c| *c == Change::Worse),
            same: count(|c| *c == Change::Same),
            not_known: count(|c| matches!(c, Change::NotKnown(_))),
            one_file: count(|c| matches!(c, Change::New | Change::Gone)),
        }
    }

    /// How many of them are known twice.
    pub fn known(&self) -> usize {
        self.better + self.worse + self.same
    }

    /// Whether all that is known agrees, and both files have the same.
    pub fn agree(&self) -> bool {
        self.better + self.worse + self.one_file == 0
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} better, {} worse, {} the same, {} not known, {} only in one file",
            self.better, self.worse, self.same, self.not_known, self.one_file
        )
    }
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
    use crate::result::{Sweep, Unit, tests as sample};

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
        let row = |v: f64| sample::row(Unit::InsnsPerPair, &[v; 4], &[1000.0; 4]);
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
    fn points_of_the_sweep_are_compared_too() {
        let swept = |pair_ns, read_ns, curves: usize| {
            let point = Point {
                cost_us: 5.0,
                pair_ns,
                read_ns,
            };
            let curve = |n| Curve {
                ours: n == 0,
                policy: "fq".into(),
                points: vec![point],
            };
            let mut part = sample::part("vtd", vec![]);
            part.sweep = Some(Sweep {
                delayed: [String::new(), String::new()],
                curves: (0..curves).map(curve).collect(),
            });
            let mut results = Results::new();
            results.join(part).unwrap();
            results
        };
        let old = swept(1000.0, 1000.0, 2);
        let count = |new: &Results| Count::of(&compare(&old, new));
        assert!(count(&old).agree());
        assert_eq!(count(&old).same, 4);
        // A read repeats less well than a pair.
        let slower = count(&swept(1050.0, 1050.0, 2));
        assert_eq!((slower.worse, slower.same), (2, 2));
        assert_eq!(count(&swept(1000.0, 800.0, 2)).better, 2);
        let fewer = count(&swept(1000.0, 1000.0, 1));
        assert_eq!((fewer.same, fewer.one_file), (2, 2));
        assert!(!fewer.agree());
        let all = compare(&old, &swept(1000.0, 1000.0, 1));
        assert_eq!(all[0].name, "vtd sweep pair +5 us ours, fq");
    }

    #[test]
    fn agreeing_is_of_what_is_known() {
        let row = |v: f64| sample::row(Unit::InsnsPerPair, &[v; 4], &[1000.0; 4]);
        let few = Row {
            what: "fio".into(),
            ..sample::row(Unit::Iops, &[1.0; 3], &[1.0; 3])
        };
        let file = |v| results("vtd", vec![row(v), few.clone()]);
        let count = |new| Count::of(&compare(&file(1000.0), &file(new)));
        let same = count(1005.0);
        assert_eq!((same.known(), same.not_known), (1, 1));
        assert!(same.agree() && !count(1030.0).agree() && !count(970.0).agree());
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
