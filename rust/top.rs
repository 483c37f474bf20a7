// SPDX-License-Identifier: GPL-2.0

//! Tables that grow while devices use them.
//!
//! generic_pt puts a table on top of a domain's topmost one when something is mapped beyond what that
//! reaches. It asks for a lock, and with that lock held it calls `change_top`, and makes the new top known to
//! who maps after that. The lock is the one of the domain's attachments:
//!
//! - Who programs an entry reads the root with that lock held ([`Attached::paging`]), and the entry is
//!   programmed before it is released. So the entry has the new root, or the endpoint is on the list.
//! - `change_top` programs each entry that names the domain's table once more, with the new root, and waits
//!   until all units have acknowledged it. Endpoints that are parked, blocked or elsewhere by now are on the
//!   list too; their entries are left alone ([`Entries`](crate::endpoint::Entries)), but units may not have
//!   learned of these yet, or never will, and begin their walks at the old root. So they forget them now.
//!
//! The old root is the first table below the new one. So what was mapped stays mapped all the time, with the
//! old entry as with the new one, and nothing has to be freed. A driver has no part in this but to say how an entry
//! is programmed.
//!
//! Where a unit does not acknowledge it, there is one line in the log. The map goes on, as it cannot be told; what it
//! maps may be refused to the unit's devices, what was mapped before is not. But the unit may still begin its
//! walks at the old root, which a later unmap can take out of the table, or a map of a page of 1 TB or more in its
//! place if it is empty. So nothing is freed any more of what maps and unmaps of that domain take out.

use crate::{
    attach,
    attached::{
        self,
        by_unit,
        Attached, //
    },
    batch::Batch,
    bindings,
    domain::Domain,
    driver::Driver,
    inject,
    invalidation::Invalidation,
    pt::PageTable, //
};
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// What generic_pt is given for the domains of a driver.
pub(crate) struct Growth<D: Driver>(PhantomData<D>);

impl<D: Driver> Growth<D> {
    /// For tables that are the first member of a [`Domain`].
    pub(crate) const OPERATIONS: &'static bindings::pt_iommu_driver_ops =
        &bindings::pt_iommu_driver_ops {
            change_top: Some(change_top::<D>),
            get_top_lock: Some(get_top_lock::<D>),
        };
}

/// `pt_iommu_driver_ops::get_top_lock`.
///
/// # Safety
///
/// Called by generic_pt as this operation, for the table of a [`Domain`] of `D`.
unsafe extern "C" fn get_top_lock<D: Driver>(
    table: *mut bindings::pt_iommu,
) -> *mut bindings::spinlock_t {
    // SAFETY: By the contract, and who maps has a reference to the domain.
    let domain = unsafe { Domain::<D>::borrow(table.cast()) };
    // A `Lock` begins with the C lock (`repr(C)`).
    core::ptr::from_ref(&domain.attached).cast_mut().cast()
}

/// `pt_iommu_driver_ops::change_top`.
///
/// # Safety
///
/// Called by generic_pt as this operation, for the table of a [`Domain`] of `D`, with the lock held that
/// [`get_top_lock`] has returned.
unsafe extern "C" fn change_top<D: Driver>(
    table: *mut bindings::pt_iommu,
    phys: bindings::phys_addr_t,
    level: core::ffi::c_uint,
) {
    // SAFETY: By the contract, and who maps has a reference to the domain.
    let domain = unsafe { Domain::<D>::borrow(table.cast()) };
    // SAFETY: By the contract; generic_pt releases the lock after this.
    let attached = unsafe { Attached::held(domain) };
    // Without it the table has no PT_FEAT_DYNAMIC_TOP, and this is not called.
    let Some(root_at) = D::Table::ROOT_AT else {
        return;
    };
    let root = root_at(phys, level);
    inject::reach_atomic("top");
    for nodes in by_unit(&attached) {
        let Some(unit) = nodes.first().map(|node| &node.endpoint.unit) else {
            continue;
        };
        let mut batch = Batch::<D>::new(unit);
        // The entry of one that is away is blocked, which the unit has acknowledged. It comes back with the new root.
        for node in nodes.iter().filter(|node| !node.away) {
            attach::name_root(&node.endpoint, &node.tag, root, &mut batch);
        }
        // What was looked up on the way to the old root is still right. That it is forgotten is what the
        // specifications ask for after a change of an entry.
        attached::invalidate(nodes, &Invalidation::All, &mut batch);
        unit.grown().fetch_add(1, Relaxed);
        let told = batch.sync_in_place();
        if let Err(e) = told.and_then(|_| inject::fails_atomic("top.told")) {
            domain.keep_tables();
            pr_err!(
                "{}: a table has grown, which was not acknowledged ({}): devices may not reach what is mapped \
                 beyond its old size, and no tables of it are freed\n",
                unit.name(),
                e.to_errno()
            );
        }
    }
}
