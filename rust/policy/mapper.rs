// SPDX-License-Identifier: GPL-2.0

//! Devices for which the DMA API calls operations of ours, from the binding of a driver, or a change
//! of the policy while one is bound, to the driver's end.

use super::{
    keep::Keeper,
    name::Overlay,
    settings, //
};
use crate::{
    bindings,
    domain::Domain,
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    inject,
    invalidation::Invalidation,
    lazy::{
        glue::Lazy,
        twin::Twin, //
    },
    memory::top_of_ram,
    ops::Ops,
    pci::Function,
    peek::peek,
    pt::PageTable,
    raw, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        SetOnce, //
    },
};

/// Size of a window unless something asks for less: at 4 KB a request, a lap of 262144.
const USUAL: u64 = 1 << 30;

/// What one table of the lowest level translates: the least that a window can have.
const LEAST: u64 = 2 << 20;

/// What the DMA API's operations need of a device.
pub(crate) struct Mapper<D: Driver> {
    pub(crate) twin: Arc<Twin>,
    pub(crate) device: Arc<Device<D>>,
    /// The default domain, for as long as a driver uses it.
    pub(crate) domain: Arc<Domain<D>>,
    /// Made when the driver's probe has succeeded, and so has set the device's mask, or when the
    /// policy becomes `lazy` after that. Until then the core maps.
    window: SetOnce<Arc<Lazy<D>>>,
    /// Where it is, or 0: what is read for each mapping.
    lazy: Atomic<usize>,
    /// In the window's stead, where units keep no table.
    keeper: SetOnce<Arc<Keeper<D>>>,
    /// The driver was at work before.
    pub(super) taken_over: bool,
    wrong: Atomic<u32>,
}

impl<D: Driver> Mapper<D> {
    /// The window, if there is one.
    #[inline]
    pub(crate) fn window(&self) -> Option<&Lazy<D>> {
        let lazy = peek(&self.lazy) as *const Lazy<D>;
        // SAFETY: Stored by `make_window` after `window` was set, which then keeps it.
        unsafe { lazy.as_ref() }
    }

    /// What keeps mappings, if something does.
    #[inline]
    pub(super) fn keeper(&self) -> Option<&Keeper<D>> {
        self.keeper.as_ref().map(|keeper| &**keeper)
    }

    /// Completes what the policy `lazy` has put off. Errors: a flush failed. Context: any.
    pub(super) fn drain(&self) -> Result {
        if let Some(lazy) = self.window() {
            lazy.window.drain()?;
        }
        self.keeper()
            .map_or(Ok(()), |keeper| keeper.drain().map(drop))
    }

    /// Changes how long it is put off, 0: until all addresses were used. Errors: a flush failed; the age is
    /// changed all the same. Context: any.
    pub(super) fn set_max_age(&self, ms: u32) -> Result {
        if let Some(lazy) = self.window() {
            lazy.set_max_age(ms)?;
        }
        self.keeper()
            .map_or(Ok(()), |keeper| keeper.set_max_age(ms))
    }

    /// The window to map in, if that is the policy.
    #[inline]
    pub(crate) fn window_to_map(&self) -> Option<&Lazy<D>> {
        match self.device.overlay() {
            Overlay::Lazy => self.window(),
            Overlay::None | Overlay::Strict => None,
        }
    }

    /// Announces new mappings to hardware that remembers what was not mapped.
    #[cold]
    pub(crate) fn announce(&self, iova: u64, pages: usize) {
        // As for every map: the core's callback cannot fail for this either.
        let _ = self.flush(iova, (pages as u64) << PAGE_SHIFT);
    }

    /// Invalidates some addresses. Context: any.
    pub(crate) fn flush(&self, iova: u64, bytes: u64) -> Result {
        let what = Invalidation::Range {
            start: iova,
            last: iova + (bytes - 1),
            leaf_only: true,
        };
        self.domain.flush(&what).map(drop)
    }

    /// What was unmapped past the window under the policy `strict` is invalidated at once, where the
    /// core only queues that; and under `lazy` in time, where there is no window.
    #[inline]
    pub(crate) fn unmapped(&self, iova: u64, bytes: u64) {
        match self.device.overlay() {
            Overlay::Strict if self.domain.is_queued() => {
                // As for every unmap that fails: the core's queue flushes again before it reuses any.
                let _ = match D::Table::IS_REMOTE {
                    // The addresses are the queue's by now. Another CPU may have emptied it, and given them
                    // to somebody who mapped there: a unit must not be asked to forget that. It forgets what
                    // is deferred, which these are unless the queue had it do so.
                    true => self.domain.flush(&Invalidation::All).map(drop),
                    // Where units only cache, more than that is lost with nobody.
                    false => self.flush(iova, bytes),
                };
            }
            Overlay::Lazy => {
                if let Some(keeper) = self.keeper() {
                    keeper.note();
                }
            }
            Overlay::Strict | Overlay::None => (),
        }
    }

