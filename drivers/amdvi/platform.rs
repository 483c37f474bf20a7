// SPDX-License-Identifier: GPL-2.0

//! What firmware says of the machine's IOMMUs: the IVRS.

use crate::{
    ivhd::Settings,
    ivrs::{
        Flags,
        Ivrs,
        Memory,
        Unit, //
    },
    regs::{
        self,
        Features, //
    }, //
};
use iommu::{
    acpi::Table,
    source_id::SourceId, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The machine's IVRS, checked as a whole.
///
/// # Invariants
///
/// `Ivrs::parse` accepts the table's bytes.
pub(crate) struct Platform {
    table: Table,
}

/// Facts of an IOMMU that are needed to take it over.
#[derive(Clone, Copy)]
pub(crate) struct UnitInfo {
    /// Physical address of its registers; tells IOMMUs apart.
    pub(crate) base: u64,
    /// Its own PCI function.
    pub(crate) function: SourceId,
    /// Where its capability is in that function's configuration space.
    pub(crate) capability: u16,
    /// What firmware wants of it.
    pub(crate) flags: Flags,
    /// The largest requester id that it translates.
    pub(crate) last_id: u16,
    /// It has host tables, if its registers say nothing else.
    host_tables: bool,
    /// Bits of the addresses that devices may use.
    address_bits: u8,
}

impl UnitInfo {
    /// As [`Features::table_levels`], with what firmware says of the IOMMU.
    pub(crate) fn table_levels(&self, features: Features, wanted: u8) -> Result<u8, regs::Error> {
        if !self.host_tables {
            return Err(regs::Error::NoHostTables);
        }
        features.table_levels(wanted, self.address_bits)
    }
}

impl Platform {
    /// Finds and checks the table.
    ///
    /// Errors, each with a message: `ENODEV` if there is none, `EINVAL` if it is
    /// malformed.
    pub(crate) fn find() -> Result<Arc<Self>> {
        let table = Table::get(b"IVRS").inspect_err(|_| {
            pr_err!("no AMD-Vi here: firmware has no IVRS table\n");
        })?;
        if let Err(e) = Ivrs::parse(table.bytes()) {
            pr_err!("IVRS table is malformed: {}\n", core::format_args!("{e}"));
            return Err(EINVAL);
        }
        // INVARIANT: just checked.
        Ok(Arc::new(Self { table }, GFP_KERNEL)?)
    }

    fn ivrs(&self) -> Ivrs<'_> {
        Ivrs::accepted(self.table.bytes())
    }

    /// All IOMMUs, in table order. Errors: `ENOMEM`.
    pub(crate) fn units(&self) -> Result<KVec<UnitInfo>> {
        let mut units = KVec::new();
        for unit in self.ivrs().units() {
            units.push(
                UnitInfo {
                    base: unit.register_base,
                    function: function(&unit),
                    capability: unit.capability,
                    flags: unit.flags,
                    last_id: unit.last_id(),
                    host_tables: unit.host_tables,
                    address_bits: self.ivrs().address_bits(),
                },
                GFP_KERNEL,
            )?;
        }
        Ok(units)
    }

    /// Whether a function is an IOMMU itself, whose own requests are not translated.
    pub(crate) fn is_unit(&self, id: SourceId) -> bool {
        self.ivrs().units().any(|unit| function(&unit) == id)
    }

    /// Register base of the IOMMU that a device is behind.
    pub(crate) fn owner(&self, id: SourceId) -> Option<u64> {
        Some(self.unit_of(id)?.register_base)
    }

    /// The id that requests of a device carry, if firmware says that they carry another.
    pub(crate) fn alias(&self, id: SourceId) -> Option<SourceId> {
        let alias = self.unit_of(id)?.alias(id.requester_id())?;
        Some(SourceId::from_requester_id(id.segment(), alias))
    }

    /// The settings of each requester id of the IOMMU whose registers are at `base`.
    pub(crate) fn settings(&self, base: u64) -> impl Fn(u16) -> Settings + '_ {
        let mut units = self.ivrs().units();
        let unit = units.find(|unit| unit.register_base == base);
        move |id| unit.map(|unit| unit.settings(id)).unwrap_or_default()
    }

    /// Calls `with` for each range of memory that a device has to reach.
    pub(crate) fn memory(&self, id: SourceId, mut with: impl FnMut(&Memory)) {
        for memory in self.ivrs().memory() {
            if memory.covers(id.segment(), id.requester_id()) {
                with(&memory);
            }
        }
    }

    fn unit_of(&self, id: SourceId) -> Option<Unit<'_>> {
        self.ivrs().owner(id.segment(), id.requester_id())
    }
}

fn function(unit: &Unit<'_>) -> SourceId {
    SourceId::from_requester_id(unit.segment, unit.function)
}
