// SPDX-License-Identifier: GPL-2.0

//! Points `map` and `unmap`. The core maps through the table itself, past the driver
//! and the framework; in test builds a table's operations lead through here.

use super::{
    fails_atomic,
    reach_atomic, //
};
use crate::bindings;
use kernel::{
    error::code::EOPNOTSUPP,
    prelude::*,
    processor::cpu_relax,
    sync::SetOnce, //
};

/// What a table gets for its operations. These come first, so that a pointer to them
/// is one to both.
#[repr(C)]
struct Operations {
    here: bindings::pt_iommu_ops,
    original: bindings::pt_iommu_ops,
}

/// The operations of one format of tables.
pub(crate) struct Wrapped(SetOnce<Operations>);

impl Wrapped {
    /// Knows no operations yet.
    pub(crate) const fn new() -> Self {
        Self(SetOnce::new())
    }

    /// Leads the table's operations through the points.
    ///
    /// # Safety
    ///
    /// `table` is initialised and nobody else has it yet. All tables that are wrapped
    /// by one `Wrapped` have the same operations.
    pub(crate) unsafe fn wrap(&'static self, table: *mut bindings::pt_iommu) {
        // SAFETY: By the contract the table is initialised.
        let original = unsafe { (*table).ops };
        // SAFETY: The initialisation has set it to its format's constant operations.
        let original = unsafe { *original };
        let here = bindings::pt_iommu_ops {
            map_range: Some(map_range),
            unmap_range: Some(unmap_range),
            ..original
        };
        self.0.populate(Operations { here, original });
        let operations = loop {
            match self.0.as_ref() {
                Some(operations) => break operations,
                // Another table's maker is at it, for a few instructions.
                None => cpu_relax(),
            }
        };
        // SAFETY: By the contract nobody else has the table.
        unsafe { (*table).ops = core::ptr::from_ref(operations).cast() };
    }
}

/// The format's own operations.
///
/// # Safety
///
/// `table` was wrapped.
unsafe fn original<'a>(table: *mut bindings::pt_iommu) -> &'a bindings::pt_iommu_ops {
    // SAFETY: By the contract `table` is live, and `ops` does not change any more.
    let operations = unsafe { (*table).ops };
    // SAFETY: `wrap` stored a pointer to the whole of a static's `Operations`.
    unsafe { &(*operations.cast::<Operations>()).original }
}

/// `pt_iommu_ops::map_range`.
///
/// # Safety
///
/// Called as this operation of a wrapped table.
unsafe extern "C" fn map_range(
    table: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    phys: bindings::phys_addr_t,
    len: bindings::dma_addr_t,
    prot: c_uint,
    gfp: bindings::gfp_t,
    mapped: *mut usize,
) -> c_int {
    // Nothing is mapped then, and `mapped` stays as it is.
    if let Err(e) = fails_atomic("map") {
        return e.to_errno();
    }
    // SAFETY: The table is wrapped.
    let Some(map) = (unsafe { original(table) }).map_range else {
        return EOPNOTSUPP.to_errno();
    };
    // SAFETY: The caller keeps to the contract of this operation.
    unsafe { map(table, iova, phys, len, prot, gfp, mapped) }
}

/// `pt_iommu_ops::unmap_range`.
///
/// # Safety
///
/// Called as this operation of a wrapped table.
unsafe extern "C" fn unmap_range(
    table: *mut bindings::pt_iommu,
    iova: bindings::dma_addr_t,
    len: bindings::dma_addr_t,
    gather: *mut bindings::iommu_iotlb_gather,
) -> usize {
    reach_atomic("unmap");
    // SAFETY: The table is wrapped.
    let Some(unmap) = (unsafe { original(table) }).unmap_range else {
        return 0;
    };
    // SAFETY: The caller keeps to the contract of this operation.
    unsafe { unmap(table, iova, len, gather) }
}
