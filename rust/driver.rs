// SPDX-License-Identifier: GPL-2.0

//! What an IOMMU driver implements.
//!
//! The framework owns every order that matters: when a tag is published to
//! flushers, when an entry is programmed, when memory may be freed. A driver only
//! says *how* one step is done on its hardware, so it has no way to do the steps
//! in another order.

use crate::{
    batch::Batch,
    fault::Reports,
    invalidation::Invalidation,
    locked::Locked,
    mappings::run::Run,
    ops::HasOps,
    pt::{
        PageTable,
        Root, //
    },
    queue::CommandQueue,
    resv::ResvList,
    unit::{
        Probing,
        UnitRef, //
    },
};
use kernel::{
    device::Device,
    prelude::*, //
};

/// What an endpoint's entry is to say.
pub enum Target<'a, D: Driver> {
    /// All DMA of the endpoint is refused.
    Blocked,
    /// DMA addresses are physical addresses.
    Identity,
    /// DMA goes through a page table.
    Paging {
        /// Where the table's root is and how deep the table is.
        root: Root<D::Table>,
        /// What the hardware's caches are keyed by for this domain on this unit.
        tag: &'a D::Tag,
    },
}

/// What a unit has counted since it was taken over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Commands that make it forget something, but for those that only wait for others.
    pub invalidations: u64,
    /// Submissions that it did not acknowledge in time.
    pub timeouts: u64,
    /// Requests of devices that it has reported as refused.
    pub faults: u64,
}

/// A property that the IOMMU core asks an endpoint's driver for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// `IOMMU_CACHE` mappings are coherent with the CPU's caches.
    CacheCoherency,
    /// A domain can track which pages were written.
    DirtyTracking,
}

