// SPDX-License-Identifier: GPL-2.0

//! `selftests/races/src/model.rs`: the two implementations of DMA ownership agree, and keep what
//! they promise; `cells.rs`: both give what its table says.

use super::cells::{
    expected,
    Cell,
    Op,
    Order,
    Outcome,
    Owner,
    KEY_OF_A, //
};
use super::model::{
    Answer,
    Counted,
    Domain,
    Errno,
    Group,
    Key,
    Kind,
    Ownership,
    Phase,
    Scanned,
    Step,
    Type, //
};
use rand::{
    rngs::SmallRng,
    seq::IndexedRandom,
    Rng,
    SeedableRng, //
};

/// Keys that claims are made with.
const KEYS: [Key; 2] = [KEY_OF_A, KEY_OF_A + 1];

/// Steps that devices take; those that bring things forward are there more than once.
const STEPS: [Step; 21] = [
    Step::Bind(Kind::Kernel),
    Step::Bind(Kind::Managed),
    Step::Configure,
    Step::Configure,
    Step::Probed,
    Step::Probed,
    Step::ProbeFails,
    Step::Unbind,
    Step::Cleanup,
    Step::Cleanup,
    Step::Finish,
    Step::Finish,
    Step::Claim(KEYS[0]),
    Step::Claim(KEYS[0]),
    Step::Claim(KEYS[1]),
    Step::Release,
    Step::Attach,
    Step::Detach,
    Step::SetType(Type::Dma),
    Step::SetType(Type::DmaFq),
    Step::SetType(Type::Identity),
];

/// Both implementations of one group.
#[derive(Default)]
struct Both<const N: usize> {
    counted: Group<Counted, N>,
    scanned: Group<Scanned, N>,
}

/// Which answers there were, so that no schedule passes by standing still.
#[derive(Debug, Default)]
struct Seen {
    ok: u32,
    perm: u32,
    busy: u32,
    already: u32,
    user_domain: u32,
    failed_with_claim: u32,
}

impl<const N: usize> Both<N> {
    fn step(&mut self, at: usize, step: Step, seen: &mut Seen) -> Answer {
        let answer = self.counted.step(at, step);
        let same = self.scanned.step(at, step);
        assert_eq!(answer, same, "{step:?} of {at} in {self:?}");
        self.check();
        match answer {
            Ok(()) => seen.ok += 1,
            Err(Errno::Perm) => seen.perm += 1,
            Err(Errno::Busy) => seen.busy += 1,
            Err(Errno::Already) => seen.already += 1,
            Err(Errno::Invalid) => unreachable!("the rules do not know it"),
        }
        seen.user_domain += u32::from(self.counted.domain() == Domain::User);
        let member = self.counted.members[at];
        seen.failed_with_claim +=
            u32::from(member.phase == Phase::Failed && member.claim.is_some());
        answer
    }

    /// What holds between any two steps.
    fn check(&self) {
        let Self { counted, scanned } = self;
        assert_eq!(counted.members, scanned.members);
        assert_eq!(counted.default_type, scanned.default_type);
        assert_eq!(counted.domain(), scanned.domain());

        let kernel = counted.members.iter().filter(|m| m.kernel_dma()).count();
        let claims: Vec<_> = counted.members.iter().filter_map(|m| m.claim).collect();
        assert!(kernel == 0 || claims.is_empty(), "both: {self:?}");
        assert!(claims.windows(2).all(|c| c[0].key == c[1].key));
        let policy = &counted.policy;
        assert_eq!(policy.count as usize, kernel + claims.len(), "{self:?}");
        assert_eq!(policy.owner, claims.first().map(|c| c.key));
        // A driver that uses the DMA API has what the DMA API maps in.
        assert_eq!(claims.is_empty(), counted.domain() == Domain::Default);
        assert_eq!(
            policy.owned(&counted.members),
            scanned.policy.owned(&scanned.members)
        );
    }

