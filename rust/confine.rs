// SPDX-License-Identifier: GPL-2.0

//! What an administrator keeps a group's devices from: domains that devices of other groups are on
//! (`sealed`). `Documentation/ownership.rst` says what for.
//!
//! A group's devices share a domain, so what is said of one is said of all, and of those that join them.

use crate::{
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    group::Group, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// What holds for all devices of a group. Whose endpoints have the same one are in one group.
pub(crate) struct Confinement {
    /// No device of another group is on a domain that one of these is on. Changed with the lock of the group's
    /// members held.
    pub(crate) sealed: Atomic<bool>,
}

impl Confinement {
    /// Errors: `ENOMEM`. Context: may sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let confinement = Self {
            sealed: Atomic::new(false),
        };
        Ok(Arc::new(confinement, GFP_KERNEL)?)
    }
}

/// Whether a device of another group is on the domain that this one is on.
fn has_company<D: Driver>(device: &Device<D>) -> bool {
    // It neither comes to a domain meanwhile nor leaves one.
    let place = device.place.lock();
    let State::Paging(at) = &place.state else {
        return false;
    };
    let nodes = at.domain.attached.lock();
    let mut others = nodes.iter().map(|node| &node.endpoint);
    others.any(|other| !other.shares_group(&device.endpoint))
}

/// Seals the devices of a group, or ends that: as long as they are sealed, a domain that one of them is
/// on has no device of another group on it.
///
/// Errors: `EBUSY` if there is one now; nothing is sealed then, but who comes at the same moment may have been
/// refused. Context: may sleep.
pub(crate) fn seal<D: Driver>(group: &Group<D>, sealed: bool) -> Result {
    let members = group.members.lock();
    if group.confinement.sealed.load(Relaxed) == sealed {
        return Ok(());
    }
    group.confinement.sealed.store(sealed, Relaxed);
    // Who comes to a domain looks with the lock of its list held, which is taken here for each of them: either
    // that sees the seal, or this sees who came.
    if sealed && members.iter().any(|device| has_company(device)) {
        group.confinement.sealed.store(false, Relaxed);
        return Err(EBUSY);
    }
    Ok(())
}
