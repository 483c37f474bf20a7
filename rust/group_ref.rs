// SPDX-License-Identifier: GPL-2.0

//! IOMMU groups, for those who use a device behind an IOMMU.

use crate::{
    bindings,
    raw::as_raw, //
};
use core::ptr::NonNull;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};

/// The group of a device, with a reference to it.
///
/// # Invariants
///
/// The pointer is that of a group, to which this object holds a reference.
#[derive(PartialEq, Eq)]
pub(crate) struct GroupRef(NonNull<bindings::iommu_group>);

// SAFETY: Groups belong to no thread.
unsafe impl Send for GroupRef {}

// SAFETY: As above; the core locks what can change in them.
unsafe impl Sync for GroupRef {}

impl GroupRef {
    /// The group that `dev` is in now. `ENODEV` where it is in none.
    pub(crate) fn of(dev: &Device<Bound>) -> Result<Self> {
        Self::find(dev).ok_or(ENODEV)
    }

    /// The group that `dev` is in now, if any.
    pub(crate) fn find(dev: &Device) -> Option<Self> {
        // SAFETY: The reference keeps the device.
        let group = unsafe { bindings::iommu_group_get(as_raw(dev)) };
        // INVARIANT: The call above has taken the reference.
        NonNull::new(group).map(Self)
    }

    /// Whether DMA of the group is owned, by a driver of the DMA API or by a claim; a snapshot.
    pub(crate) fn is_claimed(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::iommu_group_dma_owner_claimed(self.as_raw()) }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::iommu_group {
        self.0.as_ptr()
    }

    /// The number that sysfs names the group by.
    pub(crate) fn id(&self) -> i32 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::iommu_group_id(self.as_raw()) }
    }
}

impl Drop for GroupRef {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, by the type invariant.
        unsafe { bindings::iommu_group_put(self.as_raw()) };
    }
}
