// SPDX-License-Identifier: GPL-2.0

//! Rows C9 and C10: seals and apertures change while devices come to domains, policies and types change, and a
//! device of the group comes and goes. What was said to be so has to be so, for as long as nobody ends it.

use crate::file;
use crate::oracle::Oracle;
use crate::sysfs::{self, Device};
use anyhow::{bail, ensure, Context, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENODEV: i32 = 19;
const EBUSY: i32 = super::EBUSY;
const EINVAL: i32 = super::EINVAL;
/// What is mapped, in the aperture; and what is not in it.
const INSIDE: u64 = 0x10_0000;
const OUTSIDE: u64 = 0x4000_0000;
const APERTURE: &str = "0x100000 0x7ffffff";

#[derive(clap::Args)]
pub struct Options {
    /// How many times the owners attach, at least
    #[arg(long)]
    rounds: u32,
    /// PCI addresses: two devices of different groups, bound to rust_udma; one of the first one's group, without
    /// a driver; and one of a third group, which is bound to rust_testdev now and then
    #[arg(num_args = 4)]
    addresses: Vec<String>,
}

/// Tries something that others may be in the way of: whether it was done.
fn tried(what: &str, result: Result<impl Sized>, errors: &[i32]) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if file::errno(&e).is_some_and(|errno| errors.contains(&errno)) => {
            // Each has a line in the log.
            thread::sleep(Duration::from_millis(1));
            Ok(false)
        }
        Err(e) => Err(e.context(what.to_string())),
    }
}

struct Owner(Oracle);

impl Owner {
    fn new(device: &Device) -> Owner {
        Owner(Oracle::new(&format!("rust_udma-{}", device.address())))
    }

    fn attach(&self, domain: u64, errors: &[i32]) -> Result<bool> {
        tried("attach", self.0.run(&format!("attach {domain}")), errors)
    }

    fn claim(&self, key: u32) -> Result<()> {
        self.0.run(&format!("claim {key}")).context("claim")?;
        Ok(())
    }

    fn release(&self) -> Result<()> {
        self.0.run("release").context("release")?;
        Ok(())
    }
}

/// What is true from some time after it was written until before it is ended.
#[derive(Default)]
struct Known {
    sealed: AtomicBool,
    narrowed: AtomicBool,
    stop: AtomicBool,
    rounds: AtomicU32,
    shares: AtomicU32,
    alone: AtomicU32,
    narrow: AtomicU32,
    seals: AtomicU32,
    apertures: AtomicU32,
    fresh: AtomicU32,
}

