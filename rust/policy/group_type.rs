// SPDX-License-Identifier: GPL-2.0

//! The type of a group's default domain, read and changed as users do: through the attribute `type`.
//!
//! The core's function behind it is not exported, and whoever changes a default domain has to go
//! through it.

use super::name::Base;
use crate::{
    bindings,
    raw, //
};
use kernel::{
    device::Device,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Returns the type of the default domain of the device's group; a queue is said to be a single one
/// if `single` is.
///
/// Errors: `ENODEV` if the device has no group, or the group no default domain; `ENOMEM`.
///
/// Context: may sleep; takes `group->mutex`. The device stays in its group meanwhile.
pub(crate) fn read(dev: &Device, single: bool) -> Result<Base> {
    let mut text = KBox::new([0u8; PAGE_SIZE], GFP_KERNEL)?;
    // SAFETY: The device is registered, and the buffer is as large as an attribute may be.
    let length =
        unsafe { bindings::rust_iommu_group_type_show(raw::as_raw(dev), text.as_mut_ptr()) };
    // CAST: not negative, as `to_result` has looked.
    let length = to_result(length).map(|()| length as usize)?;
    match text.get(..length).unwrap_or_default().trim_ascii() {
        b"identity" => Ok(Base::Identity),
        b"DMA" => Ok(Base::Strict),
        b"DMA-FQ" => Ok(Base::Queue { single }),
        _ => Err(ENODEV),
    }
}

fn write(dev: &Device, kind: &'static CStr) -> Result {
    // SAFETY: The device is registered; the text ends with a zero.
    to_result(unsafe {
        bindings::rust_iommu_group_type_store(raw::as_raw(dev), kind.as_char_ptr())
    })
}

/// Changes the default domain of the device's group from one type to another. With `fresh` it is a new
/// domain in any case.
///
/// Errors: `EBUSY` if a driver uses the group, or what it had there is being freed, or somebody else has changed
/// the type; `EACCES` if the caller may not change it; what the core
/// has for want of memory. The domain is then one of the type it was, or it is strict, or queued.
///
/// Context: as for [`read`].
pub(super) fn change(dev: &Device, from: Base, to: Base, fresh: bool) -> Result {
    let steps: &[&'static CStr] = match (to, from) {
        (Base::Identity, _) => &[c"identity"],
        (Base::Strict, _) => &[c"DMA"],
        // A strict domain gets a queue. The core makes no new domain of the type that there is.
        (Base::Queue { .. }, Base::Strict) if fresh => &[c"DMA-FQ", c"DMA", c"DMA-FQ"],
        (Base::Queue { .. }, _) if fresh => &[c"DMA", c"DMA-FQ"],
        (Base::Queue { .. }, _) => &[c"DMA-FQ"],
    };
    let changed = steps.iter().try_for_each(|step| write(dev, step));
    changed.map_err(|e| match e {
        // The second: what a driver of another device had is being freed (`change::default_type`). Or the type has
        // become another one since it was read, and with an aperture the core does not take that for one that the
        // driver allows.
        EPERM | EINVAL => EBUSY,
        e => e,
    })
}

/// Has the core make a new default domain of the type that it has, which is not identity.
///
/// Errors: `EBUSY` if a driver or somebody else uses the group; `EACCES`, and others as for [`change`]. The
/// domain is the one that it was, but a strict one may have become queued.
///
/// Context: as for [`read`].
pub(crate) fn renew(dev: &Device, base: Base) -> Result {
    match base {
        // No step of its own: the core gives the domain that there is a queue, whoever uses it.
        Base::Strict => change(dev, base, Base::Queue { single: false }, false)?,
        Base::Queue { .. } | Base::Identity => {}
    }
    change(dev, base, Base::Strict, true).inspect_err(|e| {
        if base == Base::Strict {
            dev_warn!(dev, "its group is queued now (error {})\n", e.to_errno());
        }
    })?;
    let Base::Queue { .. } = base else {
        return Ok(());
    };
    change(dev, Base::Strict, base, false).or_else(|e| {
        dev_warn!(dev, "its group is strict now (error {})\n", e.to_errno());
        Ok(())
    })
}
