// SPDX-License-Identifier: GPL-2.0

//! The command ring: its arithmetic, and the protocol between those who push, those who wait and
//! the hardware, every order of whose steps is tried for a small ring.

use iommu::ring::{
    drop_wait, is_done, is_over, outcome, token, Observed, Outcome, Ring, Submission, Verdict,
    NO_VERDICT,
};
use proptest::prelude::*;
use rand::{rngs::SmallRng, Rng, SeedableRng};
use std::collections::{HashMap, VecDeque};

/// A command in the modelled ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Command {
    Op,
    /// What the hardware refuses.
    Bad,
    Wait,
    /// What a refused command is replaced by.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    Bad,
    Timeout,
}

/// The hardware: fetches in order, completes waits some time after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Hardware {
    /// Position to be fetched next.
    head: u64,
    /// Wait commands that were fetched and have not written their status.
    pending: VecDeque<u64>,
    fault: Option<Fault>,
    /// How many more device timeouts it may report.
    timeouts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Push,
    ReadStatus(Submission),
    ReadDoubtFirst(Submission, u32),
    ReadVerdict(Submission, u32),
    ReadRetired(Submission, u32, u64),
    ReadDoubt(Submission, u32, u64, u64),
}

/// One who submits: some times, some commands each; the marked one holds a bad command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Submitter {
    left: u32,
    commands: u32,
    bad: Option<u32>,
    /// Whether the present one is made again.
    again: bool,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    ring: Ring,
    /// By index: length of the submission that starts there, and the command with its position.
    lens: Vec<u32>,
    commands: Vec<Option<(u64, Command)>>,
    status: Vec<u32>,
    verdicts: Vec<u64>,
    retired: u64,
    doubt: u64,
    hardware: Hardware,
    submitters: Vec<Submitter>,
    /// Positions whose effect was lost: refused, or dropped before the wait was done.
    lost: Vec<u64>,
}

impl Model {
    fn new(entries: u32, timeouts: u32, submitters: Vec<Submitter>) -> Self {
        let n = entries as usize;
        Self {
            ring: Ring::new(entries).unwrap(),
            lens: vec![1; n],
            commands: vec![None; n],
            status: vec![0; n],
            verdicts: vec![NO_VERDICT; n],
            retired: 0,
            doubt: 0,
            hardware: Hardware {
                head: 0,
                pending: VecDeque::new(),
                fault: None,
                timeouts,
            },
            submitters,
            lost: Vec::new(),
        }
    }

    fn index(&self, position: u64) -> usize {
        self.ring.index(position) as usize
    }

    fn finished(&self) -> bool {
        self.submitters.iter().all(|s| s.left == 0)
    }

    /// Steps are numbered: three of the hardware, one of the error handler, one of each submitter.
    fn steps(&self) -> usize {
        4 + self.submitters.len()
    }

    /// Makes step `n` if that is possible now.
    fn step(&mut self, n: usize) -> bool {
        match n {
            0 => self.fetch(),
            1 => self.complete(),
            2 => self.time_out(),
            3 => self.handle(),
            n => self.submit(n - 4),
        }
    }

    fn fetch(&mut self) -> bool {
        let head = self.hardware.head;
        if self.hardware.fault.is_some() || head == self.ring.next() {
            return false;
        }
        let (position, command) = self.commands[self.index(head)].unwrap();
        assert_eq!(
            position, head,
            "a place was reused before the hardware got there"
        );
        match command {
            Command::Bad => {
                self.hardware.fault = Some(Fault::Bad);
                return true;
            }
            Command::Wait => self.hardware.pending.push_back(head),
            Command::Op | Command::Nothing => self.forget(head),
        }
        self.hardware.head += 1;
        true
    }

    /// In order, as `QueueHw` demands.
    fn complete(&mut self) -> bool {
        let Some(wait) = self.hardware.pending.pop_front() else {
            return false;
        };
        let index = self.index(wait);
        let (position, command) = self.commands[index].unwrap();
        assert_eq!(
            (position, command),
            (wait, Command::Wait),
            "a pending wait's place was reused"
        );
        self.status[index] = token(wait);
        self.forget(wait);
        true
    }

    /// What is done with is not part of the state any more.
    fn forget(&mut self, position: u64) {
        let index = self.index(position);
        self.commands[index] = None;
    }

