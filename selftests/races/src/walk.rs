// SPDX-License-Identifier: GPL-2.0

//! Row A3: devices are moved between domains at random, and what they reach is asked
//! after every step.
//!
//! Each device is an iommu-testdev with rust_udma, alone in its group. Each has domains
//! of its own with a page each, at an address that the other domains do not map and at
//! which there is no memory either.

pub mod model;

use crate::file;
use crate::oracle::Session;
use crate::sysfs::Device;
use anyhow::{ensure, Context, Result};
use model::{Command, Random, State, Target, Type, COMMANDS, DOMAINS, TARGETS};
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
    let walkers: Result<Vec<Walker>> = o.addresses.iter().map(|a| Walker::new(a)).collect();
    let mut walk = Walk {
        walkers: walkers?,
        random: Random::new(seed),
        trail: VecDeque::new(),
        attaches: 0,
        refused: 0,
        probes: 0,
    };
    while walk.attaches < o.count {
        let step = walk.step();
        step.with_context(|| format!("attach {} after {:?}", walk.attaches, walk.trail))?;
    }
    for walker in &mut walk.walkers {
        walker.end()?;
    }
    println!(
        "# {} attaches, {} commands refused, {} probes, {:.1} s",
        walk.attaches,
        walk.refused,
        walk.probes,
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

struct Walk {
    walkers: Vec<Walker>,
    random: Random,
    trail: VecDeque<(usize, Command)>,
    attaches: u32,
    refused: u32,
    probes: u32,
}

impl Walk {
    /// One command for one device. Then the device is asked for everything, and the others
    /// for what they do reach and for one thing that they do not.
    fn step(&mut self) -> Result<()> {
        let number = self.random.below(self.walkers.len());
        let state = self.walkers[number].state;
        let possible = COMMANDS.into_iter().filter(|c| state.after(*c).is_ok());
        let command = match self.random.below(4) {
            0 => self.random.choose(&COMMANDS),
            _ => self.random.choose(&possible.collect::<Vec<_>>()),
        };
        self.trail.push_back((number, command));
        if self.trail.len() > TRAIL {
            self.trail.pop_front();
        }
        match self.walkers[number].command(command)? {
            true => self.attaches += 1,
            false => self.refused += 1,
        }
        for (at, walker) in self.walkers.iter().enumerate() {
            let reached = walker.state.place().target();
            let unreached = TARGETS.into_iter().filter(|t| Some(*t) != reached);
            let unreached: Vec<Target> = unreached.collect();
            let one = [self.random.choose(&unreached)];
            let unreached = if at == number {
                &unreached[..]
            } else {
                &one[..]
            };
            for target in reached.iter().chain(unreached) {
                walker.probe(*target)?;
                self.probes += 1;
            }
        }
        Ok(())
    }
}

struct Page {
    handle: u64,
    address: u64,
    /// Number of the domain that maps it
    domain: Option<u64>,
}

struct Walker {
    device: Device,
    session: Session,
    /// In the order of [`TARGETS`].
    pages: Vec<Page>,
    state: State,
}

impl Walker {
    fn new(address: &str) -> Result<Walker> {
        let device = Device::new(address);
        device.set_group_type(Type::Strict.name())?;
        let session = Session::open(&format!("rust_udma-{address}"))?;
        let mut pages = Vec::new();
        for target in TARGETS {
            let page = session.run("page")?;
            let handle = session.number(&page, "handle")?;
            session.run(&format!("fill {handle} {BEFORE}"))?;
            let (address, domain) = match target {
                Target::Physical => (session.number(&page, "phys")?, None),
                Target::Mapped(number) => {
                    let iova = IOVA + number as u64 * STEP;
                    let domain = session.number(&session.run("domain-new")?, "domain")?;
                    session.run(&format!("domain-map {domain} {iova} {handle} rw"))?;
                    (iova, Some(domain))
                }
            };
            pages.push(Page {
                handle,
                address,
                domain,
            });
        }
        Ok(Walker {
            device,
            session,
            pages,
            state: State::new(Type::Strict),
        })
    }

    /// Whether it was done; either way it must be as the model has it.
    fn command(&mut self, command: Command) -> Result<bool> {
        let run = |line: &str| self.session.run(line).map(drop);
        let result = match command {
            Command::Claim => run("claim 0"),
            Command::Release => run("release"),
            Command::Attach(number) => {
                let domain = self.pages[number].domain.context("no domain")?;
                run(&format!("attach {domain}"))
            }
            Command::Detach => run("detach"),
            Command::Type(default) => self.device.set_group_type(default.name()),
        };
        match (self.state.after(command), result) {
            (Ok(next), Ok(())) => {
                self.state = next;
                Ok(true)
            }
            (Err(wanted), Err(error)) if file::errno(&error) == Some(wanted) => Ok(false),
            (Err(wanted), Ok(())) => {
                anyhow::bail!("{command:?} succeeded, wanted error {wanted}")
            }
            (_, Err(error)) => Err(error.context(format!("{command:?} in {:?}", self.state))),
        }
    }

    /// Tries to write, and compares with the model whether it could.
    fn probe(&self, target: Target) -> Result<()> {
        let index = TARGETS.iter().position(|t| *t == target);
        let page = &self.pages[index.context("no page")?];
        let place = self.state.place();
        let what = || format!("{} at {place:?}: {target:?}", self.device.address());
        let answer = self.session.run(&format!("dma write {}", page.address))?;
        let reached = place.target() == Some(target);
        let wanted = if reached { "ok" } else { "tx_fail" };
        ensure!(
            answer == wanted,
            "{}: wanted {wanted}, got {answer}",
            what()
        );
        if reached {
            let handle = page.handle;
            let check = self.session.run(&format!("check {handle} {WRITTEN}"))?;
            ensure!(check == "match", "{}: page {check}", what());
            self.session.run(&format!("fill {handle} {BEFORE}"))?;
        }
        Ok(())
    }

    /// No write has come to a page but those that were looked at, and nothing stays behind.
    fn end(&mut self) -> Result<()> {
        for page in &self.pages {
            let handle = page.handle;
            let check = self.session.run(&format!("check {handle} {BEFORE}"))?;
            ensure!(check == "match", "{}: page {check}", self.device.address());
        }
        if self.state.after(Command::Release).is_ok() {
            self.command(Command::Release)?;
        }
        for page in &self.pages[..DOMAINS] {
            let domain = page.domain.context("no domain")?;
            self.session.run(&format!("domain-free {domain}"))?;
        }
        for page in &self.pages {
            self.session.run(&format!("free {}", page.handle))?;
        }
        self.device.set_group_type(Type::Strict.name())
    }
}
