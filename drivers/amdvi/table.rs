// SPDX-License-Identifier: GPL-2.0

//! The device table of an IOMMU: an entry for each requester id (specification, section 2.2.2).
//!
//! A device whose requests may carry several ids (bridges replace them, and firmware knows of more) has
//! an entry under each.

use crate::{
    dte::{
        self,
        DeviceEntry,
        DomainId,
        TableRoot, //
    },
    ivhd::Settings,
    regs,
};
use iommu::{
    entries::{
        Coherency,
        NoMappings,
        WideEntries, //
    },
    locked::Permit,
    sharing::{
        Purpose,
        Shareable,
        Sharers, //
    },
    source_id::AliasSet,
};
use kernel::{
    bindings::NUMA_NO_NODE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Levels of the table that blocked entries name.
const NOTHING_LEVELS: u8 = 4;

impl Shareable for DeviceEntry {
    fn lets_through(&self) -> bool {
        (*self).lets_through()
    }
}

/// A device table.
#[pin_data]
pub(crate) struct DeviceTable {
    entries: WideEntries,
    blocked: DeviceEntry,
    /// What `blocked` names.
    nothing: NoMappings,
    next_owner: Atomic<u64>,
    #[pin]
    sharers: Sharers<DeviceEntry>,
}

impl DeviceTable {
    /// A table for ids up to `last` whose entries all are blocked, under the domain id `id`.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `EOPNOTSUPP` on a CPU that cannot change entries at once.
    pub(crate) fn new(
        last: u16,
        id: DomainId,
        settings: impl Fn(u16) -> Settings,
    ) -> Result<Arc<Self>> {
        let nothing = NoMappings::new(NUMA_NO_NODE, Coherency::Snooped)?;
        let root = TableRoot::new(nothing.phys(), NOTHING_LEVELS).map_err(|_| EINVAL)?;
        let blocked = DeviceEntry::blocked(root, id);
        let order = regs::table_order(last);
        let entries = WideEntries::new(order, NUMA_NO_NODE, Coherency::Snooped, |index| {
            // CAST: at most 65535.
            let settings = settings(index as u16);
            let [low, high] = blocked.with_settings(settings).words();
            let [upper_low, upper_high] = dte::upper(settings);
            [low, high, upper_low, upper_high]
        })?;
        Arc::pin_init(
            pin_init!(Self {
                entries,
                blocked,
                nothing,
                next_owner: Atomic::new(0),
                sharers <- Sharers::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// The value of the table's base register.
    pub(crate) fn base(&self) -> u64 {
        let pages = self.entries.count() * dte::SIZE / kernel::page::PAGE_SIZE;
        regs::table_base(self.entries.phys(), pages.trailing_zeros())
    }

    /// Has all that the hardware may read stay for ever.
    pub(crate) fn keep(&self) {
        self.entries.keep();
        self.nothing.keep();
    }

    /// How many ids have an entry.
    pub(crate) fn count(&self) -> usize {
        self.entries.count()
    }

    /// An entry that refuses all DMA.
    pub(crate) fn blocked(&self) -> DeviceEntry {
        self.blocked
    }

    /// The slot of a device: its entries under all its ids.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `EBUSY` if an entry may not be attached,
    /// because a device with a driver shares it; `ERANGE` for an id that firmware left no room for.
    pub(crate) fn slot(self: &Arc<Self>, aliases: &AliasSet, purpose: Purpose) -> Result<Slot> {
        // Undone by its drop if not all ids can be had.
        let mut slot = Slot {
            owner: self.next_owner.fetch_add(1, Relaxed),
            table: self.clone(),
            ids: KVec::with_capacity(aliases.count(), GFP_KERNEL)?,
        };
        for source in aliases.iter() {
            let id = source.requester_id();
            if usize::from(id) >= self.count() {
                return Err(ERANGE);
            }
            self.sharers.add(slot.owner, id, purpose, self.blocked)?;
            slot.ids.push(id, GFP_KERNEL)?;
        }
        Ok(slot)
    }

    fn program(
        &self,
        owner: u64,
        id: u16,
        wanted: DeviceEntry,
        permit: &Permit<'_>,
    ) -> Option<(DeviceEntry, DeviceEntry)> {
        self.sharers.program(owner, id, wanted, |new| {
            let old = DeviceEntry::from_words(self.entries.get(id.into()));
            let new = new.with_settings_of(old);
            if old == new {
                return None;
            }
            self.entries.program(id.into(), new.words(), permit);
            Some((old, new))
        })
    }
}

/// An entry was changed.
pub(crate) struct Changed {
    pub(crate) id: u16,
    pub(crate) old: DeviceEntry,
    pub(crate) new: DeviceEntry,
}

/// All entries of one device.
///
/// Dropping it leaves the entries as they are: it is for the attach protocol to
/// program them before.
pub(crate) struct Slot {
    owner: u64,
    table: Arc<DeviceTable>,
    ids: KVec<u16>,
}

impl Slot {
    /// The ids that the device's requests carry.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.iter().copied()
    }

    /// Stores `wanted` under each of the device's ids, and tells what has changed. Context: atomic.
    pub(crate) fn program(
        &self,
        wanted: DeviceEntry,
        permit: &Permit<'_>,
        mut changed: impl FnMut(Changed),
    ) {
        for id in &self.ids {
            let change = self.table.program(self.owner, *id, wanted, permit);
            if let Some((old, new)) = change {
                changed(Changed { id: *id, old, new });
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.sharers.remove(self.owner);
    }
}
