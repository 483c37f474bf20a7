// SPDX-License-Identifier: GPL-2.0

//! Row A3: devices are moved between domains at random, and what they reach is asked
//! after every step.
//!
//! Each device is an iommu-testdev with rust_udma, alone in its group. The domains are all
//! devices': each device has made some, and is attached to any. A domain has a page of its own,
//! which it maps or not, at an address that the other domains do not map and at which there is
//! no memory either.

pub mod model;

use crate::file;
use crate::oracle::Session;
use crate::sysfs::Device;
use anyhow::{ensure, Context, Result};
use model::{Command, Random, Step, Target, Type, World, DOMAINS, TARGETS};
use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Above all memory, and within the 39 bits that the smallest tables translate.
const IOVA: u64 = 0x40_0000_0000;
const STEP: u64 = 0x20_0000;
const WRITTEN: u32 = crate::testdev::WRITTEN;
const BEFORE: u32 = 0x0f0f_0f0f;
/// Commands that a failure tells.
const TRAIL: usize = 12;

#[derive(clap::Args)]
pub struct Options {
    /// Attaches, by whatever command; those that are refused do not count
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Repeats a walk
    #[arg(long)]
    seed: Option<u64>,
    /// PCI addresses
    #[arg(required = true)]
    addresses: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    let seed = match o.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64,
    };
    println!("# seed {seed}");
    let start = Instant::now();
    let mut walk = Walk::new(&o.addresses, seed)?;
    while walk.attaches < o.count {
        let step = walk.step();
        step.with_context(|| format!("attach {} after {:?}", walk.attaches, walk.trail))?;
    }
    walk.end()?;
    println!(
        "# {} attaches, {} maps and unmaps, {} of a domain of several, {} commands refused, \
         {} probes, {:.1} s",
        walk.attaches,
        walk.changes,
        walk.shared,
        walk.refused,
        walk.probes,
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

struct Walker {
    device: Device,
    session: Session,
}

struct Page {
    /// The device whose file knows it
    keeper: usize,
    handle: u64,
    address: u64,
}

struct Walk {
    walkers: Vec<Walker>,
    /// Numbers of the domains; each was made by the keeper of its page.
    domains: Vec<u64>,
    /// In the order of [`TARGETS`].
    pages: Vec<Page>,
    world: World,
    random: Random,
    trail: VecDeque<Step>,
    attaches: u32,
    changes: u32,
    shared: u32,
    refused: u32,
    probes: u32,
}

impl Walk {
    fn new(addresses: &[String], seed: u64) -> Result<Walk> {
        let mut walkers = Vec::new();
        for address in addresses {
            let device = Device::new(address);
            device.set_group_type(Type::Strict.name())?;
            let session = Session::open(&format!("rust_udma-{address}"))?;
            walkers.push(Walker { device, session });
        }
        let mut domains = Vec::new();
        let mut pages = Vec::new();
        for (at, target) in TARGETS.into_iter().enumerate() {
            let keeper = at % walkers.len();
            let session = &walkers[keeper].session;
            let page = session.run("page")?;
            let handle = session.number(&page, "handle")?;
            session.run(&format!("fill {handle} {BEFORE}"))?;
            let address = match target {
                Target::Physical => session.number(&page, "phys")?,
                Target::Mapped(number) => {
                    domains.push(session.number(&session.run("domain-new")?, "domain")?);
                    IOVA + number as u64 * STEP
                }
            };
            pages.push(Page {
                keeper,
                handle,
                address,
            });
        }
        Ok(Walk {
            world: World::new(walkers.len(), Type::Strict),
            walkers,
            domains,
            pages,
            random: Random::new(seed),
            trail: VecDeque::new(),
            attaches: 0,
            changes: 0,
            shared: 0,
            refused: 0,
            probes: 0,
        })
    }

    /// One command. Then the device that it was for is asked for everything, and the others
    /// for what they do reach, for what has changed and for one thing that they do not reach.
    fn step(&mut self) -> Result<()> {
        let step = self.world.choose(&mut self.random);
        self.trail.push_back(step);
        if self.trail.len() > TRAIL {
            self.trail.pop_front();
        }
        let done = self.run(step)?;
        let changed = match step {
            _ if !done => None,
            Step::Device(..) => None,
            Step::Map(domain) | Step::Unmap(domain) => Some(domain),
        };
        match changed {
            _ if !done => self.refused += 1,
            None => self.attaches += 1,
            Some(domain) => {
                self.changes += 1;
                self.shared += u32::from(self.world.attached(domain) > 1);
            }
        }
        for device in 0..self.walkers.len() {
            let reached = self.world.reached(device);
            let one = loop {
                let target = self.random.choose(&TARGETS);
                if Some(target) != reached {
                    break target;
                }
            };
            let moved = matches!(step, Step::Device(number, _) if number == device);
            for target in TARGETS {
                let asked = moved
                    || target == one
                    || reached == Some(target)
                    || changed.map(Target::Mapped) == Some(target);
                if asked {
                    self.probe(device, target)?;
                    self.probes += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether it was done; either way it must be as the model has it.
    fn run(&mut self, step: Step) -> Result<bool> {
        let result = match step {
            Step::Device(number, command) => self.command(&self.walkers[number], command),
            Step::Map(number) => {
                let Page {
                    keeper,
                    handle,
                    address,
                } = self.pages[number];
                let domain = self.domains[number];
                let line = format!("domain-map {domain} {address} {handle} rw");
                self.walkers[keeper].session.run(&line).map(drop)
            }
            Step::Unmap(number) => {
                let Page {
                    keeper, address, ..
                } = self.pages[number];
                // By another than who has mapped it.
                let walker = &self.walkers[(keeper + 1) % self.walkers.len()];
                let line = format!("domain-unmap {} {address}", self.domains[number]);
                walker.session.run(&line).map(drop)
            }
        };
        match (self.world.after(step), result) {
            (Ok(next), Ok(())) => {
                self.world = next;
                Ok(true)
            }
            (Err(wanted), Err(error)) if file::errno(&error) == Some(wanted) => Ok(false),
            (Err(wanted), Ok(())) => anyhow::bail!("{step:?} succeeded, wanted error {wanted}"),
            (_, Err(error)) => Err(error.context(format!("{step:?} in {:?}", self.world))),
        }
    }

    fn command(&self, walker: &Walker, command: Command) -> Result<()> {
        let run = |line: &str| walker.session.run(line).map(drop);
        match command {
            Command::Claim => run("claim 0"),
            Command::Release => run("release"),
            Command::Attach(number) => run(&format!("attach {}", self.domains[number])),
            Command::Detach => run("detach"),
            Command::Type(default) => walker.device.set_group_type(default.name()),
        }
    }

    /// Has the device try to write, and compares with the model whether it could.
    fn probe(&self, device: usize, target: Target) -> Result<()> {
        let walker = &self.walkers[device];
        let index = TARGETS.iter().position(|t| *t == target);
        let page = &self.pages[index.context("no page")?];
        let place = self.world.devices()[device].place();
        let what = || format!("{} at {place:?}: {target:?}", walker.device.address());
        let answer = walker.session.run(&format!("dma write {}", page.address))?;
        let reached = self.world.reached(device) == Some(target);
        let wanted = if reached { "ok" } else { "tx_fail" };
        ensure!(
            answer == wanted,
            "{}: wanted {wanted}, got {answer}",
            what()
        );
        if reached {
            let check = self.check(page, WRITTEN)?;
            ensure!(check == "match", "{}: page {check}", what());
            let keeper = &self.walkers[page.keeper].session;
            keeper.run(&format!("fill {} {BEFORE}", page.handle))?;
        }
        Ok(())
    }

    fn check(&self, page: &Page, value: u32) -> Result<String> {
        let keeper = &self.walkers[page.keeper].session;
        keeper.run(&format!("check {} {value}", page.handle))
    }

    /// No write has come to a page but those that were looked at, and nothing stays behind.
    fn end(&mut self) -> Result<()> {
        for (page, target) in self.pages.iter().zip(TARGETS) {
            let check = self.check(page, BEFORE)?;
            ensure!(check == "match", "{target:?} at the end: page {check}");
        }
        for number in 0..self.walkers.len() {
            let release = Step::Device(number, Command::Release);
            if self.world.after(release).is_ok() {
                self.run(release)?;
            }
        }
        for (page, domain) in self.pages[..DOMAINS].iter().zip(&self.domains) {
            let keeper = &self.walkers[page.keeper].session;
            keeper.run(&format!("domain-free {domain}"))?;
        }
        for page in &self.pages {
            let keeper = &self.walkers[page.keeper].session;
            keeper.run(&format!("free {}", page.handle))?;
        }
        let strict = Type::Strict.name();
        let mut devices = self.walkers.iter().map(|walker| &walker.device);
        devices.try_for_each(|device| device.set_group_type(strict))
    }
}
