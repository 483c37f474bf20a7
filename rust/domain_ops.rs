// SPDX-License-Identifier: GPL-2.0

//! `iommu_domain_ops`: from the core's C callbacks to safe code, and nothing else.

use crate::{
    attach,
    bindings,
    domain::Domain,
    driver::Driver,
    endpoint::Device,
    fault,
    gather::Gather,
    invalidation::Invalidation,
    ops,
    pci::Function,
    pt::PageTable,
    raw,
    remote, //
};
use kernel::{
    alloc::Flags,
    bits::bit_u32,
    error::from_result,
    prelude::*,
    sync::Arc, //
};

/// Operations of paging domains. The core maps and unmaps through the table itself
/// (generic_pt), so these hold only what concerns caches and attachment; but for units that are
/// told of mappings.
pub(crate) const fn paging<D: Driver>(announce: bool) -> bindings::iommu_domain_ops {
    bindings::iommu_domain_ops {
        attach_dev: Some(attach_paging::<D>),
        flush_iotlb_all: Some(flush_iotlb_all::<D>),
        iotlb_sync_map: if D::Table::IS_REMOTE {
            Some(remote_sync_map::<D>)
        } else if announce {
            Some(iotlb_sync_map::<D>)
        } else {
            None
        },
        map_pages: if D::Table::IS_REMOTE {
            Some(map_pages::<D>)
        } else {
            None
        },
        unmap_pages: if D::Table::IS_REMOTE {
            Some(unmap_pages::<D>)
        } else {
            None
        },
        iotlb_sync: Some(iotlb_sync::<D>),
        iova_to_phys: Some(<D::Table as PageTable>::IOVA_TO_PHYS),
        enforce_cache_coherency: if D::Table::FORCES_COHERENCY {
            Some(enforce_cache_coherency)
        } else {
            None
        },
        free: Some(free::<D>),
        ..pin_init::zeroed()
    }
}

/// Operations of the identity domain.
pub(crate) const fn identity<D: Driver>() -> bindings::iommu_domain_ops {
    bindings::iommu_domain_ops {
        attach_dev: Some(attach_identity::<D>),
        ..pin_init::zeroed()
    }
}

/// Operations of the blocked domain, which is the release domain too.
pub(crate) const fn blocked<D: Driver>() -> bindings::iommu_domain_ops {
    bindings::iommu_domain_ops {
        attach_dev: Some(attach_blocked::<D>),
        ..pin_init::zeroed()
    }
}

/// A domain without a table, for all devices of a driver.
pub(crate) const fn fixed_domain(
    kind: u32,
    ops: *const bindings::iommu_domain_ops,
) -> bindings::iommu_domain {
    bindings::iommu_domain {
        type_: kind,
        ops,
        ..pin_init::zeroed()
    }
}

/// Runs an attach on what `probe_device` made of the device.
///
/// # Safety
///
/// `dev` was probed by `D` and is not released during the call.
unsafe fn with_device<D: Driver>(
    dev: *mut bindings::device,
    attach: impl FnOnce(&Device<D>, Function<'_>) -> Result,
) -> c_int {
    from_result(|| {
        // SAFETY: By the contract.
        let device = unsafe { ops::device::<D>(dev) };
        // SAFETY: The core holds a reference to what it attaches.
        let dev = unsafe { raw::device(dev) };
        attach(&device, Function::from_device(dev).ok_or(ENODEV)?)?;
        Ok(0)
    })
}

/// `iommu_domain_ops::attach_dev` of paging domains.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn attach_paging<D: Driver>(
    domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    _old: *mut bindings::iommu_domain,
) -> c_int {
    // SAFETY: The core checked that the domain is of these operations (`owner`), and
    // holds its reference over the call.
    let domain: Arc<Domain<D>> = unsafe { Domain::get(domain) };
    // SAFETY: The core attaches probed devices only, and not after their release.
    unsafe { with_device::<D>(dev, |device, dev| attach::paging(device, dev, domain)) }
}

/// `iommu_domain_ops::attach_dev` of the identity domain.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn attach_identity<D: Driver>(
    _domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    _old: *mut bindings::iommu_domain,
) -> c_int {
    // SAFETY: The core attaches probed devices only, and not after their release.
    unsafe { with_device::<D>(dev, attach::identity) }
}

/// `iommu_domain_ops::attach_dev` of the blocked domain.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn attach_blocked<D: Driver>(
    _domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    _old: *mut bindings::iommu_domain,
) -> c_int {
    // SAFETY: The core attaches probed devices only, and not after their release.
    unsafe { with_device::<D>(dev, attach::blocked) }
}

/// `iommu_domain_ops::flush_iotlb_all`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn flush_iotlb_all<D: Driver>(domain: *mut bindings::iommu_domain) {
    // SAFETY: The core holds its reference over the call.
    let domain = unsafe { Domain::<D>::borrow(domain) };
    // The core takes no answer: it frees what was unmapped lazily whether the hardware
    // has acknowledged or not. The queue reports the failure.
    let _ = domain.flush(&Invalidation::All);
}

