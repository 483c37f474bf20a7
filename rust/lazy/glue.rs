// SPDX-License-Identifier: GPL-2.0

//! A window in the kernel: its table, its flush, its timer.

use super::{
    clock::Hardware,
    fit::{
        Geometry,
        CHUNK, //
    },
    leaves::Table,
    memory::Leaves,
    recent::places_for,
    twin::Twin,
    window::Window,
    word::Line, //
};
use crate::{
    domain::Domain,
    driver::Driver,
    invalidation::Invalidation,
    named,
    preemption,
    pt::PageTable,
    timer::{
        Expire,
        Timer, //
    }, //
};
use kernel::{
    cpu::nr_cpu_ids,
    page::PAGE_SHIFT,
    prelude::*,
    processor::cpu_relax,
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

/// What a timer may be late for, with what it does: a CPU that has interrupts off, a flush that is
/// waited for, a tick where there are no finer timers.
const LATE: Delta = Delta::from_millis(4);

/// When the flush is begun that has to be over after the maximum age.
pub(crate) fn delay(max_age_ms: u32) -> Delta {
    let age = Delta::from_millis(max_age_ms.into()).as_nanos();
    Delta::from_nanos(age - (age / 10).max(LATE.as_nanos().min(age / 2)))
}

/// The surroundings of a window.
pub(crate) struct Env<D: Driver> {
    leaves: Leaves,
    cursors: KVVec<Line<Atomic<u64>>>,
    recent: KVVec<Atomic<u64>>,
    pub(crate) domain: Arc<Domain<D>>,
    flushing: Pin<KBox<SpinLockIrq<()>>>,
    max_age_ms: Atomic<u32>,
    timer: Pin<KBox<Timer>>,
}

impl<D: Driver> Env<D> {
    /// The first address of the window.
    #[inline]
    pub(crate) fn iova(&self) -> u64 {
        self.leaves.iova()
    }
}

impl<D: Driver> Table for Env<D> {
    type Word = Atomic<u64>;
    type Format = <D::Table as PageTable>::Vacant;

    #[inline]
    fn leaves(&self) -> &[Atomic<u64>] {
        self.leaves.entries()
    }

    #[inline]
    fn cursors(&self) -> &[Line<Atomic<u64>>] {
        &self.cursors
    }

    #[inline]
    fn recent(&self) -> &[Atomic<u64>] {
        &self.recent
    }

    #[inline]
    fn written(&self, entries: &[Atomic<u64>]) {
        self.leaves.written(entries);
    }
}

impl<D: Driver> Hardware for Env<D> {
    type Error = Error;

    fn flush(&self) -> Result {
        let what = Invalidation::Range {
            start: self.iova(),
            last: self.leaves.last(),
            leaf_only: true,
        };
        self.domain.flush(&what).map(drop)
    }

    fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        let _flushing = self.flushing.lock();
        f()
    }

    fn exclusively_if_free<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let _flushing = self.flushing.try_lock()?;
        Some(f())
    }

    fn start_timer(&self) {
        // Whoever changes the age starts the timer after that, and the timer's own lock orders the two
        // starts: either the other one comes later, or what it has stored is seen here.
        loop {
            let age = self.max_age_ms.load(Relaxed);
            self.timer.start(delay(age));
            if self.max_age_ms.load(Relaxed) == age {
                return;
            }
        }
    }

    #[inline]
    fn promptly<R>(&self, f: impl FnOnce() -> R) -> R {
        preemption::off(f)
    }

    fn relax(&self) {
        cpu_relax();
    }
}

/// A window that devices map in.
#[pin_data(PinnedDrop)]
pub(crate) struct Lazy<D: Driver> {
    pub(crate) window: Window<Env<D>>,
}

impl<D: Driver> Lazy<D> {
    /// The last address.
    #[inline]
    pub(crate) fn last(&self) -> u64 {
        self.window.env().leaves.last()
    }

    /// Makes a window of `bytes`, a power of two that is at least 2 MB. Context: may sleep.
    ///
    /// Errors: `ENOMEM`, `ENOSPC`, and what the core says.
    ///
    /// # Safety
    ///
    /// `domain` is the default domain of the twin's group, and stays so until the result is
    /// dropped.
    pub(crate) unsafe fn new(
        twin: Arc<Twin>,
        domain: Arc<Domain<D>>,
        bytes: usize,
        max_age_ms: u32,
    ) -> Result<Arc<Self>> {
        // SAFETY: By the contract.
        let leaves = unsafe { Leaves::new(twin, &domain, bytes) }?;
        let cpus = nr_cpu_ids() as usize;
        let mut cursors = KVVec::with_capacity(cpus, GFP_KERNEL)?;
        for _ in 0..cpus {
            cursors
                .push_within_capacity(Line(Atomic::new(0)))
                .map_err(|_| ENOMEM)?;
        }
        let places = if domain.flushes_new {
            places_for(bytes >> PAGE_SHIFT)
        } else {
            0
        };
        let mut recent = KVVec::with_capacity(places, GFP_KERNEL)?;
        for _ in 0..places {
            recent
                .push_within_capacity(Atomic::new(0))
                .map_err(|_| ENOMEM)?;
        }
        let flushing = KBox::pin_init(named::spinlock_irq!((), "iommu lazy flush"), GFP_KERNEL)?;
        let geometry =
            Geometry::new(leaves.iova() >> PAGE_SHIFT, bytes >> PAGE_SHIFT, CHUNK).ok_or(EINVAL)?;
        Arc::pin_init(
            try_pin_init!(&this in Self {
                window: {
                    // SAFETY: Pinned by the `Arc`; nobody maps before it is initialised, and the
                    // drop stops the timer.
                    let timer = unsafe { Timer::new::<Self>(this.as_ptr()) };
                    let env = Env {
                        leaves,
                        cursors,
                        recent,
                        domain,
                        flushing,
                        max_age_ms: Atomic::new(max_age_ms),
                        timer: KBox::pin_init(timer, GFP_KERNEL)?,
                    };
                    Window::new(env, geometry, max_age_ms > 0).ok_or(EINVAL)?
                },
            }? Error),
            GFP_KERNEL,
        )
    }
}

impl<D: Driver> Lazy<D> {
    /// Changes the maximum age, 0 for none. What was unmapped before is not reached any more.
    ///
    /// Errors: the flush failed; the age is changed all the same. Context: any.
    pub(crate) fn set_max_age(&self, ms: u32) -> Result {
        let env = self.window.env();
        env.max_age_ms.store(ms, Relaxed);
        self.window.set_ageing(ms > 0);
        if ms > 0 {
            // One that runs already may be for an age that was longer.
            env.start_timer();
        }
        self.window.drain()
    }
}

impl<D: Driver> Expire for Lazy<D> {
    fn expire(&self) {
        if self.window.expire().is_err() {
            self.window.env().start_timer();
        }
    }
}

#[pinned_drop]
impl<D: Driver> PinnedDrop for Lazy<D> {
    fn drop(self: Pin<&mut Self>) {
        self.window.env().timer.stop();
    }
}
