// SPDX-License-Identifier: GPL-2.0

//! The policy `lazy` where units keep no table: what is unmapped is kept for a while.
//!
//! There are no entries that a window could write to; each mapping is a request to the unit, and so is
//! its end. So mappings are the core's, in a domain with a queue, but the end of each is put off: mapped
//! again in the meantime, it costs nothing.
//!
//! The core is always given whole pages, so that what is kept is mapped and unmapped alike.

use super::{
    dma_ops::{
        Direction,
        MAPPING_ERROR, //
    },
    mapper::Mapper,
    name::Overlay,
    segments::pages, //
};
use crate::{
    bindings,
    domain::Domain,
    driver::Driver,
    invalidation::Invalidation,
    lazy::{
        kept::{
            Doubled,
            Kept,
            Mapping,
            Slot, //
        },
        twin::Twin, //
    },
    named,
    pt::PageTable,
    timer::{
        Expire,
        Timer, //
    }, //
};
use kernel::{
    ffi::c_ulong,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLockIrq, //
    },
    time::Delta, //
};

/// Mappings that are kept at most, for a device: 127 sets of places. As many as eight disk requests of
/// 512 KB in scattered pages have, nearly.
const PLACES: usize = 1016;

/// Of the addresses that a device reaches, what is kept has one in so many at most.
const SHARE: u64 = 8;

/// What is said to the core of every mapping here: on this architecture devices see what the CPU has
/// written anyway, and a kernel that checks the DMA API would take what is kept for a mapping in use.
const ATTRS: c_ulong = bindings::DMA_ATTR_SKIP_CPU_SYNC as c_ulong;

struct State {
    kept: Kept<KVVec<Slot>>,
    /// The timer runs.
    ticking: bool,
    max_age_ms: u32,
}

impl State {
    /// How long the timer has to run, if it has to: it does from now on.
    ///
    /// Of two such steps, what is left for the unit to answer, and for a late timer, is a tenth.
    fn tick(&mut self) -> Option<Delta> {
        self.ticking = self.max_age_ms > 0 && self.kept.held() > 0;
        let age = Delta::from_millis(self.max_age_ms.into()).as_nanos();
        self.ticking.then(|| Delta::from_nanos(age / 20 * 9))
    }
}

/// What is kept for a device.
#[pin_data(PinnedDrop)]
pub(super) struct Keeper<D: Driver> {
    twin: Arc<Twin>,
    domain: Arc<Domain<D>>,
    /// Only the timer is started with it held.
    #[pin]
    state: SpinLockIrq<State>,
    back: Atomic<u64>,
    timer: Pin<KBox<Timer>>,
}

impl<D: Driver> Keeper<D> {
    /// Keeps nothing yet. Errors: `ENOMEM`. Context: may sleep.
    pub(super) fn new(
        twin: Arc<Twin>,
        domain: Arc<Domain<D>>,
        max_age_ms: u32,
    ) -> Result<Arc<Self>> {
        let mut slots = KVVec::with_capacity(PLACES, GFP_KERNEL)?;
        for _ in 0..PLACES {
            slots
                .push_within_capacity(Slot::default())
                .map_err(|_| ENOMEM)?;
        }
        // SAFETY: The twin has the device's masks.
        let reach = unsafe { bindings::rust_iommu_dma_limit(twin.as_raw()) };
        let state = State {
            kept: Kept::new(slots, (reach / SHARE) >> PAGE_SHIFT),
            ticking: false,
            max_age_ms,
        };
        Arc::pin_init(
            try_pin_init!(&this in Self {
                twin,
                domain,
                state <- named::spinlock_irq!(state, "iommu kept mappings"),
                back: Atomic::new(0),
                timer: {
                    // SAFETY: Pinned by the `Arc`; nobody maps before it is initialised, and the drop
                    // stops the timer.
                    let timer = unsafe { Timer::new::<Self>(this.as_ptr()) };
                    KBox::pin_init(timer, GFP_KERNEL)?
                },
            }? Error),
            GFP_KERNEL,
        )
    }

