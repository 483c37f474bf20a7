// SPDX-License-Identifier: GPL-2.0

//! The framework's questions, answered for AMD-Vi.

use crate::{
    command::{
        Command,
        MAX_BLOCK_ORDER, //
    },
    commands::Commands,
    dte::DomainId,
    platform::Platform,
    table::Slot,
    unit::{
        self,
        Unit, //
    },
};
use core::fmt;
use iommu::{
    batch::Batch,
    driver::{
        Counters,
        Driver,
        Target, //
    },
    fault::Reports,
    ids::Id,
    invalidation::{
        Invalidation,
        Plan, //
    },
    locked::Locked,
    pci::{
        acs,
        Function, //
    },
    pt::{
        AmdV1,
        AmdV1Config, //
    },
    queue::Queue,
    resv::ResvList,
    sharing::Purpose,
    source_id::{
        AliasSet,
        SourceId, //
    },
    takeover::{
        Kept,
        TakeOver, //
    },
    unit::{
        Probing,
        UnitRef, //
    },
};
use kernel::prelude::*;

/// Addresses that the CPU's interrupt logic takes writes at: never translated.
const MSI_START: u64 = 0xfee0_0000;
const MSI_LENGTH: u64 = 0x10_0000;

/// Addresses with a meaning of their own in HyperTransport (specification, section 2.1.2): never
/// translated.
const TRANSPORT_START: u64 = 0xfd_0000_0000;
const TRANSPORT_LENGTH: u64 = 0x3_0000_0000;

/// The driver.
pub(crate) struct AmdVi;

iommu::ops!(static OPS: AmdVi);

/// What is known of a device.
pub(crate) struct Endpoint {
    /// The device's own name.
    source: SourceId,
    /// What firmware's table knows it as: the function that really does its DMA.
    named: SourceId,
    aliases: AliasSet,
    /// An id that its requests carry as firmware says, but not the kernel: its groups were made
    /// without knowing who shares that id.
    foreign: Option<SourceId>,
}

impl Endpoint {
    /// Collects the facts. Errors: `E2BIG` with a message for a device whose
    /// requester ids cannot be told.
    fn new(function: Function<'_>, platform: &Platform) -> Result<Self> {
        let named = function.dma_function().source_id();
        let mut aliases = function.aliases()?;
        let foreign = platform.alias(named).filter(|id| !aliases.contains(*id));
        if let Some(id) = foreign {
            aliases = aliases.with(id).map_err(|e| {
                pr_err!("{e}\n");
                E2BIG
            })?;
        }
        Ok(Self {
            source: function.source_id(),
            named,
            aliases,
            foreign,
        })
    }
}

/// The unit that a function is behind; `None` for an IOMMU's own function, and for what firmware does
/// not name.
fn unit_of<'a>(
    mut units: impl Iterator<Item = &'a UnitRef<AmdVi>>,
    function: Function<'_>,
) -> Option<&'a UnitRef<AmdVi>> {
    let named = function.dma_function().source_id();
    units.find(|unit| unit.owns(named) && !unit.platform().is_unit(named))
}

#[vtable]
impl Driver for AmdVi {
    type Unit = Unit;
    type Endpoint = Endpoint;
    type Slot = Slot;
    type Tag = Id;
    type Queue = Queue<Commands>;
    type Table = AmdV1;

    fn probe(dev: &Probing<'_, Self>) -> Result<(UnitRef<Self>, Endpoint, Slot)> {
        let function = dev.pci()?;
        let named = function.dma_function().source_id();
        let unit = dev.find_unit(|unit| unit.owns(named) && !unit.platform().is_unit(named))?;
        let endpoint = Endpoint::new(function, unit.platform())?;
        if let Some(id) = endpoint.foreign {
            dev_warn!(
                function.as_device(),
                "left alone: firmware says that its requests come from {id}, whose entry they go through\n"
            );
            return Err(ENODEV);
        }
        // A hot-added port passes requests between the devices below it unless told
        // not to; told before the core asks how they are to be grouped.
        if let Err(e) = acs::enable_acs(&function) {
            dev_warn!(function.as_device(), "cannot turn ACS on: {e:?}\n");
        }
        let slot = unit
            .slot(&endpoint.aliases, Purpose::Attach)
            .inspect_err(|e| {
                if *e == EBUSY {
                    dev_info!(
                        function.as_device(),
                        "left alone: shares a requester id with a device that keeps its driver\n"
                    );
                } else if *e == ERANGE {
                    dev_err!(
                        function.as_device(),
                        "left alone: firmware does not name an id that its requests carry\n"
                    );
                }
            })?;
        Ok((unit, endpoint, slot))
    }

    fn table_config(unit: &Unit, _endpoint: &Endpoint) -> Result<AmdV1Config> {
        Ok(unit.table_config())
    }

