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

/// What a slot is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The IOMMU core decides.
    Attach,
    /// DMA of a device that was there before has to go on until the core decides.
    Keep,
    /// The same for good, because a driver uses the device: nobody else may change
    /// its entries.
    KeepBound,
}

/// What one slot wants of one entry.
struct User {
    owner: u64,
    devfn: u8,
    purpose: Purpose,
    wanted: ContextEntry,
}

impl User {
    /// Whether the two can have the same entry.
    fn allows(&self, other: &User) -> bool {
        self.devfn != other.devfn
            || self.purpose != Purpose::KeepBound
            || other.purpose != Purpose::Attach
    }
}

/// The context table of one bus.
#[pin_data]
pub(crate) struct ContextTable {
    entries: Entries,
    /// One for each slot and entry. Devices behind a bridge share the bridge's entry:
    /// it always is what one of its users wants, so it never points to a table that
    /// nobody is attached to. Innermost lock of the tables.
    #[pin]
    users: SpinLockIrq<KVec<User>>,
}

impl ContextTable {
    /// Adds a user, who wants nothing yet. Context: may sleep. Errors: `ENOMEM`, and
    /// `EBUSY` if the entry is for another to keep.
    fn add(&self, user: User) -> Result {
        loop {
            let wanted = {
                let mut users = self.users.lock();
                if !users.iter().all(|other| other.allows(&user)) {
                    return Err(EBUSY);
                }
                if users.len() < users.capacity() {
                    return users.push_within_capacity(user).map_err(|_| ENOMEM);
                }
                users.len() + 1
            };
            // Memory is taken and given back without the lock.
            let mut larger = KVec::with_capacity(wanted.next_power_of_two(), GFP_KERNEL)?;
            let mut users = self.users.lock();
            if larger.capacity() > users.capacity() {
                for user in users.drain_all() {
                    larger.push_within_capacity(user).map_err(|_| ENOMEM)?;
                }
                core::mem::swap(&mut *users, &mut larger);
            }
            drop(users);
        }
    }

    fn remove(&self, owner: u64) {
        self.users.lock().retain(|user| user.owner != owner);
    }

    /// Stores what a user wants now, or if that is nothing, what another one wants.
    /// Returns the old and the new entry if this changed it.
    fn program(
        &self,
        owner: u64,
        devfn: u8,
        wanted: ContextEntry,
        permit: &Permit<'_>,
    ) -> Option<(ContextEntry, ContextEntry)> {
        let mut users = self.users.lock();
        let mut new = wanted;
        for user in users.iter_mut().filter(|user| user.devfn == devfn) {
            if user.owner == owner {
                user.wanted = wanted;
            } else if !new.present() {
                new = user.wanted;
            }
        }
        let index = usize::from(devfn);
        let old = ContextEntry::from_words(self.entries.get(index));
        if old == new {
            return None;
        }
        self.entries.program(index, new.words(), permit);
        Some((old, new))
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
                users <- new_spinlock_irq!(KVec::new(), "vtd context users"),
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
            table.add(User {
                owner,
                devfn: source.devfn(),
                purpose,
                wanted: ContextEntry::blocked(),
            })?;
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
            place.table.remove(self.owner);
        }
    }
}
