// SPDX-License-Identifier: GPL-2.0

//! The policy `lazy` where units keep no table: what is unmapped is kept for a while.
//!
//! There are no entries that a window could write to; each mapping is a request to the unit, and so is
//! its end. So mappings are the core's, in a domain with a queue, but the end of each is put off: mapped
//! again in the meantime, it costs nothing.
//!
//! The core is always given whole pages, so that what is kept is mapped and unmapped alike. It gives the
//! addresses, and has them back when units have forgotten the mapping: what ends does not go through the
//! core's queue, which nobody can empty who is short of addresses. So mappings are made by the calls that
//! keep addresses and mappings apart. Kernels that check the use of the DMA API do not look at these, and
//! do not take what is kept for a mapping in use.

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
        ending::{
            Ending,
            Ends, //
        },
        glue::delay,
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
    raw,
    timer::{
        Expire,
        Timer, //
    }, //
};
use kernel::{
    error::to_result,
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
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    time::Delta, //
};

/// Mappings that are kept at most, for a device: 127 sets of places. As many as eight disk requests of
/// 512 KB in scattered pages have, nearly.
const PLACES: usize = 1016;

/// Of the addresses that a device reaches, what is kept has one in so many at most.
const SHARE: u64 = 8;

/// Mappings that have lost their place and wait for others to end with, at most: as many as the core's
/// queue of a CPU has.
const LEAVING: usize = 255;

/// How often an allocation is tried again, each time after all was ended that others have unmapped
/// meanwhile.
const TRIES: u32 = 8;

/// What is said to the core of every mapping here: on this architecture devices see what the CPU has
/// written anyway.
const ATTRS: c_ulong = bindings::DMA_ATTR_SKIP_CPU_SYNC as c_ulong;

struct State {
    kept: Kept<KVVec<Slot>>,
    /// Still mapped, but not to be used again.
    leaving: Ending<KVVec<Mapping>>,
    /// Something else was unmapped that units need not have forgotten.
    owed: bool,
    /// The timer runs.
    ticking: bool,
    max_age_ms: u32,
}

impl State {
    fn has_any(&self) -> bool {
        self.kept.held() > 0 || !self.leaving.is_empty()
    }

    /// How long the timer has to run, if it has to: it does from now on.
    ///
    /// After two such steps there is time left for the unit to answer, and for a late timer.
    fn tick(&mut self) -> Option<Delta> {
        self.ticking = self.max_age_ms > 0 && (self.owed || self.has_any());
        self.ticking
            .then(|| Delta::from_nanos(delay(self.max_age_ms).as_nanos() / 2))
    }
}

/// Which of the mappings that are kept are ended; those that are leaving are in any case.
#[derive(Clone, Copy)]
enum Which {
    All,
    /// What has been for too long.
    Due,
    None,
}

/// What is kept for a device.
#[pin_data(PinnedDrop)]
pub(super) struct Keeper<D: Driver> {
    twin: Arc<Twin>,
    domain: Arc<Domain<D>>,
    /// What is being ended; else it has none. Held until the addresses are free, so that who has found none,
    /// and finds nothing kept with this lock held, knows that all of them are.
    #[pin]
    ending: SpinLockIrq<Ending<KVVec<Mapping>>>,
    /// Only the timer is started with it held.
    #[pin]
    state: SpinLockIrq<State>,
    back: Atomic<u64>,
    timer: Pin<KBox<Timer>>,
}

/// So many places. Errors: `ENOMEM`. Context: may sleep.
fn places<T: Default>(count: usize) -> Result<KVVec<T>> {
    let mut places = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        places
            .push_within_capacity(T::default())
            .map_err(|_| ENOMEM)?;
    }
    Ok(places)
}

