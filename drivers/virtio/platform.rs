// SPDX-License-Identifier: GPL-2.0

//! What firmware says of the machine's units: the VIOT table.

use crate::viot::{
    PciUnit,
    Viot, //
};
use iommu::{
    acpi::Table,
    pci,
    source_id::SourceId, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The machine's VIOT table, checked as a whole.
///
/// # Invariants
///
/// `Viot::parse` accepts the table's bytes.
pub(crate) struct Platform {
    table: Table,
}

impl Platform {
    /// Finds and checks the table.
    ///
    /// Errors, each with a message: `ENODEV` if there is none, `EINVAL` if it is
    /// malformed.
    pub(crate) fn find() -> Result<Arc<Self>> {
        let table = Table::get(b"VIOT").inspect_err(|_| {
            pr_err!("no virtio-iommu here: firmware has no VIOT table\n");
        })?;
        if let Err(e) = Viot::parse(table.bytes()) {
            pr_err!("VIOT table is malformed: {}\n", core::format_args!("{e}"));
            return Err(EINVAL);
        }
        // INVARIANT: just checked.
        Ok(Arc::new(Self { table }, GFP_KERNEL)?)
    }

    fn viot(&self) -> Viot<'_> {
        Viot::accepted(self.table.bytes())
    }

    /// The unit that a function is behind, and its endpoint id there.
    pub(crate) fn endpoint(&self, function: SourceId) -> Option<(SourceId, u32)> {
        let (unit, endpoint) = self.viot().endpoint(function)?;
        Some((unit.id, endpoint))
    }

    /// Whether one of the units is there, and has a driver: it is then somebody else's device.
    ///
    /// Context: may sleep.
    pub(crate) fn is_held(&self) -> bool {
        let mut held = false;
        // The visitor never stops the walk.
        let _ = pci::for_each_function(|function| {
            let is_unit = |unit: PciUnit| unit.id == function.source_id();
            held |= function.has_driver() && self.viot().pci_units().any(is_unit);
            Ok(())
        });
        held
    }

    /// The function that has an endpoint id behind a unit. Context: any.
    pub(crate) fn function(&self, unit: SourceId, endpoint: u32) -> Option<SourceId> {
        self.viot().function(unit, endpoint)
    }
}
