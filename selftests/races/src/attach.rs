// SPDX-License-Identifier: GPL-2.0

//! A user of VFIO who comes and goes: opens a group, attaches it, maps memory, opens the
//! device, and closes all again.

use crate::file::wait_for;
use crate::raw::Map;
use crate::sysfs::Device;
use crate::vfio::{Container, Group};
use anyhow::{ensure, Result};
use std::time::{Duration, Instant};

const IOVA: u64 = 0x10_0000;
const PAGE: usize = 4096;
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Options {
    /// How many times; without it, until the device is taken away
    #[arg(long)]
    rounds: Option<u32>,
    /// Open the device itself in each Nth round only, or never if N is 0: it is reset then,
    /// which takes longer than all the rest
    #[arg(long, value_name = "N", default_value_t = 1)]
    open: u32,
    /// PCI address; bound to vfio-pci
    address: String,
}

pub fn run(o: &Options) -> Result<()> {
    let device = Device::new(&o.address);
    let group = device.group()?;
    let memory = Map::pages(PAGE)?;
    let start = Instant::now();
    let mut done = 0;
    while device.exists() && o.rounds.is_none_or(|rounds| done < rounds) {
        let open = done.checked_rem(o.open) == Some(0);
        if let Err(error) = round(&device, group, &memory, open) {
            // What fails because the device is leaving fails before that can be seen.
            let gone = o.rounds.is_none() && wait_for(LIMIT, || !device.exists());
            if !gone {
                return Err(error.context(format!("round {done}")));
            }
            println!("# the last one: {error:#}");
            break;
        }
        done += 1;
    }
    ensure!(o.rounds.is_none_or(|rounds| done == rounds), "it is gone");
    ensure!(done > 0, "nothing was attached");
    println!(
        "# attached {done} times, {:.1} s",
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

fn round(device: &Device, group: u32, memory: &Map, open: bool) -> Result<()> {
    let group = Group::open(group)?;
    let container = Container::new()?;
    group.set_container(&container)?;
    container.set_iommu()?;
    container.map(IOVA, memory, PAGE as u64)?;
    let opened = open.then(|| group.device(device.address())).transpose()?;
    container.unmap(IOVA, PAGE as u64)?;
    drop(opened);
    group.unset_container()
}
