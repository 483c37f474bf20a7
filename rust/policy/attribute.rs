// SPDX-License-Identifier: GPL-2.0

//! A device's attributes in sysfs, `rust_iommu/policy` and `rust_iommu/max_age_ms`.

use super::{
    change,
    name::Policy, //
};
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
    fmt::Write as _,
    slice, //
};
use kernel::{
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

/// The attributes of a driver's devices.
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
    /// They are those of `D`, nobody else does this at the same time, and no device has them.
    pub(crate) unsafe fn init<D: Driver>(&'static self) {
        // SAFETY: By the contract.
        unsafe {
            bindings::rust_iommu_attributes_init(self.0.get(), Some(show::<D>), Some(store::<D>))
        };
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
/// [`change::change`] takes. The device's own may be: who finds it taken goes away.
pub(crate) fn remove<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    if !member.device.has_attributes.xchg(false, Relaxed) {
        return;
    }
    let dev = raw::as_raw(function.as_device());
    // SAFETY: The device has them, and is still registered.
    unsafe { bindings::rust_iommu_attributes_remove(Ops::<D>::attributes().0.get(), dev) };
}

fn find<D: Driver>(function: &Function<'_>) -> Result<Member<D>> {
    let registry = D::ops().registry()?;
    let found = registry.lock().groups.find(function.as_device());
    found.ok_or(ENODEV)
}

/// Which of the attributes.
type Which = bindings::rust_iommu_attribute;

fn shown<D: Driver>(function: &Function<'_>, which: Which, to: &mut Formatter<'_>) -> Result {
    let member = find::<D>(function)?;
    match which {
        bindings::rust_iommu_attribute_RUST_IOMMU_POLICY => {
            writeln!(to, "{}", change::current(&member, function)?.name())?;
        }
        _ => writeln!(to, "{}", member.device.max_age_ms.load(Relaxed))?,
    }
    Ok(())
}

/// # Safety
///
/// Called by sysfs for the attribute of a device; `text` is a page.
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
    let result = Function::from_device(dev)
        .ok_or(ENODEV)
        .and_then(|function| shown::<D>(&function, which, &mut to));
    match result {
        // CAST: at most a page.
        Ok(()) => to.bytes_written() as isize,
        Err(e) => e.to_errno() as isize,
    }
}

fn set_policy<D: Driver>(member: &Member<D>, function: &Function<'_>, text: &[u8]) -> Result {
    let policy = Policy::parse(text).ok_or(EINVAL)?;
    let result = change::change(member, function, policy);
    match result {
        Err(EBUSY) => pr_info!(
            "{function}: policy {} can be set only while no driver is bound in its group\n",
            policy.name()
        ),
        Err(EPERM) => pr_info!(
            "{function}: policy {} is not for a device that is not trusted\n",
            policy.name()
        ),
        _ => {}
    }
    result
}

fn set<D: Driver>(function: &Function<'_>, which: Which, text: &[u8]) -> Result {
    let member = find::<D>(function)?;
    match which {
        bindings::rust_iommu_attribute_RUST_IOMMU_POLICY => set_policy(&member, function, text),
        _ => {
            let text = core::str::from_utf8(text.trim_ascii()).map_err(|_| EINVAL)?;
            change::set_max_age(&member, text.parse().map_err(|_| EINVAL)?)
        }
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
        .and_then(|function| set::<D>(&function, which, text));
    match result {
        // CAST: at most a page.
        Ok(()) => length as isize,
        Err(e) => e.to_errno() as isize,
    }
}
