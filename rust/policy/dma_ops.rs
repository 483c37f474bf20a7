// SPDX-License-Identifier: GPL-2.0

//! `dma_map_ops`: from the DMA API's callbacks to a window, or to the core.
//!
//! Context of all that map and unmap: any.

use super::{
    keep::is_plain,
    mapper::{
        self,
        Mapper, //
    },
    name::Overlay,
    scatter,
    segments::pages, //
};
use crate::{
    bindings,
    driver::Driver,
    lazy::{
        fit::Request,
        window::Error, //
    },
    ops,
    pt::PageTable,
    raw, //
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    cpu::CpuId,
    ffi::{
        c_int,
        c_ulong, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::Relaxed, //
};

pub(super) type Direction = bindings::dma_data_direction;

/// `DMA_MAPPING_ERROR`.
pub(super) const MAPPING_ERROR: bindings::dma_addr_t = !0;

/// Read and write permission of the device.
#[inline]
fn access(direction: Direction) -> (bool, bool) {
    match direction {
        bindings::dma_data_direction::DMA_TO_DEVICE => (true, false),
        bindings::dma_data_direction::DMA_FROM_DEVICE => (false, true),
        _ => (true, true),
    }
}

/// The operations of driver `D`.
pub(crate) const fn table<D: Driver>() -> bindings::dma_map_ops {
    bindings::dma_map_ops {
        alloc: Some(alloc::<D>),
        free: Some(free::<D>),
        alloc_pages_op: Some(alloc_pages::<D>),
        free_pages: Some(free_pages::<D>),
        mmap: Some(mmap::<D>),
        get_sgtable: Some(get_sgtable::<D>),
        map_phys: Some(map_phys::<D>),
        unmap_phys: Some(unmap_phys::<D>),
        map_sg: Some(scatter::map_sg::<D>),
        unmap_sg: Some(scatter::unmap_sg::<D>),
        max_mapping_size: Some(max_mapping_size::<D>),
        opt_mapping_size: Some(opt_mapping_size::<D>),
        get_merge_boundary: Some(get_merge_boundary),
        ..pin_init::zeroed()
    }
}

/// What maps for a device.
///
/// # Safety
///
/// The DMA API calls for a device with these operations, whose driver is bound.
#[inline]
pub(super) unsafe fn mapper<'a, D: Driver>(dev: *mut bindings::device) -> &'a Mapper<D> {
    // SAFETY: The device is in its group, as a driver is bound: it is not released meanwhile.
    let device = unsafe { ops::device::<D>(dev) };
    // SAFETY: The driver maps, and `device` stays as long.
    let mapper = unsafe { mapper::get(&*device) };
    // SAFETY: Set before the operations were, and until after the driver has gone.
    unsafe { mapper.unwrap_unchecked() }
}

impl<D: Driver> Mapper<D> {
    /// Maps a page, in a few instructions, in the window, if that is the usual case: its next page is free,
    /// all of it is in the device's reach, and units need not be told. `None`: nothing is mapped.
    ///
    /// # Safety
    ///
    /// `dev` is the mapper's device, and its driver maps.
    #[inline(always)]
    unsafe fn map_page(
        &self,
        dev: *mut bindings::device,
        page: u64,
        direction: Direction,
    ) -> Option<u64> {
        let lazy = self.window_to_map()?;
        if self.domain.flushes_new {
            return None;
        }
        // A call: before there is more to be kept across it.
        let cpu = CpuId::current().as_u32() as usize;
        // SAFETY: By the contract: a driver sets its device's masks before it maps, and not meanwhile.
        if unsafe { raw::dma_limit(dev) } < lazy.last() {
            return None;
        }
        let (read, write) = access(direction);
        let leaf = D::Table::leaf(&self.domain.config, page, read, write);
        let first = lazy.window.map_next(cpu, leaf)?;
        Some(lazy.window.env().iova() + ((first as u64) << PAGE_SHIFT))
    }

    /// Maps pages in the window. `frame` gives the physical address of each page, in order, and
    /// again from the first one on. `None`: the core has to map them.
    ///
    /// # Safety
    ///
    /// As for [`map_page`](Self::map_page).
    #[inline]
    pub(super) unsafe fn map(
        &self,
        dev: *mut bindings::device,
        pages: usize,
        direction: Direction,
        mut frame: impl FnMut(usize) -> u64,
    ) -> Option<Result<u64>> {
        let lazy = self.window_to_map()?;
        let env = lazy.window.env();
        // SAFETY: As in `map_page`.
        let limit = unsafe { raw::dma_limit(dev) };
        let mut request = Request::new(pages);
        if pages > 1 {
            // SAFETY: As above.
            let boundary = unsafe { bindings::rust_iommu_seg_boundary(dev) };
            // Usually it is larger than the window, which lies within one stretch then.
            if (env.iova() ^ lazy.last()) & !boundary != 0 {
                request.boundary = boundary >> PAGE_SHIFT;
            }
        }
        if limit < lazy.last() {
            request.last = limit >> PAGE_SHIFT;
        }
        let (read, write) = access(direction);
        let config = &self.domain.config;
        let mut leaf = |place| D::Table::leaf(config, frame(place), read, write);
        if self.domain.flushes_new {
            if let Some(first) = lazy.window.map_again(&request, &mut leaf) {
                return Some(Ok(env.iova() + ((first as u64) << PAGE_SHIFT)));
            }
        }
        let cpu = CpuId::current().as_u32() as usize;
        match lazy.window.map(cpu, &request, leaf) {
            Ok(first) => {
                let iova = env.iova() + ((first as u64) << PAGE_SHIFT);
                if self.domain.flushes_new {
                    self.announce(iova, pages);
                }
                Some(Ok(iova))
            }
            Err(Error::Invalid | Error::Full) => None,
            // A unit that does not answer: what it may still reach is not handed out.
            Err(Error::Flush(e)) => Some(Err(e)),
        }
    }

    /// Unmaps what lies in the window; false where it does not.
    #[inline(always)]
    pub(super) fn unmap(&self, iova: u64, size: usize) -> bool {
        let Some(lazy) = self.window() else {
            return false;
        };
        let Some(offset) = iova.checked_sub(lazy.window.env().iova()) else {
            return false;
        };
        // CAST: compared with the number of pages before it is used.
        let first = (offset >> PAGE_SHIFT) as usize;
        if first >= lazy.window.geometry().pages() {
            return false;
        }
        let pages = pages(iova, size as u64);
        let unmapped = if self.domain.flushes_new && self.device.overlay() == Overlay::Lazy {
            lazy.window.unmap_for_now(first, pages)
        } else {
            lazy.window.unmap(first, pages)
        };
        if unmapped.is_err() {
            self.complain(iova);
        }
        // Unmapping is a full barrier, as is a change of the policy before it drains. Either this
        // sees the change, or that finds the page unmapped.
        if self.device.overlay() != Overlay::Lazy {
            let _ = lazy.window.drain();
        }
        true
    }
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn map_phys<D: Driver>(
    dev: *mut bindings::device,
    phys: bindings::phys_addr_t,
    size: usize,
    direction: Direction,
    attrs: c_ulong,
) -> bindings::dma_addr_t {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    if D::Table::IS_REMOTE && is_plain(attrs) {
        return mapper.map_remote(dev, phys, size, direction);
    }
    let offset = phys & (PAGE_SIZE as u64 - 1);
    // CAST: less than a page.
    if is_memory(attrs) && size.wrapping_sub(1) < PAGE_SIZE - offset as usize {
        // SAFETY: By the contract.
        if let Some(iova) = unsafe { mapper.map_page(dev, phys - offset, direction) } {
            return iova + offset;
        }
    }
    // SAFETY: By the contract.
    unsafe { map_any(dev, phys, size, direction, attrs, mapper) }
}

/// Whether it is memory: what is not needs other attributes of the core.
#[inline]
fn is_memory(attrs: c_ulong) -> bool {
    attrs & bindings::DMA_ATTR_MMIO as c_ulong == 0
}

/// [`map_phys`] where it is not the usual case, which is not to be slowed down by this one.
///
/// # Safety
///
/// As for [`Mapper::map_page`].
#[inline(never)]
unsafe fn map_any<D: Driver>(
    dev: *mut bindings::device,
    phys: u64,
    size: usize,
    direction: Direction,
    attrs: c_ulong,
    mapper: &Mapper<D>,
) -> bindings::dma_addr_t {
    let start = phys & !(PAGE_SIZE as u64 - 1);
    let frame = |place: usize| start + ((place as u64) << PAGE_SHIFT);
    let mapped = if is_memory(attrs) {
        // SAFETY: By the contract.
        unsafe { mapper.map(dev, pages(phys, size as u64), direction, frame) }
    } else {
        None
    };
    match mapped {
        Some(Ok(iova)) => iova + (phys - start),
        Some(Err(_)) => MAPPING_ERROR,
        None => mapper
            .map_in_core(phys, size, direction, attrs)
            .unwrap_or(MAPPING_ERROR),
    }
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn unmap_phys<D: Driver>(
    dev: *mut bindings::device,
    iova: bindings::dma_addr_t,
    size: usize,
    direction: Direction,
    attrs: c_ulong,
) {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    if D::Table::IS_REMOTE && is_plain(attrs) {
        mapper.unmap_remote(iova, size, direction);
        return;
    }
    if !mapper.unmap(iova, size) {
        // SAFETY: Not in the window, so the core has mapped it.
        unsafe { bindings::dma_unmap_phys(mapper.twin.as_raw(), iova, size, direction, attrs) };
        mapper.unmapped(iova, size as u64);
    }
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn alloc<D: Driver>(
    dev: *mut bindings::device,
    size: usize,
    handle: *mut bindings::dma_addr_t,
    gfp: bindings::gfp_t,
    attrs: c_ulong,
) -> *mut c_void {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    let twin = mapper.twin.as_raw();
    // SAFETY: The mask that the device's driver has set, see the twin's text.
    unsafe { (*twin).coherent_dma_mask = (*dev).coherent_dma_mask };
    // SAFETY: The twin takes what the device does.
    let alloc = || unsafe { bindings::dma_alloc_attrs(twin, size, handle, gfp, attrs) };
    let memory = mapper.insist(|| NonNull::new(alloc()));
    memory.map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn free<D: Driver>(
    dev: *mut bindings::device,
    size: usize,
    virt: *mut c_void,
    handle: bindings::dma_addr_t,
    attrs: c_ulong,
) {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    // SAFETY: The twin takes what the device does.
    unsafe { bindings::dma_free_attrs(mapper.twin.as_raw(), size, virt, handle, attrs) };
    mapper.unmapped(handle, size as u64);
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn alloc_pages<D: Driver>(
    dev: *mut bindings::device,
    size: usize,
    handle: *mut bindings::dma_addr_t,
    direction: Direction,
    gfp: bindings::gfp_t,
) -> *mut bindings::page {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    let twin = mapper.twin.as_raw();
    // SAFETY: As in `alloc`.
    unsafe { (*twin).coherent_dma_mask = (*dev).coherent_dma_mask };
    // SAFETY: The twin takes what the device does.
    let alloc = || unsafe { bindings::dma_alloc_pages(twin, size, handle, direction, gfp) };
    let pages = mapper.insist(|| NonNull::new(alloc()));
    pages.map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn free_pages<D: Driver>(
    dev: *mut bindings::device,
    size: usize,
    page: *mut bindings::page,
    handle: bindings::dma_addr_t,
    direction: Direction,
) {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    // SAFETY: The pages are the caller's.
    if mapper.taken_over && !unsafe { mapper.is_one_block(page, handle, size) } {
        mapper.leak(handle);
        return;
    }
    // SAFETY: The twin takes what the device does.
    unsafe { bindings::dma_free_pages(mapper.twin.as_raw(), size, page, handle, direction) };
    mapper.unmapped(handle, size as u64);
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn mmap<D: Driver>(
    dev: *mut bindings::device,
    vma: *mut bindings::vm_area_struct,
    virt: *mut c_void,
    handle: bindings::dma_addr_t,
    size: usize,
    attrs: c_ulong,
) -> c_int {
    // SAFETY: By the contract.
    let twin = unsafe { mapper::<D>(dev) }.twin.as_raw();
    // SAFETY: The twin takes what the device does.
    unsafe { bindings::dma_mmap_attrs(twin, vma, virt, handle, size, attrs) }
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn get_sgtable<D: Driver>(
    dev: *mut bindings::device,
    table: *mut bindings::sg_table,
    virt: *mut c_void,
    handle: bindings::dma_addr_t,
    size: usize,
    attrs: c_ulong,
) -> c_int {
    // SAFETY: By the contract.
    let twin = unsafe { mapper::<D>(dev) }.twin.as_raw();
    // SAFETY: The twin takes what the device does.
    unsafe { bindings::dma_get_sgtable_attrs(twin, table, virt, handle, size, attrs) }
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn max_mapping_size<D: Driver>(dev: *mut bindings::device) -> usize {
    // SAFETY: By the contract.
    let twin = unsafe { mapper::<D>(dev) }.twin.as_raw();
    // SAFETY: The twin takes what the device does.
    unsafe { bindings::dma_max_mapping_size(twin) }
}

/// What the core would say. Drivers ask when they probe, and the policy may change after that; and units
/// without tables have their addresses from the core.
///
/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn opt_mapping_size<D: Driver>() -> usize {
    D::ops().optimal_size().load(Relaxed)
}

/// # Safety
///
/// Called by the DMA API as this operation.
unsafe extern "C" fn get_merge_boundary(_dev: *mut bindings::device) -> c_ulong {
    PAGE_SIZE as c_ulong - 1
}