    fn take(&self, frame: u64, pages: u32, access: Direction) -> Option<u64> {
        let taken = self.state.lock().kept.take(frame, pages, access.0);
        if taken.is_some() {
            self.back.fetch_add(1, Relaxed);
        }
        taken
    }

    fn put(&self, mapping: Mapping) -> Result<(), Doubled> {
        let mut state = self.state.lock();
        let gone = state.kept.put(mapping)?;
        if !state.ticking {
            self.start_timer(&mut state);
        }
        drop(state);
        if let Some(gone) = gone {
            self.unmap(&gone);
        }
        Ok(())
    }

    fn start_timer(&self, state: &mut State) {
        if let Some(delay) = state.tick() {
            self.timer.start(delay);
        }
    }

    /// Ends a mapping, as far as the core's queue does not put it off.
    fn unmap(&self, mapping: &Mapping) {
        let bytes = (mapping.pages as usize) << PAGE_SHIFT;
        let access = bindings::dma_data_direction(mapping.access);
        // SAFETY: Mapped by the core, for the twin, or for the device in the same domain before it had
        // operations of ours; and nobody has it any more.
        unsafe { bindings::dma_unmap_phys(self.twin.as_raw(), mapping.iova, bytes, access, ATTRS) };
    }

    /// Ends what is kept: all of it, or what has been for too long.
    fn release(&self, all: bool) {
        let mut at = 0;
        // One by one: others map meanwhile.
        let mut next = || self.state.lock().kept.next(&mut at, all);
        while let Some(mapping) = next() {
            self.unmap(&mapping);
        }
    }

    /// Ends all that is kept, and has the unit forget it. Errors: `EIO`, `ETIMEDOUT`. Context: any.
    pub(super) fn drain(&self) -> Result {
        self.release(true);
        self.domain.flush(&Invalidation::All).map(drop)
    }

    /// Changes how long something is kept, 0: until its place is needed. Errors and context as for
    /// [`drain`](Self::drain).
    pub(super) fn set_max_age(&self, ms: u32) -> Result {
        let mut state = self.state.lock();
        state.max_age_ms = ms;
        // If the timer runs, it does for the old age.
        self.start_timer(&mut state);
        drop(state);
        self.drain()
    }

    /// How many are kept, and how many were used again.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.state.lock().kept.held(), self.back.load(Relaxed))
    }
}

impl<D: Driver> Expire for Keeper<D> {
    fn expire(&self) {
        self.state.lock().kept.step();
        self.release(false);
        // What the core's queue has of it, or what others have unmapped. If it fails, that queue, which has
        // a timer of its own, tries it again.
        let _ = self.domain.flush(&Invalidation::All);
        self.start_timer(&mut self.state.lock());
    }
}

#[pinned_drop]
impl<D: Driver> PinnedDrop for Keeper<D> {
    fn drop(self: Pin<&mut Self>) {
        self.timer.stop();
        // Whoever does not answer has said so.
        let _ = self.drain();
    }
}

/// Whether a mapping with these attributes is like any other of the same memory.
pub(super) fn is_plain(attrs: c_ulong) -> bool {
    let harmless = bindings::DMA_ATTR_SKIP_CPU_SYNC
        | bindings::DMA_ATTR_NO_WARN
        | bindings::DMA_ATTR_WEAK_ORDERING
        | bindings::DMA_ATTR_DEBUGGING_IGNORE_CACHELINES;
    attrs & !(harmless as c_ulong) == 0
}

