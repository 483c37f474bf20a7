// SPDX-License-Identifier: GPL-2.0

//! A range of the core's IOVA space, and its leaf entries as one array.

use super::{
    format::Format,
    twin::Twin, //
};
use crate::{
    bindings,
    domain::Domain,
    driver::Driver,
    invalidation::Invalidation,
    pt::PageTable, //
};
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    page::{
        Page,
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// Entries of a table.
const ENTRIES: usize = PAGE_SIZE / size_of::<u64>();

/// What one table of the lowest level translates.
const REACH: usize = PAGE_SIZE * ENTRIES;

/// A range of IOVAs, taken from the core.
///
/// # Invariants
///
/// `state` was filled by `dma_iova_try_alloc()` for `twin`, which outlives it. The first `linked`
/// tables' ranges have one page linked each, at their start.
struct Range<'a> {
    twin: &'a Twin,
    state: bindings::dma_iova_state,
    linked: usize,
}

/// The leaf entries of a range, in the order of its pages.
///
/// # Invariants
///
/// `base` is a mapping, which is ours, of `pages` entries: those of the lowest tables for
/// `state`, which the core does not map in, nor free, before the drop. `last` is its last address.
pub(crate) struct Leaves {
    twin: Arc<Twin>,
    state: bindings::dma_iova_state,
    base: NonNull<Atomic<u64>>,
    pages: usize,
    last: u64,
    incoherent: bool,
    /// What an entry becomes before the range is given back.
    filled: fn(u64) -> u64,
}

fn filled<F: Format>(entry: u64) -> u64 {
    if F::is_present(entry) {
        entry
    } else {
        F::FILLER
    }
}

// SAFETY: A mapping of kernel memory, used through atomics.
unsafe impl Send for Leaves {}
// SAFETY: As above.
unsafe impl Sync for Leaves {}

/// Addresses that a range of `bytes` is looked for in first: a few times its size.
fn low(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(4) - 1
}

/// A device that the core finds addresses for as it does for `twin`, but none above `limit`. It must
/// not outlive the twin.
fn limited(twin: &Twin, limit: u64) -> Result<Pin<KBox<Opaque<bindings::device>>>> {
    let twin = twin.as_raw();
    let device = Opaque::ffi_init(|device: *mut bindings::device| {
        // SAFETY: Memory of this size that nobody else has yet; see `Twin::new`.
        unsafe { device.write_bytes(0, 1) };
        // SAFETY: Written above, and like a device as far as the function looks.
        unsafe { bindings::rust_iommu_twin_init(device, twin, c"rust_iommu".as_char_ptr()) };
        // SAFETY: As above.
        let bus = unsafe { &mut (*device).bus_dma_limit };
        *bus = if *bus == 0 { limit } else { limit.min(*bus) };
    });
    KBox::pin_init(device, GFP_KERNEL)
}

impl<'a> Range<'a> {
    /// Takes a range of `bytes`, a power of two that is at least [`REACH`]; it is aligned to that.
    ///
    /// It is low where it can be. The mask of a device's driver is not known yet, or that of another
    /// one in the group: what is out of its reach is of no use to it.
    ///
    /// Errors: `ENOSPC`, `ENOMEM`. Context: may sleep.
    fn new(twin: &'a Twin, bytes: usize) -> Result<Self> {
        let limited = limited(twin, low(bytes))?;
        let mut state = bindings::dma_iova_state::default();
        let found = [limited.get(), twin.as_raw()].into_iter().any(|device| {
            // SAFETY: A device with the core's implementation of the DMA API.
            unsafe { bindings::dma_iova_try_alloc(device, &mut state, 0, bytes) }
        });
        if !found {
            return Err(ENOSPC);
        }
        // INVARIANT: Filled just now; nothing is linked.
        Ok(Self {
            twin,
            state,
            linked: 0,
        })
    }

    /// Links a page at the start of what each table translates, so that the table is there.
    fn link(&mut self, bytes: usize, page: &Page) -> Result {
        // SAFETY: The page is ours.
        let phys = unsafe { bindings::rust_iommu_page_to_phys(page.as_ptr()) };
        while self.linked * REACH < bytes {
            // SAFETY: In the range, by the loop's condition, and nothing is linked there.
            to_result(unsafe {
                bindings::dma_iova_link(
                    self.twin.as_raw(),
                    &mut self.state,
                    phys,
                    self.linked * REACH,
                    PAGE_SIZE,
                    bindings::dma_data_direction::DMA_TO_DEVICE,
                    bindings::DMA_ATTR_SKIP_CPU_SYNC as usize,
                )
            })?;
            // INVARIANT: Linked just now.
            self.linked += 1;
        }
        Ok(())
    }
}

