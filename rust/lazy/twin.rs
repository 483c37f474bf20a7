// SPDX-License-Identifier: GPL-2.0

//! The core's own DMA API for a device that has operations of ours.
//!
//! `dma_map_phys()` and its like ask two things of a device: whether the IOMMU core's
//! implementation is to be used (`DEV_FLAG_DMA_IOMMU`), and if not, which operations. A
//! device whose streaming mappings are ours has the flag cleared, and the core's functions
//! behind it are not exported. What is not ours (coherent memory, what does not fit into the
//! window) goes to the core all the same, through a second `struct device` that has the flag
//! set and is otherwise like the first as far as `drivers/iommu/dma-iommu.c` looks: same
//! group, so same domain and same IOVA allocator; same masks.
//!
//! The twin is on no bus, has no driver and no place in sysfs.

use crate::{
    bindings,
    raw, //
};
use kernel::{
    device::Device,
    prelude::*,
    types::Opaque, //
};

/// The second device.
///
/// # Invariants
///
/// Zeroed but for the fields that `new` sets. `iommu_group`, `iommu`, `dma_mask` and
/// `dma_parms` point to what the first device points to, which keeps them for as long as it
/// is in its group; the twin is dropped before it leaves it.
#[pin_data]
pub(crate) struct Twin {
    #[pin]
    dev: Opaque<bindings::device>,
}

// SAFETY: Used by the DMA API only, which may be called from any thread.
unsafe impl Send for Twin {}
// SAFETY: As above; `refresh` writes what was there before or what the first device's driver
// has just set, which such a driver does not do while it maps.
unsafe impl Sync for Twin {}

const NAME: &CStr = c"rust_iommu";

impl Twin {
    /// # Safety
    ///
    /// The result is dropped before `dev` leaves its IOMMU group.
    pub(crate) unsafe fn new(dev: &Device) -> impl PinInit<Self> + use<'_> {
        let first = raw::as_raw(dev);
        pin_init!(Self {
            dev <- Opaque::ffi_init(move |twin: *mut bindings::device| {
                // SAFETY: Memory of this size that nobody else has yet; a device of zeroes is
                // what the DMA API takes for one that nothing is special about.
                unsafe { twin.write_bytes(0, 1) };
                // SAFETY: `first` is a registered device and `twin` was written above; the
                // function copies what this file's text names.
                unsafe { bindings::rust_iommu_twin_init(twin, first, NAME.as_char_ptr()) };
            }),
        })
    }

    /// The device to give to the DMA API in the first one's stead.
    pub(crate) fn as_raw(&self) -> *mut bindings::device {
        self.dev.get()
    }
}
