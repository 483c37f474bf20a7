// SPDX-License-Identifier: GPL-2.0

//! Unmanaged domains: an address space that a device's driver fills itself.

use crate::{
    bindings,
    dma::Buffer,
    raw::as_raw, //
};
use core::ptr::NonNull;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::DmaAddress,
    error::{
        from_err_ptr,
        to_result, //
    },
    io::PhysAddr,
    prelude::*,
    sync::Arc,
};

/// What a device may do with a mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Write only; not every IOMMU can tell this from [`Access::ReadWrite`].
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    fn prot(self) -> i32 {
        let prot = match self {
            Access::Read => bindings::IOMMU_READ,
            Access::Write => bindings::IOMMU_WRITE,
            Access::ReadWrite => bindings::IOMMU_READ | bindings::IOMMU_WRITE,
        };
        prot as i32
    }
}

/// A mapped range. Holds the memory for as long as the device may reach it.
struct Range {
    iova: DmaAddress,
    buffer: Arc<Buffer>,
}

impl Range {
    fn overlaps(&self, first: DmaAddress, last: DmaAddress) -> bool {
        let end = self.iova + (self.buffer.size() as u64 - 1);
        first <= end && self.iova <= last
    }
}

/// A paging domain of its own, to which a device is attached.
///
/// While it exists the device's DMA goes through it and not through what the
/// DMA API maps. Dropping it puts the device back to its default domain. All
/// methods may sleep.
///
/// # Invariants
///
/// `domain` is a paging domain that is owned by this object, `dev` is attached
/// to it, and every mapping in it is in `ranges`.
pub struct OwnedDomain<'dev> {
    dev: &'dev Device<Bound>,
    domain: NonNull<bindings::iommu_domain>,
    ranges: KVec<Range>,
}

// SAFETY: Domains belong to no thread.
unsafe impl Send for OwnedDomain<'_> {}

impl<'dev> OwnedDomain<'dev> {
    /// Allocates a domain and attaches `dev` to it.
    ///
    /// Fails with `ENODEV` where no IOMMU translates for the device, with
    /// `EINVAL` where it shares its group with other devices, with `EBUSY` where
    /// it is attached to another such domain, and with what the IOMMU's driver
    /// says.
    pub fn new(dev: &'dev Device<Bound>) -> Result<Self> {
        // SAFETY: The device is bound, so that it is registered.
        let domain = unsafe { bindings::iommu_paging_domain_alloc_flags(as_raw(dev), 0) };
        let domain = NonNull::new(from_err_ptr(domain)?).ok_or(ENODEV)?;
        // SAFETY: The domain was just allocated for this device.
        let attached = unsafe { bindings::iommu_attach_device(domain.as_ptr(), as_raw(dev)) };
        if let Err(error) = to_result(attached) {
            // SAFETY: The domain is ours, and nothing is attached to it.
            unsafe { bindings::iommu_domain_free(domain.as_ptr()) };
            return Err(error);
        }
        // INVARIANT: Allocated and attached above, nothing mapped yet.
        Ok(Self {
            dev,
            domain,
            ranges: KVec::new(),
        })
    }

    /// Maps the whole of `buffer` at `iova`.
    ///
    /// Fails with `EEXIST` where something is mapped in the range, and with what
    /// the IOMMU core and driver say about an address out of range or alignment.
    pub fn map(&mut self, iova: DmaAddress, buffer: Arc<Buffer>, access: Access) -> Result {
        let end = iova.checked_add(buffer.size() as u64 - 1).ok_or(EINVAL)?;
        if self.ranges.iter().any(|r| r.overlaps(iova, end)) {
            return Err(EEXIST);
        }
        self.ranges.reserve(1, GFP_KERNEL)?;
        // SAFETY: By the type invariant the domain is valid; the memory is held
        // by `buffer`, which goes into `ranges`.
        to_result(unsafe {
            bindings::iommu_map(
                self.domain.as_ptr(),
                iova as usize,
                buffer.phys(),
                buffer.size(),
                access.prot(),
                bindings::GFP_KERNEL,
            )
        })?;
        // INVARIANT: The new mapping is entered. There is room, see above.
        self.ranges.push(Range { iova, buffer }, GFP_KERNEL)?;
        Ok(())
    }

    /// Removes the mapping that [`map`](Self::map) made at `iova`.
    ///
    /// When this returns the device cannot reach the memory any more. Fails with
    /// `ENOENT` where there is no such mapping.
    pub fn unmap(&mut self, iova: DmaAddress) -> Result {
        let found = self.ranges.iter().position(|r| r.iova == iova);
        let index = found.ok_or(ENOENT)?;
        let size = self.ranges[index].buffer.size();
        // SAFETY: By the type invariant the domain is valid.
        let done = unsafe { bindings::iommu_unmap(self.domain.as_ptr(), iova as usize, size) };
        if done != size {
            // The range stays listed, so that its memory is not reused.
            return Err(EIO);
        }
        self.ranges.remove(index).map(drop).map_err(|_| ENOENT)
    }

    /// What the tables say about `iova`: the physical address, or none.
    pub fn iova_to_phys(&self, iova: DmaAddress) -> Option<PhysAddr> {
        // SAFETY: By the type invariant the domain is valid.
        let phys = unsafe { bindings::iommu_iova_to_phys(self.domain.as_ptr(), iova) };
        (phys != 0).then_some(phys)
    }
}

impl Drop for OwnedDomain<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the device is attached to this domain.
        unsafe { bindings::iommu_detach_device(self.domain.as_ptr(), as_raw(self.dev)) };
        // SAFETY: The domain is ours, and nothing is attached to it now. The
        // memory in `ranges` is freed after this.
        unsafe { bindings::iommu_domain_free(self.domain.as_ptr()) };
    }
}
