// SPDX-License-Identifier: GPL-2.0

//! Which domain each endpoint id is in.

use iommu::{
    ids::Id,
    sharing::{
        Purpose,
        Shareable,
        Sharers, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Where an endpoint is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The domain's number.
    pub(crate) domain: u32,
    /// What of its DMA gets through.
    pub(crate) kind: Kind,
}

/// What of an endpoint's DMA gets through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: nothing is ever mapped in the domain.
    Blocked,
    /// Everything.
    Bypass,
    /// What is mapped.
    Mapped,
}

impl Shareable for Place {
    fn lets_through(&self) -> bool {
        self.kind != Kind::Blocked
    }
}

/// One endpoint id.
#[pin_data]
pub(crate) struct Shared {
    endpoint: u32,
    #[pin]
    sharers: Sharers<Place>,
    users: Atomic<u32>,
    /// The domain that it was last put into, and 1 above; 0 if none. From bit 33 on, how often the device
    /// had refused to put it into one: if it has since, the domain was another.
    last: Atomic<u64>,
}

/// Every endpoint id that was ever used.
pub(crate) struct Slots {
    all: KVec<Arc<Shared>>,
    next_owner: u64,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            all: KVec::new(),
            next_owner: 0,
        }
    }

    fn shared(&mut self, endpoint: u32) -> Result<Arc<Shared>> {
        if let Some(shared) = self.all.iter().find(|shared| shared.endpoint == endpoint) {
            return Ok(shared.clone());
        }
        let shared = Arc::pin_init(
            pin_init!(Shared {
                endpoint,
                sharers <- Sharers::new(),
                users: Atomic::new(0),
                last: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        self.all.push(shared.clone(), GFP_KERNEL)?;
        Ok(shared)
    }

    /// Calls `with` for each endpoint id that is in a domain, with that.
    pub(crate) fn for_each_placed(&self, mut with: impl FnMut(u32, u32)) {
        for shared in &self.all {
            // The lower 33 bits.
            let domain = shared.last.load(Relaxed) & (u64::MAX >> 31);
            if let Some(domain) = domain.checked_sub(1) {
                // CAST: as it was stored.
                with(shared.endpoint, domain as u32);
            }
        }
    }

    /// The slot of a device with these endpoint ids. `identity` is a domain for it alone.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `EBUSY` if an id is that of a device that keeps its driver.
    pub(crate) fn slot(
        &mut self,
        endpoints: &[u32],
        purpose: Purpose,
        blocked: Place,
        identity: Option<Id>,
    ) -> Result<Slot> {
        let owner = self.next_owner;
        self.next_owner += 1;
        // Undone by its drop if not all ids can be had.
        let mut slot = Slot {
            owner,
            ids: KVec::with_capacity(endpoints.len(), GFP_KERNEL)?,
            identity,
        };
        for endpoint in endpoints {
            let shared = self.shared(*endpoint)?;
            shared.sharers.add(owner, 0, purpose, blocked)?;
            shared.users.fetch_add(1, Relaxed);
            slot.ids.push(shared, GFP_KERNEL)?;
        }
        Ok(slot)
    }
}

/// All endpoint ids of one device.
///
/// Dropping it leaves them where they are: it is for the attach protocol to put them elsewhere before.
pub(crate) struct Slot {
    owner: u64,
    ids: KVec<Arc<Shared>>,
    /// A domain in which everything is mapped one to one, where the device cannot let DMA through.
    identity: Option<Id>,
}

impl Slot {
    /// The number of the device's own identity domain.
    pub(crate) fn identity(&self) -> Option<&Id> {
        self.identity.as_ref()
    }

    /// Puts the device's ids into a domain; calls `put` for each one that has to be put, with where.
    ///
    /// An id that several devices have stays where it is if another one wants that too: a domain that
    /// its last endpoint leaves forgets its mappings, also when it comes back in the same request.
    ///
    /// What is put where is decided here, and sent later. The framework sees to it that the device is told in the
    /// order of the decisions (`Driver::program`).
    ///
    /// Context: atomic.
    pub(crate) fn program(
        &self,
        wanted: Place,
        refusals: impl Fn(u32) -> u32,
        mut put: impl FnMut(u32, Place),
    ) {
        for shared in &self.ids {
            let place = shared.sharers.program(self.owner, 0, wanted, |place| {
                let refused = u64::from(refusals(shared.endpoint)) << 33;
                let now = refused | (u64::from(place.domain) + 1);
                let before = shared.last.xchg(now, Relaxed);
                let alone = shared.users.load(Relaxed) == 1;
                (before != now || alone).then_some(place)
            });
            if let Some(place) = place {
                put(shared.endpoint, place);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for shared in &self.ids {
            shared.sharers.remove(self.owner);
            shared.users.fetch_sub(1, Relaxed);
        }
    }
}
