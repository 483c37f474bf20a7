// SPDX-License-Identifier: GPL-2.0

//! Paging domains.

use crate::{
    attached::{
        self,
        Nodes, //
    },
    bindings,
    confine::{
        self,
        aperture::Aperture, //
    },
    driver::Driver,
    endpoint::Device,
    invalidation::Invalidation,
    named,
    pt::{
        walk::Range,
        PageTable, //
    },
    queue::Synced,
    remote,
    top::Growth,
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};

/// A page table with the list of who uses it.
///
/// The core holds one reference, as the `iommu_domain` at offset 0; every endpoint
/// that is attached holds another. The table is freed with the last one, so never
/// while an entry may point to it: an endpoint gives its reference up only with
/// proof that hardware has forgotten the tag, and leaks it otherwise.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(crate) struct Domain<D: Driver> {
    /// First, so that `iommu_domain *` is a pointer to the whole.
    #[pin]
    table: D::Table,
    pub(crate) config: <D::Table as PageTable>::Config,
    /// New mappings are announced to the units too. Fixed when the domain is made,
    /// because the core's path for those that need it is a different one.
    pub(crate) flushes_new: bool,
    /// Of which kind the core's queue is if it gets one. Fixed when the domain is made, as it is for
    /// the core.
    pub(crate) single_queue: bool,
    /// What the aperture of its group was when it was made.
    pub(crate) narrowed: Option<Aperture>,
    /// Outside the slot locks and the units' locks, inside the device's domain lock. The lock that
    /// generic_pt takes to change the top of the table.
    #[pin]
    pub(crate) attached: SpinLockIrq<Nodes<D>>,
    /// The unit that the domain was made for, and the tag on it. Kept while nothing is
    /// attached: the core does not expect that going back to a default domain fails.
    home: (UnitRef<D>, Arc<D::Tag>),
    /// A unit may still have a root of the table that is none any more.
    old_root: Atomic<bool>,
    /// Held while a handler of the domain may be called (`fault.rs`), with no lock of ours around it.
    #[pin]
    pub(crate) reports: Mutex<()>,
    /// What drivers that have gone were seen to have left mapped. Inside the device's domain
    /// lock.
    #[pin]
    pub(crate) left: Mutex<KVec<Range>>,
}

impl<D: Driver> Domain<D> {
    /// Makes an empty domain. The devices of the group that `device` is in can be attached to
    /// it without further memory.
    ///
    /// Errors: `ENOMEM`, `EINVAL` if the group's aperture has none of the table's addresses, and what the
    /// driver has for want of a tag. Context: may sleep.
    pub(crate) fn new(
        device: &Device<D>,
        config: <D::Table as PageTable>::Config,
        flushes_new: bool,
        node: i32,
    ) -> Result<Arc<Self>> {
        let unit = device.endpoint.unit.clone();
        let tag = Arc::new(D::alloc_tag(&unit)?, GFP_KERNEL)?;
        let nodes = KVec::with_capacity(device.group_size.load(Relaxed), GFP_KERNEL)?;
        // Whoever changes it from here on is seen by the attach.
        let narrowed = confine::aperture_of(&device.endpoint);
        let domain = Arc::pin_init(
            try_pin_init!(Self {
                // SAFETY: It is the first member.
                table <- unsafe { D::Table::for_domain(config, node, Growth::<D>::OPERATIONS) },
                config,
                flushes_new,
                single_queue: device.single_queue.load(Relaxed),
                narrowed,
                attached <- named::spinlock_irq!(nodes, "iommu domain attachments"),
                home: (unit, tag),
                old_root: Atomic::new(false),
                reports <- named::mutex!((), "iommu domain reports"),
                left <- named::mutex!(KVec::new(), "iommu domain leaks"),
                _: {
                    D::ops().domains().fetch_add(1, Relaxed);
                },
            }? Error),
            GFP_KERNEL,
        )?;
        if let Some(aperture) = narrowed {
            // SAFETY: Nobody else has the domain yet.
            unsafe { domain.narrow(&aperture) }?;
        }
        Ok(domain)
    }

    /// The tag to attach an endpoint of `unit` with. Errors: as for [`Driver::alloc_tag`], but
    /// not on the unit that the domain was made for. Context: may sleep.
    pub(crate) fn tag_for(&self, unit: &UnitRef<D>) -> Result<Arc<D::Tag>> {
        let (home, tag) = &self.home;
        if home.same(unit) {
            return Ok(tag.clone());
        }
        match attached::tag_on(&self.attached, unit) {
            Some(tag) => Ok(tag),
            None => Ok(Arc::new(D::alloc_tag(unit)?, GFP_KERNEL)?),
        }
    }

    /// Hands a reference to the core.
    pub(crate) fn into_core(this: Arc<Self>) -> *mut bindings::iommu_domain {
        Arc::into_raw(this).cast_mut().cast()
    }

