// SPDX-License-Identifier: GPL-2.0

//! Attributes of devices and of units in sysfs, each below a directory `rust_iommu`. What they say is
//! described in `Documentation/ABI/testing/`.
//!
//! Files of a device go before the core releases it, those of a unit after all of its devices and before
//! the unit; sysfs waits for whoever is in one. So who is finds the device and the unit in memory. What else
//! they need, they find in the registry, or answer `ENODEV`.
//!
//! Who reads holds no lock that a change of the policy holds while it waits, but to read the policy.

use crate::{
    bindings,
    driver::Driver,
    group::Member,
    ops::Ops,
    pci::Function,
    raw, //
};
use core::{
    cell::UnsafeCell,
    slice, //
};
use kernel::{
    device::Device,
    error::to_result,
    ffi::{
        c_char,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::Formatter,
    sync::atomic::Relaxed, //
};

mod device;
mod unit;

/// The attributes of a driver's devices and units.
///
/// # Invariants
///
/// In a static; filled in once, before a device of the driver is there.
pub(crate) struct Attributes(UnsafeCell<bindings::rust_iommu_attributes>);

impl Attributes {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(pin_init::zeroed()))
    }

    /// Fills them in for driver `D`.
    ///
    /// # Safety
    ///
    /// They are those of `D`, nobody else does this at the same time, and no device or unit has them.
    pub(crate) unsafe fn init<D: Driver>(&'static self) {
        // SAFETY: By the contract.
        unsafe {
            bindings::rust_iommu_attributes_init(self.0.get(), Some(show::<D>), Some(store::<D>))
        };
    }

    /// Those of a unit, for `iommu_device_sysfs_add()`, which ends with NULL.
    pub(crate) fn of_unit(&'static self) -> *mut *const bindings::attribute_group {
        // SAFETY: In a static; only the place is formed.
        unsafe { (&raw mut (*self.0.get()).unit_groups).cast() }
    }
}

/// Gives the device its attributes. Where that fails there is a message. Context: may sleep.
pub(crate) fn add<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    let dev = raw::as_raw(function.as_device());
    let attributes = Ops::<D>::attributes().0.get();
    // SAFETY: The device is registered, and the attributes were filled in before it was found.
    let added = unsafe { bindings::rust_iommu_attributes_add(attributes, dev) };
    match to_result(added) {
        Ok(()) => member.device.has_attributes.store(true, Relaxed),
        Err(e) => pr_warn!("{function}: no attributes (error {})\n", e.to_errno()),
    }
}

/// Takes them away, and waits for who uses them. Context: may sleep; no lock is held that
/// a change of the policy takes. The device's own may be: who finds it taken goes away.
pub(crate) fn remove<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    if !member.device.has_attributes.xchg(false, Relaxed) {
        return;
    }
    let dev = raw::as_raw(function.as_device());
    // SAFETY: The device has them, and is still registered.
    unsafe { bindings::rust_iommu_attributes_remove(Ops::<D>::attributes().0.get(), dev) };
}

/// Which of the attributes.
type Which = bindings::rust_iommu_attribute;

/// Whether another line fits: no list here has longer ones.
fn has_room(to: &Formatter<'_>) -> bool {
    to.bytes_written() + 64 <= PAGE_SIZE
}

fn shown<D: Driver>(dev: &Device, which: Which, to: &mut Formatter<'_>) -> Result {
    // Those of units come last.
    if which >= bindings::rust_iommu_attribute_RUST_IOMMU_UNIT_INVALIDATIONS {
        return unit::show::<D>(dev, which, to);
    }
    let function = Function::from_device(dev).ok_or(ENODEV)?;
    device::show::<D>(&function, which, to)
}

/// # Safety
///
/// Called by sysfs for the attribute of a device or a unit; `text` is a page.
unsafe extern "C" fn show<D: Driver>(
    dev: *mut bindings::device,
    which: Which,
    text: *mut c_char,
) -> isize {
    // SAFETY: By the contract; a device with attributes is registered.
    let dev = unsafe { raw::device(dev) };
    // SAFETY: By the contract.
    let text = unsafe { slice::from_raw_parts_mut(text.cast::<u8>(), PAGE_SIZE) };
    let mut to = Formatter::new(text);
    match shown::<D>(dev, which, &mut to) {
        // CAST: at most a page.
        Ok(()) => to.bytes_written() as isize,
        Err(e) => e.to_errno() as isize,
    }
}

/// # Safety
///
/// Called by sysfs for the attribute of a device, whose lock is held; `text` has `length` bytes.
unsafe extern "C" fn store<D: Driver>(
    dev: *mut bindings::device,
    which: Which,
    text: *const c_char,
    length: c_ulong,
) -> isize {
    // SAFETY: By the contract.
    let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), length) };
    // SAFETY: A device with attributes is registered.
    let dev = unsafe { raw::device(dev) };
    let result = Function::from_device(dev)
        .ok_or(ENODEV)
        .and_then(|function| device::set::<D>(&function, which, text));
    match result {
        // CAST: at most a page.
        Ok(()) => length as isize,
        Err(e) => e.to_errno() as isize,
    }
}