    /// Everybody goes.
    fn end(&mut self, seen: &mut Seen) {
        let way = [
            Step::Detach,
            Step::Release,
            Step::Configure,
            Step::Probed,
            Step::Unbind,
            Step::Cleanup,
            Step::Finish,
        ];
        for at in 0..N {
            for step in way {
                if self.counted.enabled(at, step) {
                    let _ = self.step(at, step, seen);
                }
            }
        }
        let policy = &self.counted.policy;
        assert!(self
            .counted
            .members
            .iter()
            .all(|m| m.phase == Phase::Unbound));
        assert_eq!((policy.count, policy.owner), (0, None));
        assert_eq!(self.counted.domain(), Domain::Default);
    }
}

impl<const N: usize> std::fmt::Debug for Both<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.counted.policy, self.counted.members)
    }
}

fn schedules<const N: usize>(seeds: std::ops::Range<u64>) -> Seen {
    let mut seen = Seen::default();
    for seed in seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut both = Both::<N>::default();
        for _ in 0..rng.random_range(10..60) {
            let at = rng.random_range(0..N);
            let step = *STEPS.choose(&mut rng).unwrap();
            if both.counted.enabled(at, step) {
                let _ = both.step(at, step, &mut seen);
            }
        }
        both.end(&mut seen);
    }
    seen
}

fn all_were_seen(seen: &Seen) {
    let Seen {
        ok,
        perm,
        busy,
        already,
        user_domain,
        failed_with_claim,
    } = *seen;
    let least = [ok, perm, busy, already, user_domain, failed_with_claim];
    assert!(least.iter().all(|n| *n > 1000), "{seen:?}");
}

#[test]
fn b13_a_million_schedules() {
    all_were_seen(&schedules::<2>(0..400_000));
    all_were_seen(&schedules::<3>(400_000..800_000));
    all_were_seen(&schedules::<5>(800_000..1_000_000));
}

/// Every state that two devices can get into, and every step from it.
#[test]
fn b13_every_schedule_of_two_devices() {
    let mut seen = Seen::default();
    let mut known = std::collections::HashSet::new();
    let mut todo = vec![Vec::new()];
    while let Some(way) = todo.pop() {
        for at in 0..2 {
            for step in STEPS {
                let mut both = Both::<2>::default();
                for (at, step) in &way {
                    let _ = both.step(*at, *step, &mut seen);
                }
                if !both.counted.enabled(at, step) {
                    continue;
                }
                let _ = both.step(at, step, &mut seen);
                let state = format!("{both:?} {:?}", both.counted.default_type);
                if known.insert(state) {
                    let mut longer = way.clone();
                    longer.push((at, step));
                    todo.push(longer);
                    both.end(&mut seen);
                }
            }
        }
    }
    assert!(known.len() > 500, "only {} states", known.len());
}

/// Takes steps until one is refused. Who is refused a binding gives up.
fn go<P: Ownership, const N: usize>(group: &mut Group<P, N>, at: usize, way: &[Step]) -> Answer {
    for step in way {
        if let Err(e) = group.step(at, *step) {
            if *step == Step::Configure {
                group.step(at, Step::Finish).unwrap();
            }
            return Err(e);
        }
    }
    Ok(())
}

/// What one implementation makes of a cell. A is the device `a` of two.
fn play<P: Ownership>(cell: Cell, op: Op, order: Order, a: usize) -> Outcome {
    let b = 1 - a;
    let mut group = Group::<P, 2>::default();
    let kernel = [Step::Bind(Kind::Kernel), Step::Configure, Step::Probed];
    let managed = [Step::Bind(Kind::Managed), Step::Configure, Step::Probed];
    if let Op::Claim(_) = op {
        go(&mut group, b, &managed).unwrap();
    }
    let operate = |group: &mut Group<P, 2>| match op {
        Op::Claim(key) => group.step(b, Step::Claim(key)),
        Op::Bind => go(group, b, &kernel),
    };
    go(&mut group, a, cell.before()).unwrap();
    let (result, on) = match order {
        Order::CellFirst => {
            go(&mut group, a, cell.enter()).unwrap();
            let result = operate(&mut group);
            (result, go(&mut group, a, cell.after()))
        }
        Order::OpFirst => {
            let result = operate(&mut group);
            let way = [cell.enter(), cell.after()].concat();
            (result, go(&mut group, a, &way))
        }
    };

    let claim = group.members.iter().find_map(|m| m.claim);
    let owner = match claim {
        Some(claim) => Owner::Key(claim.key),
        None if group.members.iter().any(|m| m.kernel_dma()) => Owner::Kernel,
        None => Owner::Nobody,
    };
    let owned = group.policy.owned(&group.members);
    assert_eq!(owned, owner != Owner::Nobody);
    let blocked = group.domain() == Domain::Blocked;
    assert_eq!(blocked, matches!(owner, Owner::Key(_)));
    Outcome {
        op: result,
        a: on,
        owner,
    }
}

