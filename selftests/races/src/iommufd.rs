// SPDX-License-Identifier: GPL-2.0

//! A user of iommufd (include/uapi/linux/iommufd.h) who keeps a domain that no device is on:
//! it is made for a device of VFIO, and stays when that is closed.

use crate::file::open_device;
use crate::raw;
use crate::sysfs::Device;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::AsRawFd;

// _IO(';', n)
const IOAS_ALLOC: u64 = 0x3b81;
const HWPT_ALLOC: u64 = 0x3b89;
const DEVICE_BIND_IOMMUFD: u64 = 0x3b76;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoasAlloc {
    size: u32,
    flags: u32,
    out_ioas_id: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct HwptAlloc {
    size: u32,
    flags: u32,
    dev_id: u32,
    pt_id: u32,
    out_hwpt_id: u32,
    reserved: u32,
    data_type: u32,
    data_len: u32,
    data_uptr: u64,
    fault_id: u32,
    reserved2: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BindIommufd {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
}

#[derive(clap::Args)]
pub struct Options {
    /// PCI address; bound to vfio-pci
    address: String,
}

/// Opens the device for `iommufd`; its id there.
pub(crate) fn bind(iommufd: &File, device: &Device) -> Result<(File, u32)> {
    let vfio = open_device(&format!("/dev/vfio/devices/{}", device.vfio_name()?))?;
    let mut bind = BindIommufd {
        argsz: size_of::<BindIommufd>() as u32,
        iommufd: iommufd.as_raw_fd(),
        ..BindIommufd::default()
    };
    raw::ioctl_struct(&vfio, DEVICE_BIND_IOMMUFD, &mut bind).context("DEVICE_BIND_IOMMUFD")?;
    Ok((vfio, bind.out_devid))
}

/// A new address space; its id.
pub(crate) fn new_ioas(iommufd: &File) -> Result<u32> {
    let mut ioas = IoasAlloc {
        size: size_of::<IoasAlloc>() as u32,
        ..IoasAlloc::default()
    };
    raw::ioctl_struct(iommufd, IOAS_ALLOC, &mut ioas).context("IOMMU_IOAS_ALLOC")?;
    Ok(ioas.out_ioas_id)
}

/// Makes a domain for a device of `iommufd`, with a new address space.
pub(crate) fn new_domain(iommufd: &File, dev_id: u32, flags: u32) -> Result<()> {
    let mut hwpt = HwptAlloc {
        size: size_of::<HwptAlloc>() as u32,
        flags,
        dev_id,
        pt_id: new_ioas(iommufd)?,
        ..HwptAlloc::default()
    };
    raw::ioctl_struct(iommufd, HWPT_ALLOC, &mut hwpt).context("IOMMU_HWPT_ALLOC")?;
    Ok(())
}

/// Makes a domain for the device in `iommufd`. The device is closed again, the domain stays.
fn make_domain(iommufd: &File, device: &Device) -> Result<()> {
    let (_vfio, dev_id) = bind(iommufd, device)?;
    new_domain(iommufd, dev_id, 0)
}

pub fn run(o: &Options) -> Result<()> {
    let iommufd = open_device("/dev/iommu")?;
    make_domain(&iommufd, &Device::new(&o.address))?;
    println!("held");
    // Until the end of the input, or a signal.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
