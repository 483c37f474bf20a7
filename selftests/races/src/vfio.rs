// SPDX-License-Identifier: GPL-2.0

//! VFIO with containers and groups (include/uapi/linux/vfio.h), step by step.

use crate::file::open_device;
use crate::raw::{self, Map};
use anyhow::{Context, Result};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

// _IO(';', 100 + n)
const CHECK_EXTENSION: u64 = 0x3b65;
const SET_IOMMU: u64 = 0x3b66;
const GROUP_SET_CONTAINER: u64 = 0x3b68;
const GROUP_UNSET_CONTAINER: u64 = 0x3b69;
const GROUP_GET_DEVICE_FD: u64 = 0x3b6a;
const DEVICE_GET_REGION_INFO: u64 = 0x3b6c;
const IOMMU_GET_INFO: u64 = 0x3b70;
const IOMMU_MAP_DMA: u64 = 0x3b71;
const IOMMU_UNMAP_DMA: u64 = 0x3b72;
const IOMMU_ENABLE: u64 = 0x3b73;

const TYPE1V2: usize = 3;
const DMA_CC_IOMMU: usize = 4;
const READ_WRITE: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

/// The answer of VFIO_IOMMU_GET_INFO, as words: size, flags, page sizes (two words), offset of the first
/// capability, padding; then the capabilities.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Info([u32; 1024]);

impl Info {
    /// A number of 64 bits at a word.
    fn long(&self, at: usize) -> Option<u64> {
        let (low, high) = (self.0.get(at)?, self.0.get(at + 1)?);
        Some(u64::from(*low) | (u64::from(*high) << 32))
    }

    /// The ranges of the capability that tells them (VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE), which has: id and
    /// version, offset of the next one, number of ranges, padding.
    fn ranges(&self) -> Option<Vec<(u64, u64)>> {
        let mut at = self.0[4] as usize / 4;
        while at != 0 && *self.0.get(at)? & 0xffff != 1 {
            at = *self.0.get(at + 1)? as usize / 4;
        }
        let count = *self.0.get(at + 2)? as usize;
        let range = |n| Some((self.long(at + 4 + 4 * n)?, self.long(at + 6 + 4 * n)?));
        (0..count)
            .map(range)
            .collect::<Option<_>>()
            .filter(|_| at != 0)
    }
}

/// A container: an address space, once [`set_iommu`](Self::set_iommu) was called with a group in it.
pub struct Container(File);

impl Container {
    pub fn new() -> Result<Container> {
        open_device("/dev/vfio/vfio").map(Container)
    }

    /// Attaches the groups that are in it.
    pub fn set_iommu(&self) -> Result<()> {
        raw::ioctl_number(&self.0, SET_IOMMU, TYPE1V2).context("VFIO_SET_IOMMU")?;
        Ok(())
    }

    /// Lets the devices read and write `length` bytes of `memory` at `iova`.
    pub fn map(&self, iova: u64, memory: &Map, length: u64) -> Result<()> {
        self.map_part(iova, memory, 0, length as usize)
    }

    /// The same of memory from an offset on.
    pub fn map_part(&self, iova: u64, memory: &Map, offset: usize, length: usize) -> Result<()> {
        let mut map = DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            flags: READ_WRITE,
            vaddr: (memory.address() + offset) as u64,
            iova,
            size: length as u64,
        };
        raw::ioctl_struct(&self.0, IOMMU_MAP_DMA, &mut map).context("VFIO_IOMMU_MAP_DMA")?;
        Ok(())
    }

    /// The IOVAs that can be mapped, with the last one of each range.
    pub fn ranges(&self) -> Result<Vec<(u64, u64)>> {
        let mut info = Info([0; 1024]);
        info.0[0] = size_of::<Info>() as u32;
        raw::ioctl_struct(&self.0, IOMMU_GET_INFO, &mut info).context("VFIO_IOMMU_GET_INFO")?;
        info.ranges().context("VFIO_IOMMU_GET_INFO has no ranges")
    }

    /// Whether the IOMMU has all DMA snoop the CPU's caches.
    pub fn is_coherent(&self) -> Result<bool> {
        let answer = raw::ioctl_number(&self.0, CHECK_EXTENSION, DMA_CC_IOMMU);
        Ok(answer.context("VFIO_CHECK_EXTENSION")? != 0)
    }

    /// Seals it, where the IOMMU is one that VFIO can do that with.
    pub fn enable(&self) -> Result<()> {
        raw::ioctl_number(&self.0, IOMMU_ENABLE, 0).context("VFIO_IOMMU_ENABLE")?;
        Ok(())
    }

    pub fn unmap(&self, iova: u64, length: u64) -> Result<()> {
        let mut unmap = DmaUnmap {
            argsz: size_of::<DmaUnmap>() as u32,
            flags: 0,
            iova,
            size: length,
        };
        raw::ioctl_struct(&self.0, IOMMU_UNMAP_DMA, &mut unmap).context("VFIO_IOMMU_UNMAP_DMA")?;
        Ok(())
    }
}

/// An open group.
pub struct Group(File);

impl Group {
    pub fn open(number: u32) -> Result<Group> {
        open_device(&format!("/dev/vfio/{number}")).map(Group)
    }

    /// Claims the group's DMA, and attaches it if the container is an address space already.
    pub fn set_container(&self, container: &Container) -> Result<()> {
        let mut fd = container.0.as_raw_fd();
        raw::ioctl_struct(&self.0, GROUP_SET_CONTAINER, &mut fd).context("GROUP_SET_CONTAINER")?;
        Ok(())
    }

    /// Detaches it and ends the claim.
    pub fn unset_container(&self) -> Result<()> {
        raw::ioctl_number(&self.0, GROUP_UNSET_CONTAINER, 0).context("GROUP_UNSET_CONTAINER")?;
        Ok(())
    }

    pub fn device(&self, address: &str) -> Result<Device> {
        let name = CString::new(address)?;
        let device = raw::ioctl_open(&self.0, GROUP_GET_DEVICE_FD, &name);
        Ok(Device(device.context("GROUP_GET_DEVICE_FD")?))
    }
}

/// An open device.
pub struct Device(File);

impl Device {
    /// One that was opened by its own file in /dev/vfio/devices.
    pub(crate) fn from_file(file: File) -> Device {
        Device(file)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Maps the first `length` bytes of its first memory region.
    pub fn registers(&self, length: usize) -> Result<Map> {
        let mut info = RegionInfo {
            argsz: size_of::<RegionInfo>() as u32,
            ..RegionInfo::default()
        };
        raw::ioctl_struct(&self.0, DEVICE_GET_REGION_INFO, &mut info)
            .context("DEVICE_GET_REGION_INFO")?;
        Map::file(&self.0, info.offset, length).context("mapping registers")
    }

    /// Lets the device do DMA: VFIO leaves bus mastering to its user.
    pub fn set_master(&self) -> Result<()> {
        let mut info = RegionInfo {
            argsz: size_of::<RegionInfo>() as u32,
            index: 7,
            ..RegionInfo::default()
        };
        raw::ioctl_struct(&self.0, DEVICE_GET_REGION_INFO, &mut info)
            .context("DEVICE_GET_REGION_INFO")?;
        use std::os::unix::fs::FileExt;
        let mut command = [0; 2];
        self.0.read_exact_at(&mut command, info.offset + 4)?;
        command[0] |= 6;
        self.0.write_all_at(&command, info.offset + 4)?;
        Ok(())
    }
}
