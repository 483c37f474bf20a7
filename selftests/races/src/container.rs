// SPDX-License-Identifier: GPL-2.0

//! Row C14: one container of VFIO, used by several threads at once.
//!
//! One group stays in it. When the last one goes, Linux 7.3 frees what other calls on the container still
//! use (`vfio_fops_unl_ioctl` takes no lock against `vfio_group_detach_container`), whichever driver the IOMMU has.

use crate::file::errno;
use crate::owned::{reaches, IOVA, PAGE};
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::Ghost;
use crate::vfio::{Container, Group};
use anyhow::{ensure, Context, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Something is there already.
const EEXIST: i32 = 17;

const PLACES: usize = 8;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// An iommu-testdev that is bound to vfio-pci
    stays: String,
    /// Another one, of another group
    comes: String,
}

/// What a thread does again and again.
type Step<'a> = (&'static str, &'a (dyn Fn(usize) -> Result<()> + Sync));

pub fn run(o: &Options) -> Result<()> {
    let ghosts = [Ghost::new(&o.stays)?, Ghost::new(&o.comes)?];
    let memory = Map::pages(PAGE * PLACES)?;
    let container = Container::new()?;
    let stays = Group::open(Device::new(&o.stays).group()?)?;
    let comes = Group::open(Device::new(&o.comes).group()?)?;
    stays.set_container(&container)?;
    container.set_iommu()?;
    let at = |n: usize| IOVA + (n % PLACES * PAGE) as u64;
    let steps: [Step<'_>; 5] = [
        ("map", &|n| container.map(at(n), &memory, PAGE as u64)),
        ("unmap", &|n| container.unmap(at(n), PAGE as u64)),
        ("ranges", &|_| container.ranges().map(drop)),
        ("come", &|_| comes.set_container(&container)),
        ("go", &|_| comes.unset_container()),
    ];
    let done = steps.each_ref().map(|_| AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(o.seconds);
    std::thread::scope(|scope| -> Result<()> {
        let threads = [&[0, 1, 2][..], &[1, 0], &[3, 4]].map(|own| {
            let (steps, done) = (&steps, &done);
            scope.spawn(move || repeat(steps, own, done, end))
        });
        for thread in threads {
            thread.join().expect("a thread panicked")?;
        }
        Ok(())
    })?;
    for ((name, _), done) in steps.iter().zip(&done) {
        println!("# {name}: {} times", done.load(Relaxed));
        ensure!(done.load(Relaxed) > 0, "{name} never succeeded");
    }
    for n in 0..PLACES {
        container.unmap(at(n), PAGE as u64)?;
    }
    comes.set_container(&container)?;
    for ghost in &ghosts {
        ensure!(!reaches(ghost, &memory)?, "what was unmapped is reached");
    }
    container.map(IOVA, &memory, PAGE as u64)?;
    for ghost in &ghosts {
        ensure!(reaches(ghost, &memory)?, "the page is not reached");
    }
    Ok(())
}

fn repeat(steps: &[Step<'_>], own: &[usize], done: &[AtomicU64], end: Instant) -> Result<()> {
    for n in 0.. {
        for step in own {
            let (name, call) = steps[*step];
            match call(n) {
                Ok(()) => {
                    done[*step].fetch_add(1, Relaxed);
                }
                Err(e) if errno(&e) == Some(EEXIST) => {}
                Err(e) => return Err(e).context(name),
            }
        }
        if Instant::now() > end {
            break;
        }
    }
    Ok(())
}
