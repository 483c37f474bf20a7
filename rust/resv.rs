// SPDX-License-Identifier: GPL-2.0

//! The list of DMA address ranges that an endpoint cannot use freely.

use crate::{
    bindings,
    pt::walk::Range, //
};
use core::marker::PhantomData;
use kernel::{
    ffi::c_int,
    prelude::*, //
};

/// The list that `iommu_ops::get_resv_regions` fills.
///
/// The callback cannot fail, so a range that there is no memory for is reported in the log.
///
/// # Invariants
///
/// `list` is an initialised list head that nobody else uses during `'a`.
pub struct ResvList<'a> {
    list: *mut bindings::list_head,
    direct: Result<KVec<Range>>,
    _list: PhantomData<&'a mut bindings::list_head>,
}

impl ResvList<'_> {
    /// Wraps the core's list.
    ///
    /// # Safety
    ///
    /// `list` is an initialised list head, of which the caller has the only use during `'a`, and
    /// whose regions are freed by `iommu_put_resv_regions()`.
    pub(crate) unsafe fn from_raw(list: *mut bindings::list_head) -> Self {
        // INVARIANT: By the contract.
        Self {
            list,
            direct: Ok(KVec::new()),
            _list: PhantomData,
        }
    }

    /// Every direct range that was added. Errors: `ENOMEM` if there was no room for them.
    pub(crate) fn into_direct(self) -> Result<KVec<Range>> {
        self.direct
    }

    /// A range that the hardware takes for interrupt messages and never translates.
    ///
    /// Start and length in bytes. Context: may sleep.
    pub fn add_msi_window(&mut self, start: u64, len: u64) {
        self.add(start, len, 0, bindings::iommu_resv_type_IOMMU_RESV_MSI);
    }

    /// A range of memory that firmware or the device itself uses: it is mapped one to one in every
    /// default domain. A `relaxable` one is only needed until a driver takes the device, so it
    /// does not forbid giving the device to user space.
    ///
    /// Start and length in bytes. Context: may sleep.
    pub fn add_direct(&mut self, start: u64, len: u64, relaxable: bool) {
        // CAST: Two bits.
        let prot = (bindings::IOMMU_READ | bindings::IOMMU_WRITE) as c_int;
        let kind = if relaxable {
            bindings::iommu_resv_type_IOMMU_RESV_DIRECT_RELAXABLE
        } else {
            bindings::iommu_resv_type_IOMMU_RESV_DIRECT
        };
        self.add(start, len, prot, kind);
        let range = Range {
            iova: start,
            bytes: len,
        };
        if let Ok(direct) = &mut self.direct {
            if let Err(e) = direct.push(range, GFP_KERNEL) {
                self.direct = Err(e.into());
            }
        }
    }

    /// A range that must never be mapped.
    ///
    /// Start and length in bytes. Context: may sleep.
    pub fn add_reserved(&mut self, start: u64, len: u64) {
        self.add(start, len, 0, bindings::iommu_resv_type_IOMMU_RESV_RESERVED);
    }

    fn add(&mut self, start: u64, len: u64, prot: c_int, kind: bindings::iommu_resv_type) {
        let Ok(length) = usize::try_from(len) else {
            pr_err!("reserved region {start:#x}: length {len:#x} is too large\n");
            return;
        };
        // SAFETY: An allocation; GFP_KERNEL, as get_resv_regions() may sleep.
        let region = unsafe {
            bindings::iommu_alloc_resv_region(start, length, prot, kind, bindings::GFP_KERNEL)
        };
        if region.is_null() {
            pr_err!("reserved region {start:#x}, {len:#x} bytes: out of memory\n");
            return;
        }
        // SAFETY: `region` was just allocated; only the place of its list node is formed.
        let node = unsafe { &raw mut (*region).list };
        // SAFETY: `node` is on no list, and the type invariant is about `self.list`. The core
        // frees the region through the list.
        unsafe { bindings::list_add_tail(node, self.list) };
    }
}
