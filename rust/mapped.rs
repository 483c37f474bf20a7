// SPDX-License-Identifier: GPL-2.0

//! How much is mapped: counted when somebody asks, so that who maps and unmaps does not count.
//!
//! A domain is read in pieces, and others map and unmap meanwhile. What they do in a part that is still
//! to be read counts, in one that was read it does not.

use crate::{
    bindings,
    domain::Domain,
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    pt::{
        walk::Mapped,
        PageTable, //
    },
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl<D: Driver> Domain<D> {
    /// Adds what is mapped in the domain, for whatever reason and whoever did it.
    ///
    /// Errors: `EINTR`. Context: may sleep.
    fn count(&self, mapped: &mut Mapped) -> Result {
        let mut next = Some(0);
        while let Some(from) = next {
            next = {
                // Mappings that are in no table have a lock of their own.
                let _attached = (!D::Table::IS_REMOTE).then(|| self.attached.lock());
                // SAFETY: A table is freed only if it was taken out of this one, and the domain was flushed
                // after that (`iotlb_sync`, the core's queue), or left by its last endpoint (that queue's
                // end). Both take the lock that is held: a table that is part of this one now is not freed
                // before it is released. Nor is the topmost one, as `self` has it.
                unsafe { self.table().count_from(from, mapped) }
            };
            // SAFETY: No lock is held, and the caller may sleep.
            unsafe { bindings::rust_iommu_cond_resched() };
            // SAFETY: In a process.
            if unsafe { bindings::rust_iommu_fatal_signal_pending() } {
                return Err(EINTR);
            }
        }
        Ok(())
    }
}

/// The domain that a device is on, if it has a table.
fn domain_of<D: Driver>(device: &Device<D>) -> Option<Arc<Domain<D>>> {
    match &device.place.lock().state {
        State::Paging(at) => Some(at.domain.clone()),
        State::Untouched | State::Blocked(_) | State::Identity | State::Released => None,
    }
}

/// What is mapped in the domain that a device is on; nothing if that has no table.
///
/// Errors: `EINTR`. Context: may sleep, and takes as long as reading all tables does.
pub(crate) fn by_device<D: Driver>(device: &Device<D>) -> Result<Mapped> {
    let mut mapped = Mapped::default();
    if let Some(domain) = domain_of(device) {
        domain.count(&mut mapped)?;
    }
    Ok(mapped)
}

/// What is mapped in all domains that devices behind a unit are on, each of them once.
///
/// Errors: `ENOMEM`, `EINTR`. Context: may sleep, and takes as long as reading all tables does.
pub(crate) fn by_unit<D: Driver>(unit: &UnitRef<D>) -> Result<Mapped> {
    let mut domains: KVec<Arc<Domain<D>>> = KVec::new();
    // Nothing of a device is kept: it may be released while the tables are read.
    for device in D::ops().registry()?.lock().groups.devices() {
        if !device.endpoint.unit.same(unit) {
            continue;
        }
        if let Some(domain) = domain_of(device) {
            if !domains.iter().any(|known| Arc::ptr_eq(known, &domain)) {
                domains.push(domain, GFP_KERNEL)?;
            }
        }
    }
    let mut mapped = Mapped::default();
    domains
        .iter()
        .try_for_each(|domain| domain.count(&mut mapped))?;
    Ok(mapped)
}
