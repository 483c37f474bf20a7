// SPDX-License-Identifier: GPL-2.0

//! The framework's questions, answered for VT-d.

use crate::{
    context::Change,
    descriptor::{
        Descriptor,
        Drain,
        FunctionMask, //
    },
    dids,
    qi::Qi,
    tables::Slot,
    unit::Unit, //
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
    path::Path,
    pci::{
        acs,
        Function, //
    },
    pt::{
        Vtdss,
        VtdssConfig, //
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

/// Addresses that the CPU's interrupt logic takes writes at (Intel SDM, volume 3,
/// section 11.11): never translated.
const MSI_START: u64 = 0xfee0_0000;
const MSI_LENGTH: u64 = 0x10_0000;

/// The driver.
pub(crate) struct Vtd;

iommu::ops!(static OPS: Vtd);

/// What is known of a device.
pub(crate) struct Endpoint {
    /// The device's own name; VMD makes it differ from what requests carry.
    pub(crate) source: SourceId,
    pub(crate) aliases: AliasSet,
    path: Path,
    relaxable: bool,
}

/// PCI class codes without the programming interface (PCI Code and ID Assignment).
const CLASS_USB: u32 = 0x0c03;
const BASE_CLASS_DISPLAY: u32 = 0x03;

impl Endpoint {
    /// Collects the facts. Errors: `EINVAL` with a message for a device whose
    /// requester ids cannot be told.
    pub(crate) fn new(function: Function<'_>) -> Result<Self> {
        Ok(Self {
            source: function.source_id(),
            aliases: function.aliases()?,
            path: Path::of(function)?,
            // Firmware uses the reserved regions of these until a driver takes over:
            // legacy keyboards, and the screen of the boot loader.
            relaxable: function.class() >> 8 == CLASS_USB
                || function.class() >> 16 == BASE_CLASS_DISPLAY,
        })
    }

    /// The device's place below its root bus.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[vtable]
impl Driver for Vtd {
    type Unit = Unit;
    type Endpoint = Endpoint;
    type Slot = Slot;
    type Tag = Id;
    type Queue = Queue<Qi>;
    type Table = Vtdss;

    fn probe(dev: &Probing<'_, Self>) -> Result<(UnitRef<Self>, Endpoint, Slot)> {
        let function = dev.pci()?;
        let endpoint = Endpoint::new(function)?;
        let unit = dev.find_unit(|unit| unit.owns(endpoint.path()))?;
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
                }
            })?;
        Ok((unit, endpoint, slot))
    }

    fn table_config(unit: &Unit, _endpoint: &Endpoint) -> Result<VtdssConfig> {
        Ok(unit.table_config())
    }

    fn compatible(unit: &Unit, _endpoint: &Endpoint, config: &VtdssConfig) -> Result {
        if unit.accepts(config) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    fn flush_new_mappings(unit: &Unit) -> bool {
        let caps = unit.registers().caps();
        caps.caching_mode() || caps.write_buffer_flush()
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
        let caps = unit.registers().caps();
        let drain = Drain::all(caps);
        let wanted = unit.entry(target);
        slot.slot().program(wanted, slot.permit(), |changed| {
            let change = Change::new(changed.old, changed.new, caps);
            if let Some(did) = change.context_cache {
                let one = FunctionMask::One;
                batch.push(Descriptor::context_cache_device(did, changed.source, one).words());
            }
            // A paging domain's id is invalidated when its tag is retired. That of the
            // identity domain is no tag.
            let left = change.old_domain.filter(|did| *did == dids::IDENTITY);
            for did in [left, change.new_domain].into_iter().flatten() {
                batch.push(Descriptor::iotlb_domain(did, drain).words());
            }
        });
    }

    fn invalidate(unit: &Unit, tag: &Id, what: &Invalidation, batch: &mut Batch<'_, Self>) {
        let caps = unit.registers().caps();
        let drain = Drain::all(caps);
        let did = dids::of(tag);
        match what.plan(caps.max_block_order()) {
            Plan::All => batch.push(Descriptor::iotlb_domain(did, drain).words()),
            Plan::Blocks(blocks) => {
                for block in blocks {
                    let pages = Descriptor::iotlb_pages(did, block, what.leaf_only(), drain);
                    batch.push(pages.words());
                }
            }
        }
    }

    fn queue(unit: &Unit) -> &Queue<Qi> {
        unit.queue()
    }

    fn flush_stores(unit: &Unit) -> Result {
        unit.registers().flush_write_buffer()
    }

    fn counters(unit: &Unit) -> Counters {
        Counters {
            invalidations: unit.queue().submitted(),
            timeouts: unit.queue().timeouts(),
            faults: unit.faults().recorded(),
        }
    }

    fn reports(unit: &Unit) -> Option<&Reports<Self>> {
        Some(unit.faults().reports())
    }

    fn resv_regions(unit: &Unit, endpoint: &Endpoint, list: &mut ResvList<'_>) {
        list.add_msi_window(MSI_START, MSI_LENGTH);
        unit.platform().reserved_regions(endpoint.path(), |region| {
            let length = region.limit - region.base + 1;
            list.add_direct(region.base, length, endpoint.relaxable);
        });
    }
}

impl TakeOver for Vtd {
    const UNIT: &'static CStr = c"vtd";
    const FOLDER: &'static CStr = c"rust_vtd";

    fn keep(
        units: &[UnitRef<Self>],
        function: Function<'_>,
        purpose: Purpose,
    ) -> Result<Option<Kept<Self>>> {
        let endpoint = Endpoint::new(function)?;
        let owner = |unit: &&UnitRef<Self>| Unit::owns(unit, endpoint.path());
        let Some(unit) = units.iter().find(owner) else {
            return Ok(None);
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
        let caps = unit.registers().caps();
        let queue = unit.queue();
        writeln!(f, "capabilities: {:#x}", caps.cap())?;
        writeln!(f, "extended_capabilities: {:#x}", caps.ecap())?;
        writeln!(f, "iova_bits: {}", unit.table_config().address_bits)?;
        writeln!(f, "domain_ids: {}", unit.tags())?;
        writeln!(f, "waits: {}", queue.waits())?;
        writeln!(f, "queue_errors: {}", queue.errors())?;
        writeln!(f, "fault_overflows: {}", unit.faults().overflows())
    }
}
