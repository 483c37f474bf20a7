// SPDX-License-Identifier: GPL-2.0

//! Row B14: the ten cells of the ownership table ([`cells`](crate::cells)), forced in the kernel.

use crate::cells::{expected, Cell, Op, Order, Outcome, Owner, KEY_OF_A};
use crate::group::{Group, Thread};
use crate::model::{Answer, Errno, Key, Kind, Step, Type};
use anyhow::{bail, ensure, Context, Result};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const OTHER_KEY: Key = 2;
const A: usize = 0;
const B: usize = 1;
const JUDGE: usize = 2;

#[derive(clap::Args)]
pub struct Options {
    /// For each cell, order and operation
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Only this cell, such as 2a.i
    #[arg(long)]
    cell: Option<String>,
    /// Three devices of one group, without drivers
    #[arg(num_args = 3, required = true)]
    addresses: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    let start = Instant::now();
    let mut group = Group::new(&o.addresses)?;
    let managed = [Step::Bind(Kind::Managed), Step::Configure, Step::Probed];
    ensure!(group.steps(JUDGE, &managed)?.is_ok(), "no judge");
    let mut table = Table { group, flip: false };
    let mut runs = 0;
    for (cell, name) in Cell::ALL {
        if o.cell.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        for order in [Order::CellFirst, Order::OpFirst] {
            for op in [Op::Claim(KEY_OF_A), Op::Claim(OTHER_KEY), Op::Bind] {
                for round in 1..=o.rounds {
                    let what = || format!("cell {name}, {order:?}, {op:?}, round {round}");
                    let wanted = expected(cell, op, order);
                    let got = table.round(cell, op, order).with_context(what)?;
                    ensure!(got == wanted, "{}: {got:?}, not {wanted:?}", what());
                    runs += 1;
                }
            }
        }
    }
    ensure!(runs > 0, "no such cell");
    println!("# {runs} runs, {:.1} s", start.elapsed().as_secs_f32());
    table
        .group
        .steps(JUDGE, &[Step::Unbind, Step::Cleanup])?
        .ok();
    Ok(())
}

struct Table {
    group: Group,
    flip: bool,
}

impl Table {
    fn round(&mut self, cell: Cell, op: Op, order: Order) -> Result<Outcome> {
        if let Op::Claim(_) = op {
            let managed = [Step::Bind(Kind::Managed), Step::Configure, Step::Probed];
            ensure!(self.group.steps(B, &managed)?.is_ok(), "B is not bound");
        }
        ensure!(self.group.steps(A, cell.before())?.is_ok(), "before");
        let mut a;
        let done;
        match (order, cell) {
            (Order::CellFirst, Cell::C2ai) => {
                (done, a) = self.while_a_binds(op)?;
                if a.is_ok() {
                    a = self.group.step(A, Step::Probed)?;
                }
            }
            (Order::CellFirst, _) => {
                a = self.group.steps(A, cell.enter())?;
                ensure!(a.is_ok(), "A does not come into the cell: {a:?}");
                done = self.operate(op)?;
                a = self.group.steps(A, cell.after())?;
            }
            (Order::OpFirst, _) => {
                done = self.operate(op)?;
                a = self.group.steps(A, cell.enter())?;
                if a.is_ok() {
                    a = self.group.steps(A, cell.after())?;
                }
            }
        }
        let outcome = Outcome {
            op: done,
            a,
            owner: self.owner()?,
        };
        for at in [A, B] {
            if self.group.members[at].device.driver().is_some() {
                let leave = [Step::Unbind, Step::Cleanup, Step::Finish];
                ensure!(self.group.steps(at, &leave)?.is_ok(), "unbind");
            }
        }
        ensure!(self.owner()? == Owner::Nobody, "the group stays owned");
        Ok(outcome)
    }

    fn operate(&mut self, op: Op) -> Result<Answer> {
        match op {
            Op::Claim(key) => self.group.step(B, Step::Claim(key)),
            Op::Bind => {
                let bind = [Step::Bind(Kind::Kernel), Step::Configure, Step::Probed];
                self.group.steps(B, &bind)
            }
        }
    }

    /// Cell 2a.i: A's driver is set, but A stands before `dma_configure`, as the group's lock is
    /// taken: by B's claim, which is held before it programs a device; or by a write to `type`,
    /// behind which B waits first, and then A.
    fn while_a_binds(&mut self, op: Op) -> Result<(Answer, Answer)> {
        let [a, b, _] = &mut self.group.members[..] else {
            bail!("three devices");
        };
        let points = &self.group.points;
        points.gate("attach.pre_hw", None, 0)?;
        match op {
            Op::Claim(key) => {
                let file = b.oracle();
                let claim = Thread::start(move || file.run(&format!("claim {key}")).map(drop))?;
                points.wait("attach.pre_hw", LIMIT)?;
                a.begin(Kind::Kernel)?;
                a.wait_asleep()?;
                points.open("attach.pre_hw")?;
                let claimed = crate::group::answer(claim.join())?;
                Ok((claimed, a.configured()?))
            }
            Op::Bind => {
                let device = a.device.clone();
                self.flip = !self.flip;
                let to = crate::group::type_name(next_type(self.flip));
                let write = Thread::start(move || device.set_group_type(to))?;
                points.wait("attach.pre_hw", LIMIT)?;
                b.begin(Kind::Kernel)?;
                b.wait_asleep()?;
                a.begin(Kind::Kernel)?;
                a.wait_asleep()?;
                points.open("attach.pre_hw")?;
                write.join()?;
                let (bound, bound_a) = (b.configured()?, a.configured()?);
                if bound.is_ok() {
                    self.group.step(B, Step::Probed)?.ok();
                }
                Ok((bound, bound_a))
            }
        }
    }

    /// Who has the group, by what a write to `type` and a third device are told.
    fn owner(&mut self) -> Result<Owner> {
        self.flip = !self.flip;
        let writable = self.group.set_type(next_type(self.flip))?;
        let owner = match writable {
            Ok(()) => Owner::Nobody,
            Err(Errno::Perm) => Owner::Kernel,
            Err(other) => bail!("a write to type gives {other:?}"),
        };
        let judge = &self.group.members[JUDGE];
        for key in [KEY_OF_A, OTHER_KEY] {
            match judge.claim(key)? {
                Ok(()) => {
                    ensure!(!judge.reaches(judge.page())?, "not blocked");
                    judge.release()?;
                    // Who holds the group already has the same key.
                    return Ok(match owner {
                        Owner::Nobody => Owner::Nobody,
                        _ => Owner::Key(key),
                    });
                }
                Err(Errno::Perm) => ensure!(owner == Owner::Kernel, "owned, type is writable"),
                Err(other) => bail!("a claim gives {other:?}"),
            }
        }
        Ok(owner)
    }
}

fn next_type(flip: bool) -> Type {
    match flip {
        true => Type::Identity,
        false => Type::Dma,
    }
}
