// SPDX-License-Identifier: GPL-2.0

//! Address spaces of iommufd (include/uapi/linux/iommufd.h). Row C7: how much a process may lock in them, for
//! several devices.

use crate::file::{self, open_device};
use crate::iommufd;
use crate::raw::{self, Map};
use crate::sysfs::Device;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;

/// Where [`map`] maps.
pub(crate) const IOVA: u64 = 0x10_0000;
const ENOMEM: i32 = 12;

// _IO(';', n)
const IOAS_COPY: u64 = 0x3b83;
const IOAS_MAP: u64 = 0x3b85;
const IOAS_UNMAP: u64 = 0x3b86;
const DEVICE_ATTACH: u64 = 0x3b77;
/// The IOVA is the caller's; readable and writable.
const FLAGS: u32 = 1 | 2 | 4;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attach {
    argsz: u32,
    flags: u32,
    pt_id: u32,
    pasid: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoasMap {
    size: u32,
    flags: u32,
    ioas_id: u32,
    reserved: u32,
    user_va: u64,
    length: u64,
    iova: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoasCopy {
    size: u32,
    flags: u32,
    dst_ioas_id: u32,
    src_ioas_id: u32,
    length: u64,
    dst_iova: u64,
    src_iova: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoasUnmap {
    size: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
}

/// Which address spaces there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    /// One for all devices
    Shared,
    /// One each, where the first is mapped and the others are copies
    Copied,
    /// One each, all mapped
    Each,
}

#[derive(clap::Args)]
pub struct Options {
    /// How much to map, in whole pages
    #[arg(long)]
    bytes: u64,
    /// How much this process may lock, in bytes; it maps without privileges
    #[arg(long)]
    limit: u64,
    /// Which address spaces
    #[arg(long, value_enum)]
    layout: Layout,
    /// Keep all open until the end of the input
    #[arg(long)]
    hold: bool,
    /// PCI addresses, in different groups; bound to vfio-pci
    #[arg(required = true)]
    devices: Vec<String>,
}

/// Puts an open device into an address space.
pub(crate) fn attach(vfio: &File, ioas: u32) -> Result<()> {
    let mut attach = Attach {
        argsz: size_of::<Attach>() as u32,
        pt_id: ioas,
        ..Attach::default()
    };
    raw::ioctl_struct(vfio, DEVICE_ATTACH, &mut attach).context("DEVICE_ATTACH_IOMMUFD_PT")?;
    Ok(())
}

/// A device in an address space, which is a new one unless `ioas` says which. The file keeps it.
fn open(iommufd: &File, address: &str, ioas: Option<u32>) -> Result<(File, u32)> {
    let (vfio, _) = iommufd::bind(iommufd, &Device::new(address))?;
    let ioas = match ioas {
        Some(ioas) => ioas,
        None => iommufd::new_ioas(iommufd)?,
    };
    attach(&vfio, ioas)?;
    Ok((vfio, ioas))
}

/// Lets the devices of an address space read and write `length` bytes of `memory` at [`IOVA`].
pub(crate) fn map(iommufd: &File, ioas: u32, memory: &Map, length: u64) -> Result<()> {
    map_at(iommufd, ioas, IOVA, memory, length)
}

/// The same at another place.
pub(crate) fn map_at(
    iommufd: &File,
    ioas: u32,
    iova: u64,
    memory: &Map,
    length: u64,
) -> Result<()> {
    let mut map = IoasMap {
        size: size_of::<IoasMap>() as u32,
        flags: FLAGS,
        ioas_id: ioas,
        user_va: memory.address() as u64,
        length,
        iova,
        ..IoasMap::default()
    };
    raw::ioctl_struct(iommufd, IOAS_MAP, &mut map).context("IOMMU_IOAS_MAP")?;
    Ok(())
}

/// Ends what [`map`] began.
pub(crate) fn unmap(iommufd: &File, ioas: u32, length: u64) -> Result<()> {
    unmap_at(iommufd, ioas, IOVA, length)
}

/// Ends what [`map_at`] began.
pub(crate) fn unmap_at(iommufd: &File, ioas: u32, iova: u64, length: u64) -> Result<()> {
    let mut unmap = IoasUnmap {
        size: size_of::<IoasUnmap>() as u32,
        ioas_id: ioas,
        iova,
        length,
    };
    raw::ioctl_struct(iommufd, IOAS_UNMAP, &mut unmap).context("IOMMU_IOAS_UNMAP")?;
    Ok(())
}

fn copy(iommufd: &File, from: u32, to: u32, length: u64) -> Result<()> {
    let mut copy = IoasCopy {
        size: size_of::<IoasCopy>() as u32,
        flags: FLAGS,
        dst_ioas_id: to,
        src_ioas_id: from,
        length,
        dst_iova: IOVA,
        src_iova: IOVA,
    };
    raw::ioctl_struct(iommufd, IOAS_COPY, &mut copy).context("IOMMU_IOAS_COPY")?;
    Ok(())
}

fn map_all(iommufd: &File, o: &Options, spaces: &[u32], memory: &Map) -> Result<()> {
    let Some((first, rest)) = spaces.split_first() else {
        return Ok(());
    };
    map(iommufd, *first, memory, o.bytes)?;
    for ioas in rest {
        match o.layout {
            Layout::Shared => {}
            Layout::Copied => copy(iommufd, *first, *ioas, o.bytes)?,
            Layout::Each => map(iommufd, *ioas, memory, o.bytes)?,
        }
    }
    Ok(())
}

/// Prints `mapped`, or `ENOMEM` where the limit was reached.
pub fn run(o: &Options) -> Result<()> {
    let iommufd = open_device("/dev/iommu")?;
    let mut files = Vec::new();
    let mut spaces = Vec::new();
    for address in &o.devices {
        let shared = spaces.first().copied();
        let ioas = shared.filter(|_| o.layout == Layout::Shared);
        let (vfio, ioas) = open(&iommufd, address, ioas)?;
        files.push(vfio);
        spaces.push(ioas);
    }
    let memory = Map::pages(o.bytes as usize)?;
    raw::limit_locked_memory(o.limit)?;
    raw::drop_privileges()?;
    match map_all(&iommufd, o, &spaces, &memory) {
        Ok(()) => println!("mapped"),
        Err(error) if file::errno(&error) == Some(ENOMEM) => println!("ENOMEM"),
        Err(error) => return Err(error),
    }
    if o.hold {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
