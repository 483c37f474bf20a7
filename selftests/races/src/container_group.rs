// SPDX-License-Identifier: GPL-2.0

//! Row B20: two devices of one group with a container of VFIO, both at work. What is mapped is mapped for both; what
//! one does with its own file is nothing to the other, and the group belongs to the process until the last one is closed.

use crate::file;
use crate::owned::{IOVA, PAGE};
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::Opened;
use crate::vfio::{Container, Group};
use anyhow::{bail, ensure, Result};

const EBUSY: i32 = 16;

#[derive(clap::Args)]
pub struct Options {
    /// PCI addresses of two iommu-testdevs of one group; bound to vfio-pci
    #[arg(num_args = 2)]
    addresses: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    let [first, second] = o.addresses.as_slice() else {
        bail!("two devices");
    };
    let page = Map::pages(PAGE)?;
    let container = Container::new()?;
    let number = Device::new(first).group()?;
    let group = Group::open(number)?;
    group.set_container(&container)?;
    container.set_iommu()?;
    let a = Opened::new(group.device(first)?)?;
    let b = Opened::new(group.device(second)?)?;
    let both = |wanted: bool, when: &str| -> Result<()> {
        for (device, name) in [(&a, first), (&b, second)] {
            let reached = device.reaches(IOVA, &page)?;
            ensure!(reached == wanted, "{name}, {when}: reached is {reached}");
        }
        Ok(())
    };
    both(false, "before the page is mapped")?;
    container.map(IOVA, &page, PAGE as u64)?;
    both(true, "when it is mapped")?;
    container.unmap(IOVA, PAGE as u64)?;
    both(false, "when it is unmapped")?;
    container.map(IOVA, &page, PAGE as u64)?;
    both(true, "when it is mapped again")?;

    // A closed device is reset, and the page is still the other one's.
    drop(a);
    ensure!(b.reaches(IOVA, &page)?, "{second} was disturbed by a close");
    // The group's file is one process's.
    let again = Group::open(number).err();
    let number = again.as_ref().and_then(file::errno);
    ensure!(
        number == Some(EBUSY),
        "another user of the group: {again:?}"
    );
    drop(group);
    ensure!(b.reaches(IOVA, &page)?, "{second} needs the group's file");
    println!("# two devices, one container");
    Ok(())
}