/// An IOMMU driver.
///
/// Every method says which context it is called in. "May sleep" methods are called
/// with `group->mutex` or the core's probe mutex held; "atomic" ones with interrupts
/// disabled and spinlocks held.
#[vtable]
pub trait Driver: HasOps + Sized + Send + Sync + 'static {
    /// One remapping hardware unit. It locks what it has to by itself.
    type Unit: Send + Sync + 'static;
    /// Facts about an endpoint that do not change while it is there.
    type Endpoint: Send + Sync + 'static;
    /// The endpoint's own entries in the unit's tables; changed in
    /// [`program`](Self::program) only.
    type Slot: Send + 'static;
    /// What caches are keyed by (domain id, ASID, ...); dropping it frees the id.
    type Tag: Send + Sync + 'static;
    /// The unit's command queue.
    type Queue: CommandQueue;
    /// Page table format.
    type Table: PageTable;

    /// The device that firmware's own description of endpoints names as their unit, if the kernel
    /// reads that description too (VIOT): it then asks for an endpoint only who was registered with it.
    ///
    /// Context: may sleep.
    fn device(_unit: &Self::Unit) -> Option<&Device> {
        None
    }

    /// Finds the unit of a new device and collects what is needed to drive it.
    ///
    /// `ENODEV` declines the device: it is then none of this driver's, silently.
    /// The slot must have all memory that programming will need, and must not
    /// have changed what the hardware does with the device.
    ///
    /// Context: may sleep.
    fn probe(dev: &Probing<'_, Self>) -> Result<(UnitRef<Self>, Self::Endpoint, Self::Slot)>;

    /// Table configuration for a new paging domain, made for this endpoint.
    ///
    /// Context: may sleep.
    fn table_config(
        unit: &Self::Unit,
        endpoint: &Self::Endpoint,
    ) -> Result<<Self::Table as PageTable>::Config>;

    /// Whether a table of this configuration can be attached to the endpoint;
    /// `EINVAL` if not (the core then tries another domain).
    ///
    /// Context: may sleep.
    fn compatible(
        unit: &Self::Unit,
        endpoint: &Self::Endpoint,
        config: &<Self::Table as PageTable>::Config,
    ) -> Result;

    /// Whether new mappings need [`invalidate`](Self::invalidate) too, because the
    /// unit may cache that an address is not mapped, or buffers table stores.
    ///
    /// Context: any. The answer must not change.
    fn flush_new_mappings(unit: &Self::Unit) -> bool;

    /// Takes a tag that no cache of the unit holds entries for.
    ///
    /// Context: may sleep.
    fn alloc_tag(unit: &Self::Unit) -> Result<Self::Tag>;

    /// Stores the endpoint's entry and adds to `batch` every invalidation that the
    /// change from the old entry to the new one asks for, except that of the old
    /// tag's translations: the framework asks for that through
    /// [`invalidate`](Self::invalidate), after this or when it retires the tag.
    ///
    /// For units that keep no table ([`map`](Self::map)) there is no entry to store, and the batch is what programs
    /// the endpoint: the next call for a unit comes when it has answered.
    ///
    /// Context: atomic; endpoint's slot locked. Cannot fail.
    fn program(
        unit: &Self::Unit,
        endpoint: &Self::Endpoint,
        slot: &Locked<'_, Self>,
        target: &Target<'_, Self>,
        batch: &mut Batch<'_, Self>,
    );

    /// Adds to `batch` what makes the unit read the endpoint's entry anew, which stays as it is. For units whose
    /// tables can grow ([`top`](crate::top)).
    ///
    /// Context: atomic; endpoint's slot locked.
    fn forget_entry(_unit: &Self::Unit, _slot: &Locked<'_, Self>, _batch: &mut Batch<'_, Self>) {}

    /// Adds to `batch` what makes the unit forget the tag's translations in a range.
    ///
    /// Context: atomic.
    fn invalidate(
        unit: &Self::Unit,
        tag: &Self::Tag,
        what: &Invalidation,
        batch: &mut Batch<'_, Self>,
    );

    /// Adds to `batch` what makes the unit forget everything that it holds for an endpoint
    /// whose driver has gone, so that nothing which that driver had unmapped stays reachable.
    ///
    /// Called after the driver's memory was freed, when the driver core has ended its use of
    /// the device; also after a failed probe. The endpoint stays attached.
    ///
    /// Context: atomic.
    fn dma_cleanup(
        unit: &Self::Unit,
        _endpoint: &Self::Endpoint,
        tag: &Self::Tag,
        batch: &mut Batch<'_, Self>,
    ) {
        Self::invalidate(unit, tag, &Invalidation::All, batch);
    }

    /// Adds to `batch` the one command that tells the unit of a mapping. For units that keep no table
    /// ([`Remote`](crate::pt::Remote)); such a unit is made to forget with
    /// [`invalidate`](Self::invalidate), which is never asked to forget a part of what it was told.
    ///
    /// The tag's domain is there: an endpoint was put into it, by [`program`](Self::program).
    ///
    /// Context: atomic; the lock of the domain's mappings is held, so no lock may be taken. `batch` has
    /// room for that one command, and for no second one without a submission.
    fn map(_unit: &Self::Unit, _tag: &Self::Tag, _run: &Run, _batch: &mut Batch<'_, Self>) {}

    /// The queue that takes the unit's commands.
    ///
    /// Context: atomic.
    fn queue(unit: &Self::Unit) -> &Self::Queue;

    /// What the unit has counted.
    ///
    /// Context: may sleep.
    fn counters(unit: &Self::Unit) -> Counters;

    /// What reports the requests that the unit has refused, if it tells of any. The framework lets it while the
    /// unit is registered. The answer must not change.
    ///
    /// Context: any.
    fn reports(_unit: &Self::Unit) -> Option<&Reports<Self>> {
        None
    }

    /// Makes earlier stores to tables visible to the unit, for hardware that buffers
    /// them. Called before commands are submitted, which may make it fetch them.
    ///
    /// Errors: `ETIMEDOUT` or `EIO`; the framework then frees nothing.
    ///
    /// Context: atomic.
    fn flush_stores(_unit: &Self::Unit) -> Result {
        Ok(())
    }

    /// Adds the regions of DMA address space that the endpoint cannot use freely.
    ///
    /// Context: may sleep.
    fn resv_regions(_unit: &Self::Unit, _endpoint: &Self::Endpoint, _list: &mut ResvList<'_>) {}

    /// Answers the core's question for a capability.
    ///
    /// Context: may sleep.
    fn capable(_unit: &Self::Unit, _endpoint: &Self::Endpoint, capability: Capability) -> bool {
        // DMA on x86 snoops the CPU's caches unless a request says otherwise.
        capability == Capability::CacheCoherency
    }
}
