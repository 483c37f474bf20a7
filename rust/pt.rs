// SPDX-License-Identifier: GPL-2.0

//! IO page tables of the kernel's generic page table code, one type a format.
//!
//! C headers: [`include/linux/generic_pt/iommu.h`](srctree/include/linux/generic_pt/iommu.h)
//!
//! The core calls the table's own `map_range` and `unmap_range`; a driver never
//! sees a map or unmap, only the invalidations that follow.

use crate::{
    attached::Held,
    bindings, //
};
use core::{
    cell::UnsafeCell,
    ops::ControlFlow, //
};
use kernel::prelude::*;

mod amdv1;
pub mod host;
mod remote;
pub mod second_stage;
mod vtdss;
pub mod walk;

pub use self::amdv1::{
    AmdV1,
    AmdV1Config,
    AmdV1Root, //
};
pub use self::remote::{
    Remote,
    RemoteConfig, //
};
pub use self::vtdss::{
    Vtdss,
    VtdssConfig,
    VtdssRoot, //
};

mod private {
    pub trait Sealed {}
}
pub(crate) use self::private::Sealed;

/// Root pointer and depth of a table in format `T`.
pub type Root<T> = <T as PageTable>::Root;

/// A page table format. Only this crate implements it.
pub trait PageTable: Sealed + Send + Sync + Sized + 'static {
    /// How a table is made: width, coherency and the format's own choices.
    type Config: Copy + Send + Sync;
    /// What an entry needs to know to point at the table.
    type Root: Copy;

    /// The format's `iova_to_phys`, for `iommu_domain_ops`.
    #[doc(hidden)]
    const IOVA_TO_PHYS: IovaToPhys;

    /// Makes an empty table for a domain.
    ///
    /// Context: may sleep. Errors: `ENOMEM`, `EINVAL`, `EOPNOTSUPP`.
    ///
    /// # Safety
    ///
    /// Before anything is mapped in it the table becomes what `growth` takes it for.
    #[doc(hidden)]
    unsafe fn for_domain(
        config: Self::Config,
        node: i32,
        growth: &'static bindings::pt_iommu_driver_ops,
    ) -> impl PinInit<Self, Error>;

    /// Where entries are to point, for as long as the table does not grow.
    #[doc(hidden)]
    fn root(&self, held: &Held) -> Self::Root;

    /// If a map can put tables on top of the topmost one ([`top`](crate::top)): where entries are to point once
    /// that is the one at this address, of this level.
    #[doc(hidden)]
    const ROOT_AT: Option<fn(u64, u32) -> Self::Root> = None;

    /// NULL if it is none of generic_pt's.
    #[doc(hidden)]
    fn as_pt_iommu(&self) -> *mut bindings::pt_iommu;

    /// The domain that it starts with, as `pt_iommu` does.
    #[doc(hidden)]
    fn as_iommu_domain(&self) -> *mut bindings::iommu_domain {
        self.as_pt_iommu().cast()
    }

    /// Whether units are told of mappings instead of reading them.
    #[doc(hidden)]
    const IS_REMOTE: bool = false;

    /// Whether all entries have the hardware snoop the CPU's caches, also for requests that ask it not to.
    #[doc(hidden)]
    const FORCES_COHERENCY: bool = false;

    /// The mappings, if units are told of them.
    #[doc(hidden)]
    fn remote(&self) -> Option<&Remote> {
        None
    }

    /// Visits what the table maps, as [`walk::walk`] does; at most `tables` tables of
    /// it.
    ///
    /// Context: any; takes as long as reading the tables does, and as `visit` does.
    ///
    /// # Safety
    ///
    /// Until this returns nobody maps or unmaps in the table, either of which can free
    /// parts of it.
    #[doc(hidden)]
    unsafe fn for_each_mapping(
        &self,
        tables: u32,
        visit: &mut dyn FnMut(walk::Range) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// Adds what is mapped from `from` on to `mapped`, as far as it can be read in a short time: a few tables.
    /// Returns where to go on, a later address, or `None` at the end.
    ///
    /// Context: any. What others map and unmap meanwhile may be counted or not.
    ///
    /// # Safety
    ///
    /// Until this returns no table is freed that was part of this one during the call.
    #[doc(hidden)]
    unsafe fn count_from(&self, from: u64, mapped: &mut walk::Mapped) -> Option<u64>;

    /// What the lowest entries say while nothing is mapped.
    #[doc(hidden)]
    type Vacant: crate::lazy::format::Format + 'static;

    /// The physical address of the lowest table for `iova`, if there is one.
    ///
    /// # Safety
    ///
    /// Nobody frees tables of this range during the call.
    #[doc(hidden)]
    unsafe fn lowest_table(&self, iova: u64) -> Option<u64>;

    /// The lowest entry that maps the page at `phys`. At least one of the two is allowed.
    #[doc(hidden)]
    fn leaf(config: &Self::Config, phys: u64, read: bool, write: bool) -> u64;

    /// Whether the hardware reads tables past the CPU's caches.
    #[doc(hidden)]
    fn is_incoherent(config: &Self::Config) -> bool;
}

/// Type of `iommu_domain_ops::iova_to_phys`.
#[doc(hidden)]
pub type IovaToPhys = unsafe extern "C" fn(
    *mut bindings::iommu_domain,
    bindings::dma_addr_t,
) -> bindings::phys_addr_t;

/// [`PageTable::count_from`] of a table in memory. `read` as for [`walk::leaves`].
fn count_from<F: walk::Format>(
    top: walk::Top,
    from: u64,
    mapped: &mut walk::Mapped,
    read: impl FnMut(u64, usize) -> u64,
) -> Option<u64> {
    let seen = walk::leaves::<F>(top, from, walk::LEAST_TABLES, read, |leaf| {
        mapped.mappings += 1;
        mapped.bytes += leaf.bytes;
        ControlFlow::Continue(())
    });
    seen.break_value()
}

/// An entry of a table that generic_pt has made.
///
/// # Safety
///
/// `table` is the physical address of a table of 64-bit entries that is not freed
/// during the call, and that has more than `index` of them.
unsafe fn read_entry(table: u64, index: usize) -> u64 {
    // SAFETY: Tables are pages of the direct map, by the contract.
    let entries = unsafe { bindings::rust_iommu_phys_to_virt(table) }.cast::<u64>();
    // SAFETY: The entry is there, by the contract. Volatile, as the hardware may set
    // its accessed and dirty bits at any time; an aligned word is not torn.
    unsafe { entries.wrapping_add(index).read_volatile() }
}

/// Stands in for the IOMMU's own device where a table asks for one.
///
/// generic_pt wants a device for tables that hardware does not snoop, to flush CPU
/// caches with its DMA operations. On x86 it flushes them directly and never
/// dereferences the pointer, and remapping units are no devices there.
struct NoDevice(UnsafeCell<bindings::device>);

// SAFETY: The content is never read or written; only its address is used.
unsafe impl Sync for NoDevice {}

static NO_DEVICE: NoDevice = NoDevice(UnsafeCell::new(pin_init::zeroed()));

pub(crate) fn no_device() -> *mut bindings::device {
    NO_DEVICE.0.get()
}
