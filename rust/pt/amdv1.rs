// SPDX-License-Identifier: GPL-2.0

//! Host tables of AMD-Vi (AMD I/O Virtualization Technology specification, 48882, section
//! 2.2.3).

use super::{
    host::{
        self,
        HostTable, //
    },
    read_entry,
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

/// Levels of a new table: 512 GB, enough for what devices with 32-bit addresses and most others ask for. Each
/// more would be read in every map, unmap and miss.
const FIRST_LEVELS: u8 = 3;

/// How an [`AmdV1`] table is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AmdV1Config {
    /// Levels that the table has at most, 3 to 5 for 39, 48 and 57 address bits. It begins with
    /// [`FIRST_LEVELS`] and grows when something is mapped beyond these ([`top`](crate::top)).
    pub levels: u8,
    /// Bits of an output (physical) address.
    pub output_bits: u8,
}

/// Where a device table entry points to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AmdV1Root {
    /// Physical address of the root table.
    pub phys: u64,
    /// Number of levels.
    pub levels: u8,
}

/// A host table, and the `iommu_domain` in front of it.
#[pin_data(PinnedDrop)]
#[repr(transparent)]
pub struct AmdV1 {
    #[pin]
    table: Opaque<bindings::pt_iommu_amdv1>,
}

// SAFETY: generic_pt is called from any thread; see the locking rules of each op.
unsafe impl Send for AmdV1 {}
// SAFETY: As above: concurrent calls on disjoint ranges are allowed, and the safe
// methods either only read what is constant or take `&mut`.
unsafe impl Sync for AmdV1 {}

/// The kernel's code for this format takes no fewer but the first. Memory is not encrypted
/// (`memory::is_encrypted`).
const FEATURES: u32 = bit_u32(bindings::pt_features_PT_FEAT_FLUSH_RANGE)
    | bit_u32(bindings::PT_FEAT_AMDV1_FORCE_COHERENCE)
    | bit_u32(bindings::PT_FEAT_AMDV1_ENCRYPT_TABLES)
    | bit_u32(bindings::pt_features_PT_FEAT_DYNAMIC_TOP);

#[cfg(inject)]
static WRAPPED: crate::inject::tables::Wrapped = crate::inject::tables::Wrapped::new();

impl Sealed for AmdV1 {}

impl AmdV1Config {
    /// Address bits that the table translates, at its full size.
    pub fn address_bits(&self) -> u8 {
        12 + 9 * self.levels
    }
}

impl PageTable for AmdV1 {
    type Config = AmdV1Config;
    type Root = AmdV1Root;
    type Vacant = crate::lazy::format::HostTable;

    const IOVA_TO_PHYS: IovaToPhys = bindings::pt_iommu_amdv1_iova_to_phys;
    const FORCES_COHERENCY: bool = FEATURES & bit_u32(bindings::PT_FEAT_AMDV1_FORCE_COHERENCE) != 0;

    const ROOT_AT: Option<fn(u64, u32) -> AmdV1Root> = Some(|phys, level| AmdV1Root {
        phys,
        // CAST: at most 5.
        levels: level as u8 + 1,
    });

    unsafe fn for_domain(
        config: AmdV1Config,
        node: i32,
        growth: &'static bindings::pt_iommu_driver_ops,
    ) -> impl PinInit<Self, Error> {
        let cfg = bindings::pt_iommu_amdv1_cfg {
            common: bindings::pt_iommu_cfg {
                features: FEATURES,
                hw_max_vasz_lg2: config.address_bits(),
                hw_max_oasz_lg2: config.output_bits,
            },
            // Of the root; the lowest level is 0.
            starting_level: u32::from(config.levels.min(FIRST_LEVELS)).saturating_sub(1),
        };

        try_pin_init!(Self {
            table <- Opaque::try_ffi_init(move |slot: *mut bindings::pt_iommu_amdv1| {
                let mut zero: bindings::pt_iommu_amdv1 = pin_init::zeroed();
                zero.iommu.nid = node;
                zero.iommu.driver_ops = growth;
                // SAFETY: `slot` is valid for writes and nobody else has it yet.
                unsafe { slot.write(zero) };
                // SAFETY: `slot` is zeroed but for the fields that the caller sets,
                // as pt_iommu_init() asks, and pinned by the initialiser's contract.
                // On error there is nothing to undo: `ops` is set last.
                let ret = unsafe {
                    bindings::pt_iommu_amdv1_init(slot, &cfg, bindings::GFP_KERNEL_ACCOUNT)
                };
                to_result(ret)?;
                #[cfg(inject)]
                // SAFETY: As above; all tables here have the format's operations.
                unsafe {
                    WRAPPED.wrap(&raw mut (*slot).iommu);
                }
                Ok::<(), Error>(())
            }),
        })
    }

    fn root(&self, _held: &Held) -> AmdV1Root {
        self.root_now()
    }

    fn as_pt_iommu(&self) -> *mut bindings::pt_iommu {
        // `pt_iommu` is the first member.
        self.table.get().cast()
    }

    unsafe fn lowest_table(&self, iova: u64) -> Option<u64> {
        walk::lowest_table::<HostTable>(
            self.top(),
            iova,
            // SAFETY: As for `for_each_mapping`; tables that lead to `iova` stay, by the contract.
            |table, index| unsafe { read_entry(table, index) },
        )
    }

    fn leaf(_config: &AmdV1Config, phys: u64, read: bool, write: bool) -> u64 {
        host::leaf(phys, read, write)
    }

    fn is_incoherent(_config: &AmdV1Config) -> bool {
        // Walks snoop the CPU's caches.
        false
    }

    unsafe fn count_from(&self, from: u64, mapped: &mut Mapped) -> Option<u64> {
        super::count_from::<HostTable>(
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
        walk::walk::<HostTable>(
            self.top(),
            tables,
            // SAFETY: The address is that of the root, or comes from an entry of a
            // table of this tree, in which by the contract nothing changes meanwhile.
            // Tables have 512 entries.
            |table, index| unsafe { read_entry(table, index) },
            visit,
        )
    }
}

impl AmdV1 {
    /// The root, which may be another one at the next moment.
    fn root_now(&self) -> AmdV1Root {
        let mut info = bindings::pt_iommu_amdv1_hw_info {
            host_pt_root: 0,
            mode: 0,
        };
        // SAFETY: The table is initialised (`for_domain`). Its top is one word, address and level
        // both, which this reads once.
        unsafe { bindings::pt_iommu_amdv1_hw_info(self.table.get(), &mut info) };
        AmdV1Root {
            phys: info.host_pt_root,
            levels: info.mode,
        }
    }

    fn top(&self) -> Top {
        let root = self.root_now();
        // SAFETY: Written by `for_domain` only.
        let address_bits = unsafe { (*self.table.get()).amdpt.common.max_vasz_lg2 };
        Top {
            phys: root.phys,
            level: u32::from(root.levels).saturating_sub(1),
            address_bits: address_bits.into(),
        }
    }
}

#[pinned_drop]
impl PinnedDrop for AmdV1 {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The table was initialised by `for_domain` and is deinitialised only here;
        // who drops it has seen that hardware does not use it any more (see `domain.rs`).
        unsafe { bindings::rust_iommu_pt_deinit(self.as_pt_iommu()) };
    }
}
