// SPDX-License-Identifier: GPL-2.0

//! What the attributes of a unit say.

use super::Which;
use crate::{
    bindings::{
        rust_iommu_attribute_RUST_IOMMU_UNIT_FAULTS as FAULTS,
        rust_iommu_attribute_RUST_IOMMU_UNIT_INVALIDATIONS as INVALIDATIONS,
        rust_iommu_attribute_RUST_IOMMU_UNIT_MAPPED_BYTES as MAPPED_BYTES,
        rust_iommu_attribute_RUST_IOMMU_UNIT_MAPPINGS as MAPPINGS,
        rust_iommu_attribute_RUST_IOMMU_UNIT_TIMEOUTS as TIMEOUTS, //
    },
    driver::Driver,
    mapped,
    unit::UnitRef, //
};
use core::fmt::Write as _;
use kernel::{
    device::Device,
    prelude::*,
    str::Formatter, //
};

/// The unit that has this device in sysfs. Errors: `ENODEV` before it is registered and after that.
fn find<D: Driver>(dev: &Device) -> Result<UnitRef<D>> {
    let registry = D::ops().registry()?.lock();
    let mut units = registry.units.iter();
    units
        .find(|unit| unit.is_named_by(dev))
        .cloned()
        .ok_or(ENODEV)
}

/// Context: may sleep.
pub(super) fn show<D: Driver>(dev: &Device, which: Which, to: &mut Formatter<'_>) -> Result {
    let unit = find::<D>(dev)?;
    let value = match which {
        INVALIDATIONS => D::counters(&unit).invalidations,
        TIMEOUTS => D::counters(&unit).timeouts,
        FAULTS => D::counters(&unit).faults,
        MAPPINGS => mapped::by_unit(&unit)?.mappings,
        MAPPED_BYTES => mapped::by_unit(&unit)?.bytes,
        _ => return Err(EIO),
    };
    Ok(writeln!(to, "{value}")?)
}
