// SPDX-License-Identifier: GPL-2.0

//! Intel VT-d second-stage tables (VT-d specification, section 9.8 "Second-Stage
//! Paging Entries").

use super::{
    no_device,
    read_entry,
    second_stage::{
        self,
        SecondStage, //
    },
    walk::{
        self,
        Mapped,
        Range,
        Top, //
    },
    IovaToPhys,
    PageTable,
    Sealed, //
};
use crate::{
    attached::Held,
    bindings, //
};
use core::ops::ControlFlow;
use kernel::{
    bits::bit_u32,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// How a [`Vtdss`] table is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VtdssConfig {
    /// Address bits that may be mapped: the smaller of what the table's depth and
    /// the unit's MGAW allow.
    pub address_bits: u8,
    /// Level of the root table: 2, 3 or 4 for tables of 39, 48 or 57 bits.
    pub top_level: u8,
    /// Bits of an output (physical) address.
    pub output_bits: u8,
    /// Page sizes that entries of this unit can have, as a bitmap of sizes in bytes.
    pub page_sizes: u64,
    /// The unit does not snoop CPU caches when it walks the table.
    pub incoherent: bool,
    /// Read-only mappings do not work (a hardware erratum).
    pub force_writable: bool,
}

/// Where a context entry points to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VtdssRoot {
    /// Physical address of the root table.
    pub phys: u64,
    /// Address width field of the context entry: 1, 2 or 3.
    pub address_width: u8,
}

/// A second-stage table, and the `iommu_domain` in front of it.
#[pin_data(PinnedDrop)]
#[repr(transparent)]
pub struct Vtdss {
    #[pin]
    table: Opaque<bindings::pt_iommu_vtdss>,
}

// SAFETY: generic_pt is called from any thread; see the locking rules of each op.
unsafe impl Send for Vtdss {}
// SAFETY: As above: concurrent calls on disjoint ranges are allowed, and the safe
// methods either only read what is constant or take `&mut`.
unsafe impl Sync for Vtdss {}

#[cfg(inject)]
static WRAPPED: crate::inject::tables::Wrapped = crate::inject::tables::Wrapped::new();

impl Sealed for Vtdss {}

impl PageTable for Vtdss {
    type Config = VtdssConfig;
    type Root = VtdssRoot;
    type Vacant = crate::lazy::format::Permissions;

    const IOVA_TO_PHYS: IovaToPhys = bindings::pt_iommu_vtdss_iova_to_phys;

    unsafe fn for_domain(
        config: VtdssConfig,
        node: i32,
        _growth: &'static bindings::pt_iommu_driver_ops,
    ) -> impl PinInit<Self, Error> {
        Self::new(config, node)
    }

    fn root(&self, _held: &Held) -> VtdssRoot {
        Vtdss::root(self)
    }

    fn as_pt_iommu(&self) -> *mut bindings::pt_iommu {
        // `pt_iommu` is the first member.
        self.table.get().cast()
    }

    unsafe fn lowest_table(&self, iova: u64) -> Option<u64> {
        walk::lowest_table::<SecondStage>(
            self.top(),
            iova,
            // SAFETY: As for `for_each_mapping`; tables that lead to `iova` stay, by the contract.
            |table, index| unsafe { read_entry(table, index) },
        )
    }

    fn leaf(config: &VtdssConfig, phys: u64, read: bool, write: bool) -> u64 {
        second_stage::leaf(phys, read, write || config.force_writable)
    }

    fn is_incoherent(config: &VtdssConfig) -> bool {
        config.incoherent
    }

    unsafe fn count_from(&self, from: u64, mapped: &mut Mapped) -> Option<u64> {
        super::count_from::<SecondStage>(
            self.top(),
            from,
            mapped,
            // SAFETY: The address is that of the root, or was read from an entry of a table of this
            // tree, none of which is freed meanwhile, by the contract. Entries are words.
            |table, index| unsafe { read_entry(table, index) },
        )
    }

    unsafe fn for_each_mapping(
        &self,
        tables: u32,
        visit: &mut dyn FnMut(Range) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        walk::walk::<SecondStage>(
            self.top(),
            tables,
            // SAFETY: The address is that of the root, or comes from an entry of a
            // table of this tree, in which by the contract nothing changes meanwhile.
            // Tables have 512 entries, and the root all that `address_bits` need.
            |table, index| unsafe { read_entry(table, index) },
            visit,
        )
    }
}

