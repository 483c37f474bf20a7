// SPDX-License-Identifier: GPL-2.0

//! Drivers and owners of a group that come and go: many times, or at the same time.
//!
//! The devices are of one group, and have no drivers; those are rust_kdma, which uses the DMA
//! API, and rust_udma, which claims on command.

use crate::file;
use crate::inject::Points;
use crate::oracle::Oracle;
use crate::owned;
use crate::sysfs::Device;
use crate::vfio::{Container, Group};
use anyhow::{bail, ensure, Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const KDMA: &str = "rust_kdma";
const UDMA: &str = "rust_udma";
const EPERM: i32 = 1;
const EBUSY: i32 = 16;
const ENOMEM: i32 = 12;
const ENODEV: i32 = 19;
const EPROBE_DEFER: i32 = 517;
/// What sysfs makes of EPROBE_DEFER.
const EAGAIN: i32 = 11;

#[derive(clap::Subcommand)]
pub enum Options {
    /// B1: binds and unbinds two devices, one driver after the other; one claims each time
    Bind {
        #[arg(long, default_value_t = 1)]
        rounds: u32,
        kernel: String,
        managed: String,
    },
    /// B1, B2: probe fails at each step, or is refused
    Fail {
        #[arg(long, default_value_t = 1)]
        rounds: u32,
        device: String,
        sibling: String,
    },
    /// B10: one device is claimed and released while another one is bound and unbound
    Claim {
        #[arg(long)]
        seconds: u64,
        managed: String,
        kernel: String,
    },
    /// B16: VFIO claims one device's group while the drivers of the others are unloaded
    Unload {
        #[arg(long)]
        rounds: u32,
        #[arg(long)]
        module: PathBuf,
        /// Bound to vfio-pci
        owner: String,
        siblings: Vec<String>,
    },
    /// B5: a device, and one that is claimed, are bound and unbound until the file is gone
    Busy {
        file: PathBuf,
        kernel: String,
        managed: Option<String>,
    },
}

pub fn run(o: &Options) -> Result<()> {
    let start = Instant::now();
    let done = match o {
        Options::Bind {
            rounds,
            kernel,
            managed,
        } => bind(*rounds, &Device::new(kernel), &Device::new(managed)),
        Options::Fail {
            rounds,
            device,
            sibling,
        } => fail(*rounds, &Device::new(device), &Device::new(sibling)),
        Options::Claim {
            seconds,
            managed,
            kernel,
        } => claim(*seconds, &Device::new(managed), &Device::new(kernel)),
        Options::Unload {
            rounds,
            module,
            owner,
            siblings,
        } => unload(*rounds, module, &Device::new(owner), siblings),
        Options::Busy {
            file,
            kernel,
            managed,
        } => busy(
            file,
            &Device::new(kernel),
            managed.as_deref().map(Device::new),
        ),
    }?;
    println!("# {done}, {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}

fn console(driver: &str, device: &Device) -> Oracle {
    Oracle::new(&format!("{driver}-{}", device.address()))
}

fn errno(result: &Result<()>) -> Option<i32> {
    result.as_ref().err().and_then(file::errno)
}

/// Nobody has the group: `type` can be written, to what it is not.
fn unowned(device: &Device) -> Result<()> {
    let other = match device.group_type()?.as_str() {
        "identity" => "DMA",
        _ => "identity",
    };
    device
        .set_group_type(other)
        .context("somebody has the group")
}

/// Somebody has it.
fn owned(device: &Device) -> Result<()> {
    let refused = errno(&device.set_group_type("auto"));
    ensure!(refused == Some(EPERM), "type can be written: {refused:?}");
    Ok(())
}

fn bind(rounds: u32, kernel: &Device, managed: &Device) -> Result<String> {
    kernel.driver_override(Some(KDMA))?;
    managed.driver_override(Some(UDMA))?;
    let owner = console(UDMA, managed);
    for round in 1..=rounds {
        let once = || -> Result<()> {
            kernel.bind(KDMA)?;
            kernel.unbind()?;
            managed.bind(UDMA)?;
            owner.run("claim 1")?;
            if round % 64 == 0 {
                owned(managed)?;
            }
            managed.unbind()?;
            if round % 64 == 0 {
                unowned(managed)?;
            }
            Ok(())
        };
        once().with_context(|| format!("round {round}"))?;
    }
    managed.set_group_type("auto")?;
    Ok(format!("{rounds} rounds"))
}

fn fail(rounds: u32, device: &Device, sibling: &Device) -> Result<String> {
    sibling.driver_override(Some(UDMA))?;
    sibling.bind(UDMA)?;
    let owner = console(UDMA, sibling);
    let points = Points::new()?;
    let places = [
        (KDMA, "kdma.probe.1"),
        (KDMA, "kdma.probe.2"),
        (KDMA, "kdma.probe.3"),
        (KDMA, "kdma.probe.4"),
        (UDMA, "udma.probe.1"),
        (UDMA, "udma.probe.2"),
    ];
    let errors = [(ENOMEM, ENOMEM), (EBUSY, EBUSY), (EPROBE_DEFER, EAGAIN)];
    for round in 1..=rounds {
        for (driver, point) in places {
            for (error, seen) in errors {
                let once = || -> Result<()> {
                    points.fail(point, Some(device.address()), error, 1)?;
                    device.driver_override(Some(driver))?;
                    let got = errno(&device.bind(driver));
                    // Deferred, it would be bound with the next success of another device.
                    device.driver_override(None)?;
                    ensure!(got == Some(seen), "the bind gives {got:?}");
                    ensure!(device.driver().is_none(), "bound");
                    nothing_left(&owner, sibling)
                };
                once().with_context(|| format!("round {round}, {point}, error {error}"))?;
            }
        }
        refused(device, &owner, sibling).with_context(|| format!("round {round}, claimed"))?;
    }
    sibling.unbind()?;
    sibling.set_group_type("auto")?;
    Ok(format!("{} failures", rounds * 19))
}

fn nothing_left(owner: &Oracle, sibling: &Device) -> Result<()> {
    unowned(sibling)?;
    owner.run("claim 1")?;
    owned(sibling)?;
    owner.run("release")?;
    unowned(sibling)
}

/// The sibling's claim makes `dma_configure` fail, which must not count, nor be counted down.
fn refused(device: &Device, owner: &Oracle, sibling: &Device) -> Result<()> {
    owner.run("claim 1")?;
    device.driver_override(Some(KDMA))?;
    let got = errno(&device.bind(KDMA));
    ensure!(got == Some(EBUSY), "the bind gives {got:?}");
    owned(sibling)?;
    device.driver_override(None)?;
    owner.run("release")?;
    nothing_left(owner, sibling)
}

fn claim(seconds: u64, managed: &Device, kernel: &Device) -> Result<String> {
    managed.driver_override(Some(UDMA))?;
    kernel.driver_override(Some(KDMA))?;
    managed.bind(UDMA)?;
    let owner = console(UDMA, managed);
    let page = owner.number("page", "phys")?;
    // Each is true for no longer than what it stands for.
    let (claimed, bound) = (AtomicBool::new(false), AtomicBool::new(false));
    let stop = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(seconds);
    let go_on = || Instant::now() < until && !stop.load(SeqCst);
    let claimer = || -> Result<[u32; 2]> {
        let mut counts = [0; 2];
        while go_on() {
            match owner.run("claim 1") {
                Ok(_) => {
                    claimed.store(true, SeqCst);
                    ensure!(!bound.load(SeqCst), "claimed, while a driver is bound");
                    let answer = owner.run(&format!("dma write {page:#x} 4"))?;
                    ensure!(answer == "tx_fail", "claimed, and DMA is '{answer}'");
                    claimed.store(false, SeqCst);
                    owner.run("release")?;
                    counts[0] += 1;
                }
                Err(e) if file::errno(&e) == Some(EPERM) => counts[1] += 1,
                Err(e) => return Err(e),
            }
        }
        Ok(counts)
    };
    let binder = || -> Result<[u32; 2]> {
        let mut counts = [0; 2];
        let oracle = console(KDMA, kernel);
        while go_on() {
            match kernel.bind(KDMA) {
                Ok(()) => {
                    bound.store(true, SeqCst);
                    ensure!(!claimed.load(SeqCst), "bound, while claimed");
                    let iova = oracle.number("buffer", "iova")?;
                    let answer = oracle.run(&format!("dma write {iova:#x} 4"))?;
                    ensure!(answer == "ok", "bound, and DMA is '{answer}'");
                    bound.store(false, SeqCst);
                    kernel.unbind()?;
                    counts[0] += 1;
                }
                Err(e) if file::errno(&e) == Some(EBUSY) => counts[1] += 1,
                Err(e) => return Err(e),
            }
        }
        Ok(counts)
    };
    let ended = |result: Result<[u32; 2]>| {
        stop.store(true, SeqCst);
        result
    };
    let (claims, binds) = thread::scope(|scope| {
        let claims = scope.spawn(|| ended(claimer()));
        let binds = ended(binder());
        (claims.join(), binds)
    });
    let Ok(claims) = claims else {
        bail!("a thread died");
    };
    let ([claims, perm], [binds, busy]) = (claims?, binds?);
    ensure!(claims > 0 && binds > 0, "{claims} claims, {binds} binds");
    unowned(managed)?;
    managed.unbind()?;
    managed.set_group_type("auto")?;
    Ok(format!(
        "{claims} claims, {perm} refused; {binds} binds, {busy} refused"
    ))
}

fn program(name: &str, argument: &Path) -> Result<()> {
    let status = Command::new(name).arg(argument).status()?;
    ensure!(status.success(), "{name} {}", argument.display());
    Ok(())
}

/// The siblings' overrides have them bound, or refused, whenever the module is loaded.
fn unload(rounds: u32, module: &Path, owner: &Device, siblings: &[String]) -> Result<String> {
    let number = owner.group()?;
    for (sibling, driver) in siblings.iter().zip([KDMA, UDMA].iter().cycle()) {
        Device::new(sibling).driver_override(Some(driver))?;
    }
    let stop = AtomicBool::new(false);
    let (claims, refused, reports) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let claimer = || -> Result<()> {
        while !stop.load(SeqCst) {
            // What a child of ours has inherited is open until it runs its program.
            let group = match Group::open(number) {
                Err(e) if file::errno(&e) == Some(EBUSY) => continue,
                group => group?,
            };
            let container = Container::new()?;
            match group.set_container(&container) {
                Ok(()) => {
                    container.set_iommu()?;
                    claims.fetch_add(1, SeqCst);
                }
                Err(e) if file::errno(&e) == Some(EPERM) => {
                    refused.fetch_add(1, SeqCst);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    let reader = || -> Result<()> {
        while !stop.load(SeqCst) {
            let report = owned::report()?;
            let line = format!("group {number}: ");
            ensure!(report.contains(&line), "no '{line}' in the report");
            reports.fetch_add(1, SeqCst);
        }
        Ok(())
    };
    let loader = || -> Result<()> {
        for _ in 0..rounds {
            program("insmod", module)?;
            program("rmmod", Path::new("rust_testowner"))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(claimer), scope.spawn(reader)];
        let loaded = loader();
        stop.store(true, SeqCst);
        for thread in threads {
            thread.join().unwrap_or_else(|_| bail!("a thread died"))?;
        }
        loaded
    })?;
    unowned(owner)?;
    owner.set_group_type("auto")?;
    Ok(format!(
        "{rounds} loads, {claims:?} claims, {refused:?} refused, {reports:?} reports"
    ))
}

/// Binds; while an IOMMU comes the kernel puts that off, and does it by itself later.
fn bind_patiently(device: &Device, driver: &str) -> Result<()> {
    let mut last = None;
    let done = file::wait_for(Duration::from_secs(20), || {
        last = device.bind(driver).err();
        last.is_none() || device.driver().as_deref() == Some(driver)
    });
    match last {
        Some(error) if !done => Err(error),
        _ => Ok(()),
    }
}

/// Each round a driver that uses the DMA API has to work, whether there is an IOMMU or not;
/// and one that claims its device can, as often as there is one.
fn busy(file: &Path, kernel: &Device, managed: Option<Device>) -> Result<String> {
    kernel.driver_override(Some(KDMA))?;
    let dma_api = console(KDMA, kernel);
    if let Some(managed) = &managed {
        managed.driver_override(Some(UDMA))?;
    }
    let (mut without, mut with, mut claims) = (0_u32, 0_u32, 0_u32);
    // In the end all have an IOMMU: who had none so far goes on until it did.
    let mut ended = None;
    while file.exists() || with == 0 || (managed.is_some() && claims == 0) {
        if !file.exists() {
            let ended = *ended.get_or_insert_with(Instant::now);
            ensure!(
                ended.elapsed() < Duration::from_secs(60),
                "a minute after the end: {with} rounds with an IOMMU, {claims} claims"
            );
        }
        bind_patiently(kernel, KDMA)?;
        let iova = dma_api.number("buffer", "iova")?;
        let answer = dma_api.run(&format!("dma write {iova:#x} 4"))?;
        ensure!(answer == "ok", "DMA is '{answer}'");
        match kernel.group() {
            Ok(_) => with += 1,
            Err(_) => without += 1,
        }
        kernel.unbind()?;
        if let Some(managed) = &managed {
            bind_patiently(managed, UDMA)?;
            match console(UDMA, managed).run("claim 1") {
                Ok(_) => claims += 1,
                Err(e) if file::errno(&e) == Some(ENODEV) => {}
                Err(e) => return Err(e),
            }
            managed.unbind()?;
        }
        // Who shuts the IOMMU down needs a moment without drivers; how long depends on the
        // machine.
        thread::sleep(Duration::from_millis(10 << ((with + without) % 8)));
    }
    Ok(format!(
        "{with} rounds with an IOMMU, {without} without, {claims} claims"
    ))
}