/// `iommu_domain_ops::iotlb_sync_map`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn iotlb_sync_map<D: Driver>(
    domain: *mut bindings::iommu_domain,
    iova: c_ulong,
    size: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: The core holds its reference over the call.
        let domain = unsafe { Domain::<D>::borrow(domain) };
        let Some(bytes_after) = (size as u64).checked_sub(1) else {
            return Ok(0);
        };
        let _ = domain.flush(&Invalidation::Range {
            start: iova as u64,
            last: (iova as u64).saturating_add(bytes_after),
            // A table may have been added above the new leaf entries.
            leaf_only: false,
        })?;
        Ok(0)
    })
}

/// The `kernel` crate's flags for the core's. It has none for callers that may sleep, but not wait for I/O
/// or file systems: they are served as those that may not sleep.
fn flags(gfp: bindings::gfp_t) -> Flags {
    let any = [
        bindings::___GFP_DIRECT_RECLAIM_BIT,
        bindings::___GFP_IO_BIT,
        bindings::___GFP_FS_BIT,
    ];
    let has = |bit| gfp & bit_u32(bit) != 0;
    match (any.into_iter().all(has), has(bindings::___GFP_ACCOUNT_BIT)) {
        (true, true) => GFP_KERNEL_ACCOUNT,
        (true, false) => GFP_KERNEL,
        (false, _) => GFP_ATOMIC | __GFP_NOWARN,
    }
}

/// `iommu_domain_ops::enforce_cache_coherency`, for tables that do so from the start.
///
/// # Safety
///
/// None: nothing is looked at.
unsafe extern "C" fn enforce_cache_coherency(_domain: *mut bindings::iommu_domain) -> bool {
    true
}

/// `iommu_domain_ops::map_pages`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn map_pages<D: Driver>(
    domain: *mut bindings::iommu_domain,
    iova: c_ulong,
    phys: bindings::phys_addr_t,
    size: usize,
    count: usize,
    prot: c_int,
    gfp: bindings::gfp_t,
    mapped: *mut usize,
) -> c_int {
    from_result(|| {
        // SAFETY: The core holds its reference over the call.
        let domain = unsafe { Domain::<D>::borrow(domain) };
        let remote = domain.table().remote().ok_or(ENODEV)?;
        let bytes = size.checked_mul(count).ok_or(EINVAL)?;
        // CAST: A few bits.
        let prot = prot as u32;
        let (iova, bytes) = (iova as u64, bytes as u64);
        remote::map(domain, remote, iova, phys, bytes, prot, flags(gfp))?;
        // SAFETY: The core passes a place for the number of bytes.
        unsafe { *mapped = size * count };
        Ok(0)
    })
}

/// `iommu_domain_ops::unmap_pages`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn unmap_pages<D: Driver>(
    domain: *mut bindings::iommu_domain,
    iova: c_ulong,
    size: usize,
    count: usize,
    gather: *mut bindings::iommu_iotlb_gather,
) -> usize {
    // SAFETY: The core holds its reference over the call.
    let domain = unsafe { Domain::<D>::borrow(domain) };
    // SAFETY: The core passes a gather that is its own stack's.
    let gather = unsafe { Gather::from_raw(gather) };
    let bytes = size.saturating_mul(count) as u64;
    match domain.table().remote() {
        // CAST: 64 bits both.
        Some(remote) => remote::unmap(domain, remote, iova as u64, bytes, gather) as usize,
        None => 0,
    }
}

/// `iommu_domain_ops::iotlb_sync_map` of domains whose units are told of mappings.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn remote_sync_map<D: Driver>(
    domain: *mut bindings::iommu_domain,
    iova: c_ulong,
    size: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: The core holds its reference over the call.
        let domain = unsafe { Domain::<D>::borrow(domain) };
        let remote = domain.table().remote().ok_or(ENODEV)?;
        remote::announce(domain, remote, iova as u64, size as u64)?;
        Ok(0)
    })
}

/// `iommu_domain_ops::iotlb_sync`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn iotlb_sync<D: Driver>(
    domain: *mut bindings::iommu_domain,
    gather: *mut bindings::iommu_iotlb_gather,
) {
    // SAFETY: The core holds its reference over the call.
    let domain = unsafe { Domain::<D>::borrow(domain) };
    // SAFETY: The core passes a gather that is its own stack's; its free list is the
    // driver's from here on.
    let gather = unsafe { Gather::from_raw(gather) };
    let Some(what) = gather.invalidation() else {
        return;
    };
    match domain.flush(&what) {
        Ok(synced) if domain.frees_tables() => gather.free_tables(synced),
        // Reported by the queue, or when the table grew.
        _ => gather.leak_tables(),
    }
}

/// `iommu_domain_ops::free`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn free<D: Driver>(domain: *mut bindings::iommu_domain) {
    // SAFETY: The core gives its reference back; it does not use the domain any more.
    let domain = unsafe { Domain::<D>::from_core(domain) };
    fault::end(&domain);
}
