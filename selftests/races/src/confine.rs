// SPDX-License-Identifier: GPL-2.0

//! Rows C9 and C10: users of VFIO and iommufd whose devices have an aperture, or are sealed.

mod race;
mod reset;

use crate::file::{self, open_device};
use crate::raw::Map;
use crate::sysfs;
use crate::testdev;
use crate::vfio::{Container, Device, Group};
use crate::{ioas, iommufd};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;

const PAGE: u64 = 4096;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;

#[derive(clap::Subcommand)]
pub enum Options {
    /// Map at both ends of a device's aperture, and past them, which must be refused
    Aperture {
        /// With iommufd instead of VFIO type1
        #[arg(long)]
        iommufd: bool,
        /// PCI address of an iommu-testdev; bound to vfio-pci
        address: String,
        /// The first address
        #[arg(value_parser = testdev::number)]
        first: u64,
        /// The last address
        #[arg(value_parser = testdev::number)]
        last: u64,
    },
    /// Ask VFIO type1 for a seal, which it has not
    Enable {
        /// A group whose devices have vfio-pci
        group: u32,
    },
    /// Attach two devices to one address space of iommufd: prints "shared", or "EBUSY" for the second
    Share {
        /// PCI addresses, in different groups; bound to vfio-pci
        #[arg(num_args = 2)]
        addresses: Vec<String>,
    },
    /// Reset a device with ATS, and bring another one to its domain meanwhile: prints "shared" or "alone"
    Reset {
        /// With iommufd instead of VFIO type1
        #[arg(long)]
        iommufd: bool,
        /// PCI addresses, in different groups; bound to vfio-pci
        #[arg(num_args = 2)]
        addresses: Vec<String>,
    },
    /// Change seals and apertures while devices come and go
    Race(race::Options),
}

/// The two devices of a command.
fn two(addresses: &[String]) -> Result<(sysfs::Device, sysfs::Device)> {
    let [first, second] = addresses else {
        bail!("two devices");
    };
    Ok((sysfs::Device::new(first), sysfs::Device::new(second)))
}

/// An address space with a device.
enum Space {
    Type1(
        Container,
        #[allow(dead_code, reason = "keeps it open")] Group,
    ),
    Iommufd(File, u32),
}

impl Space {
    fn type1(device: &sysfs::Device) -> Result<(Space, Device)> {
        let container = Container::new()?;
        let group = Group::open(device.group()?)?;
        group.set_container(&container)?;
        container.set_iommu()?;
        let opened = group.device(device.address())?;
        Ok((Space::Type1(container, group), opened))
    }

    fn iommufd(device: &sysfs::Device) -> Result<(Space, Device)> {
        let iommufd = open_device("/dev/iommu")?;
        let (vfio, _) = iommufd::bind(&iommufd, device)?;
        let ioas = iommufd::new_ioas(&iommufd)?;
        ioas::attach(&vfio, ioas)?;
        Ok((Space::Iommufd(iommufd, ioas), Device::from_file(vfio)))
    }

    fn map(&self, iova: u64, memory: &Map, bytes: u64) -> Result<()> {
        match self {
            Space::Type1(container, _) => container.map(iova, memory, bytes),
            Space::Iommufd(iommufd, ioas) => ioas::map_at(iommufd, *ioas, iova, memory, bytes),
        }
    }

    fn unmap(&self, iova: u64, bytes: u64) -> Result<()> {
        match self {
            Space::Type1(container, _) => container.unmap(iova, bytes),
            Space::Iommufd(iommufd, ioas) => ioas::unmap_at(iommufd, *ioas, iova, bytes),
        }
    }
}

/// Whether a write of the device at `iova` arrives in `memory`.
fn reaches(registers: &Map, memory: &Map, iova: u64) -> Result<bool> {
    memory.write(0, 0);
    let done = testdev::write(registers, iova)?;
    let written = memory.read(0) == testdev::WRITTEN;
    ensure!(done == written, "memory and device differ at {iova:#x}");
    Ok(done)
}