#[test]
fn b14_ten_cells() {
    for (cell, name) in Cell::ALL {
        for op in [Op::Claim(KEYS[0]), Op::Claim(KEYS[1]), Op::Bind] {
            for order in [Order::CellFirst, Order::OpFirst] {
                let expected = expected(cell, op, order);
                for a in 0..2 {
                    let what = format!("{name}, {op:?}, {order:?}, A is {a}");
                    assert_eq!(play::<Counted>(cell, op, order, a), expected, "{what}");
                    assert_eq!(play::<Scanned>(cell, op, order, a), expected, "{what}");
                }
            }
        }
    }
}

/// The way to a cell is one way, whoever comes first.
#[test]
fn b14_ways_end_at_rest() {
    for (cell, _) in Cell::ALL {
        let mut group = Group::<Counted, 1>::default();
        for way in [cell.before(), cell.enter(), cell.after()] {
            go(&mut group, 0, way).unwrap();
        }
        assert!(matches!(
            group.members[0].phase,
            Phase::Unbound | Phase::Bound
        ));
    }
}

/// A claim and a binding on two devices, in each order of their steps: one wins.
#[test]
fn b10_claim_against_bind() {
    let claim = [
        Step::Bind(Kind::Managed),
        Step::Configure,
        Step::Claim(KEYS[0]),
        Step::Probed,
    ];
    let bind = [Step::Bind(Kind::Kernel), Step::Configure, Step::Probed];
    let mut won = [0, 0];
    for order in 0u32..1 << 7 {
        if order.count_ones() != 3 {
            continue;
        }
        let mut both = Both::<2>::default();
        let (mut claim, mut bind) = (claim.iter(), bind.iter());
        let mut refused = 0;
        for n in 0..7 {
            let at = ((order >> n) & 1) as usize;
            let step = *if at == 1 { bind.next() } else { claim.next() }.unwrap();
            if both.counted.enabled(at, step) && both.step(at, step, &mut Seen::default()).is_err()
            {
                refused += 1;
                won[1 - at] += 1;
            }
        }
        assert_eq!(refused, 1);
        both.end(&mut Seen::default());
    }
    assert!(won[0] > 0 && won[1] > 0);
}

/// The end of A's driver takes nothing from B's binding, nor from a claim that B has just made.
#[test]
fn b12_remove_against_probe() {
    let mut both = Both::<2>::default();
    let mut seen = Seen::default();
    let mut go = |both: &mut Both<2>, at, steps: &[Step]| {
        for step in steps {
            both.step(at, *step, &mut seen).unwrap();
        }
    };
    let kernel = [Step::Bind(Kind::Kernel), Step::Configure];
    go(&mut both, 0, &kernel);
    go(&mut both, 0, &[Step::Probed, Step::Unbind]);
    go(&mut both, 1, &kernel);
    go(&mut both, 0, &[Step::Cleanup, Step::Finish]);
    assert_eq!(both.counted.policy.count, 1);
    go(&mut both, 1, &[Step::Probed]);

    let mut both = Both::<2>::default();
    let managed = [Step::Bind(Kind::Managed), Step::Configure, Step::Probed];
    go(&mut both, 0, &managed);
    go(&mut both, 1, &managed);
    go(&mut both, 0, &[Step::Claim(KEYS[0]), Step::Unbind]);
    go(&mut both, 1, &[Step::Claim(KEYS[0])]);
    go(&mut both, 0, &[Step::Release, Step::Cleanup, Step::Finish]);
    assert_eq!(both.counted.policy.owner, Some(KEYS[0]));
    assert_eq!(both.counted.domain(), Domain::Blocked);
}