    fn compatible(unit: &Unit, _endpoint: &Endpoint, config: &AmdV1Config) -> Result {
        if unit.accepts(config) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    fn flush_new_mappings(unit: &Unit) -> bool {
        unit.capability().caches_not_present()
    }

    fn alloc_tag(unit: &Unit) -> Result<Id> {
        unit.tag()
    }

    fn program(
        unit: &Unit,
        _endpoint: &Endpoint,
        slot: &Locked<'_, Self>,
        target: &Target<'_, Self>,
        batch: &mut Batch<'_, Self>,
    ) {
        let wanted = unit.entry(target);
        slot.slot().program(wanted, slot.permit(), |changed| {
            // While translation is off no command is fetched; everything is invalidated when it is
            // switched on.
            if !unit.registers().is_on() {
                return;
            }
            batch.push(Command::entry(changed.id).words());
            // A paging domain's id is invalidated when its tag is retired. The one of pass-through
            // entries is no tag. Of blocked ones there is nothing to forget.
            if changed.old.id() == unit::IDENTITY {
                batch.push(Command::domain(unit::IDENTITY).words());
            }
            // A hypervisor that keeps a copy of the new domain's table brings it up to date.
            if unit.capability().caches_not_present() && Unit::is_paging(changed.new.id()) {
                batch.push(Command::domain(changed.new.id()).words());
            }
        });
    }

    fn forget_entry(unit: &Unit, slot: &Locked<'_, Self>, batch: &mut Batch<'_, Self>) {
        if !unit.registers().is_on() {
            return;
        }
        for id in slot.slot().ids() {
            batch.push(Command::entry(id).words());
        }
    }

    fn invalidate(unit: &Unit, tag: &Id, what: &Invalidation, batch: &mut Batch<'_, Self>) {
        if !unit.registers().is_on() {
            return;
        }
        let id = DomainId::new(tag.get());
        match what.plan(Some(MAX_BLOCK_ORDER)) {
            Plan::All => batch.push(Command::domain(id).words()),
            Plan::Blocks(blocks) => {
                for block in blocks {
                    batch.push(Command::pages(id, block, what.leaf_only()).words());
                }
            }
        }
    }

    fn queue(unit: &Unit) -> &Queue<Commands> {
        unit.queue()
    }

    fn counters(unit: &Unit) -> Counters {
        Counters {
            invalidations: unit.queue().submitted(),
            timeouts: unit.queue().timeouts(),
            faults: unit.events().faults(),
        }
    }

    fn reports(unit: &Unit) -> Option<&Reports<Self>> {
        Some(unit.events().reports())
    }

    fn resv_regions(unit: &Unit, endpoint: &Endpoint, list: &mut ResvList<'_>) {
        list.add_msi_window(MSI_START, MSI_LENGTH);
        list.add_reserved(TRANSPORT_START, TRANSPORT_LENGTH);
        unit.platform().memory(endpoint.named, |memory| {
            list.add_direct(memory.start, memory.length, false);
        });
    }
}

impl TakeOver for AmdVi {
    const UNIT: &'static CStr = c"amdvi";
    const FOLDER: &'static CStr = c"rust_amdvi";

    fn keep(
        units: &[UnitRef<Self>],
        function: Function<'_>,
        purpose: Purpose,
    ) -> Result<Option<Kept<Self>>> {
        let Some(unit) = unit_of(units.iter(), function) else {
            return Ok(None);
        };
        let endpoint = Endpoint::new(function, unit.platform())?;
        // One that `probe` leaves alone keeps its entries.
        let purpose = match endpoint.foreign {
            Some(_) => Purpose::KeepBound,
            None => purpose,
        };
        let slot = unit.slot(&endpoint.aliases, purpose)?;
        Ok(Some((unit.clone(), endpoint, slot)))
    }

    fn source(endpoint: &Endpoint) -> SourceId {
        endpoint.source
    }

    fn enable(unit: &Unit) -> Result {
        unit.enable()
    }

    fn disable(unit: &Unit) -> Result {
        unit.disable()
    }

    fn shut_down(unit: &Unit) {
        unit.shut_down();
    }

    fn stats(unit: &Unit, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = unit.queue();
        writeln!(f, "capabilities: {:#x}", unit.capability().get())?;
        writeln!(
            f,
            "extended_features: {:#x}",
            unit.registers().features().get()
        )?;
        writeln!(f, "iova_bits: {}", unit.table_config().address_bits())?;
        writeln!(f, "domain_ids: {}", unit.tags())?;
        writeln!(f, "waits: {}", queue.waits())?;
        writeln!(f, "queue_errors: {}", queue.errors())?;
        writeln!(f, "fault_overflows: {}", unit.events().overflows())?;
        writeln!(f, "other_events: {}", unit.events().others())
    }
}
