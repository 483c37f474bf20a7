// SPDX-License-Identifier: GPL-2.0

//! Between `&Device` and `struct device *`, what the core wants made of the latter, and what is read of it.
//!
//! The kernel crate keeps its own conversion to itself; this is the only other one.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    str::{
        CStr,
        CStrExt as _, //
    },
};

/// The C device. It is valid for as long as the reference is.
pub(crate) fn as_raw(dev: &Device) -> *mut bindings::device {
    // `Device` is a transparent wrapper of `Opaque<struct device>`: same address, and what it
    // points to may be written through a shared reference.
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// The Rust view of a device that C passed in.
///
/// # Safety
///
/// `dev` points to an initialised device, whose reference count does not reach zero in `'a`.
pub(crate) unsafe fn device<'a>(dev: *mut bindings::device) -> &'a Device {
    // SAFETY: Valid, not null and referenced during `'a`, by the contract.
    unsafe { Device::from_raw(dev) }
}

/// The highest address that a device may be told: what `dma_get_mask()` says, and its bus allows.
///
/// Read here, as a call of C code would be a good part of what it takes to map a page.
///
/// # Safety
///
/// `dev` is valid, and so is what its `dma_mask` points to, if it is not null. Nobody changes that pointer or
/// `bus_dma_limit` meanwhile; the mask itself may change.
#[inline]
pub(crate) unsafe fn dma_limit(dev: *mut bindings::device) -> u64 {
    // SAFETY: By the contract.
    let place = unsafe { (*dev).dma_mask };
    // SAFETY: By the contract.
    let bus = unsafe { (*dev).bus_dma_limit };
    let mask = match NonNull::new(place) {
        // SAFETY: By the contract; `dma_set_mask()` writes it by one aligned store.
        Some(mask) => unsafe { mask.read_volatile() },
        None => 0,
    };
    let mask = if mask == 0 { u32::MAX.into() } else { mask };
    if bus == 0 {
        mask
    } else {
        mask.min(bus)
    }
}

/// The driver that a device has now. All that reads `dev->driver` comes here.
///
/// Unless the caller keeps the driver from going (by the device's lock, or as the device
/// is bound), it may be gone by the time of return: the pointer may be compared then, but
/// not followed.
pub(crate) fn driver(dev: &Device) -> *const bindings::device_driver {
    // SAFETY: Valid, as the reference is; only the place is formed.
    let place = unsafe { &raw const (*as_raw(dev)).driver };
    // SAFETY: Aligned and valid; the core writes it with WRITE_ONCE().
    unsafe { place.read_volatile() }
}

/// The name of the driver that a device is bound to.
pub(crate) fn driver_name(dev: &Device<Bound>) -> &CStr {
    // SAFETY: A bound device has a driver, which stays registered at least until it is unbound.
    let name = unsafe { (*driver(dev)).name };
    // SAFETY: A registered driver's name is a string, which lives as long as the driver.
    unsafe { CStr::from_char_ptr(name) }
}

/// The group that a device belongs to, with a reference for the caller, or an error pointer.
///
/// PCI functions share a group with those that the topology (aliases, missing ACS, functions of
/// one slot) does not isolate from them; any other device has a group of its own.
///
/// Context: may sleep.
///
/// # Safety
///
/// `dev` points to a device that the core asks for from `iommu_ops::device_group`: it then holds
/// `iommu_probe_device_lock`, so that the groups of other devices do not change meanwhile.
pub(crate) unsafe fn device_group(dev: *mut bindings::device) -> *mut bindings::iommu_group {
    // SAFETY: Valid by the contract; only `dev->bus` is read, which does not change after
    // device_add().
    if unsafe { bindings::dev_is_pci(dev) } {
        // SAFETY: A valid PCI device, and the core holds the lock, by the contract.
        unsafe { bindings::pci_device_group(dev) }
    } else {
        // SAFETY: Valid by the contract.
        unsafe { bindings::generic_device_group(dev) }
    }
}
