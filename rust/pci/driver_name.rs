// SPDX-License-Identifier: GPL-2.0

//! A driver's name, copied while the driver cannot go away.

use crate::{
    bindings,
    raw, //
};
use kernel::{
    device::Device,
    fmt,
    prelude::*,
    str::BStr, //
};

const LEN: usize = 32;

/// A driver's name, for messages; cut after 32 bytes.
#[derive(Clone, Copy)]
pub struct DriverName {
    bytes: [u8; LEN],
    len: usize,
}

impl DriverName {
    /// See [`Function::driver_name`](super::Function::driver_name).
    pub(super) fn of(dev: &Device) -> Option<Self> {
        let dev = raw::as_raw(dev);
        // SAFETY: Valid, from the reference.
        if !unsafe { bindings::rust_iommu_device_trylock(dev) } {
            return None;
        }
        // SAFETY: Valid, and locked just above.
        let name = unsafe { Self::copy(dev) };
        // SAFETY: Locked by this function.
        unsafe { bindings::rust_iommu_device_unlock(dev) };
        name
    }

    /// # Safety
    ///
    /// `dev` is valid, and locked.
    unsafe fn copy(dev: *mut bindings::device) -> Option<Self> {
        // SAFETY: Valid; `driver` is written with the device locked only.
        let driver = unsafe { (*dev).driver };
        if driver.is_null() {
            return None;
        }
        // SAFETY: Unregistering a driver unbinds it from its devices, which takes their locks, so
        // the driver stays until the device is unlocked.
        let name = unsafe { (*driver).name };
        // SAFETY: Drivers are registered with a name, which lives as long as they do.
        let name = unsafe { CStr::from_char_ptr(name) }.to_bytes();
        let mut bytes = [0; LEN];
        let len = name.len().min(LEN);
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = *from;
        }
        Some(Self { bytes, len })
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bytes.get(..self.len).unwrap_or_default();
        fmt::Display::fmt(BStr::from_bytes(name), f)
    }
}