impl<D: Driver> Mapper<D> {
    /// Has the core map or allocate something. Where it cannot, what is kept may be in the way: that is
    /// ended, and the core asked once more.
    ///
    /// That helps where the unit has no memory left. Addresses do not come back by it at once, as the core's
    /// queue still has them; so what is kept has a few of those only ([`SHARE`]).
    ///
    /// Context: that of `map`.
    pub(super) fn insist<T>(&self, mut map: impl FnMut() -> Option<T>) -> Option<T> {
        map().or_else(|| {
            self.keeper()?.drain().ok()?;
            map()
        })
    }

    /// Has the core map memory. `None` if it cannot. Context: any.
    pub(super) fn map_in_core(
        &self,
        phys: u64,
        size: usize,
        direction: Direction,
        attrs: c_ulong,
    ) -> Option<u64> {
        let twin = self.twin.as_raw();
        self.insist(|| {
            // SAFETY: The twin takes what the device does.
            let iova = unsafe { bindings::dma_map_phys(twin, phys, size, direction, attrs) };
            // A kernel that checks the use of the DMA API wants each result looked at, and the
            // driver asks for its own device.
            // SAFETY: It is the twin's.
            let failed = unsafe { bindings::rust_iommu_dma_mapping_error(twin, iova) } != 0;
            (!failed).then_some(iova)
        })
    }

    /// Maps memory where units keep no table. [`MAPPING_ERROR`] if that is not possible. Context: any.
    pub(super) fn map_remote(
        &self,
        dev: *mut bindings::device,
        phys: u64,
        size: usize,
        direction: Direction,
    ) -> u64 {
        let offset = phys & (PAGE_SIZE as u64 - 1);
        let start = phys - offset;
        let pages = pages(phys, size as u64);
        let keeper = self
            .keeper()
            .filter(|_| self.device.overlay() == Overlay::Lazy);
        if let (Some(keeper), Ok(count)) = (keeper, u32::try_from(pages)) {
            if let Some(iova) = keeper.take(start >> PAGE_SHIFT, count, direction) {
                // SAFETY: A device that a driver maps for.
                let limit = unsafe { bindings::rust_iommu_dma_limit(dev) };
                if iova + ((pages as u64) << PAGE_SHIFT) - 1 <= limit {
                    return iova + offset;
                }
                // The driver has narrowed the device's mask since.
                keeper.unmap(&Mapping {
                    frame: start >> PAGE_SHIFT,
                    iova,
                    pages: count,
                    access: direction.0,
                });
            }
        }
        let mapped = self.map_in_core(start, pages << PAGE_SHIFT, direction, ATTRS);
        mapped.map_or(MAPPING_ERROR, |iova| iova + offset)
    }

    /// Unmaps what [`map_remote`](Self::map_remote) has mapped, or keeps it. Context: any.
    pub(super) fn unmap_remote(&self, iova: u64, size: usize, direction: Direction) {
        let start = iova & !(PAGE_SIZE as u64 - 1);
        let pages = pages(iova, size as u64);
        let keeper = self
            .keeper()
            .filter(|_| self.device.overlay() == Overlay::Lazy);
        if let (Some(keeper), Ok(count)) = (keeper, u32::try_from(pages)) {
            let remote = self.domain.table().remote();
            let Some(phys) = remote.and_then(|remote| remote.mappings.lock().phys(start)) else {
                self.complain(iova);
                return;
            };
            let kept = keeper.put(Mapping {
                frame: phys >> PAGE_SHIFT,
                iova: start,
                pages: count,
                access: direction.0,
            });
            if kept.is_err() {
                self.complain(iova);
                return;
            }
            // A change of the policy stores before it drains, which takes the lock that `put` has had: either
            // this sees the change, or that finds the mapping.
            if self.device.overlay() != Overlay::Lazy {
                let _ = keeper.drain();
            }
            return;
        }
        let bytes = pages << PAGE_SHIFT;
        // SAFETY: Mapped by `map_remote` for the twin.
        unsafe { bindings::dma_unmap_phys(self.twin.as_raw(), start, bytes, direction, ATTRS) };
        self.unmapped(start, bytes as u64);
    }
}