impl Known {
    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    /// Lets one round go by from its beginning to its end.
    fn a_round(&self) {
        let from = self.rounds.load(SeqCst);
        while self.goes_on() && self.rounds.load(SeqCst) < from + 2 {
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn numbers(&self) -> [(u32, &'static str); 6] {
        [
            (self.shares.load(SeqCst), "shared"),
            (self.alone.load(SeqCst), "refused"),
            (self.narrow.load(SeqCst), "narrow"),
            (self.seals.load(SeqCst), "seals"),
            (self.apertures.load(SeqCst), "apertures"),
            (self.fresh.load(SeqCst), "used"),
        ]
    }

    /// Whether each of these has come about.
    fn all_seen(&self) -> bool {
        self.numbers().iter().all(|(number, _)| *number > 0)
    }

    fn text(&self) -> String {
        self.numbers()
            .map(|(n, what)| format!("{n} {what}"))
            .join(", ")
    }

    /// Both owners come to a domain of the first.
    fn attaches(&self, rounds: u32, first: &Owner, second: &Owner) -> Result<()> {
        for round in 0.. {
            if !self.goes_on() || (round >= rounds && self.all_seen()) {
                break;
            }
            self.rounds.store(round, SeqCst);
            ensure!(round < 20 * rounds, "only {}", self.text());
            first.claim(1)?;
            second.claim(2)?;
            let domain = first.0.number("domain-new", "domain")?;
            let page = first.0.number("page", "handle")?;
            let map = |iova: u64| {
                let line = format!("domain-map {domain} {iova:#x} {page} rw");
                first.0.run(&line)
            };
            map(INSIDE).context("in the aperture")?;
            // Who is narrowed in between does not take it.
            if first.attach(domain, &[EINVAL])? {
                if second.attach(domain, &[EBUSY, EINVAL])? {
                    ensure!(
                        !self.sealed.load(SeqCst),
                        "round {round}: shared while sealed"
                    );
                    self.shares.fetch_add(1, SeqCst);
                    second.0.run("detach")?;
                } else {
                    self.alone.fetch_add(1, SeqCst);
                }
                if self.narrowed.load(SeqCst) {
                    let outside = tried("map", map(OUTSIDE), &[EINVAL])?;
                    ensure!(!outside, "round {round}: mapped outside");
                    self.narrow.fetch_add(1, SeqCst);
                }
                first.0.run("detach")?;
            }
            first.release()?;
            second.release()?;
            first.0.run(&format!("domain-free {domain}"))?;
            first.0.run(&format!("free {page}"))?;
        }
        Ok(())
    }

    fn seals(&self, device: &Device) -> Result<()> {
        while self.goes_on() {
            if tried("seal", device.set_attribute("sealed", "1"), &[EBUSY])? {
                self.sealed.store(true, SeqCst);
                self.seals.fetch_add(1, SeqCst);
                self.a_round();
                self.sealed.store(false, SeqCst);
            }
            device.set_attribute("sealed", "0")?;
            self.a_round();
        }
        Ok(())
    }

    fn narrows(&self, device: &Device) -> Result<()> {
        while self.goes_on() {
            if tried(
                "narrow",
                device.set_attribute("aperture", APERTURE),
                &[EBUSY],
            )? {
                self.narrowed.store(true, SeqCst);
                self.apertures.fetch_add(1, SeqCst);
                self.a_round();
                self.narrowed.store(false, SeqCst);
                let widen = || device.set_attribute("aperture", "all");
                while self.goes_on() && !tried("widen", widen(), &[EBUSY])? {}
            }
        }
        Ok(())
    }

    /// Where an aperture was set, the DMA API maps in it.
    fn uses(&self, device: &Device) -> Result<()> {
        let oracle = Oracle::new(&format!("rust_testdev-{}", device.address()));
        device.driver_override(Some("rust_testdev"))?;
        while self.goes_on() {
            let set = device.set_attribute("aperture", APERTURE);
            if !tried("aperture", set, &[EBUSY])? {
                continue;
            }
            device.bind("rust_testdev")?;
            let iova = oracle.number("map both", "iova")?;
            ensure!(
                (INSIDE..0x800_0000).contains(&iova),
                "{iova:#x} is mapped outside of {APERTURE}"
            );
            device.unbind()?;
            self.fresh.fetch_add(1, SeqCst);
            let widen = || device.set_attribute("aperture", "all");
            while self.goes_on() && !tried("widen", widen(), &[EBUSY])? {}
        }
        device.driver_override(None)
    }

    /// By both ways that there are.
    fn changes(&self, devices: [&Device; 2]) -> Result<()> {
        let all = ["fq", "strict", "lazy", "DMA", "DMA-FQ", "DMA"];
        for (round, what) in all.iter().cycle().enumerate() {
            if !self.goes_on() {
                break;
            }
            let device = devices[round / all.len() % 2];
            let done = match *what {
                "DMA" | "DMA-FQ" => device.set_group_type(what),
                policy => device.set_attribute("policy", policy),
            };
            // The type that there is cannot be asked for where there is an aperture.
            tried("policy", done, &[EBUSY, EPERM, EINVAL])?;
        }
        Ok(())
    }

    fn replugs(&self, device: &Device) -> Result<()> {
        while self.goes_on() {
            device.remove()?;
            sysfs::rescan_bus(device.address())?;
            ensure!(device.exists(), "{} is gone", device.address());
            // It is told so as well, or not there yet.
            let seal = device.set_attribute("sealed", "0");
            tried("sealed", seal, &[ENODEV, ENOENT])?;
        }
        Ok(())
    }
}

pub(super) fn run(o: &Options) -> Result<()> {
    let devices: Vec<Device> = o.addresses.iter().map(|a| Device::new(a)).collect();
    let [first, second, sibling, other] = devices.as_slice() else {
        bail!("four devices");
    };
    let known = Known::default();
    let ended = |result: Result<()>| {
        known.stop.store(true, SeqCst);
        result
    };
    let (one, two) = (Owner::new(first), Owner::new(second));
    thread::scope(|scope| {
        let threads = [
            scope.spawn(|| ended(known.attaches(o.rounds, &one, &two))),
            scope.spawn(|| ended(known.seals(second))),
            scope.spawn(|| ended(known.narrows(first))),
            scope.spawn(|| ended(known.uses(other))),
            scope.spawn(|| ended(known.changes([first, other]))),
            scope.spawn(|| ended(known.replugs(sibling))),
        ];
        let ends = threads.map(|thread| thread.join());
        for end in ends {
            end.unwrap_or_else(|_| bail!("a thread died"))?;
        }
        anyhow::Ok(())
    })?;
    for device in [first, second, other] {
        device.set_attribute("sealed", "0")?;
        device.set_attribute("aperture", "all")?;
    }
    println!("# {} rounds or more: {}", o.rounds, known.text());
    Ok(())
}
