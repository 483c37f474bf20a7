// SPDX-License-Identifier: GPL-2.0

//! What is special about the machine's memory.

use crate::bindings;

/// First physical address beyond all RAM that the kernel had at boot. Context: any.
pub fn top_of_ram() -> u64 {
    // SAFETY: Reads a variable that does not change after boot, but for memory hotplug.
    unsafe { bindings::rust_iommu_top_of_ram() }
}

/// Whether memory is encrypted (AMD SME and the like), so that addresses given to hardware need a bit
/// which nothing here sets. Context: any.
pub fn is_encrypted() -> bool {
    // SAFETY: Asks for a property of the machine.
    unsafe { bindings::rust_iommu_memory_is_encrypted() }
}
