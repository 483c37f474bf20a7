// SPDX-License-Identifier: GPL-2.0

//! Keeping the set of PCI functions as it is.

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While this lives, no function is added to or removed from any PCI bus.
///
/// Outside of every other lock, of the core's too. Ports must not be bound or unbound
/// under it: their hotplug service waits for work that takes it. Context: may sleep.
pub(super) struct RescanLock(NotThreadSafe);

impl RescanLock {
    /// Takes the lock. It is not recursive.
    pub(super) fn new() -> Self {
        // SAFETY: No requirements but the context; unlocked by the drop, by this thread,
        // as the type is not `Send`.
        unsafe { bindings::pci_lock_rescan_remove() };
        Self(NotThreadSafe)
    }
}

impl Drop for RescanLock {
    fn drop(&mut self) {
        // SAFETY: Taken by `new`.
        unsafe { bindings::pci_unlock_rescan_remove() };
    }
}
