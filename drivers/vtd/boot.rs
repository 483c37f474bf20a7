// SPDX-License-Identifier: GPL-2.0

//! Devices that are there when the units are switched on.

use crate::{
    driver::{
        Endpoint,
        Vtd, //
    },
    tables::Purpose,
    unit::Unit, //
};
use iommu::{
    pci::{
        self,
        notifier::PciObserver,
        Function, //
    },
    registration::is_attached,
    standby::Standby,
    unit::UnitRef, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Pass-through entries of devices that the core has not attached.
#[pin_data]
pub(crate) struct Boot {
    #[pin]
    kept: Mutex<KVec<Standby<Vtd>>>,
}

impl Boot {
    /// Gives every device behind the units a pass-through entry.
    ///
    /// Context: may sleep. Errors: `ENOMEM`, `ETIMEDOUT`, `EIO`.
    pub(crate) fn keep(units: &[UnitRef<Vtd>]) -> Result<Arc<Self>> {
        let mut kept = KVec::new();
        pci::for_each_function(|function| {
            let endpoint = Endpoint::new(function)?;
            let owner = |unit: &&UnitRef<Vtd>| Unit::owns(unit, endpoint.path());
            let Some(unit) = units.iter().find(owner) else {
                return Ok(());
            };
            let purpose = if function.has_driver() {
                Purpose::KeepBound
            } else {
                Purpose::Keep
            };
            let slot = unit.slot(&endpoint.aliases, purpose)?;
            kept.push(Standby::new(unit.clone(), endpoint, slot)?, GFP_KERNEL)?;
            Ok(())
        })?;
        Arc::pin_init(
            pin_init!(Self {
                kept <- new_mutex!(kept, "vtd boot devices"),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives up the entries of devices that the core has attached meanwhile.
    ///
    /// Context: may sleep.
    pub(crate) fn settle(&self) {
        // The visitor never stops the walk.
        let _ = pci::for_each_function(|function| {
            if is_attached(function) {
                self.forget(function);
            }
            Ok(())
        });
    }

    fn forget(&self, function: Function<'_>) {
        let id = function.source_id();
        self.kept
            .lock()
            .retain(|standby| standby.facts().source != id);
    }

    /// Gives up all entries.
    pub(crate) fn end(&self) {
        let kept = core::mem::take(&mut *self.kept.lock());
        drop(kept);
    }
}

impl PciObserver for Boot {
    fn removed(&self, function: &Function<'_>) {
        self.forget(*function);
    }
}
