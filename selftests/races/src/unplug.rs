// SPDX-License-Identifier: GPL-2.0

//! Row A1: a device is taken away while VFIO attaches its group, in an order of our choice.
//!
//! All devices are iommu-testdev, bound to vfio-pci, and of one group. The last one is
//! taken away; the first one, if it is another, must not notice.

use crate::file::{self, wait_for};
use crate::inject::Points;
use crate::raw::{self, Map};
use crate::sysfs::{self, Device};
use crate::testdev::{self, Ghost};
use crate::vfio::{Container, Group};
use anyhow::{bail, ensure, Context, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const IOVA: u64 = 0x10_0000;
const PAGE: usize = 4096;
const LIMIT: Duration = Duration::from_secs(60);
/// VFIO resets a device that was opened, which takes longer than all the rest: in every
/// so many rounds only.
const CHECK: u32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// The attach is held before it programs the device; the release comes and waits
    Attach,
    /// The release is held before it starts; the attach comes and waits
    Release,
    /// Nobody is held
    Free,
}

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    order: Order,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Go on for this time instead
    #[arg(long)]
    seconds: Option<u64>,
    /// PCI addresses; the last one is taken away
    #[arg(required = true)]
    addresses: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    let devices: Vec<Device> = o.addresses.iter().map(|a| Device::new(a)).collect();
    let (Some(first), Some(last)) = (devices.first(), devices.last()) else {
        bail!("no device");
    };
    let round = Round {
        first,
        last,
        shared: devices.len() > 1,
    };
    let start = Instant::now();
    let mut outcomes = [0u32; 2];
    for number in 1.. {
        let attached = round.run(o.order, number % CHECK == 0);
        let attached = attached.with_context(|| format!("round {number}"))?;
        outcomes[usize::from(attached)] += 1;
        let done = match o.seconds {
            Some(seconds) => start.elapsed() >= Duration::from_secs(seconds),
            None => number >= o.rounds,
        };
        if done {
            println!(
                "# {number} rounds, {} attached, {} refused, {:.1} s",
                outcomes[1],
                outcomes[0],
                start.elapsed().as_secs_f32()
            );
            break;
        }
    }
    Ok(())
}

struct Round<'a> {
    first: &'a Device,
    last: &'a Device,
    shared: bool,
}

fn errno(error: &anyhow::Error) -> i32 {
    file::errno(error).unwrap_or(0)
}

/// Waits until another thread of this program sleeps in the kernel.
fn wait_asleep(thread: &AtomicI32) -> Result<()> {
    let asleep = || {
        let id = thread.load(Ordering::Acquire);
        let stat = file::read(Path::new(&format!("/proc/self/task/{id}/stat")));
        // "id (name) state ..."
        let state = stat
            .ok()
            .and_then(|s| s.rsplit_once(") ")?.1.chars().next());
        matches!(state, Some('S' | 'D'))
    };
    ensure!(wait_for(LIMIT, asleep), "a thread does not come to wait");
    Ok(())
}

impl Round<'_> {
    /// Whether the attach succeeded.
    fn run(&self, order: Order, check_first: bool) -> Result<bool> {
        let ready = || self.last.driver().as_deref() == Some("vfio-pci");
        ensure!(wait_for(LIMIT, ready), "the device does not come back");
        let ghost = Ghost::new(self.last.address())?;
        let memory = Map::pages(PAGE)?;
        let group = Group::open(self.last.group()?)?;
        let container = Container::new()?;

        let attached = self.race(order, &group, &container)?;
        ensure!(!self.last.exists(), "the device is still there");
        // Of a group without devices nothing is left that could be mapped for.
        let mapped = container.map(IOVA, &memory, PAGE as u64);
        if self.shared {
            mapped.with_context(|| format!("attached: {attached}"))?;
            if check_first {
                self.check_first(&group, &memory)?;
            }
        }
        memory.write(0, 0);
        let reached = ghost.write(IOVA)?;
        ensure!(
            !reached,
            "DMA of the released device succeeded ({:#x} in memory)",
            memory.read(0)
        );
        ensure!(memory.read(0) == 0, "the released device wrote to memory");

        drop(group);
        drop(container);
        ensure!(!ghost.write(IOVA)?, "DMA succeeded after the end");
        sysfs::rescan_bus(self.last.address())?;
        Ok(attached)
    }

    /// The device that stayed reaches what is mapped, and nothing else.
    fn check_first(&self, group: &Group, memory: &Map) -> Result<()> {
        let device = group.device(self.first.address())?;
        device.set_master()?;
        let registers = device.registers(testdev::REGISTERS)?;
        memory.write(0, 0);
        ensure!(
            testdev::write(&registers, IOVA)? && memory.read(0) == testdev::WRITTEN,
            "the device that stayed does not reach its memory"
        );
        ensure!(
            !testdev::write(&registers, IOVA + PAGE as u64)?,
            "the device that stayed reaches what is not mapped"
        );
        Ok(())
    }

    fn race(&self, order: Order, group: &Group, container: &Container) -> Result<bool> {
        let points = Points::new()?;
        let address = Some(self.last.address());
        let attacher = AtomicI32::new(0);
        let remover = AtomicI32::new(0);
        let go = AtomicBool::new(false);
        // The claim attaches the blocked domain; the container's comes after it.
        match order {
            Order::Attach => points.gate("attach.pre_hw", address, 1)?,
            Order::Release => points.gate("release.pre", address, 0)?,
            Order::Free => {}
        }
        thread::scope(|scope| {
            let attach = || {
                attacher.store(raw::thread_id(), Ordering::Release);
                while order == Order::Free && !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                group.set_container(container)?;
                container.set_iommu()
            };
            let remove = || {
                remover.store(raw::thread_id(), Ordering::Release);
                while order == Order::Free && !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                self.last.remove()
            };
            let (attached, removed) = match order {
                Order::Attach => {
                    let attach = scope.spawn(attach);
                    points.wait("attach.pre_hw", LIMIT)?;
                    let remove = scope.spawn(remove);
                    wait_asleep(&remover)?;
                    points.open("attach.pre_hw")?;
                    (attach.join(), remove.join())
                }
                Order::Release => {
                    let remove = scope.spawn(remove);
                    points.wait("release.pre", LIMIT)?;
                    let attach = scope.spawn(attach);
                    if self.shared {
                        wait_asleep(&attacher)?;
                    }
                    points.open("release.pre")?;
                    (attach.join(), remove.join())
                }
                Order::Free => {
                    let (attach, remove) = (scope.spawn(attach), scope.spawn(remove));
                    go.store(true, Ordering::Release);
                    (attach.join(), remove.join())
                }
            };
            let (Ok(attached), Ok(removed)) = (attached, removed) else {
                bail!("a thread died");
            };
            removed?;
            match attached {
                Ok(()) => Ok(true),
                // Without its last device there is no group to attach, or none in the container.
                Err(error) if !self.shared && [ENODEV, EINVAL].contains(&errno(&error)) => {
                    Ok(false)
                }
                Err(error) => Err(error),
            }
        })
    }
}
