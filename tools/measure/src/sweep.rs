// SPDX-License-Identifier: GPL-2.0

//! What each policy leaves of the speed where an invalidation is expensive (row A13). The function by which a
//! driver submits invalidations is delayed, in both drivers with the same module, in guests whose time is
//! instructions: so is the delay, and nothing depends on the host.

use crate::guest::{self, Guest, Machine};
use crate::plan::{Iommu, POLICIES};
use crate::progress::Progress;
use crate::result::{Curve, Point, Sweep};
use anyhow::{Context, Result, anyhow, bail};
use std::sync::Mutex;

/// What an invalidation costs more, in microseconds.
const COSTS: [u32; 6] = [0, 5, 10, 20, 50, 100];
const PAIRS: u32 = 500;
/// Before anything is measured: as many as fill the core's one queue, and the caches of any policy.
const WARM: u32 = 40_000;
const READS: u32 = 4000;
const READ: &str = "--rw=randread --bs=4k --iodepth=32";

/// `Queue::submit` of the framework, in the driver's module.
const SUBMIT: &str = "_R.*5iommu5queue.*5Queue.*6submit(B[0-9A-Za-z]+_)?";

/// The functions that submit commands and wait: of our driver, as compilers of Rust spell it, and of the
/// kernel's; each is an expression for all of the name. GCC makes copies, called NAME.constprop.0 and the like.
pub fn probe(iommu: Iommu) -> [&'static str; 2] {
    match iommu {
        Iommu::Vtd | Iommu::VtdCaching => [SUBMIT, "qi_submit_sync"],
        Iommu::Amd => [
            SUBMIT,
            "iommu_completion_wait([.](constprop|isra|part)[.0-9]+)?",
        ],
        Iommu::Virtio => [
            "_R.*8requests.*8Requests8exchange",
            "__viommu_sync_req([.](constprop|isra|part)[.0-9]+)?",
        ],
    }
}

/// The policies to be measured, by number: each of the kernel's once, and identity never.
fn policies(ours: bool) -> Vec<usize> {
    let policy = |n: usize| {
        if ours {
            POLICIES[n].ours
        } else {
            POLICIES[n].in_tree
        }
    };
    let all = 0..POLICIES.len();
    let first = |n: &usize| (0..*n).all(|m| policy(m) != policy(*n));
    all.filter(|n| policy(*n) != "identity")
        .filter(first)
        .collect()
}

fn curves(guest: Guest, ours: bool, done: &dyn Fn()) -> Result<(Vec<Curve>, String)> {
    guest.ready()?;
    let curve = |n: usize| {
        let policy = if ours {
            POLICIES[n].ours
        } else {
            POLICIES[n].in_tree
        };
        Curve {
            ours,
            policy: policy.into(),
            points: Vec::new(),
        }
    };
    let mut curves: Vec<(usize, Curve)> =
        policies(ours).into_iter().map(|n| (n, curve(n))).collect();
    let read = |n: usize| format!("busy {} {READS} {READ}", n + 1);
    let calls = |cost: u32| -> Result<f64> {
        guest::number("calls", &guest.order(&format!("cost {cost}"))?)
    };
    let delayed = guest.order("delayed")?.concat();
    for (n, _) in &curves {
        guest.order(&format!("pair {} size=4k pairs={WARM}", *n + 1))?;
        guest.order(&read(*n))?;
    }
    for cost in COSTS {
        for (n, curve) in &mut curves {
            let before = calls(cost)?;
            let pair = guest.order(&format!("pair {} size=4k pairs={PAIRS}", *n + 1))?;
            let seen = calls(cost)? - before;
            // Under strict each unmap is one: or it was not the function that was delayed.
            if curve.policy == "strict" && seen < f64::from(PAIRS) {
                bail!(
                    "{delayed} was called {seen} times for {PAIRS} unmaps under strict: it is not what submits them"
                );
            }
            let read = guest.order(&read(*n))?;
            curve.points.push(Point {
                cost_us: cost.into(),
                pair_ns: guest::number("ns", &pair)?,
                read_ns: guest::number("busy", &read)? / f64::from(READS),
            });
            done();
        }
    }
    guest.end()?;
    Ok((
        curves.into_iter().map(|(_, curve)| curve).collect(),
        delayed,
    ))
}

/// Both drivers, at the same time.
pub fn run(machine: &Machine) -> Result<Sweep> {
    let iommu = machine.iommu;
    let machine = Machine {
        disks: true,
        count: true,
        probe: Some(probe(iommu)),
        ..machine.clone()
    };
    let progress = Mutex::new((
        Progress::new(&format!("{}: costs of an invalidation", iommu.name())),
        0,
    ));
    let all = (policies(true).len() + policies(false).len()) * COSTS.len();
    let done = || {
        if let Ok(mut state) = progress.lock() {
            state.1 += 1;
            let done = state.1;
            state.0.of(done, all);
        }
    };
    let one = |ours| curves(machine.start(ours)?, ours, &done);
    let (ours, in_tree) = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(false));
        (one(true), other.join())
    });
    let (mut curves, ours) = ours.context("our driver")?;
    let (theirs, in_tree) = in_tree
        .map_err(|_| anyhow!("a thread panicked"))?
        .context("the kernel's driver")?;
    curves.extend(theirs);
    Ok(Sweep {
        delayed: [ours, in_tree],
        curves,
    })
}

