// SPDX-License-Identifier: GPL-2.0

//! Row B20: two devices of one group with iommufd. They have one owner and one address space, and what
//! would be more than that is refused.

use crate::file::{self, open_device};
use crate::raw::Map;
use crate::sysfs;
use crate::testdev::Opened;
use crate::vfio::Device;
use crate::{ioas, iommufd};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;

const PAGE: u64 = 4096;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
// IOMMU_HWPT_ALLOC_*
const NEST_PARENT: u32 = 1;
const DIRTY_TRACKING: u32 = 2;
const PASID: u32 = 8;

#[derive(clap::Args)]
pub struct Options {
    /// PCI addresses of two iommu-testdevs of one group; bound to vfio-pci
    #[arg(num_args = 2)]
    addresses: Vec<String>,
}

/// What was tried ended with this error.
fn refused<T>(what: &str, wanted: i32, result: Result<T>) -> Result<()> {
    match result {
        Ok(_) => bail!("{what} is not refused"),
        Err(error) if file::errno(&error) == Some(wanted) => Ok(()),
        Err(error) => Err(error.context(format!("{what} is not refused with {wanted}"))),
    }
}

/// Opens a device for this owner; it has a number there.
fn open(iommufd: &File, address: &str) -> Result<(Opened, u32)> {
    let (vfio, id) = iommufd::bind(iommufd, &sysfs::Device::new(address))?;
    Ok((Opened::new(Device::from_file(vfio))?, id))
}

pub fn run(o: &Options) -> Result<()> {
    let [first, second] = o.addresses.as_slice() else {
        bail!("two devices");
    };
    let memory = Map::pages(PAGE as usize)?;
    let (one, other) = (open_device("/dev/iommu")?, open_device("/dev/iommu")?);
    let (a, id) = open(&one, first)?;
    let bind = || iommufd::bind(&other, &sysfs::Device::new(second));
    refused("another owner", EPERM, bind())?;
    for (name, flags) in [
        ("dirty tracking", DIRTY_TRACKING),
        ("nesting", NEST_PARENT),
        ("a domain for PASIDs", PASID),
    ] {
        let domain = iommufd::new_domain(&one, id, flags);
        refused(name, EOPNOTSUPP, domain)?;
    }

    let space = iommufd::new_ioas(&one)?;
    ioas::attach(a.device().file(), space)?;
    ioas::map(&one, space, &memory, PAGE)?;
    let (b, _) = open(&one, second)?;
    let another = ioas::attach(b.device().file(), iommufd::new_ioas(&one)?);
    refused("another address space", EINVAL, another)?;
    ioas::attach(b.device().file(), space)?;
    ensure!(
        a.reaches(ioas::IOVA, &memory)?,
        "{first} does not reach its memory"
    );
    ensure!(
        b.reaches(ioas::IOVA, &memory)?,
        "{second} does not reach its memory"
    );

    ioas::unmap(&one, space, PAGE)?;
    ensure!(
        !a.reaches(ioas::IOVA, &memory)?,
        "{first} reaches unmapped memory"
    );
    ensure!(
        !b.reaches(ioas::IOVA, &memory)?,
        "{second} reaches unmapped memory"
    );
    ioas::map(&one, space, &memory, PAGE)?;
    drop(a);
    ensure!(
        b.reaches(ioas::IOVA, &memory)?,
        "{second} was disturbed by a close"
    );
    refused(
        "another owner",
        EPERM,
        iommufd::bind(&other, &sysfs::Device::new(first)),
    )?;
    drop(b);
    drop(iommufd::bind(&other, &sysfs::Device::new(first)).context("after the owner's end")?);
    println!("# two devices, one owner, one address space");
    Ok(())
}
