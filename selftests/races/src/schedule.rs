// SPDX-License-Identifier: GPL-2.0

//! Rows B11 to B13: orders of steps, taken by the kernel and by the model at the same time.
//!
//! After each step both are asked whether the group's `type` can be written, and every device
//! that can be used has to reach what the model says that it reaches.

use crate::group;
use crate::model::{
    Answer, Counted, Domain, Errno, Group, Kind, Member, Ownership, Phase, Step, Type,
};
use anyhow::{ensure, Context, Result};
use std::time::Instant;

const DEVICES: usize = 3;
const KEYS: u8 = 2;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, value_enum)]
    order: Order,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Steps of a random schedule, before all drivers are unbound
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Of the first random schedule; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices of one group, without drivers
    #[arg(num_args = DEVICES, required = true)]
    addresses: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Order {
    /// B11: two removes, both orders
    Removes,
    /// B12: one device's remove is over while another one's probe is held
    Probe,
    /// B13
    Random,
}

pub fn run(o: &Options) -> Result<()> {
    let start = Instant::now();
    let mut lockstep = Lockstep {
        kernel: group::Group::new(&o.addresses)?,
        model: Group::default(),
        steps: 0,
    };
    // The model begins with this one.
    ensure!(lockstep.kernel.set_type(Type::Dma)?.is_ok(), "type");
    for round in 0..o.rounds {
        let seed = o.seed + u64::from(round);
        match o.order {
            Order::Removes => lockstep.removes(round % 2 == 0),
            Order::Probe => lockstep.probe(),
            Order::Random => lockstep.random(o.steps, seed),
        }
        .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    println!(
        "# {} rounds, seeds from {}, {} steps, {:.1} s",
        o.rounds,
        o.seed,
        lockstep.steps,
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Numbers that depend on the seed only (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Spreads small seeds, and is never 0 but for one seed.
        Random((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit
    }
}

struct Lockstep {
    kernel: group::Group,
    model: Group<Counted, DEVICES>,
    steps: u32,
}

impl Lockstep {
    fn check(&mut self) -> Result<()> {
        // Always another type than now, so that it is a change.
        let other = match self.model.default_type {
            Type::Identity => Type::Dma,
            _ => Type::Identity,
        };
        self.take(0, Step::SetType(other))?;
        let attached = |at: &usize| self.model.members[*at].claim.is_some_and(|c| c.attached);
        let owner = (0..DEVICES).find(attached);
        for at in 0..DEVICES {
            let device = &self.kernel.members[at];
            let wanted = match (self.model.members[at].kind, self.model.members[at].phase) {
                (Kind::Kernel, Phase::Bound) => true,
                (Kind::Managed, Phase::Bound | Phase::Removing) => match self.model.domain() {
                    Domain::Default => self.model.default_type == Type::Identity,
                    Domain::Blocked => false,
                    Domain::User => owner == Some(at),
                },
                _ => continue,
            };
            let got = device.reaches(device.page())?;
            ensure!(got == wanted, "device {at} reaches its page: {got}");
            if let (Domain::User, Some(owner)) = (self.model.domain(), owner) {
                let page = self.kernel.members[owner].page();
                ensure!(
                    device.reaches(page)?,
                    "device {at} does not reach {owner}'s"
                );
            }
        }
        Ok(())
    }

    /// Takes a step, and those that follow because the kernel cannot be held before them.
    fn step(&mut self, at: usize, step: Step) -> Result<()> {
        self.take(at, step)
            .and_then(|()| self.check())
            .with_context(|| format!("{step:?} of device {at}, {:?}", self.model.members))
    }

    fn take(&mut self, at: usize, step: Step) -> Result<()> {
        self.steps += 1;
        let managed = self.model.members[at].kind == Kind::Managed;
        if step == Step::Cleanup && managed {
            // The driver's remove gives back what it has.
            for end in [Step::Detach, Step::Release] {
                if self.model.enabled(at, end) {
                    let _ = self.model.step(at, end);
                }
            }
        }
        let wanted = self.wanted(at, step);
        let got = self.kernel.step(at, step)?;
        ensure!(got == wanted, "{step:?}: {got:?}, not {wanted:?}");
        match step {
            Step::Bind(_) => return self.take(at, Step::Configure),
            Step::Configure if got.is_err() => self.follow(at, &[Step::Finish]),
            Step::ProbeFails => {
                self.follow(at, &[Step::Cleanup]);
                if managed {
                    self.follow(at, &[Step::Finish]);
                }
            }
            Step::Cleanup if managed => self.follow(at, &[Step::Finish]),
            _ => {}
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, steps: &[Step]) {
        for step in steps {
            let _ = self.model.step(at, *step);
        }
    }

    /// The model's answer; but the framework refuses to change the default domain while the
    /// driver core frees memory of a driver that used it (row B3).
    fn wanted(&mut self, at: usize, step: Step) -> Answer {
        if let Step::SetType(to) = step {
            let live = to == Type::DmaFq && self.model.default_type == Type::Dma;
            let freeing = |m: &Member| m.kind == Kind::Kernel && m.phase == Phase::Cleaned;
            let members = &self.model.members;
            if !live && members.iter().any(freeing) && !self.model.policy.owned(members) {
                return Err(Errno::Invalid);
            }
        }
        self.model.step(at, step)
    }

    /// All drivers go.
    fn end(&mut self) -> Result<()> {
        for at in 0..DEVICES {
            loop {
                let step = match self.model.members[at].phase {
                    Phase::Unbound => break,
                    Phase::Probing => Step::Probed,
                    Phase::Bound => Step::Unbind,
                    Phase::Removing => Step::Cleanup,
                    _ => Step::Finish,
                };
                self.step(at, step)?;
            }
        }
        ensure!(!self.model.policy.owned(&self.model.members), "owned");
        Ok(())
    }

    fn bind(&mut self, at: usize, kind: Kind) -> Result<()> {
        self.step(at, Step::Bind(kind))?;
        self.step(at, Step::Probed)
    }

    fn removes(&mut self, swap: bool) -> Result<()> {
        let (first, second) = if swap { (1, 0) } else { (0, 1) };
        self.bind(0, Kind::Kernel)?;
        self.bind(1, Kind::Kernel)?;
        self.bind(2, Kind::Managed)?;
        for step in [Step::Unbind, Step::Cleanup, Step::Finish] {
            for at in [first, second] {
                self.step(at, step)?;
                // Succeeds once both have gone, and then is a second claim.
                self.step(2, Step::Claim(0))?;
            }
        }
        self.end()
    }

    fn probe(&mut self) -> Result<()> {
        self.bind(0, Kind::Kernel)?;
        self.bind(2, Kind::Managed)?;
        self.step(1, Step::Bind(Kind::Kernel))?;
        for step in [Step::Unbind, Step::Cleanup, Step::Finish] {
            self.step(0, step)?;
            self.step(2, Step::Claim(0))?;
        }
        self.step(1, Step::Probed)?;
        self.bind(0, Kind::Kernel)?;
        self.end()
    }

    fn random(&mut self, steps: u32, seed: u64) -> Result<()> {
        let mut random = Random::new(seed);
        for _ in 0..steps {
            let (at, step) = loop {
                let (at, step) = (random.below(DEVICES), any_step(&mut random));
                if self.possible(at, step) {
                    break (at, step);
                }
            };
            self.step(at, step)?;
        }
        self.end()
    }

    /// Whether the kernel's drivers can be brought to take the step now.
    fn possible(&self, at: usize, step: Step) -> bool {
        let member = &self.model.members[at];
        self.model.enabled(at, step)
            && match step {
                Step::Claim(_) => {
                    let has_file = matches!(member.phase, Phase::Bound | Phase::Removing);
                    member.kind == Kind::Managed && has_file
                }
                Step::SetType(to) => to != self.model.default_type,
                _ => true,
            }
    }
}

fn any_step(random: &mut Random) -> Step {
    // CAST: Below `KEYS`.
    let key = random.below(usize::from(KEYS)) as u8;
    let kind = [Kind::Kernel, Kind::Managed][random.below(2)];
    let to = [Type::Dma, Type::DmaFq, Type::Identity][random.below(3)];
    let steps = [
        Step::Bind(kind),
        Step::Probed,
        Step::ProbeFails,
        Step::Unbind,
        Step::Cleanup,
        Step::Finish,
        Step::Claim(key),
        Step::Release,
        Step::Attach,
        Step::Detach,
        Step::SetType(to),
    ];
    steps[random.below(steps.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_make_different_orders() {
        let order = |seed| {
            let mut random = Random::new(seed);
            (0..64).map(|_| random.below(11)).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        for number in 0..11 {
            assert!(order(3).contains(&number) || order(4).contains(&number));
        }
    }
}