/// Time of a read at a cost: on the line between two points.
fn read_at(curve: &Curve, cost: f64) -> Option<f64> {
    curve.points.windows(2).find_map(|w| {
        let (a, b) = (w[0], w[1]);
        let within = a.cost_us <= cost && cost <= b.cost_us;
        within.then(|| {
            a.read_ns + (b.read_ns - a.read_ns) * (cost - a.cost_us) / (b.cost_us - a.cost_us)
        })
    })
}

impl Sweep {
    fn curve(&self, ours: bool, policy: &str) -> Option<&Curve> {
        self.curves
            .iter()
            .find(|c| c.ours == ours && c.policy == policy)
    }

    /// The speed of reads under a policy as a part of that under lazy.
    pub fn of_lazy(&self, ours: bool, policy: &str, cost: f64) -> Option<f64> {
        let lazy = read_at(self.curve(true, "lazy")?, cost)?;
        Some(lazy / read_at(self.curve(ours, policy)?, cost)?)
    }

    /// The cost at which strict has half of the speed of lazy; None where it always has more.
    pub fn calibration(&self) -> Option<f64> {
        let greatest = self.curve(true, "strict")?.points.last()?.cost_us;
        let half = |cost: f64| self.of_lazy(true, "strict", cost).map(|part| part <= 0.5);
        let (mut low, mut high) = (0.0, greatest);
        if !half(high)? {
            return None;
        }
        for _ in 0..50 {
            let middle = (low + high) / 2.0;
            if half(middle)? {
                high = middle
            } else {
                low = middle
            }
        }
        Some(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read takes 10 us, and under strict the cost besides; with a queue a twentieth of it.
    fn sweep() -> Sweep {
        let curve = |policy: &str, part: f64| {
            let point = |c: u32| Point {
                cost_us: c.into(),
                pair_ns: 1.0,
                read_ns: 10_000.0 + f64::from(c) * 1000.0 * part,
            };
            Curve {
                ours: true,
                policy: policy.into(),
                points: COSTS.map(point).into(),
            }
        };
        Sweep {
            delayed: [String::new(), String::new()],
            curves: vec![curve("strict", 1.0), curve("fq", 0.05), curve("lazy", 0.0)],
        }
    }

    /// Names as they stood in /proc/kallsyms.
    #[test]
    fn functions_are_found_by_all_of_their_name() {
        let is = |iommu, of, name: &str| {
            let all = format!("^({})$", probe(iommu)[of]);
            regex::Regex::new(&all).unwrap().is_match(name)
        };
        let queue = "_RNvMs2_NtCsgjkEcY5A1cD_5iommu5queueINtB5_5QueueNtNtCskH75y4zmDwr_3vtd2qi2QiE";
        assert!(is(Iommu::Vtd, 0, &format!("{queue}6submitBN_")));
        assert!(is(Iommu::Amd, 0, &format!("{queue}6submit")));
        assert!(!is(Iommu::Vtd, 0, &format!("{queue}11submit_partBN_")));
        assert!(!is(Iommu::Vtd, 0, &format!("{queue}6submitBN_.cold")));
        let requests = "_RNvMs0_NtNtCsgjkEcY5A1cD_5iommu6virtio8requestsNtB5_";
        assert!(is(
            Iommu::Virtio,
            0,
            &format!("{requests}8Requests8exchange")
        ));
        assert!(!is(Iommu::Virtio, 0, &format!("{requests}5State8exchange")));
        assert!(is(Iommu::Vtd, 1, "qi_submit_sync") && !is(Iommu::Vtd, 1, "qi_submit_sync.cold"));
        assert!(is(Iommu::Amd, 1, "iommu_completion_wait.part.0"));
        assert!(
            !is(Iommu::Virtio, 1, "viommu_sync_req") && is(Iommu::Virtio, 1, "__viommu_sync_req")
        );
    }

    #[test]
    fn half_of_lazy() {
        let sweep = sweep();
        let cost = sweep.calibration().unwrap();
        assert!((cost - 10.0).abs() < 1e-6, "{cost}");
        let fq = sweep.of_lazy(true, "fq", cost).unwrap();
        assert!((fq - 10.0 / 10.5).abs() < 1e-6, "{fq}");
        // Between two points.
        let strict = sweep.of_lazy(true, "strict", 35.0).unwrap();
        assert!((strict - 10.0 / 45.0).abs() < 1e-6, "{strict}");
        assert_eq!(sweep.of_lazy(false, "strict", 1.0), None);
        assert_eq!(sweep.of_lazy(true, "strict", 101.0), None);
    }

    #[test]
    fn what_is_never_half_has_no_such_cost() {
        let mut sweep = sweep();
        sweep.curves.remove(0);
        assert_eq!(sweep.calibration(), None);
        sweep.curves[0].policy = "strict".into();
        assert_eq!(sweep.calibration(), None);
    }

    #[test]
    fn each_policy_is_measured_once() {
        assert_eq!(policies(true), [0, 1, 2, 3]);
        assert_eq!(policies(false), [0, 1]);
    }
}
