// SPDX-License-Identifier: GPL-2.0

//! No table in memory: mappings that a unit is told of by request (virtio-iommu).
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use super::{
    walk::{
        Mapped,
        Range, //
    },
    IovaToPhys,
    PageTable,
    Sealed, //
};
use crate::{
    attached::Held,
    bindings,
    lazy::format::Permissions,
    mappings::{
        index::FEW,
        Mappings, //
    },
};
use core::ops::ControlFlow;
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::SpinLockIrq,
    types::Opaque, //
};

/// Which addresses can be mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RemoteConfig {
    /// First DMA address.
    pub start: u64,
    /// Last DMA address.
    pub last: u64,
    /// Sizes of pages, a bit each.
    pub page_sizes: u64,
    /// Units tell memory from what is none.
    pub mmio: bool,
}

/// The mappings of a domain, and the `iommu_domain` in front of them.
#[pin_data]
#[repr(C)]
pub struct Remote {
    #[pin]
    domain: Opaque<bindings::iommu_domain>,
    pub(crate) config: RemoteConfig,
    /// Innermost.
    #[pin]
    pub(crate) mappings: SpinLockIrq<Mappings>,
}

// SAFETY: `domain` is the core's, which locks it; the rest is a lock.
unsafe impl Send for Remote {}
// SAFETY: As above.
unsafe impl Sync for Remote {}

impl Sealed for Remote {}

/// `iommu_domain_ops::iova_to_phys`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation, for a domain that starts with a [`Remote`].
unsafe extern "C" fn iova_to_phys(
    domain: *mut bindings::iommu_domain,
    iova: bindings::dma_addr_t,
) -> bindings::phys_addr_t {
    // SAFETY: The domain is the first member (`repr(C)`), and the core keeps it over the call.
    let this = unsafe { &*domain.cast::<Remote>() };
    let phys = this.mappings.lock().phys(iova);
    phys.unwrap_or(0)
}

impl PageTable for Remote {
    type Config = RemoteConfig;
    /// A unit is told the mappings, and not where they are.
    type Root = ();
    type Vacant = Permissions;

    const IOVA_TO_PHYS: IovaToPhys = iova_to_phys;
    const IS_REMOTE: bool = true;

    unsafe fn for_domain(
        config: RemoteConfig,
        _node: i32,
        _growth: &'static bindings::pt_iommu_driver_ops,
    ) -> impl PinInit<Self, Error> {
        let mut domain: bindings::iommu_domain = pin_init::zeroed();
        // The core sets a type of its own later, but iommufd takes what a driver made as it is
        // (`iommufd_hwpt_paging_alloc`). Tables of generic_pt have this one too.
        domain.type_ = bindings::__IOMMU_DOMAIN_PAGING;
        // CAST: 64 bits both.
        domain.pgsize_bitmap = config.page_sizes as usize;
        domain.geometry = bindings::iommu_domain_geometry {
            aperture_start: config.start,
            aperture_end: config.last,
            force_aperture: true,
        };
        try_pin_init!(Self {
            domain: Opaque::new(domain),
            config,
            mappings <- new_spinlock_irq!(Mappings::new(FEW), "iommu mappings"),
        }? Error)
    }

    fn root(&self, _held: &Held) {}

    fn as_pt_iommu(&self) -> *mut bindings::pt_iommu {
        core::ptr::null_mut()
    }

    fn as_iommu_domain(&self) -> *mut bindings::iommu_domain {
        self.domain.get()
    }

    fn remote(&self) -> Option<&Remote> {
        Some(self)
    }

    unsafe fn for_each_mapping(
        &self,
        tables: u32,
        visit: &mut dyn FnMut(Range) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut found: Option<Range> = None;
        let mut at = Some(0);
        for _ in 0..u64::from(tables) * RUNS_A_TABLE {
            // `visit` may sleep, so the lock is not held over it.
            let run = at.and_then(|at| self.mappings.lock().at_or_after(at));
            let Some(run) = run else {
                return found.map_or(ControlFlow::Continue(()), visit);
            };
            match &mut found {
                Some(range) if range.iova + range.bytes == run.iova => range.bytes += run.bytes(),
                _ => {
                    let new = Range {
                        iova: run.iova,
                        bytes: run.bytes(),
                    };
                    if let Some(range) = found.replace(new) {
                        visit(range)?;
                    }
                }
            }
            at = run.last.checked_add(1);
        }
        if let Some(range) = found {
            visit(range)?;
        }
        ControlFlow::Break(())
    }

    unsafe fn count_from(&self, from: u64, mapped: &mut Mapped) -> Option<u64> {
        let mappings = self.mappings.lock();
        let mut at = from;
        for _ in 0..RUNS_AT_ONCE {
            let run = mappings.at_or_after(at)?;
            // A run may have become longer at its start since that was counted.
            let bytes = (run.last - run.iova.max(at)).wrapping_add(1);
            mapped.mappings += bytes / run.piece;
            mapped.bytes += bytes;
            at = run.last.checked_add(1)?;
        }
        Some(at)
    }

    unsafe fn lowest_table(&self, _iova: u64) -> Option<u64> {
        None
    }

    fn leaf(_config: &RemoteConfig, _phys: u64, _read: bool, _write: bool) -> u64 {
        0
    }

    fn is_incoherent(_config: &RemoteConfig) -> bool {
        false
    }
}

/// What takes as long to read as a table does: its entries.
const RUNS_A_TABLE: u64 = 512;

/// Runs that are counted in one go: others wait to map and to unmap.
const RUNS_AT_ONCE: u32 = 64;
