// SPDX-License-Identifier: GPL-2.0

//! A user of VFIO who keeps a device open and at work while it is pulled.

use crate::owned::{IOVA, PAGE};
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::{self, REGISTERS};
use crate::vfio::{Container, Group};
use anyhow::{ensure, Result};
use std::io::{stdin, BufRead};

#[derive(clap::Args)]
pub struct Options {
    /// An iommu-testdev that is bound to vfio-pci
    address: String,
}

/// Says "held", has the device write for each line of the input, and lets go of it at the input's end.
pub fn run(o: &Options) -> Result<()> {
    let memory = Map::pages(PAGE)?;
    let container = Container::new()?;
    let group = Group::open(Device::new(&o.address).group()?)?;
    group.set_container(&container)?;
    container.set_iommu()?;
    container.map(IOVA, &memory, PAGE as u64)?;
    let device = group.device(&o.address)?;
    let registers = device.registers(REGISTERS)?;
    device.set_master()?;
    println!("held");
    for line in stdin().lock().lines() {
        memory.write(0, 0);
        let done = testdev::write(&registers, IOVA)?;
        ensure!(done && memory.read(0) != 0, "the device reaches nothing");
        println!("{}: reached", line?);
    }
    Ok(())
}
