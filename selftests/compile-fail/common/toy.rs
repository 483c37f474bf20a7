// SPDX-License-Identifier: GPL-2.0
//
// The smallest driver, which a case includes if it has to do with drivers.

use iommu::{
    batch::Batch,
    driver::{
        Counters,
        Driver,
        Target, //
    },
    entries::Entries,
    invalidation::Invalidation,
    locked::{
        Locked,
        Permit, //
    },
    pci::Function,
    pt::{
        Vtdss,
        VtdssConfig, //
    },
    queue::{
        Queue,
        QueueError,
        QueueHw, //
    },
    unit::{
        Probing,
        UnitRef, //
    },
};
use kernel::prelude::*;

module! {
    type: ToyModule,
    name: "toy",
    authors: ["The Rust IOMMU maintainers"],
    description: "A driver that must compile, around what must not",
    license: "GPL",
}

struct ToyModule;

impl kernel::Module for ToyModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

struct Toy;

iommu::ops!(static OPS: Toy);

/// A unit, an endpoint's facts, its own entries and a domain id.
struct Unit(Pin<KBox<Queue<Hw>>>);
struct Endpoint(u16);
struct Slot(Entries);
struct Tag(u16);

struct Hw;

impl QueueHw for Hw {
    fn ring(&self, _tail: u32) {}

    fn wait_command(&self, status_phys: u64, token: u32) -> [u64; 2] {
        [status_phys, token.into()]
    }

    fn error(&self) -> Option<QueueError> {
        None
    }

    fn clear_error(&self, _error: QueueError) {}

    fn head(&self) -> u32 {
        0
    }
}

#[vtable]
impl Driver for Toy {
    type Unit = Unit;
    type Endpoint = Endpoint;
    type Slot = Slot;
    type Tag = Tag;
    type Queue = Queue<Hw>;
    type Table = Vtdss;

    fn probe(dev: &Probing<'_, Self>) -> Result<(UnitRef<Self>, Endpoint, Slot)> {
        let function = dev.pci()?;
        let unit = dev.find_unit(|_| true)?;
        let facts = Endpoint(function.source_id().requester_id());
        let slot = Slot(Entries::new(-1, iommu::entries::Coherency::Snooped)?);
        Ok((unit, facts, slot))
    }

    fn table_config(_unit: &Unit, _endpoint: &Endpoint) -> Result<VtdssConfig> {
        Err(EINVAL)
    }

    fn compatible(_unit: &Unit, _endpoint: &Endpoint, _config: &VtdssConfig) -> Result {
        Ok(())
    }

    fn flush_new_mappings(_unit: &Unit) -> bool {
        false
    }

    fn alloc_tag(_unit: &Unit) -> Result<Tag> {
        Ok(Tag(1))
    }

    fn program(
        _unit: &Unit,
        endpoint: &Endpoint,
        slot: &Locked<'_, Self>,
        target: &Target<'_, Self>,
        batch: &mut Batch<'_, Self>,
    ) {
        let entry = match target {
            Target::Blocked => [0, 0],
            Target::Identity => [1, 0],
            Target::Paging { root, tag } => [1 | root.phys, tag.0.into()],
        };
        let index = usize::from(endpoint.0 & 0xff);
        slot.slot().0.program(index, entry, slot.permit());
        batch.push([1, 0]);
    }

    fn invalidate(_unit: &Unit, tag: &Tag, _what: &Invalidation, batch: &mut Batch<'_, Self>) {
        batch.push([2, tag.0.into()]);
    }

    fn queue(unit: &Unit) -> &Queue<Hw> {
        &unit.0
    }

    fn counters(_unit: &Unit) -> Counters {
        Counters::default()
    }
}
