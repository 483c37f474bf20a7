// SPDX-License-Identifier: GPL-2.0

//! What firmware says of the machine's units: the DMAR table.

use crate::dmar::{
    Dmar,
    ReservedRegion, //
};
use iommu::{
    acpi::Table,
    path::Path, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The machine's DMAR table, checked as a whole.
///
/// # Invariants
///
/// `Dmar::parse` accepts the table's bytes.
pub(crate) struct Platform {
    table: Table,
}

/// Facts of a unit that are needed to take it over.
#[derive(Clone, Copy)]
pub(crate) struct UnitInfo {
    /// Physical address of its registers; tells units apart.
    pub(crate) base: u64,
    /// PCI segment of the devices behind it.
    pub(crate) segment: u16,
}

impl Platform {
    /// Finds and checks the table.
    ///
    /// Errors, each with a message: `ENODEV` if there is none, `EINVAL` if it is
    /// malformed.
    pub(crate) fn find() -> Result<Arc<Self>> {
        let table = Table::get(b"DMAR").inspect_err(|_| {
            pr_err!("no VT-d here: firmware has no DMAR table\n");
        })?;
        if let Err(e) = Dmar::parse(table.bytes()) {
            pr_err!("DMAR table is malformed: {}\n", core::format_args!("{e}"));
            return Err(EINVAL);
        }
        // INVARIANT: just checked.
        Ok(Arc::new(Self { table }, GFP_KERNEL)?)
    }

    fn dmar(&self) -> Dmar<'_> {
        Dmar::accepted(self.table.bytes())
    }

    /// All units, in table order.
    pub(crate) fn units(&self) -> Result<KVec<UnitInfo>> {
        let mut units = KVec::new();
        for unit in self.dmar().units() {
            units.push(
                UnitInfo {
                    base: unit.register_base,
                    segment: unit.segment,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(units)
    }

    /// Register base of the unit that a device is behind.
    pub(crate) fn owner(&self, path: &Path) -> Option<u64> {
        Some(self.dmar().owner(path)?.register_base)
    }

    /// Calls `with` for each reserved region that the device has to reach.
    pub(crate) fn reserved_regions(&self, path: &Path, mut with: impl FnMut(&ReservedRegion<'_>)) {
        for region in self.dmar().reserved_regions() {
            if region.covers(path) {
                with(&region);
            }
        }
    }
}
