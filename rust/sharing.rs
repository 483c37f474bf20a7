// SPDX-License-Identifier: GPL-2.0

//! Entries that several devices share.
//!
//! A bridge may replace the requester ids of the devices behind it by one id, under which there is one
//! entry. It always is what one of them wants, so it never points to a table that nobody is
//! attached to.

use crate::named;
use kernel::{
    prelude::*,
    sync::SpinLockIrq, //
};

/// What a device's entries are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The IOMMU core decides.
    Attach,
    /// DMA of a device that was there before has to go on until the core decides.
    Keep,
    /// The same for good, because a driver uses the device: nobody else may change
    /// its entries.
    KeepBound,
}

/// What an entry can say.
pub trait Shareable: Copy + PartialEq + Send {
    /// Whether any DMA gets through.
    fn lets_through(&self) -> bool;
}

/// What one device wants of one entry.
struct User<E> {
    owner: u64,
    index: u16,
    purpose: Purpose,
    wanted: E,
}

impl<E> User<E> {
    /// Whether the two can have the same entry.
    fn allows(&self, other: &User<E>) -> bool {
        self.index != other.index
            || self.purpose != Purpose::KeepBound
            || other.purpose != Purpose::Attach
    }
}

/// Who wants what of the entries of a table.
///
/// Nothing else is locked under its lock.
#[pin_data]
pub struct Sharers<E: Shareable> {
    #[pin]
    users: SpinLockIrq<KVec<User<E>>>,
}

impl<E: Shareable> Sharers<E> {
    /// Nobody wants anything.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            users <- named::spinlock_irq!(KVec::new(), "iommu shared entries"),
        })
    }

    /// Adds a device, by a number of its own, that wants `nothing` of the entry at `index` yet.
    ///
    /// Context: may sleep. Errors: `ENOMEM`, and `EBUSY` if the entry is for another to keep.
    pub fn add(&self, owner: u64, index: u16, purpose: Purpose, nothing: E) -> Result {
        let user = User {
            owner,
            index,
            purpose,
            wanted: nothing,
        };
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

    /// Removes a device from all entries, which stay as they are. Context: any.
    pub fn remove(&self, owner: u64) {
        self.users.lock().retain(|user| user.owner != owner);
    }

    /// Calls `store` with what the entry at `index` is to say now: what the device wants, or if that
    /// lets nothing through, what another one wants. Context: atomic.
    pub fn program<R>(&self, owner: u64, index: u16, wanted: E, store: impl FnOnce(E) -> R) -> R {
        let mut users = self.users.lock();
        let mut new = wanted;
        for user in users.iter_mut().filter(|user| user.index == index) {
            if user.owner == owner {
                user.wanted = wanted;
            } else if !new.lets_through() {
                new = user.wanted;
            }
        }
        store(new)
    }
}