impl<D: Driver> Keeper<D> {
    /// Keeps nothing yet. Errors: `ENOMEM`, `ENODEV`. Context: may sleep.
    pub(super) fn new(
        twin: Arc<Twin>,
        domain: Arc<Domain<D>>,
        max_age_ms: u32,
    ) -> Result<Arc<Self>> {
        // SAFETY: By the twin's invariant, its mask is the device's.
        let limit = unsafe { raw::dma_limit(twin.as_raw()) };
        let reach = domain.reach(limit);
        let state = State {
            kept: Kept::new(places(PLACES)?, (reach / SHARE) >> PAGE_SHIFT),
            leaving: Ending::new(places(LEAVING)?),
            owed: false,
            ticking: false,
            max_age_ms,
        };
        // And one that finds no place among those that are leaving.
        let ending = Ending::new(places(PLACES + LEAVING + 1)?);
        Arc::pin_init(
            try_pin_init!(&this in Self {
                twin,
                domain,
                ending <- named::spinlock_irq!(ending, "iommu ending mappings"),
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
        self.let_go(state, gone);
        Ok(())
    }

    /// Ends a mapping that has no place, some time or other with more of them.
    fn let_go(&self, mut state: SpinLockIrqGuard<'_, State>, gone: Option<Mapping>) {
        let over = gone.and_then(|gone| state.leaving.add(gone).err());
        self.start_timer_once(&mut state);
        drop(state);
        if over.is_some() {
            // What units do not forget stays theirs, see `Ending::end`.
            let _ = self.end(Which::None, over);
        }
    }

    /// Something was unmapped that the core's queue may put off: no longer than the maximum age. Context: any.
    pub(super) fn note(&self) {
        let mut state = self.state.lock();
        state.owed = true;
        self.start_timer_once(&mut state);
    }

    fn start_timer_once(&self, state: &mut State) {
        if !state.ticking {
            self.start_timer(state);
        }
    }

    fn start_timer(&self, state: &mut State) {
        if let Some(delay) = state.tick() {
            self.timer.start(delay);
        }
    }

    /// Ends mappings, `more` as well, and has the unit forget them, and all else that was unmapped in the
    /// domain, at once. Returns how many they were.
    ///
    /// Errors: `EIO`, `ETIMEDOUT`. Context: any.
    fn end(&self, which: Which, more: Option<Mapping>) -> Result<usize> {
        let mut ending = self.ending.lock();
        let mut state = self.state.lock();
        // There is place for all.
        let mut add = |mapping| {
            let _ = ending.add(mapping);
        };
        state.leaving.drain(&mut add);
        let all = match which {
            Which::All => Some(true),
            Which::Due => Some(false),
            Which::None => None,
        };
        if let Some(all) = all {
            let mut at = 0;
            while let Some(mapping) = state.kept.next(&mut at, all) {
                add(mapping);
            }
        }
        drop(state);
        more.into_iter().for_each(add);
        ending.end(self)
    }

    /// Ends all that is kept, and has the unit forget it. Returns how many were. Errors and context as
    /// above.
    pub(super) fn drain(&self) -> Result<usize> {
        self.end(Which::All, None)
    }

    /// Changes how long something is kept, 0: until its place is needed. Errors and context as for
    /// [`drain`](Self::drain).
    pub(super) fn set_max_age(&self, ms: u32) -> Result {
        let mut state = self.state.lock();
        state.max_age_ms = ms;
        // If the timer runs, it does for the old age.
        self.start_timer(&mut state);
        drop(state);
        self.drain().map(drop)
    }

    /// How many are kept, and how many were used again.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.state.lock().kept.held(), self.back.load(Relaxed))
    }
}

impl<D: Driver> Ends for Keeper<D> {
    type Error = Error;

    fn unmap(&self, mapping: &Mapping) -> bool {
        let bytes = (mapping.pages as usize) << PAGE_SHIFT;
        let domain = self.domain.as_iommu_domain();
        // CAST: 64 bits both.
        let iova = mapping.iova as usize;
        // SAFETY: The domain is `self`'s. Mapped in it for the twin, or for the device before it had operations of
        // ours; and nobody has it any more.
        unsafe { bindings::rust_iommu_unmap_deferred(domain, iova, bytes) == bytes }
    }

    fn flush(&self) -> Result {
        self.domain.flush(&Invalidation::All).map(drop)
    }

    fn free(&self, mapping: &Mapping) {
        let mut state = bindings::dma_iova_state {
            addr: mapping.iova,
            __size: u64::from(mapping.pages) << PAGE_SHIFT,
        };
        // SAFETY: To the core it is a range of addresses of just that size, whichever of its functions has taken
        // it. Nothing is mapped there, and units have forgotten what was.
        unsafe { bindings::dma_iova_free(self.twin.as_raw(), &mut state) };
    }
}

impl<D: Driver> Expire for Keeper<D> {
    fn expire(&self) {
        let mut state = self.state.lock();
        state.kept.step();
        // What comes from here on may come too late for this flush.
        state.owed = false;
        drop(state);
        let ended = self.end(Which::Due, None);
        let mut state = self.state.lock();
        state.owed |= ended.is_err();
        self.start_timer(&mut state);
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
    /// Has the core map or allocate something. Where it cannot, what is kept may be in the way, as addresses
    /// or as what the unit has no memory for: that is ended, and the core asked again.
    ///
    /// Others may map and unmap meanwhile: what was ended they may have, and what they unmap is kept again. So
    /// this goes on while there is something to end, but not for ever.
    ///
    /// Context: that of `map`.
    pub(super) fn insist<T>(&self, mut map: impl FnMut() -> Option<T>) -> Option<T> {
        let mut mapped = map();
        for _ in 0..TRIES {
            if mapped.is_some() {
                break;
            }
            let keeper = self.keeper()?;
            let ended = keeper.drain().ok()?;
            mapped = map();
            if ended == 0 && !keeper.state.lock().has_any() {
                break;
            }
        }
        mapped
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

    /// Has the core give addresses to whole pages, and maps them. `None` if it cannot. Context: any.
    fn map_pages(&self, phys: u64, bytes: usize, direction: Direction) -> Option<u64> {
        let twin = self.twin.as_raw();
        let mut state = bindings::dma_iova_state::default();
        // SAFETY: The twin has the core's implementation of the DMA API.
        if !unsafe { bindings::dma_iova_try_alloc(twin, &mut state, phys, bytes) } {
            return None;
        }
        // SAFETY: Taken for the twin just now, and of that size.
        let linked = to_result(unsafe {
            bindings::dma_iova_link(twin, &mut state, phys, 0, bytes, direction, ATTRS)
        });
        if linked.is_err() {
            // SAFETY: As above, and nothing is linked.
            unsafe { bindings::dma_iova_free(twin, &mut state) };
            return None;
        }
        // SAFETY: Linked just now.
        let told = to_result(unsafe { bindings::dma_iova_sync(twin, &mut state, 0, bytes) });
        if told.is_err() {
            // SAFETY: All of it is linked.
            unsafe { bindings::dma_iova_destroy(twin, &mut state, bytes, direction, ATTRS) };
            return None;
        }
        Some(state.addr)
    }

    /// Unmaps what [`map_pages`](Self::map_pages) has mapped, in the way of the group's type.
    fn unmap_pages(&self, iova: u64, bytes: usize, direction: Direction) {
        let twin = self.twin.as_raw();
        if !cfg!(CONFIG_DMA_API_DEBUG) {
            // SAFETY: Mapped in the device's domain, and nobody has it any more. Which function has mapped is
            // the same to the core.
            unsafe { bindings::dma_unmap_phys(twin, iova, bytes, direction, ATTRS) };
            return;
        }
        // That would be taken for a mistake.
        let mut state = bindings::dma_iova_state {
            addr: iova,
            __size: bytes as u64,
        };
        // SAFETY: As above.
        unsafe { bindings::dma_iova_destroy(twin, &mut state, bytes, direction, ATTRS) };
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
                let limit = unsafe { raw::dma_limit(dev) };
                if iova + ((pages as u64) << PAGE_SHIFT) - 1 <= limit {
                    return iova + offset;
                }
                // The driver has narrowed the device's mask since.
                let mapping = Mapping {
                    frame: start >> PAGE_SHIFT,
                    iova,
                    pages: count,
                    access: direction.0,
                };
                keeper.let_go(keeper.state.lock(), Some(mapping));
            }
        }
        let mapped = self.insist(|| self.map_pages(start, pages << PAGE_SHIFT, direction));
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
        self.unmap_pages(start, bytes, direction);
        self.unmapped(start, bytes as u64);
    }
}