    fn time_out(&mut self) -> bool {
        let hardware = &mut self.hardware;
        if hardware.fault.is_some() || hardware.timeouts == 0 || hardware.pending.is_empty() {
            return false;
        }
        hardware.timeouts -= 1;
        hardware.fault = Some(Fault::Timeout);
        let dropped: Vec<u64> = hardware.pending.drain(..).collect();
        dropped.iter().for_each(|wait| self.forget(*wait));
        self.lost.extend(dropped);
        true
    }

    /// What `Queue::check()` does under the lock.
    fn handle(&mut self) -> bool {
        let Some(fault) = self.hardware.fault else {
            return false;
        };
        let at = self.ring.locate(self.ring.index(self.hardware.head));
        let at = at.expect("the hardware's head is in the ring");
        assert_eq!(at, self.hardware.head);
        let mut all = Vec::new();
        self.ring
            .for_each(|i| self.lens[i as usize], |submission| all.push(submission));
        for submission in all {
            let wait = submission.wait();
            let index = self.index(wait);
            match fault {
                Fault::Bad if submission.contains(at) => {
                    self.condemn(wait, Verdict::Refused);
                    let place = self.index(at);
                    self.commands[place] = Some((at, Command::Nothing));
                    self.lost.push(at);
                }
                Fault::Timeout if wait < at => {
                    if let Some(new) = drop_wait(wait, self.status[index], self.verdicts[index]) {
                        assert!(self.lost.contains(&wait), "dropped, but it was done");
                        self.condemn(wait, new);
                    }
                }
                Fault::Bad | Fault::Timeout => {}
            }
        }
        self.hardware.fault = None;
        true
    }

    fn condemn(&mut self, wait: u64, verdict: Verdict) {
        self.doubt = self.doubt.max(wait + 1);
        let index = self.index(wait);
        self.verdicts[index] = verdict.pack(wait);
    }

    fn submit(&mut self, who: usize) -> bool {
        let submitter = self.submitters[who].clone();
        if submitter.left == 0 {
            return false;
        }
        let next = match submitter.phase {
            Phase::Push => match self.push(&submitter) {
                Some(submission) => Phase::ReadStatus(submission),
                None => return false,
            },
            Phase::ReadStatus(s) => Phase::ReadDoubtFirst(s, self.status[self.index(s.wait())]),
            Phase::ReadDoubtFirst(s, status) => {
                if is_done(s.wait(), status, self.doubt) {
                    self.learn(who, s, Outcome::Done);
                    Phase::Push
                } else {
                    Phase::ReadVerdict(s, status)
                }
            }
            Phase::ReadVerdict(s, status) => {
                Phase::ReadRetired(s, status, self.verdicts[self.index(s.wait())])
            }
            Phase::ReadRetired(s, status, verdict) => {
                Phase::ReadDoubt(s, status, verdict, self.retired)
            }
            Phase::ReadDoubt(s, status, verdict, retired) => {
                let seen = Observed {
                    status,
                    verdict,
                    retired,
                    doubt: self.doubt,
                };
                match outcome(s.wait(), seen) {
                    Outcome::Pending => Phase::ReadStatus(s),
                    outcome => {
                        self.learn(who, s, outcome);
                        Phase::Push
                    }
                }
            }
        };
        self.submitters[who].phase = next;
        true
    }

    /// What `Queue::try_push()` does under the lock.
    fn push(&mut self, submitter: &Submitter) -> Option<Submission> {
        let mut ring = self.ring.clone();
        if ring.free() <= submitter.commands {
            ring.retire(
                |i| self.lens[i as usize],
                |wait| {
                    let i = self.index(wait);
                    is_over(wait, self.status[i], self.verdicts[i])
                },
            );
            self.retired = ring.first();
        }
        let taken = ring.reserve(submitter.commands);
        self.ring = ring;
        let taken = taken?;
        let first = self.index(taken.first);
        self.lens[first] = taken.len;
        let wait = self.index(taken.wait());
        self.status[wait] = 0;
        let bad = submitter.bad == Some(submitter.left);
        for position in taken.first..=taken.wait() {
            let command = if position == taken.wait() {
                Command::Wait
            } else if bad && position == taken.first {
                Command::Bad
            } else {
                Command::Op
            };
            let place = self.index(position);
            assert_eq!(self.commands[place], None, "overwritten before it was done");
            self.commands[place] = Some((position, command));
        }
        Some(taken)
    }

