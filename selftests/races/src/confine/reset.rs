// SPDX-License-Identifier: GPL-2.0

//! Row C9: a device that the core has blocked for a reset is still on the domain it was on.
//!
//! The core blocks a device with ATS while it is reset, and then puts it back, which must not fail. The device is
//! held there, about to come back, and another group comes to its domain meanwhile.

use crate::file;
use crate::inject::Points;
use crate::raw::Map;
use crate::sysfs::Device;
use crate::vfio::{Container, Group};
use crate::{ioas, iommufd, vfio};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;
use std::thread;
use std::time::Duration;

const POINT: &str = "attach.prepare";
const LIMIT: Duration = Duration::from_secs(30);
const PAGE: u64 = 4096;

/// An address space with a device, and another one that may come to it.
trait Space: Sync {
    /// Brings that one there; `false` if it is refused.
    fn add(&self) -> Result<bool>;
}

struct Type1 {
    container: Container,
    first: Group,
    second: Group,
}

impl Type1 {
    fn new(first: &Device, second: &Device) -> Result<(Type1, vfio::Device)> {
        let space = Type1 {
            container: Container::new()?,
            first: Group::open(first.group()?)?,
            second: Group::open(second.group()?)?,
        };
        space.first.set_container(&space.container)?;
        space.container.set_iommu()?;
        let opened = space.first.device(first.address())?;
        Ok((space, opened))
    }
}

impl Space for Type1 {
    /// It makes another domain where it is refused.
    fn add(&self) -> Result<bool> {
        self.second.set_container(&self.container)?;
        Ok(true)
    }
}

struct Ioas {
    number: u32,
    second: File,
}

impl Ioas {
    fn new(iommufd: &File, first: &Device, second: &Device) -> Result<(Ioas, vfio::Device)> {
        let (one, _) = iommufd::bind(iommufd, first)?;
        let number = iommufd::new_ioas(iommufd)?;
        ioas::attach(&one, number)?;
        let (second, _) = iommufd::bind(iommufd, second)?;
        Ok((Ioas { number, second }, vfio::Device::from_file(one)))
    }
}

impl Space for Ioas {
    fn add(&self) -> Result<bool> {
        match ioas::attach(&self.second, self.number) {
            Ok(()) => Ok(true),
            Err(error) if file::errno(&error) == Some(super::EBUSY) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the second device is on the first one's domain, as its seal is refused then, which is not left.
fn has_company(second: &Device) -> Result<bool> {
    match second.set_attribute("sealed", "1") {
        Ok(()) => second.set_attribute("sealed", "0").map(|()| false),
        Err(error) if file::errno(&error) == Some(super::EBUSY) => Ok(true),
        Err(error) => Err(error),
    }
}

pub(super) fn run(iommufd: bool, first: &Device, second: &Device) -> Result<()> {
    let memory = Map::pages(PAGE as usize)?;
    let file;
    let (space, _opened): (Box<dyn Space>, _) = if iommufd {
        file = super::open_device("/dev/iommu")?;
        let (space, opened) = Ioas::new(&file, first, second)?;
        ioas::map(&file, space.number, &memory, PAGE)?;
        (Box::new(space), opened)
    } else {
        let (space, opened) = Type1::new(first, second)?;
        space.container.map(ioas::IOVA, &memory, PAGE)?;
        (Box::new(space), opened)
    };
    ensure!(
        first.attribute("domain")? == "owner",
        "not on a domain of its owner"
    );
    let points = Points::new()?;
    points.gate(POINT, Some(first.address()), 0)?;
    let shares = thread::scope(|scope| {
        let reset = scope.spawn(|| first.reset());
        let during = || -> Result<bool> {
            points.wait(POINT, LIMIT).context("nobody comes back")?;
            Ok(space.add()? && has_company(second)?)
        };
        let shares = during();
        points.open(POINT)?;
        match reset.join() {
            Ok(done) => done.context("reset")?,
            Err(_) => bail!("a thread died"),
        }
        shares
    })?;
    ensure!(
        first.attribute("domain")? == "owner",
        "the device did not come back from its reset"
    );
    println!("{}", if shares { "shared" } else { "alone" });
    Ok(())
}
