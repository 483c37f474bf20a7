// SPDX-License-Identifier: GPL-2.0

//! Streaming DMA of a bound device, for consumers of an IOMMU.

use crate::{
    bindings,
    raw::as_raw, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::AllocError,
    device::{
        Bound,
        Device, //
    },
    dma::{
        DataDirection,
        DmaAddress,
        DmaMask, //
    },
    error::to_result,
    io::PhysAddr,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    },
};

/// Has the device's mappings stay below `1 << bits`. May sleep.
///
/// Who maps meanwhile has the limit from before or this one. Fails with `EINVAL` for a number of bits
/// that there is no mask of, and with `EIO` where the platform cannot do it.
pub fn set_mask(dev: &Device<Bound>, bits: u32) -> Result {
    let mask = DmaMask::try_new(bits)?;
    // SAFETY: The device is bound. What this writes are words of the device, which mapping only reads.
    to_result(unsafe { bindings::dma_set_mask(as_raw(dev), mask.value()) })
}

/// Physically contiguous, zeroed pages that the CPU and devices share.
///
/// Devices may write at any time, so that the contents are only reached word by
/// word, through atomics.
///
/// # Invariants
///
/// `addr` is the start of an allocation of `1 << order` pages which is owned by
/// this object and was initialized; `pages` of them are used, which is no more.
pub struct Buffer {
    addr: NonNull<Atomic<u32>>,
    order: u32,
    pages: usize,
}

// SAFETY: The pages belong to no thread, and are only reached through atomics.
unsafe impl Send for Buffer {}

// SAFETY: As above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates `pages` pages. May sleep.
    ///
    /// Fails with `EINVAL` for none, and with `ENOMEM`.
    pub fn new(pages: usize) -> Result<Arc<Self>> {
        if pages == 0 {
            return Err(EINVAL);
        }
        let order = pages.checked_next_power_of_two().ok_or(ENOMEM)?.ilog2();
        let gfp = bindings::GFP_KERNEL | bindings::__GFP_ZERO | bindings::__GFP_NOWARN;
        // SAFETY: Any order is allowed; one that is too great makes it fail.
        let addr = unsafe { bindings::get_free_pages_noprof(gfp, order) };
        let addr = NonNull::new(addr as *mut Atomic<u32>).ok_or(ENOMEM)?;
        // INVARIANT: The pages were just allocated for us, zeroed.
        let buffer = Self { addr, order, pages };
        Arc::new(buffer, GFP_KERNEL).map_err(|AllocError| ENOMEM)
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        PAGE_SIZE * self.pages
    }

    /// Address of the first byte as the CPU's memory controller sees it.
    pub fn phys(&self) -> PhysAddr {
        // SAFETY: By the type invariant this is memory of the direct map.
        unsafe { bindings::rust_iommu_virt_to_phys(self.addr.as_ptr().cast()) }
    }

    /// The contents.
    pub fn words(&self) -> &[Atomic<u32>] {
        let len = self.size() / size_of::<u32>();
        // SAFETY: By the type invariant the memory is initialized and lives as
        // long as `self`; whoever else writes to it does so in whole words.
        unsafe { core::slice::from_raw_parts(self.addr.as_ptr(), len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: By the type invariant these pages are ours. Whatever lets a
        // device reach them holds a reference to this object.
        unsafe { bindings::free_pages(self.addr.as_ptr() as usize, self.order) };
    }
}

/// A [`Buffer`] that a device may reach at [`dma_addr`](Self::dma_addr), through
/// the kernel's DMA API and thus through whatever IOMMU the device is behind.
///
/// Dropping it ends that.
///
/// # Invariants
///
/// `addr` was returned by `dma_map_phys` for `dev`, the whole of `buffer` and
/// `direction`, and was not unmapped.
pub struct Mapping<'dev> {
    dev: &'dev Device<Bound>,
    buffer: Arc<Buffer>,
    addr: DmaAddress,
    direction: DataDirection,
}

impl<'dev> Mapping<'dev> {
    /// Maps `buffer` for `dev`. Does not sleep.
    ///
    /// Fails with `ENOMEM` where there is no address left or no memory for
    /// tables, and with `EINVAL` for a mapping in no direction.
    pub fn new(
        dev: &'dev Device<Bound>,
        buffer: Arc<Buffer>,
        direction: DataDirection,
    ) -> Result<Self> {
        if direction == DataDirection::None {
            return Err(EINVAL);
        }
        // SAFETY: The device is bound, the memory is there: the mapping holds a
        // reference to it.
        let addr = unsafe {
            bindings::dma_map_phys(
                as_raw(dev),
                buffer.phys(),
                buffer.size(),
                direction.into(),
                0,
            )
        };
        // SAFETY: `addr` is what the call above returned for this device.
        to_result(unsafe { bindings::rust_iommu_dma_mapping_error(as_raw(dev), addr) })?;
        // INVARIANT: Mapped just now, and no error.
        Ok(Self {
            dev,
            buffer,
            addr,
            direction,
        })
    }

    /// Where the device finds the first byte.
    pub fn dma_addr(&self) -> DmaAddress {
        self.addr
    }

    /// The memory. What is read from it belongs between [`to_cpu`](Self::to_cpu)
    /// and [`to_device`](Self::to_device).
    pub fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// Makes what the device wrote visible to the CPU. Does not sleep.
    pub fn to_cpu(&self) {
        // SAFETY: By the type invariant the range is mapped for this device, in
        // this direction.
        unsafe {
            bindings::rust_iommu_dma_sync_for_cpu(
                as_raw(self.dev),
                self.addr,
                self.buffer.size(),
                self.direction.into(),
            )
        };
    }

    /// Makes what the CPU wrote visible to the device. Does not sleep.
    pub fn to_device(&self) {
        // SAFETY: As in `to_cpu`.
        unsafe {
            bindings::rust_iommu_dma_sync_for_device(
                as_raw(self.dev),
                self.addr,
                self.buffer.size(),
                self.direction.into(),
            )
        };
    }
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the range is mapped for this device, in
        // this direction; nobody else unmaps it.
        unsafe {
            bindings::dma_unmap_phys(
                as_raw(self.dev),
                self.addr,
                self.buffer.size(),
                self.direction.into(),
                0,
            )
        };
    }
}
