// SPDX-License-Identifier: GPL-2.0

//! Proof that an endpoint's entries may be programmed.

use crate::driver::Driver;
use core::marker::PhantomData;
use kernel::types::NotThreadSafe;

/// Permission to store into entries that hardware is reading.
///
/// It exists only while the slot lock of an endpoint is held, made by the attach
/// protocol. The lifetime is invariant and the type is not `Send`: it cannot be
/// kept, nor taken to another thread.
pub struct Permit<'a>(PhantomData<fn(&'a ()) -> &'a ()>, NotThreadSafe);

/// An endpoint's slot with its lock held.
pub struct Locked<'a, D: Driver> {
    slot: &'a D::Slot,
    permit: Permit<'a>,
}

impl<'a, D: Driver> Locked<'a, D> {
    /// To be called by the attach protocol only, on what the slot's guard gives.
    pub(crate) fn new(slot: &'a D::Slot) -> Self {
        Self {
            slot,
            permit: Permit(PhantomData, NotThreadSafe),
        }
    }

    /// The slot. Shared, so that it cannot be moved out and outlive the endpoint.
    pub fn slot(&self) -> &D::Slot {
        self.slot
    }

    /// The permission to program its entries.
    pub fn permit(&self) -> &Permit<'a> {
        &self.permit
    }
}
