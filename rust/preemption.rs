// SPDX-License-Identifier: GPL-2.0

//! Sections in which the CPU does nothing else but interrupts.

use crate::bindings;

/// Calls `f` with preemption off: it must not sleep. Context: any.
#[inline]
pub(crate) fn off<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: May be called anywhere, and as often as it is undone.
    unsafe { bindings::rust_iommu_preempt_disable() };
    let result = f();
    // SAFETY: Undoes the above. Nothing unwinds in the kernel, so `f` has returned.
    unsafe { bindings::rust_iommu_preempt_enable() };
    result
}