impl Drop for Range<'_> {
    fn drop(&mut self) {
        for table in 0..self.linked {
            // SAFETY: By the type invariant one page is linked there.
            unsafe {
                bindings::dma_iova_unlink(
                    self.twin.as_raw(),
                    &mut self.state,
                    table * REACH,
                    PAGE_SIZE,
                    bindings::dma_data_direction::DMA_TO_DEVICE,
                    bindings::DMA_ATTR_SKIP_CPU_SYNC as usize,
                )
            };
        }
        // SAFETY: Taken by `new`; nothing is linked any more.
        unsafe { bindings::dma_iova_free(self.twin.as_raw(), &mut self.state) };
    }
}

impl Leaves {
    /// Takes a range of `bytes`, a power of two that is at least 2 MB, of the core's IOVA space,
    /// and finds its entries, which are all zero then.
    ///
    /// Errors: `ENOSPC`, `ENOMEM`, and what the core says. Context: may sleep.
    ///
    /// # Safety
    ///
    /// `domain` is the default domain of the twin's group, and stays so until the result is
    /// dropped.
    pub(crate) unsafe fn new<D: Driver>(
        twin: Arc<Twin>,
        domain: &Domain<D>,
        bytes: usize,
    ) -> Result<Self> {
        let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
        let mut range = Range::new(&twin, bytes)?;
        range.link(bytes, &page)?;
        let mut tables = KVVec::with_capacity(range.linked, GFP_KERNEL)?;
        for table in 0..range.linked {
            let iova = range.state.addr + (table * REACH) as u64;
            // SAFETY: The page that is linked there keeps the table.
            let phys = unsafe { domain.table().lowest_table(iova) }.ok_or(EIO)?;
            // SAFETY: Tables are pages of the direct map.
            let page = unsafe { bindings::rust_iommu_phys_to_page(phys) };
            tables.push_within_capacity(page).map_err(|_| ENOMEM)?;
        }
        // SAFETY: These are pages, which stay.
        let base = unsafe { bindings::rust_iommu_vmap(tables.as_mut_ptr(), tables.len() as u32) };
        let base = NonNull::new(base.cast::<Atomic<u64>>()).ok_or(ENOMEM)?;
        let state = core::mem::take(&mut core::mem::ManuallyDrop::new(range).state);
        // INVARIANT: Mapped just now; the range, of so many bytes, is not given back by its drop.
        let this = Self {
            twin,
            base,
            pages: bytes >> PAGE_SHIFT,
            last: state.addr + (bytes as u64 - 1),
            state,
            incoherent: D::Table::is_incoherent(&domain.config),
            filled: filled::<<D::Table as PageTable>::Vacant>,
        };
        // What was linked goes out of the table, and then of the caches; the page is freed after that.
        for leaf in this.entries().iter().step_by(ENTRIES) {
            leaf.store(0, Relaxed);
        }
        this.written(this.entries());
        if domain.flush(&Invalidation::All).is_err() {
            core::mem::forget(page);
        }
        Ok(this)
    }

    /// The first address.
    #[inline]
    pub(crate) fn iova(&self) -> u64 {
        self.state.addr
    }

    /// The last address.
    #[inline]
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    #[inline]
    pub(crate) fn entries(&self) -> &[Atomic<u64>] {
        // SAFETY: By the type invariant; entries are aligned words, which CPUs change by atomics.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.pages) }
    }

    /// Makes the hardware see entries that were written.
    #[inline]
    pub(crate) fn written(&self, entries: &[Atomic<u64>]) {
        if !self.incoherent {
            return;
        }
        // SAFETY: Memory of this size. CAST: at most 32 MB of entries for a window of 16 GB.
        unsafe {
            bindings::clflush_cache_range(
                entries.as_ptr().cast_mut().cast(),
                core::mem::size_of_val(entries) as u32,
            )
        };
    }
}

impl Drop for Leaves {
    /// Gives the range back, and the tables; whatever is mapped in it is unmapped, and flushed.
    fn drop(&mut self) {
        // generic_pt stops at what it does not take for a page. Nobody else writes any more.
        for leaf in self.entries() {
            leaf.store((self.filled)(leaf.load(Relaxed)), Relaxed);
        }
        // SAFETY: Ours, by the type invariant.
        unsafe { bindings::vunmap(self.base.as_ptr().cast()) };
        let bytes = self.pages << PAGE_SHIFT;
        // SAFETY: The range is the twin's, and each page of it has an entry that is not zero.
        unsafe {
            bindings::dma_iova_unlink(
                self.twin.as_raw(),
                &mut self.state,
                0,
                bytes,
                bindings::dma_data_direction::DMA_TO_DEVICE,
                bindings::DMA_ATTR_SKIP_CPU_SYNC as usize,
            )
        };
        // SAFETY: As above; nothing is linked any more.
        unsafe { bindings::dma_iova_free(self.twin.as_raw(), &mut self.state) };
    }
}