    /// What the submitter learned must be true.
    fn learn(&mut self, who: usize, s: Submission, outcome: Outcome) {
        let lost = self.lost.iter().any(|p| s.contains(*p));
        let submitter = &mut self.submitters[who];
        let bad = submitter.bad == Some(submitter.left);
        assert!(
            self.hardware.head > s.wait(),
            "{outcome:?}, but not even fetched"
        );
        assert!(
            !self.hardware.pending.contains(&s.wait()),
            "{outcome:?}, but outstanding"
        );
        match outcome {
            Outcome::Done => assert!(!lost && !bad, "done, but it was lost"),
            Outcome::Refused => assert!(bad, "refused without reason"),
            Outcome::Dropped => assert!(lost, "dropped without reason"),
            Outcome::Unknown => assert!(self.doubt > s.wait(), "unknown without reason"),
            Outcome::Pending => unreachable!(),
        }
        self.lost.retain(|p| !s.contains(*p));
        // Who was dropped, or does not know, tries once more.
        let again = matches!(outcome, Outcome::Dropped | Outcome::Unknown);
        if again && !submitter.again {
            submitter.again = true;
        } else {
            submitter.again = false;
            submitter.left -= 1;
        }
    }
}

fn submitter(left: u32, commands: u32, bad: Option<u32>) -> Submitter {
    Submitter {
        left,
        commands,
        bad,
        again: false,
        phase: Phase::Push,
    }
}

/// Makes every step from every state that can be reached, and checks that the end can be reached
/// from each; returns how many states there are.
fn explore(start: Model) -> usize {
    let mut ids = HashMap::from([(start.clone(), 0)]);
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut todo = vec![start];
    let mut ends = Vec::new();
    while let Some(model) = todo.pop() {
        let id = ids[&model];
        if model.finished() {
            ends.push(id);
            continue;
        }
        for n in 0..model.steps() {
            let mut next = model.clone();
            if !next.step(n) {
                continue;
            }
            let new = ids.len();
            let next_id = *ids.entry(next.clone()).or_insert(new);
            if next_id == new {
                before.push(Vec::new());
                todo.push(next);
            }
            before[next_id].push(id);
        }
    }
    let mut ending = vec![false; ids.len()];
    while let Some(id) = ends.pop() {
        if !ending[id] {
            ending[id] = true;
            ends.extend(&before[id]);
        }
    }
    if let Some((stuck, _)) = ids.iter().find(|(_, id)| !ending[**id]) {
        panic!("somebody waits for ever: {stuck:#?}");
    }
    ids.len()
}

#[test]
fn every_order_of_two_submitters() {
    let states = explore(Model::new(
        4,
        0,
        vec![submitter(4, 1, None), submitter(3, 2, None)],
    ));
    assert!(states > 1000, "only {states} states");
}

#[test]
fn every_order_of_three_submitters_with_a_bad_command() {
    let states = explore(Model::new(
        4,
        0,
        vec![
            submitter(1, 1, Some(1)),
            submitter(1, 1, None),
            submitter(1, 0, None),
        ],
    ));
    assert!(states > 1000, "only {states} states");
}

#[test]
fn every_order_of_two_submitters_with_bad_commands() {
    let states = explore(Model::new(
        4,
        0,
        vec![submitter(3, 1, Some(3)), submitter(3, 1, Some(2))],
    ));
    assert!(states > 1000, "only {states} states");
}

#[test]
fn every_order_with_a_device_timeout_and_a_bad_command() {
    let states = explore(Model::new(
        4,
        1,
        vec![submitter(3, 1, Some(2)), submitter(2, 0, None)],
    ));
    assert!(states > 1000, "only {states} states");
}

#[test]
fn random_orders_in_a_larger_ring() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let submitters = (0..6)
            .map(|_| {
                let left = rng.random_range(50..200);
                let bad = rng.random_bool(0.5).then(|| rng.random_range(1..=left));
                submitter(left, rng.random_range(1..4), bad)
            })
            .collect();
        let mut model = Model::new(16, 10, submitters);
        let mut steps = 0;
        while !model.finished() {
            // A timeout is rare, or nothing else would happen.
            let n = rng.random_range(0..model.steps());
            if n != 2 || rng.random_bool(0.01) {
                model.step(n);
            }
            steps += 1;
            assert!(steps < 1_000_000, "stuck: {model:#?}");
        }
    }
}

#[test]
fn sizes_that_are_no_ring() {
    for entries in [0, 1, 2, 3, 5, 6, 7, 12, 255, u32::MAX] {
        assert_eq!(Ring::new(entries), None, "{entries}");
    }
    for shift in 2..32 {
        let ring = Ring::new(1 << shift).unwrap();
        assert_eq!(ring.free(), (1 << shift) - 1);
        assert!(ring.largest() >= 1 && ring.largest() < ring.free());
    }
}

