// SPDX-License-Identifier: GPL-2.0

//! What can be counted, and so does not depend on what else the host does: instructions, commands to the unit,
//! pages of tables. In guests with one CPU, whose time is instructions.

use crate::guest::{self, Guest, Machine};
use crate::plan::{Extent, FIO, Iommu, PAIRS, POLICIES};
use crate::progress::Progress;
use crate::result::{Row, Unit};
use anyhow::Result;
use std::sync::Mutex;

/// One count: of what, in what, under which of the policies.
#[derive(Clone, Debug, PartialEq)]
struct Count {
    what: String,
    unit: Unit,
    policy: usize,
    value: f64,
}

/// What there is to be done in one guest: an order, for what, how many I/Os or pairs.
struct Order {
    what: String,
    policy: usize,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Counts nothing
    Warm,
    Tables,
    Pair,
    /// So many I/Os
    Fio(u32),
}

fn orders(extent: &Extent) -> Vec<Order> {
    let mut orders = Vec::new();
    let policies = 0..POLICIES.len();
    for policy in policies.clone() {
        let what = "tables for 4 MB in pages".to_string();
        let text = format!("tables {}", policy + 1);
        orders.push(Order {
            what,
            policy,
            kind: Kind::Tables,
            text,
        });
    }
    // Until the core's one queue is full, it and the allocator take memory that they have not had before.
    let single = POLICIES.iter().position(|p| p.ours == "fq-single");
    orders.extend(single.map(|policy| Order {
        what: String::new(),
        policy,
        kind: Kind::Warm,
        text: format!("pair {} size=4k pairs=40000", policy + 1),
    }));
    for pair in PAIRS
        .iter()
        .filter(|p| p.count > 0 && (p.quick.0 || !extent.quick))
    {
        for policy in policies.clone() {
            let what = format!("pair {}", pair.name);
            let text = format!("count {} {} pairs={}", policy + 1, pair.words, pair.count);
            let order = || Order {
                what: what.clone(),
                policy,
                kind: Kind::Pair,
                text: text.clone(),
            };
            orders.extend((0..extent.counts).map(|_| order()));
        }
    }
    for fio in FIO.iter().filter(|f| f.count > 0 && !extent.quick) {
        for policy in policies.clone() {
            let what = format!("fio {}", fio.name);
            let text = format!("busy {} {} {}", policy + 1, fio.count, fio.words);
            orders.push(Order {
                what,
                policy,
                kind: Kind::Fio(fio.count),
                text,
            });
        }
    }
    orders.retain(|o| matches!(o.kind, Kind::Warm) || extent.has(&o.what, o.policy));
    orders
}

/// What an answer says.
fn counts(iommu: Iommu, order: &Order, lines: &[String]) -> Result<Vec<Count>> {
    let count = |unit, value| Count {
        what: order.what.clone(),
        unit,
        policy: order.policy,
        value,
    };
    let pairs = match order.kind {
        Kind::Warm => return Ok(Vec::new()),
        Kind::Tables => return Ok(vec![count(Unit::Pages, guest::number("pages", lines)?)]),
        Kind::Fio(ios) => {
            let value = guest::number("busy", lines)? / f64::from(ios);
            return Ok(vec![count(Unit::InsnsPerIo, value)]);
        }
        Kind::Pair => guest::number("pairs", lines)?,
    };
    let Some(insns) = guest::of_pairs("ns", lines)? else {
        eprintln!(
            "bench: {}: it failed, and so does not count: {}",
            order.text, lines[0]
        );
        return Ok(Vec::new());
    };
    let mut counts = vec![count(Unit::InsnsPerPair, insns)];
    if POLICIES[order.policy].ours == "identity" {
        return Ok(counts);
    }
    let events = guest::events(lines);
    let of_those = |(event, n): (&&str, &f64)| iommu.invalidates(event).then_some(*n);
    // A sum of nothing is -0.0.
    let invalidations = events
        .iter()
        .filter_map(of_those)
        .fold(0.0, |sum, n| sum + n);
    counts.push(count(
        Unit::InvalidationsPer1000,
        invalidations * 1000.0 / pairs,
    ));
    let all = events.values().fold(0.0, |sum, n| sum + n);
    counts.push(count(Unit::CommandsPer1000, all * 1000.0 / pairs));
    Ok(counts)
}

fn count_in(guest: Guest, iommu: Iommu, orders: &[Order], done: &dyn Fn()) -> Result<Vec<Count>> {
    guest.ready()?;
    let mut all = Vec::new();
    for order in orders {
        let lines = guest.order(&order.text)?;
        all.extend(counts(iommu, order, &lines)?);
        done();
    }
    guest.end()?;
    Ok(all)
}