    /// Whether pages that were mapped at `iova` on are one allocation of the page allocator.
    ///
    /// # Safety
    ///
    /// `page` is the first of them, and they are mapped.
    pub(super) unsafe fn is_one_block(
        &self,
        page: *mut bindings::page,
        iova: u64,
        size: usize,
    ) -> bool {
        // SAFETY: By the contract.
        let phys = unsafe { bindings::rust_iommu_page_to_phys(page) };
        let domain = self.domain.as_iommu_domain();
        let follows = |offset: usize| {
            let offset = offset as u64;
            // SAFETY: The domain is `self`'s; what is looked up stays mapped, by the contract.
            unsafe { bindings::iommu_iova_to_phys(domain, iova + offset) == phys + offset }
        };
        // SAFETY: By the contract; a second page is asked for only if it belongs to them.
        let one = || unsafe { bindings::rust_iommu_pages_are_one(page, size) };
        (0..size).step_by(PAGE_SIZE).all(follows) && one()
    }

    /// Says that memory at `iova` is not freed, and stays mapped.
    #[cold]
    pub(super) fn leak(&self, iova: u64) {
        pr_warn!(
            "{}: memory at {iova:#x} was allocated before the policy was changed, and is leaked\n",
            &*self.device.name
        );
    }

    /// A driver unmaps what is not mapped.
    #[cold]
    pub(crate) fn complain(&self, iova: u64) {
        if self.wrong.fetch_add(1, Relaxed) < 8 {
            pr_warn!(
                "{}: its driver unmaps {iova:#x}, which is not mapped\n",
                &*self.device.name
            );
        }
    }

    /// Makes the window, or what there is in its stead, if there is none.
    ///
    /// Errors: `ENOMEM`, `ENOSPC`, and what the core says. Context: may sleep; the lock of the group's
    /// members is held, and a driver uses the DMA API.
    pub(super) fn make_window(&self) -> Result {
        if D::Table::IS_REMOTE {
            if self.keeper().is_none() {
                let max_age_ms = self.device.max_age_ms.load(Relaxed);
                let keeper = Keeper::new(self.twin.clone(), self.domain.clone(), max_age_ms)?;
                self.keeper.populate(keeper.clone());
                // Who has unmapped before that, and has seen nobody to note it.
                keeper.note();
            }
            return Ok(());
        }
        if self.window().is_some() {
            return Ok(());
        }
        // SAFETY: By the twin's invariant, its mask is the device's.
        let limit = unsafe { raw::dma_limit(self.twin.as_raw()) };
        let reach = self.domain.reach(limit);
        let mut bytes = window_bytes(reach, top_of_ram());
        // The core needs addresses, too.
        if bytes - 1 > reach / 2 {
            return Err(ENOSPC);
        }
        loop {
            // SAFETY: For as long as the device has a mapper, which has the window, its group's default
            // domain stays (`change::default_type`).
            let made = unsafe {
                Lazy::new(
                    self.twin.clone(),
                    self.domain.clone(),
                    // CAST: 64 bits both.
                    bytes as usize,
                    self.device.max_age_ms.load(Relaxed),
                )
            };
            match made {
                Err(ENOSPC) if bytes > LEAST => bytes /= 2,
                made => {
                    let made = made?;
                    let lazy = &raw const *made;
                    self.window.populate(made);
                    // Release: who sees the address sees what is there.
                    self.lazy.store(lazy as usize, Release);
                    return Ok(());
                }
            }
        }
    }
}

/// How large a window is made at first: a power of two. `reach` is how many addresses there are, less one.
fn window_bytes(reach: u64, memory: u64) -> u64 {
    let most = match settings::window_mb() {
        0 => USUAL.min(memory / 4),
        mb => u64::from(mb) << 20,
    };
    let most = most.min(reach / 4 + 1).max(LEAST);
    1 << most.ilog2()
}

fn mapper<D: Driver>(
    device: &Arc<Device<D>>,
    function: &Function<'_>,
    taken_over: bool,
) -> Result<KBox<Mapper<D>>> {
    let domain = match &device.place.lock().state {
        State::Paging(at) if at.domain.is_default() => at.domain.clone(),
        _ => return Err(ENODEV),
    };
    // SAFETY: The mapper is dropped by `stop`, before the device leaves its group.
    let twin = Arc::pin_init(unsafe { Twin::new(function.as_device()) }, GFP_KERNEL)?;
    // SAFETY: The twin's operations are the core's, and it has the device's masks.
    let optimal = unsafe { bindings::dma_opt_mapping_size(twin.as_raw()) };
    D::ops().optimal_size().store(optimal, Relaxed);
    let mapper = Mapper {
        twin,
        device: device.clone(),
        domain,
        window: SetOnce::new(),
        lazy: Atomic::new(0),
        keeper: SetOnce::new(),
        taken_over,
        wrong: Atomic::new(0),
    };
    Ok(KBox::new(mapper, GFP_KERNEL)?)
}