#[test]
fn a_head_that_cannot_be_is_not_located() {
    let mut ring = Ring::new(8).unwrap();
    assert_eq!(ring.reserve(u32::MAX), None);
    assert_eq!(ring.reserve(7), None);
    ring.reserve(2).unwrap();
    assert_eq!(ring.locate(0), Some(0));
    assert_eq!(ring.locate(3), Some(3));
    for index in [4, 5, 6, 7, 8, 11, u32::MAX] {
        assert_eq!(ring.locate(index), None, "{index}");
    }
}

#[test]
fn the_youngest_tells_for_all() {
    let ring = || {
        let mut ring = Ring::new(16).unwrap();
        for _ in 0..3 {
            ring.reserve(1).unwrap();
        }
        ring
    };
    let retired = |over: &[u64]| {
        let (mut ring, asked) = (ring(), std::cell::RefCell::new(Vec::new()));
        ring.retire(
            |_| 2,
            |wait| {
                asked.borrow_mut().push(wait);
                over.contains(&wait)
            },
        );
        (ring.first(), asked.into_inner())
    };
    assert_eq!(retired(&[5]), (6, vec![5]));
    assert_eq!(retired(&[1]), (2, vec![5, 1, 3]));
    assert_eq!(retired(&[1, 3]), (4, vec![5, 1, 3, 5]));
    assert_eq!(retired(&[]), (0, vec![5, 1]));
}

proptest! {
    /// Against a queue of lengths: places, and what is free, after any pushes and retirements.
    #[test]
    fn behaves_as_a_queue(shift in 2u32..9, ops in prop::collection::vec((0u32..12, 0usize..4), 1..400)) {
        let entries = 1u32 << shift;
        let mut ring = Ring::new(entries).unwrap();
        let mut lens = vec![1u32; entries as usize];
        let mut model: VecDeque<(u64, u32)> = VecDeque::new();
        let mut next = 0u64;
        for (commands, over) in ops {
            let used: u32 = model.iter().map(|(_, len)| len).sum();
            prop_assert_eq!(ring.free(), entries - 1 - used);
            let taken = ring.reserve(commands);
            prop_assert_eq!(taken.is_some(), commands < entries - 1 - used);
            if let Some(taken) = taken {
                prop_assert_eq!(taken.first, next);
                prop_assert_eq!(taken.wait(), next + u64::from(commands));
                lens[ring.index(taken.first) as usize] = taken.len;
                model.push_back((next, taken.len));
                next += u64::from(taken.len);
            }
            prop_assert_eq!(ring.next(), next);
            let mut seen = Vec::new();
            ring.for_each(|i| lens[i as usize], |s| seen.push((s.first, s.len)));
            prop_assert_eq!(&seen, &Vec::from(model.clone()));
            for (first, len) in &seen {
                for position in *first..*first + u64::from(*len) {
                    prop_assert_eq!(ring.locate(ring.index(position)), Some(position));
                }
            }
            for _ in 0..over.min(model.len()) {
                model.pop_front();
            }
            let oldest = model.front().map_or(next, |(first, _)| *first);
            ring.retire(|i| lens[i as usize], |wait| wait < oldest);
            prop_assert_eq!(ring.first(), oldest);
        }
    }

    /// A word about another submission says nothing; the last one in a place least of all.
    #[test]
    fn words_of_others_say_nothing(wait in 0u64..1 << 48, places in 1u64..1 << 20) {
        let (before, later) = (wait, wait + places * 4);
        prop_assert_ne!(token(before), 0);
        prop_assert_ne!(token(before), token(later));
        let seen = |status, verdict, retired, doubt| Observed { status, verdict, retired, doubt };
        for verdict in [Verdict::Refused, Verdict::RefusedAndDropped, Verdict::Dropped] {
            let old = verdict.pack(before);
            prop_assert_eq!(Verdict::unpack(old, before), Some(verdict));
            prop_assert_eq!(Verdict::unpack(old, later), None);
            let doubt = before + 1;
            prop_assert_eq!(outcome(later, seen(token(before), old, later, doubt)), Outcome::Pending);
            prop_assert_eq!(outcome(later, seen(token(later), old, later, doubt)), Outcome::Done);
            prop_assert!(!is_over(later, token(before), old));
            prop_assert!(is_over(later, token(later), old));
        }
        prop_assert_eq!(Verdict::unpack(NO_VERDICT, wait), None);
    }
}
