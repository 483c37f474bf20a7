// SPDX-License-Identifier: GPL-2.0

//! Refused requests, reported to who uses the device: `report_iommu_fault()`.
//!
//! A unit says at its interrupt what it has refused, by a source id. Who that is, and which domain it
//! is on, is kept by locks that sleep; and a handler that somebody has set for the domain
//! (`iommu_set_fault_handler()`) may want to map what is missing. So the interrupt only notes the
//! request, and a thread of the kernel's reports it:
//!
//! 1. the device that has the source id is looked up in the registry, whose lock is released again;
//! 2. which domain it is on is read, with the device's domain lock held, which is released again;
//! 3. the handler is called with a lock of that domain held, which the end of the domain takes too.
//!
//! So once `iommu_domain_free()` has returned no handler of that domain is called, nor is one under way, and who
//! set one may free what it uses. A detach does not wait: after it a call may be under way, or begin, as with
//! the kernel's own driver for AMD-Vi. A request may be reported to the domain that came after the one that refused it,
//! or not at all.
//!
//! A handler may sleep, map and unmap. It must not free a domain that has a handler, its own or another, nor
//! wait for somebody who does or take a lock that is held over that.
//!
//! Nothing limits how often a handler is called: who maps on demand needs every request. What is limited is
//! how much is waiting, so that a device that never stops costs a thread's time, at a thread's priority.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use crate::{
    bindings,
    domain::Domain,
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
        let _ = inject::reach("fault.stop", None);
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
        let Some(refused) = self.take() else {
            return;
        };
        // One at a time: who stops this does not wait for the end of a storm.
        self.work.start();
        if let Some(device) = find::<D>(&refused) {
            let _ = inject::reach("fault", Some(&device.dev));
            report(&device, &refused);
        }
    }
}

/// The device whose own source id this is, whoever made the request: a bridge to conventional PCI puts another one
/// there, which can be nobody's, or that of a neighbour.
fn find<D: Driver>(refused: &Refused) -> Option<Arc<Device<D>>> {
    let registry = D::ops().registry().ok()?.lock();
    let mut devices = registry.groups.devices();
    devices
        .find(|device| device.source() == Some(refused.source))
        .cloned()
}

/// Reports a request that was refused to `device`, unless that is on no domain (any more).
fn report<D: Driver>(device: &Device<D>, refused: &Refused) {
    let (domain, paging) = match &device.place.lock().state {
        State::Untouched | State::Released => return,
        State::Blocked(_) => (D::ops().blocked(), None),
        State::Identity => (D::ops().identity(), None),
        State::Paging(at) => (at.domain.as_iommu_domain(), Some(at.domain.clone())),
    };
    device.faults.fetch_add(1, Relaxed);
    let _ = inject::reach("fault.domain", Some(&device.dev));
    let flags = if refused.write {
        bindings::IOMMU_FAULT_WRITE
    } else {
        bindings::IOMMU_FAULT_READ
    };
    // Until this is released whoever has set a handler keeps what it uses: see `end`.
    let _reports = paging.as_ref().map(|domain| domain.reports.lock());
    // What a handler answers has no effect: the line was printed at the interrupt.
    // SAFETY: The domain is static, without a handler, or held by `paging`. `device` holds a reference to the
    // device, which may be off its bus by now; no more is needed.
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

/// Has no handler of `domain` called from now on, and waits for a call that is under way. For the end of the
/// domain: endpoints that could not be detached may still hold it.
///
/// Context: may sleep; with a handler, no lock may be held that it takes.
pub(crate) fn end<D: Driver>(domain: &Domain<D>) {
    let raw = domain.as_iommu_domain();
    // SAFETY: The domain is part of `domain`; only the place is formed.
    let cookie = unsafe { &raw mut (*raw).cookie_type };
    // The core frees its own domains with locks held that a handler of another one may take.
    // SAFETY: Valid as above; it was set before the domain was attached, and nobody sets it while it is freed.
    if unsafe { cookie.read() } != bindings::iommu_domain_cookie_type_IOMMU_COOKIE_FAULT_HANDLER {
        return;
    }
    let _ = inject::reach("fault.end", None);
    let _reports = domain.reports.lock();
    // SAFETY: As above; who reports looks at it with `reports` held.
    unsafe { cookie.write(bindings::iommu_domain_cookie_type_IOMMU_COOKIE_NONE) };
}
