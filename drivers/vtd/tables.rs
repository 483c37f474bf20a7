// SPDX-License-Identifier: GPL-2.0

//! Root and context tables of a unit (VT-d specification, section 3.4.2).
//!
//! The root table has an entry for each bus, a context table one for each function
//! of a bus. A device whose requests may carry several requester ids (bridges
//! replace them) has an entry under each.

use crate::context::{
    ContextEntry,
    RootEntry,
    TableAddress, //
};
use iommu::{
    entries::{
        Coherency,
        Directory,
        Entries, //
    },
    locked::Permit,
    sharing::{
        Purpose,
        Shareable,
        Sharers, //
    },
    source_id::{
        AliasSet,
        SourceId, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Functions on a bus, and buses of a segment.
const COUNT: usize = 256;

impl Shareable for ContextEntry {
    fn lets_through(&self) -> bool {
        self.present()
    }
}

/// The context table of one bus.
#[pin_data]
pub(crate) struct ContextTable {
    entries: Entries,
    /// Devices behind a bridge share the bridge's entry.
    #[pin]
    sharers: Sharers<ContextEntry>,
}

impl ContextTable {
    /// Stores what a user wants now, or if that is nothing, what another one wants.
    /// Returns the old and the new entry if this changed it.
    fn program(
        &self,
        owner: u64,
        devfn: u8,
        wanted: ContextEntry,
        permit: &Permit<'_>,
    ) -> Option<(ContextEntry, ContextEntry)> {
        self.sharers.program(owner, devfn.into(), wanted, |new| {
            let index = usize::from(devfn);
            let old = ContextEntry::from_words(self.entries.get(index));
            if old == new {
                return None;
            }
            self.entries.program(index, new.words(), permit);
            Some((old, new))
        })
    }
}

/// The root table and the context tables that there are.
pub(crate) struct Tables {
    root: Directory,
    contexts: KVec<Option<Arc<ContextTable>>>,
    coherency: Coherency,
    node: i32,
    next_owner: u64,
}

impl Tables {
    /// An empty root table: every request is refused. Context: may sleep.
    pub(crate) fn new(coherency: Coherency, node: i32) -> Result<Self> {
        let mut contexts = KVec::with_capacity(COUNT, GFP_KERNEL)?;
        for _ in 0..COUNT {
            contexts.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            root: Directory::new(node, coherency)?,
            contexts,
            coherency,
            node,
            next_owner: 0,
        })
    }

    /// Where the root table is.
    pub(crate) fn phys(&self) -> u64 {
        self.root.phys()
    }

    /// The context table of a bus, made if there is none.
    ///
    /// A new one has only blocked entries, so that its appearance changes nothing.
    fn context(&mut self, bus: u8) -> Result<Arc<ContextTable>> {
        let bus = usize::from(bus);
        let place = self.contexts.get_mut(bus).ok_or(EINVAL)?;
        if let Some(table) = place {
            return Ok(table.clone());
        }
        let entries = Entries::new(self.node, self.coherency)?;
        let address = TableAddress::new(entries.phys()).map_err(|_| EINVAL)?;
        let table = Arc::pin_init(
            pin_init!(ContextTable {
                entries,
                sharers <- Sharers::new(),
            }),
            GFP_KERNEL,
        )?;
        self.root.link(bus, RootEntry::new(address).words())?;
        *place = Some(table.clone());
        Ok(table)
    }

    /// The slot of a device, with the tables for all its requester ids.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `EBUSY` if an entry may not be attached,
    /// because a device with a driver shares it.
    pub(crate) fn slot(&mut self, aliases: &AliasSet, purpose: Purpose) -> Result<Slot> {
        let owner = self.next_owner;
        self.next_owner += 1;
        // Undone by its drop if not all ids can be had.
        let mut slot = Slot {
            owner,
            places: KVec::with_capacity(aliases.count(), GFP_KERNEL)?,
        };
        for source in aliases.iter() {
            let table = self.context(source.bus())?;
            let nothing = ContextEntry::blocked();
            table
                .sharers
                .add(owner, source.devfn().into(), purpose, nothing)?;
            slot.places.push(Place { table, source }, GFP_KERNEL)?;
        }
        Ok(slot)
    }
}

/// One context entry of a device.
struct Place {
    table: Arc<ContextTable>,
    source: SourceId,
}

/// A context entry was changed.
pub(crate) struct Changed {
    pub(crate) source: SourceId,
    pub(crate) old: ContextEntry,
    pub(crate) new: ContextEntry,
}

/// All context entries of one device.
///
/// Dropping it leaves the entries as they are: it is for the attach protocol to
/// program them before.
pub(crate) struct Slot {
    owner: u64,
    places: KVec<Place>,
}

impl Slot {
    /// Stores `wanted` under each of the device's requester ids, and tells what has
    /// changed. Context: atomic.
    pub(crate) fn program(
        &self,
        wanted: ContextEntry,
        permit: &Permit<'_>,
        mut changed: impl FnMut(Changed),
    ) {
        for Place { table, source } in &self.places {
            let change = table.program(self.owner, source.devfn(), wanted, permit);
            if let Some((old, new)) = change {
                changed(Changed {
                    source: *source,
                    old,
                    new,
                });
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for place in &self.places {
            place.table.sharers.remove(self.owner);
        }
    }
}
