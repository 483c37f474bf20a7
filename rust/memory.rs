// SPDX-License-Identifier: GPL-2.0

//! How much there is to map one to one.

use crate::bindings;

/// First physical address beyond all RAM that the kernel had at boot. Context: any.
pub fn top_of_ram() -> u64 {
    // SAFETY: Reads a variable that does not change after boot, but for memory hotplug.
    unsafe { bindings::rust_iommu_top_of_ram() }
}