/// Both drivers' counts, side by side.
fn rows(ours: &[Count], in_tree: &[Count]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let of = |counts: &[Count], like: &Count| {
        let same = |c: &&Count| (&c.what, c.unit, c.policy) == (&like.what, like.unit, like.policy);
        counts.iter().filter(same).map(|c| c.value).collect()
    };
    for count in ours {
        let policy = &POLICIES[count.policy];
        if rows
            .iter()
            .any(|r| r.key() == (&count.what, count.unit, policy.ours))
        {
            continue;
        }
        rows.push(Row {
            what: count.what.clone(),
            unit: count.unit,
            policy: policy.ours.into(),
            against: policy.in_tree.into(),
            ours: of(ours, count),
            in_tree: of(in_tree, count),
            guests: 1,
        });
    }
    rows
}

/// Counts everything. Two guests at a time: the host's other work, and so the other guest, changes no count.
pub fn run(machine: &Machine, extent: &Extent) -> Result<Vec<Row>> {
    let machine = Machine {
        disks: !extent.quick,
        count: true,
        ..machine.clone()
    };
    let orders = orders(extent);
    let progress = Progress::new(&format!("{}: counts", machine.iommu.name()));
    let progress = Mutex::new((progress, 0));
    let all = orders.len() * 2 * extent.guests;
    let done = || {
        if let Ok(mut state) = progress.lock() {
            state.1 += 1;
            let done = state.1;
            state.0.of(done, all);
        }
    };
    let guest = |ours| -> Result<Vec<Count>> {
        let mut counts = Vec::new();
        for _ in 0..extent.guests {
            counts.extend(count_in(
                machine.start(ours)?,
                machine.iommu,
                &orders,
                &done,
            )?);
        }
        Ok(counts)
    };
    let (ours, in_tree) = std::thread::scope(|scope| {
        let other = scope.spawn(|| guest(false));
        (guest(true), other.join())
    });
    let in_tree = in_tree.map_err(|_| anyhow::anyhow!("a thread that counts panicked"))?;
    Ok(rows(&ours?, &in_tree?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(String::from).collect()
    }

    fn order(policy: usize, kind: Kind) -> Order {
        Order {
            what: "w".into(),
            policy,
            kind,
            text: String::new(),
        }
    }

    #[test]
    fn answers_are_read() {
        let answer = lines(
            "ns 700 loop 20 pairs 500 failed 0 low 0x1 high 0x2\n\
             vtd_inv_desc_iotlb_pages 250\nvtd_inv_desc_wait_sw 250\nvtd_inv_desc_iotlb_domain 250",
        );
        let counted = counts(Iommu::Vtd, &order(0, Kind::Pair), &answer).unwrap();
        let values: Vec<_> = counted.iter().map(|c| (c.unit, c.value)).collect();
        assert_eq!(
            values,
            [
                (Unit::InsnsPerPair, 700.0),
                (Unit::InvalidationsPer1000, 1000.0),
                (Unit::CommandsPer1000, 1500.0)
            ]
        );
        let counted = counts(Iommu::Vtd, &order(0, Kind::Fio(10)), &lines("busy 25")).unwrap();
        assert_eq!((counted[0].unit, counted[0].value), (Unit::InsnsPerIo, 2.5));
        assert!(counts(Iommu::Vtd, &order(0, Kind::Tables), &lines("pages")).is_err());
    }

    #[test]
    fn no_invalidation_is_a_count_too() {
        let counted = counts(
            Iommu::Vtd,
            &order(3, Kind::Pair),
            &lines("ns 7 loop 2 pairs 5 failed 0"),
        )
        .unwrap();
        assert_eq!(counted.len(), 3);
        assert_eq!((counted[1].value, counted[2].value), (0.0, 0.0));
        let identity = POLICIES.len() - 1;
        let counted = counts(
            Iommu::Vtd,
            &order(identity, Kind::Pair),
            &lines("ns 7 loop 2 pairs 5 failed 0"),
        );
        assert_eq!(counted.unwrap().len(), 1);
    }

    #[test]
    fn what_failed_does_not_count() {
        let answer = lines("ns 7 loop 2 pairs 5 failed 1\nvtd_inv_desc_iotlb_pages 1");
        assert!(
            counts(Iommu::Vtd, &order(0, Kind::Pair), &answer)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn drivers_are_joined() {
        let count = |policy, value| Count {
            what: "w".into(),
            unit: Unit::Pages,
            policy,
            value,
        };
        let joined = rows(
            &[count(0, 1.0), count(0, 2.0), count(1, 3.0)],
            &[count(1, 5.0), count(0, 4.0)],
        );
        assert_eq!(joined.len(), 2);
        assert_eq!(
            (joined[0].ours.clone(), joined[0].in_tree.clone()),
            (vec![1.0, 2.0], vec![4.0])
        );
        assert_eq!(joined[1].policy, "fq");
    }

    #[test]
    fn a_quick_run_is_a_part_of_a_full_one() {
        let texts = |quick| {
            orders(&Extent::new(quick))
                .iter()
                .map(|o| o.text.clone())
                .collect::<Vec<_>>()
        };
        let (quick, full) = (texts(true), texts(false));
        assert!(quick.len() < full.len());
        assert!(quick.iter().all(|q| full.contains(q)));
    }
}