    /// The domain's `iommu_domain`, for the core's fields.
    pub(crate) fn as_iommu_domain(&self) -> *mut bindings::iommu_domain {
        self.table.as_iommu_domain()
    }

    /// Has no table freed from now on that an unmap or a map takes out. Context: any.
    pub(crate) fn keep_tables(&self) {
        self.old_root.store(true, Relaxed);
    }

    /// Whether tables that were taken out may be freed. For who has flushed the domain after that, with the
    /// lock that [`keep_tables`](Self::keep_tables) was called under.
    pub(crate) fn frees_tables(&self) -> bool {
        D::Table::ROOT_AT.is_none() || !self.old_root.load(Relaxed)
    }

    /// Which addresses its users are told that they can map. `None` if there are none.
    pub(crate) fn aperture(&self) -> Option<Aperture> {
        confine::of_table(&self.table)
    }

    /// How many of these there are up to `limit`, less one.
    pub(crate) fn reach(&self, limit: u64) -> u64 {
        self.aperture().map_or(0, |aperture| {
            limit.min(aperture.last()).saturating_sub(aperture.first())
        })
    }

    /// Tells them of fewer.
    ///
    /// Errors: `EINVAL` if none are left.
    ///
    /// # Safety
    ///
    /// Nobody else has the domain yet.
    unsafe fn narrow(&self, to: &Aperture) -> Result {
        let left = self.aperture().and_then(|aperture| aperture.and(to));
        let left = left.ok_or(EINVAL)?;
        let domain = self.as_iommu_domain();
        // SAFETY: Part of `self`, and nobody else has it; only the place is formed.
        let geometry = unsafe { &raw mut (*domain).geometry };
        // SAFETY: As above.
        unsafe { (*geometry).aperture_start = left.first() };
        // SAFETY: As above.
        unsafe { (*geometry).aperture_end = left.last() };
        Ok(())
    }

    /// The table itself. Its root is to be had of [`Attached`](attached::Attached).
    pub(crate) fn table(&self) -> &D::Table {
        &self.table
    }

    /// The type of the domain: the table's, or the core's, which sets it before the first attach.
    /// Later it may become queued.
    fn kind(&self) -> u32 {
        let domain = self.as_iommu_domain();
        // SAFETY: The domain is part of `self`; only the place is formed.
        let kind = unsafe { &raw const (*domain).type_ };
        // SAFETY: Valid as above.
        unsafe { kind.read_volatile() }
    }

    /// Whether the DMA API maps here: the default domain of a group.
    pub(crate) fn is_default(&self) -> bool {
        self.kind() & bindings::__IOMMU_DOMAIN_DMA_API != 0
    }

    /// Whether the core queues invalidations.
    pub(crate) fn is_queued(&self) -> bool {
        self.kind() == bindings::IOMMU_DOMAIN_DMA_FQ
    }

    /// # Safety
    ///
    /// `domain` came from [`into_core`](Self::into_core) of the same driver, and its
    /// reference is not given up during `'a`.
    pub(crate) unsafe fn borrow<'a>(domain: *mut bindings::iommu_domain) -> &'a Self {
        // SAFETY: By the function's contract the pointer is that of a live `Self`:
        // the domain is at offset 0 (`repr(C)`, `table` first).
        unsafe { &*domain.cast::<Self>() }
    }

    /// A further counted reference.
    ///
    /// # Safety
    ///
    /// As for [`borrow`](Self::borrow).
    pub(crate) unsafe fn get(domain: *mut bindings::iommu_domain) -> Arc<Self> {
        // SAFETY: By the contract, the pointer came from `Arc::into_raw`; the
        // reference made here is not dropped (`ManuallyDrop`), because it is the core's.
        let core = core::mem::ManuallyDrop::new(unsafe { Arc::from_raw(domain.cast::<Self>()) });
        Arc::clone(&core)
    }

    /// Takes the core's reference back.
    ///
    /// # Safety
    ///
    /// As for [`borrow`](Self::borrow), and the core does not use `domain` any more.
    pub(crate) unsafe fn from_core(domain: *mut bindings::iommu_domain) -> Arc<Self> {
        // SAFETY: By the contract, this is the reference that `into_core` gave away.
        unsafe { Arc::from_raw(domain.cast::<Self>()) }
    }

    /// Invalidates `what` wherever the domain is cached. Context: atomic.
    pub(crate) fn flush(&self, what: &Invalidation) -> Result<Synced> {
        if let Some(remote) = self.table.remote() {
            return remote::flush(self, remote, what);
        }
        attached::flush(&self.attached, what)
    }
}

#[pinned_drop]
impl<D: Driver> PinnedDrop for Domain<D> {
    fn drop(self: Pin<&mut Self>) {
        D::ops().domains().fetch_sub(1, Relaxed);
    }
}
