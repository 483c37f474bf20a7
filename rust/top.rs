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
    attached::{
        self,
        Attached, //
    },
    bindings,
    domain::Domain,
    driver::Driver,
    pt::PageTable, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
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
    // SAFETY: By the contract. It is generic_pt that releases the lock: this is not dropped.
    let attached = ManuallyDrop::new(unsafe { Attached::held(domain) });
    if let Some(root) = D::Table::root_at(phys, level) {
        attached::change_top(&attached, root);
    }
}
