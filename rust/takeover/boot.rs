// SPDX-License-Identifier: GPL-2.0

//! Devices that are there when the units are switched on.

use super::{
    failed,
    TakeOver, //
};
use crate::{
    named,
    pci::{
        self,
        notifier::PciObserver,
        Function, //
    },
    registration::is_attached,
    sharing::Purpose,
    standby::Standby,
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Pass-through entries of devices that the core has not attached.
#[pin_data]
pub(super) struct Boot<D: TakeOver> {
    #[pin]
    kept: Mutex<KVec<Standby<D>>>,
}

impl<D: TakeOver> Boot<D> {
    /// Gives every device behind the units a pass-through entry.
    ///
    /// Context: may sleep. Errors, with a message: those of [`TakeOver::keep`], `ENOMEM`, `ETIMEDOUT`,
    /// `EIO`.
    pub(super) fn keep(units: &[UnitRef<D>]) -> Result<Arc<Self>> {
        let mut kept = KVec::new();
        pci::for_each_function(|function| {
            Self::keep_one(units, function, &mut kept).inspect_err(|e| {
                dev_err!(
                    function.as_device(),
                    "cannot be kept at work: error {}\n",
                    e.to_errno()
                );
            })
        })?;
        Arc::pin_init(
            pin_init!(Self {
                kept <- named::mutex!(kept, "iommu boot devices"),
            }),
            GFP_KERNEL,
        )
        .inspect_err(failed("keeping devices at work"))
    }

    fn keep_one(
        units: &[UnitRef<D>],
        function: Function<'_>,
        kept: &mut KVec<Standby<D>>,
    ) -> Result {
        let purpose = if function.has_driver() {
            Purpose::KeepBound
        } else {
            Purpose::Keep
        };
        if let Some((unit, endpoint, slot)) = D::keep(units, function, purpose)? {
            kept.push(Standby::new(unit, endpoint, slot)?, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Gives up the entries of devices that the core has attached meanwhile.
    ///
    /// Context: may sleep.
    pub(super) fn settle(&self) {
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
            .retain(|standby| D::source(standby.facts()) != id);
    }

    /// Gives up all entries.
    pub(super) fn end(&self) {
        let kept = core::mem::take(&mut *self.kept.lock());
        drop(kept);
    }
}

impl<D: TakeOver> PciObserver for Boot<D> {
    fn removed(&self, function: &Function<'_>) {
        self.forget(*function);
    }
}