fn aperture(iommufd: bool, device: &sysfs::Device, first: u64, last: u64) -> Result<()> {
    let (space, opened) = match iommufd {
        false => Space::type1(device)?,
        true => Space::iommufd(device)?,
    };
    opened.set_master()?;
    let registers = opened.registers(testdev::REGISTERS)?;
    let memory = Map::pages(2 * PAGE as usize)?;
    let (low, high) = (first - PAGE, last + 1);
    for (iova, bytes) in [
        (low, PAGE),
        (low, 2 * PAGE),
        (high - PAGE, 2 * PAGE),
        (high, PAGE),
    ] {
        match space.map(iova, &memory, bytes) {
            Ok(()) => bail!("{bytes:#x} bytes at {iova:#x} can be mapped"),
            Err(error) => ensure!(
                file::errno(&error) == Some(EINVAL),
                "{bytes:#x} bytes at {iova:#x} are refused with {error:#}"
            ),
        }
    }
    for iova in [first, high - PAGE] {
        space.map(iova, &memory, PAGE).context("in the aperture")?;
        ensure!(
            reaches(&registers, &memory, iova)?,
            "{iova:#x} is not reached"
        );
        for outside in [low, high] {
            let reached = reaches(&registers, &memory, outside)?;
            ensure!(!reached, "{outside:#x} is reached");
        }
        space.unmap(iova, PAGE)?;
        ensure!(
            !reaches(&registers, &memory, iova)?,
            "{iova:#x} is still reached"
        );
    }
    println!(
        "# {first:#x} and {:#x} are reached, past them nothing",
        high - PAGE
    );
    Ok(())
}

/// That ioctl is another IOMMU's.
fn enable(group: u32) -> Result<()> {
    let container = Container::new()?;
    let group = Group::open(group)?;
    group.set_container(&container)?;
    container.set_iommu()?;
    let error = container.enable().err();
    let errno = error.as_ref().and_then(file::errno);
    ensure!(
        errno == Some(ENOTTY),
        "VFIO_IOMMU_ENABLE gives {errno:?}, not ENOTTY"
    );
    Ok(())
}

/// The first device stays where it is, whatever becomes of the second.
fn share(first: &sysfs::Device, second: &sysfs::Device) -> Result<()> {
    let iommufd = open_device("/dev/iommu")?;
    let memory = Map::pages(PAGE as usize)?;
    let (one, _) = iommufd::bind(&iommufd, first)?;
    let space = iommufd::new_ioas(&iommufd)?;
    ioas::attach(&one, space)?;
    ioas::map(&iommufd, space, &memory, PAGE)?;
    let (other, _) = iommufd::bind(&iommufd, second)?;
    let shared = match ioas::attach(&other, space) {
        Ok(()) => true,
        Err(error) if file::errno(&error) == Some(EBUSY) => false,
        Err(error) => return Err(error),
    };
    let mut reached = Vec::new();
    for file in [one, other] {
        let device = Device::from_file(file);
        device.set_master()?;
        let registers = device.registers(testdev::REGISTERS)?;
        reached.push(reaches(&registers, &memory, ioas::IOVA)?);
    }
    ensure!(
        reached == [true, shared],
        "the devices reach the memory: {reached:?}"
    );
    println!("{}", if shared { "shared" } else { "EBUSY" });
    Ok(())
}

pub fn run(o: &Options) -> Result<()> {
    match o {
        Options::Aperture {
            iommufd,
            address,
            first,
            last,
        } => aperture(*iommufd, &sysfs::Device::new(address), *first, *last),
        Options::Enable { group } => enable(*group),
        Options::Share { addresses } => {
            let (first, second) = two(addresses)?;
            share(&first, &second)
        }
        Options::Reset { iommufd, addresses } => {
            let (first, second) = two(addresses)?;
            reset::run(*iommufd, &first, &second)
        }
        Options::Race(options) => race::run(options),
    }
}
