// SPDX-License-Identifier: GPL-2.0

//! Devices that pass DMA through while the IOMMU core does not know them.
//!
//! When a unit is switched on, every device that is there must go on working until
//! the core has attached it, and one that a driver is bound to until it is removed.

use crate::{
    attach,
    driver::{
        Driver,
        Target, //
    },
    endpoint::Endpoint,
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// An entry that passes a device's DMA through, for as long as this lives.
///
/// A driver whose endpoints share entries counts this as one of their users: when it
/// goes after the core has attached the device, the core's entry stays.
pub struct Standby<D: Driver>(Arc<Endpoint<D>>);

impl<D: Driver> Standby<D> {
    /// Programs the entry. Context: may sleep. Errors: `EBUSY` once units are
    /// registered, when the IOMMU core decides; `ENOMEM`, `ETIMEDOUT`, `EIO`.
    pub fn new(unit: UnitRef<D>, facts: D::Endpoint, slot: D::Slot) -> Result<Self> {
        if !D::ops().registry()?.lock().units.is_empty() {
            return Err(EBUSY);
        }
        let endpoint = Endpoint::new(unit, facts, slot)?;
        let _ = attach::program_static(&endpoint, &Target::Identity)?;
        Ok(Self(endpoint))
    }

    /// What is known of the device.
    pub fn facts(&self) -> &D::Endpoint {
        &self.0.facts
    }
}

impl<D: Driver> Drop for Standby<D> {
    fn drop(&mut self) {
        // Pass-through holds no memory, so there is nothing to leak on a timeout; the
        // queue has reported it.
        let _ = attach::program_static(&self.0, &Target::Blocked);
    }
}