/// Whether the DMA API's calls can be taken over while a driver has allocated and mapped.
///
/// What it has from `dma_alloc_noncontiguous()` could not be given back: the DMA API decides by the
/// operations that are there then. So only for devices whose drivers have little use for that; what
/// there is, the host memory of an NVMe device without memory of its own, is leaked
/// ([`Mapper::leak`]). A kernel that checks the DMA API would take the twin's freeing of what the device
/// has for a mistake.
fn can_be_taken_over(function: &Function<'_>) -> bool {
    const STORAGE: u32 = 0x01;
    const NETWORK: u32 = 0x02;
    const OTHER: u32 = 0x00ff;
    let class = function.class() >> 8;
    !cfg!(CONFIG_DMA_API_DEBUG) && (matches!(class >> 8, STORAGE | NETWORK) || class == OTHER)
}

/// Has the DMA API call our operations for the device, if they are needed and it does not do so yet.
///
/// `running` says whether the driver may map already. Errors: `EPERM` for an untrusted device, `EBUSY` if
/// the driver may map and has to be bound anew, `ENOMEM` (also where there was none to be told of the driver's
/// end), `ENODEV` without a default domain that translates.
///
/// Context: may sleep; the device's lock and that of the group's members are held, and a driver that
/// uses the DMA API is bound or about to be.
pub(crate) fn start<D: Driver>(
    device: &Arc<Device<D>>,
    function: &Function<'_>,
    running: bool,
) -> Result {
    if device.mapper.load(Relaxed) != 0 {
        return Ok(());
    }
    let dev = raw::as_raw(function.as_device());
    // SAFETY: The device is registered.
    if !unsafe { bindings::rust_iommu_uses_dma_iommu(dev) } {
        return Err(ENODEV);
    }
    if function.is_untrusted() {
        // What the core copies for such a device, the twin would not copy back.
        return Err(EPERM);
    }
    if running && !can_be_taken_over(function) {
        return Err(EBUSY);
    }
    // What it makes has to end before the driver core forgets the driver (`change::default_type`).
    if !device
        .bound
        .lock()
        .as_ref()
        .is_some_and(|bound| bound.end_is_told)
    {
        return Err(ENOMEM);
    }
    let mapper = KBox::into_raw(mapper(device, function, running)?);
    device.mapper.store(mapper as usize, Relaxed);
    // SAFETY: The device's lock is held; what the operations need was stored before.
    unsafe { bindings::rust_iommu_dma_ops_set(dev, Ops::<D>::dma_ops(), running) };
    Ok(())
}

/// What the operations need, if they are ours.
///
/// # Safety
///
/// The lock of the group's members is held during `'a`, or a driver is bound that maps.
#[inline]
pub(crate) unsafe fn get<'a, D: Driver>(device: &Device<D>) -> Option<&'a Mapper<D>> {
    let mapper = peek(&device.mapper) as *const Mapper<D>;
    // SAFETY: Stored by `start`, and until `stop`, which the contract excludes.
    unsafe { mapper.as_ref() }
}

/// Ends what is put off and kept for the device. Errors: a flush failed. Context: may sleep; the lock of
/// the group's members is held.
pub(crate) fn release<D: Driver>(device: &Device<D>) -> Result {
    // SAFETY: The lock keeps `stop` away.
    unsafe { get(device) }.map_or(Ok(()), Mapper::drain)
}

/// Ends it.
///
/// Context: may sleep; the lock of the group's members is held. The driver has gone, and all that was
/// freed on its behalf.
pub(crate) fn stop<D: Driver>(device: &Device<D>, dev: &kernel::device::Device) {
    let mapper = device.mapper.load(Relaxed) as *mut Mapper<D>;
    if mapper.is_null() {
        return;
    }
    // SAFETY: Nobody maps for the device any more.
    unsafe { bindings::rust_iommu_dma_ops_clear(raw::as_raw(dev)) };
    let _ = inject::reach("stop", Some(dev));
    device.mapper.store(0, Relaxed);
    // SAFETY: `start` made it of a box, and nobody else takes it.
    drop(unsafe { KBox::from_raw(mapper) });
}

/// Says what the device's window is like, if there is one.
///
/// Context: may sleep; the lock of the group's members is held.
pub(crate) fn show<D: Driver>(
    device: &Device<D>,
    f: &mut core::fmt::Formatter<'_>,
) -> core::fmt::Result {
    // SAFETY: The lock keeps `stop` away.
    let Some(mapper) = (unsafe { get(device) }) else {
        return Ok(());
    };
    if let Some(keeper) = mapper.keeper() {
        let (kept, back) = keeper.counts();
        writeln!(f, "    {kept} mappings kept, {back} used again")?;
    }
    let Some(lazy) = mapper.window() else {
        return Ok(());
    };
    let counts = lazy.window.counts();
    writeln!(
        f,
        "    window at {:#x}, {} pages, {} mapped: {} laps, {} flushes, {} failed, {} searches",
        lazy.window.env().iova(),
        lazy.window.geometry().pages(),
        lazy.window.mapped(),
        counts.laps,
        counts.flushes,
        counts.failed,
        counts.searches
    )?;
    if mapper.domain.flushes_new {
        writeln!(f, "    {} mappings kept", lazy.window.kept())?;
    }
    Ok(())
}