impl Vtdss {
    /// Makes an empty table, of full size.
    ///
    /// Context: may sleep. Errors: `ENOMEM`, `EINVAL`, `EOPNOTSUPP`.
    pub fn new(config: VtdssConfig, node: i32) -> impl PinInit<Self, Error> {
        let mut features = bit_u32(bindings::pt_features_PT_FEAT_FLUSH_RANGE);
        if config.incoherent {
            features |= bit_u32(bindings::pt_features_PT_FEAT_DMA_INCOHERENT);
        }
        if config.force_writable {
            features |= bit_u32(bindings::PT_FEAT_VTDSS_FORCE_WRITEABLE);
        }
        let cfg = bindings::pt_iommu_vtdss_cfg {
            common: bindings::pt_iommu_cfg {
                features,
                hw_max_vasz_lg2: config.address_bits,
                hw_max_oasz_lg2: config.output_bits,
            },
            top_level: config.top_level.into(),
        };

        try_pin_init!(Self {
            table <- Opaque::try_ffi_init(move |slot: *mut bindings::pt_iommu_vtdss| {
                let mut zero: bindings::pt_iommu_vtdss = pin_init::zeroed();
                zero.iommu.nid = node;
                zero.iommu.iommu_device = no_device();
                // SAFETY: `slot` is valid for writes and nobody else has it yet.
                unsafe { slot.write(zero) };
                // SAFETY: `slot` is zeroed but for the fields that the caller sets,
                // as pt_iommu_init() asks, and pinned by the initialiser's contract.
                // On error there is nothing to undo: `ops` is set last.
                let ret = unsafe {
                    bindings::pt_iommu_vtdss_init(slot, &cfg, bindings::GFP_KERNEL_ACCOUNT)
                };
                to_result(ret)?;
                // SAFETY: `slot` is initialised now, and still nobody else has it. The
                // table uses only sizes that stand in its domain's bitmap.
                unsafe { (*slot).iommu.domain.pgsize_bitmap &= config.page_sizes as usize };
                #[cfg(inject)]
                // SAFETY: As above; all tables here have the format's operations.
                unsafe {
                    WRAPPED.wrap(&raw mut (*slot).iommu);
                }
                Ok::<(), Error>(())
            }),
        })
    }

    /// Where entries are to point.
    pub fn root(&self) -> VtdssRoot {
        let mut info = bindings::pt_iommu_vtdss_hw_info { ssptptr: 0, aw: 0 };
        // SAFETY: The table is initialised (`new`), and its top never moves: the
        // format has no PT_FEAT_DYNAMIC_TOP.
        unsafe { bindings::pt_iommu_vtdss_hw_info(self.table.get(), &mut info) };
        VtdssRoot {
            phys: info.ssptptr,
            address_width: info.aw,
        }
    }

    /// Maps `len` bytes at `iova` to `phys`, readable and writable, in a table that is no domain's (a driver's
    /// own identity table).
    ///
    /// Context: may sleep. Errors: `ENOMEM`, `EADDRINUSE`, `ERANGE`; what was mapped before the error stays
    /// until the table is dropped.
    pub fn map_own(self: Pin<&mut Self>, iova: u64, phys: u64, len: u64) -> Result {
        let pt = self.as_pt_iommu();
        // SAFETY: `new` initialised the table, and `ops` is constant from then on.
        let ops = unsafe { (*pt).ops };
        // SAFETY: `ops` points to the format's static operations in the kernel image.
        let map = unsafe { (*ops).map_range }.ok_or(EOPNOTSUPP)?;
        let prot = bindings::IOMMU_READ | bindings::IOMMU_WRITE;
        let mut mapped = 0;
        // SAFETY: The table is initialised, and `&mut self` keeps every other user of
        // the range out, which is the lock that map_range() asks its caller for.
        let ret = unsafe { map(pt, iova, phys, len, prot, bindings::GFP_KERNEL, &mut mapped) };
        to_result(ret)
    }

    fn top(&self) -> Top {
        let root = self.root();
        // SAFETY: Written by `new` only.
        let address_bits = unsafe { (*self.table.get()).vtdss_pt.common.max_vasz_lg2 };
        Top {
            phys: root.phys,
            // As for a context entry: 1 is the width of a table of three levels.
            level: u32::from(root.address_width) + 1,
            address_bits: address_bits.into(),
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Vtdss {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The table was initialised by `new` and is deinitialised only here;
        // who drops it has seen that hardware does not use it any more (a domain:
        // see `domain.rs`; a driver's own table: its unit is off).
        unsafe { bindings::rust_iommu_pt_deinit(self.as_pt_iommu()) };
    }
}
