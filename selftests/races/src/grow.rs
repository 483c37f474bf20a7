// SPDX-License-Identifier: GPL-2.0

//! Tables that grow while devices use them: what is mapped below their old top is reached all the time, and
//! what is mapped above by every device of the domain.

use crate::file::wait_for;
use crate::oracle::Session;
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::{self, WRITTEN};
use crate::vfio::{Container, Group};
use crate::walk::model::Random;
use anyhow::{ensure, Context, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

/// Within the smallest table, and above all memory.
const LOW: u64 = 0x40_0000_0000;
/// Rounds of a loop by which one thread begins later than another, at most.
const LATER: usize = 100_000;
const PAGE: usize = 4096;
/// For a thread that is waited for to do anything at all.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Subcommand)]
pub enum Options {
    /// Devices with rust_udma: the first one writes meanwhile, the second one is attached
    Owners(Owners),
    /// Devices with vfio-pci, in one container: the first one writes meanwhile
    Vfio(Vfio),
}

#[derive(clap::Args)]
pub struct Owners {
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// The second device is attached at the moment when the table grows, not before
    #[arg(long)]
    attach: bool,
    /// Addresses that are mapped one after the other; decimal, or hexadecimal after 0x
    #[arg(long, required = true, value_parser = testdev::number)]
    high: Vec<u64>,
    /// PCI addresses: two devices, and one more that maps
    #[arg(required = true, num_args = 3)]
    addresses: Vec<String>,
}

#[derive(clap::Args)]
pub struct Vfio {
    /// The address that is mapped; decimal, or hexadecimal after 0x
    #[arg(long, value_parser = testdev::number)]
    high: u64,
    /// PCI addresses of iommu-testdevs
    #[arg(required = true, num_args = 2)]
    addresses: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    match o {
        Options::Owners(o) => owners(o),
        Options::Vfio(o) => vfio(o),
    }
}

/// Someone who writes without a pause, and each of whose writes has to be done.
#[derive(Default)]
struct Writer {
    writes: AtomicUsize,
    stop: AtomicBool,
}

impl Writer {
    fn run(&self, mut write: impl FnMut() -> Result<bool>) -> Result<()> {
        while !self.stop.load(Relaxed) {
            let writes = self.writes.load(Relaxed);
            ensure!(write()?, "write {writes} below the old top was refused");
            self.writes.store(writes + 1, Relaxed);
        }
        Ok(())
    }

    /// Until it has begun and ended another write.
    fn wait(&self) -> bool {
        let before = self.writes.load(Relaxed);
        wait_for(LIMIT, || self.writes.load(Relaxed) > before + 1)
    }

    /// Does `work` while `write` is called all the time.
    fn meanwhile(
        &self,
        write: impl FnMut() -> Result<bool> + Send,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        thread::scope(|scope| {
            let writer = scope.spawn(|| self.run(write));
            let began = self.wait();
            let done = if began { work() } else { Ok(()) };
            let went_on = self.wait();
            self.stop.store(true, Relaxed);
            writer.join().expect("the writer's thread")?;
            ensure!(began && went_on, "the writer stands still");
            done
        })
    }
}

struct Keeper {
    session: Session,
    /// Where each page is mapped, and its number.
    pages: Vec<(u64, u64)>,
}

impl Keeper {
    fn map(&self, domain: u64, page: (u64, u64)) -> Result<()> {
        let (iova, handle) = page;
        let line = format!("domain-map {domain} {iova} {handle} rw");
        self.session.run(&line).map(drop)
    }

    /// A write of the device arrives in the page that is mapped there.
    fn check(&self, device: &Session, page: (u64, u64)) -> Result<()> {
        let (iova, handle) = page;
        self.session.run(&format!("fill {handle} 0"))?;
        let answer = device.run(&format!("dma write {iova}"))?;
        ensure!(answer == "ok", "a write at {iova:#x}: {answer}");
        let found = self.session.run(&format!("check {handle} {WRITTEN}"))?;
        ensure!(found == "match", "what was written at {iova:#x}: {found}");
        Ok(())
    }
}

fn owners(o: &Owners) -> Result<()> {
    let open = |address: &String| Session::open(&format!("rust_udma-{address}"));
    let sessions = o.addresses.iter().map(open).collect::<Result<Vec<_>>>()?;
    let [one, two, keeper] = <[Session; 3]>::try_from(sessions).ok().context("devices")?;
    let mut keeper = Keeper {
        session: keeper,
        pages: Vec::new(),
    };
    for iova in [LOW].iter().chain(&o.high) {
        let answer = keeper.session.run("page")?;
        let handle = keeper.session.number(&answer, "handle")?;
        keeper.pages.push((*iova, handle));
    }
    for device in [&one, &two] {
        device.run("claim 0")?;
    }
    let mut random = Random::new(1);
    let mut writes = 0;
    for number in 0..o.rounds {
        let later = o.attach.then(|| random.below(LATER));
        writes += round(&one, &two, &keeper, later).with_context(|| format!("round {number}"))?;
    }
    for device in [&one, &two] {
        device.run("release")?;
    }
    println!("# {} rounds, {writes} writes meanwhile", o.rounds);
    Ok(())
}

/// With a table of its own. `later` says by how much the second device's attach comes after the first
/// mapping; without it it comes before.
fn round(one: &Session, two: &Session, keeper: &Keeper, later: Option<usize>) -> Result<usize> {
    let domain = keeper.session.run("domain-new")?;
    let domain = keeper.session.number(&domain, "domain")?;
    let attach = format!("attach {domain}");
    let (low, high) = keeper.pages.split_first().context("no pages")?;
    keeper.map(domain, *low)?;
    one.run(&attach)?;
    if later.is_none() {
        two.run(&attach)?;
    }
    let writer = Writer::default();
    let write = || Ok(one.run(&format!("dma write {LOW} 4"))? == "ok");
    writer.meanwhile(write, || {
        let start = Barrier::new(2);
        thread::scope(|scope| {
            let comer = later.map(|later| {
                let (attach, start) = (&attach, &start);
                scope.spawn(move || {
                    start.wait();
                    (0..later).for_each(|_| std::hint::spin_loop());
                    two.run(attach).map(drop)
                })
            });
            if comer.is_some() {
                start.wait();
            }
            let mapped = high.iter().try_for_each(|page| keeper.map(domain, *page));
            let attached = comer.map_or(Ok(()), |comer| comer.join().expect("attach"));
            mapped.and(attached)
        })
    })?;
    for device in [one, two] {
        for page in &keeper.pages {
            keeper.check(device, *page)?;
        }
    }
    for device in [one, two] {
        device.run("detach")?;
    }
    for (iova, _) in &keeper.pages {
        keeper
            .session
            .run(&format!("domain-unmap {domain} {iova}"))?;
    }
    keeper.session.run(&format!("domain-free {domain}"))?;
    Ok(writer.writes.load(Relaxed))
}

fn vfio(o: &Vfio) -> Result<()> {
    let container = Container::new()?;
    let mut groups = Vec::new();
    let mut registers = Vec::new();
    for address in &o.addresses {
        let group = Group::open(Device::new(address).group()?)?;
        group.set_container(&container)?;
        if groups.is_empty() {
            container.set_iommu()?;
        }
        let opened = group.device(address)?;
        opened.set_master()?;
        registers.push(opened.registers(testdev::REGISTERS)?);
        groups.push((group, opened));
    }
    let low = Map::pages(PAGE)?;
    let high = Map::pages(PAGE)?;
    container.map(LOW, &low, PAGE as u64)?;
    let (_, first) = groups.first().context("no device")?;
    let first = first.registers(testdev::REGISTERS)?;
    let writer = Writer::default();
    writer.meanwhile(
        move || testdev::write(&first, LOW),
        || container.map(o.high, &high, PAGE as u64),
    )?;
    for registers in &registers {
        for (iova, memory) in [(LOW, &low), (o.high, &high)] {
            memory.write(0, 0);
            ensure!(testdev::write(registers, iova)?, "no write at {iova:#x}");
            ensure!(memory.read(0) == WRITTEN, "{iova:#x} leads elsewhere");
        }
    }
    println!("# {} writes meanwhile", writer.writes.load(Relaxed));
    Ok(())
}
