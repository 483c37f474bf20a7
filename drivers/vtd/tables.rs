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
    entries::Entries,
    locked::Permit,
    pages::Coherency,
    source_id::{
        AliasSet,
        SourceId, //
    },
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
};

/// Functions on a bus, and buses of a segment.
const COUNT: usize = 256;

/// The context table of one bus.
#[pin_data]
pub(crate) struct ContextTable {
    entries: Entries,
    /// How many slots have each entry present. Devices behind a bridge share the
    /// bridge's; the entry is blocked only with the last of them. They are all in one
    /// group, which the core keeps on one domain. Innermost lock of the tables.
    #[pin]
    users: SpinLockIrq<[u8; COUNT]>,
}

/// The root table and the context tables that there are.
pub(crate) struct Tables {
    root: Entries,
    contexts: KVec<Option<Arc<ContextTable>>>,
    coherency: Coherency,
    node: i32,
}

impl Tables {
    /// An empty root table: every request is refused. Context: may sleep.
    pub(crate) fn new(coherency: Coherency, node: i32) -> Result<Self> {
        let mut contexts = KVec::with_capacity(COUNT, GFP_KERNEL)?;
        for _ in 0..COUNT {
            contexts.push(None, GFP_KERNEL)?;
        }
        Ok(Self {
            root: Entries::new(node, coherency)?,
            contexts,
            coherency,
            node,
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
                users <- new_spinlock_irq!([0; COUNT], "vtd context users"),
            }),
            GFP_KERNEL,
        )?;
        *place = Some(table.clone());
        self.root.build(bus, RootEntry::new(address).words());
        Ok(table)
    }

    /// The slot of a device, with the tables for all its requester ids.
    ///
    /// Context: may sleep. Errors: `ENOMEM`.
    pub(crate) fn slot(&mut self, aliases: &AliasSet) -> Result<Slot> {
        let mut places = KVec::with_capacity(aliases.count(), GFP_KERNEL)?;
        for source in aliases.iter() {
            places.push(
                Place {
                    table: self.context(source.bus())?,
                    source,
                    live: false,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(Slot { places })
    }
}

/// One context entry of a device.
struct Place {
    table: Arc<ContextTable>,
    source: SourceId,
    /// This slot is counted in the table's `users`.
    live: bool,
}

/// A context entry was changed.
pub(crate) struct Changed {
    pub(crate) source: SourceId,
    pub(crate) old: ContextEntry,
}

/// All context entries of one device.
pub(crate) struct Slot {
    places: KVec<Place>,
}

impl Slot {
    /// Stores `new` under each of the device's requester ids, and tells what each said
    /// before. Context: atomic.
    pub(crate) fn program(
        &mut self,
        new: ContextEntry,
        permit: &Permit<'_>,
        mut changed: impl FnMut(Changed),
    ) {
        for place in &mut self.places {
            if let Some(old) = place.program(new, permit) {
                changed(Changed {
                    source: place.source,
                    old,
                });
            }
        }
    }
}

impl Place {
    /// The old entry, if it was changed.
    fn program(&mut self, new: ContextEntry, permit: &Permit<'_>) -> Option<ContextEntry> {
        let index = usize::from(self.source.devfn());
        let mut users = self.table.users.lock();
        let count = users.get_mut(index)?;
        match (self.live, new.present()) {
            (false, true) => *count = count.saturating_add(1),
            (true, false) => *count = count.saturating_sub(1),
            _ => {}
        }
        self.live = new.present();
        if !new.present() && *count > 0 {
            return None;
        }
        let old = ContextEntry::from_words(self.table.entries.get(index));
        if old == new {
            return None;
        }
        self.table.entries.program(index, new.words(), permit);
        Some(old)
    }
}
