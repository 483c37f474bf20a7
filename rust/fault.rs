// SPDX-License-Identifier: GPL-2.0

//! Refused requests, reported to who uses the device: `report_iommu_fault()`.
//!
//! A unit says at its interrupt what it has refused, by a source id. Who that is, and which domain it
//! is on, is kept by locks that sleep; and a handler that somebody has set for the domain
//! (`iommu_set_fault_handler()`) may want to map what is missing. So the interrupt only notes the
//! request, and a thread of the kernel's reports it:
//!
//! 1. the device that has the source id is looked up in the registry, whose lock is released again;
//! 2. the device's domain lock is taken, and the handler called with it held.
//!
//! Every attach, detach and release takes that lock, over all of what it does. So for as long as a
//! handler runs, the core has not released the device, and the domain is the one that the device is on,
//! with the reference that its attachment holds. A detach, a hot-unplug and a shutdown wait for a call
//! that is under way; once they have returned no handler is called for what was detached, and who set one
//! may free what it uses. A request that was refused before may be reported to the domain that came after it,
//! or not at all.
//!
//! No map, unmap or flush takes that lock: a handler may call them, and sleep. What it must not do is attach,
//! detach, change the group's policy, or wait for somebody who does.
//!
//! Nothing limits how often a handler is called: who maps on demand needs every request. What is limited is
//! how much is waiting, so that a device that never stops costs a thread's time, at a thread's priority.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use crate::{
    bindings,
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    inject,
    named,
    raw,
    work::{
        Run,
        Work, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLockIrq, //
    },
};

pub mod waiting;

pub use self::waiting::Refused;
use self::waiting::Waiting;

/// Requests of a unit that wait to be reported, at most.
const WAITING: usize = 64;

/// Reports in a row, before others have their turn.
const BATCH: usize = WAITING;

/// Reports what a unit has refused.
#[pin_data(PinnedDrop)]
pub struct Reports<D: Driver> {
    /// A leaf, taken at the unit's interrupt.
    #[pin]
    waiting: SpinLockIrq<Waiting<WAITING>>,
    #[pin]
    work: Work,
    /// The unit is registered, with these reports.
    open: Atomic<bool>,
    _driver: PhantomData<fn() -> D>,
}

impl<D: Driver> Reports<D> {
    /// Nothing was refused yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(&this in Self {
            waiting <- named::spinlock_irq!(Waiting::empty(), "iommu fault reports"),
            // SAFETY: Pinned, and `report` needs all of it; the drop stops the work.
            work <- unsafe { Work::new::<Self>(this.as_ptr()) },
            open: Atomic::new(false),
            _driver: PhantomData,
        })
    }

    /// Has a request reported, soon; it is dropped where as many as there may be are waiting. Does nothing
    /// unless these are the [`Driver::reports`] of a registered unit.
    ///
    /// Context: any.
    pub fn report(&self, refused: Refused) {
        if !self.open.load(Relaxed) {
            return;
        }
        self.waiting.lock().put(refused);
        self.work.start();
    }

    /// How many requests were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting.lock().dropped()
    }

    /// From here on there are reports. Who calls this calls [`stop`](Self::stop) before it gives up its
    /// reference to the unit.
    pub(crate) fn start(&self) {
        self.open.store(true, Relaxed);
    }

    /// Ends all reports for good, and waits for one that is under way.
    ///
    /// Context: may sleep; no lock may be held that a report takes.
    pub(crate) fn stop(&self) {
        self.open.store(false, Relaxed);
        self.work.stop();
    }

    fn take(&self) -> Option<Refused> {
        self.waiting.lock().take()
    }
}

#[pinned_drop]
impl<D: Driver> PinnedDrop for Reports<D> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}

impl<D: Driver> Run for Reports<D> {
    fn run(&self) {
        // What is found holds a reference to its unit, and so to this. It is not the last one: the
        // registration has one until it has stopped this.
        for _ in 0..BATCH {
            let Some(refused) = self.take() else {
                return;
            };
            if let Some(device) = find::<D>(&refused) {
                device.faults.fetch_add(1, Relaxed);
                let _ = inject::reach("fault", Some(&device.dev));
                report(&device, &refused);
            }
        }
        self.work.start();
    }
}

/// The device whose own source id this is. That of a bridge is the bridge, whoever made the request.
fn find<D: Driver>(refused: &Refused) -> Option<Arc<Device<D>>> {
    let registry = D::ops().registry().ok()?.lock();
    let mut devices = registry.groups.devices();
    devices
        .find(|device| device.source() == Some(refused.source))
        .cloned()
}

/// Reports a request that was refused to `device`, unless that is on no domain (any more).
fn report<D: Driver>(device: &Device<D>, refused: &Refused) {
    let place = device.place.lock();
    let domain = match &place.state {
        State::Untouched | State::Released => return,
        State::Blocked => D::ops().blocked(),
        State::Identity => D::ops().identity(),
        State::Paging(at) => at.domain.as_iommu_domain(),
    };
    let flags = if refused.write {
        bindings::IOMMU_FAULT_WRITE
    } else {
        bindings::IOMMU_FAULT_READ
    };
    // What a handler answers has no effect: the line was printed at the interrupt.
    // SAFETY: `place` is locked: the device is on that domain, which is static or held by `at`, and is not
    // released, so that it is registered. Both stay so during the call.
    let _ = unsafe {
        bindings::report_iommu_fault(
            domain,
            raw::as_raw(&device.dev),
            // CAST: 64 bits both; 0 or 1.
            refused.iova as c_ulong,
            flags as c_int,
        )
    };
}
