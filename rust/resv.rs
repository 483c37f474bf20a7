// SPDX-License-Identifier: GPL-2.0

//! The list of DMA address ranges that an endpoint cannot use freely.

use crate::{
    bindings,
    pci::Function,
    pt::walk::Range,
    raw, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};
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

/// A range of DMA addresses that a device cannot use freely.
pub(crate) struct Region {
    /// The first address.
    pub(crate) start: u64,
    /// The last one.
    pub(crate) last: u64,
    /// Why, in the words of the groups' `reserved_regions`.
    pub(crate) kind: &'static str,
}

fn kind(kind: bindings::iommu_resv_type) -> &'static str {
    match kind {
        bindings::iommu_resv_type_IOMMU_RESV_DIRECT => "direct",
        bindings::iommu_resv_type_IOMMU_RESV_DIRECT_RELAXABLE => "direct-relaxable",
        bindings::iommu_resv_type_IOMMU_RESV_MSI | bindings::iommu_resv_type_IOMMU_RESV_SW_MSI => {
            "msi"
        }
        _ => "reserved",
    }
}

/// Errors: `ENOMEM`.
fn insert(regions: &mut KVec<Region>, new: Region) -> Result {
    regions.reserve(1, GFP_KERNEL)?;
    let before = |region: &Region| region.start <= new.start;
    let at = regions.iter().rposition(before).map_or(0, |i| i + 1);
    regions.insert_within_capacity(at, new).map_err(|_| ENOMEM)
}

/// The ranges of a device, by address.
///
/// Errors: `ENOMEM`. Context: may sleep.
///
/// # Safety
///
/// The core has probed the device, and does not release it during the call.
pub(crate) unsafe fn regions(function: &Function<'_>) -> Result<KVec<Region>> {
    let dev = raw::as_raw(function.as_device());
    let list = UnsafeCell::new(bindings::list_head::default());
    let head = list.get();
    // An empty list points to itself.
    // SAFETY: Ours, and it stays where it is.
    unsafe {
        head.write(bindings::list_head {
            next: head,
            prev: head,
        })
    };
    // SAFETY: The core has the device, by the contract, and the list is empty.
    unsafe { bindings::iommu_get_resv_regions(dev, head) };
    let mut regions = KVec::new();
    let mut pushed = Ok(());
    // SAFETY: Initialised above.
    let mut node = unsafe { (*head).next };
    while !core::ptr::eq(node, head) && pushed.is_ok() {
        // SAFETY: What is on the list are regions.
        let region = unsafe { &*kernel::container_of!(node, bindings::iommu_resv_region, list) };
        let start = region.start;
        let new = Region {
            start,
            last: start.saturating_add((region.length as u64).saturating_sub(1)),
            kind: kind(region.type_),
        };
        pushed = insert(&mut regions, new);
        node = region.list.next;
    }
    // SAFETY: As it was filled; nothing refers to it any more.
    unsafe { bindings::iommu_put_resv_regions(dev, head) };
    pushed?;
    Ok(regions)
}
