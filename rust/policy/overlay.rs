// SPDX-License-Identifier: GPL-2.0

//! What a device does differently from its group's default domain. Nobody else writes that.
//!
//! The devices of a group share its domain, so each of them reaches what another one has unmapped and not
//! invalidated. Therefore none of them is `lazy` while one of them is not trusted: neither [`set`] makes it
//! so, nor does [`join`] leave it so. Both have the lock of the group's members.

use super::{
    mapper,
    name::{
        Overlay,
        Policy, //
    },
    settings, //
};
use crate::{
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    group::are_trusted,
    invalidation::Invalidation,
    peek::peek,
    pt::PageTable, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    },
};

/// Where a device's [`Overlay`] is; nothing at first.
pub(crate) struct Chosen(Atomic<u32>);

impl Chosen {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(Overlay::None as u32))
    }
}

impl<D: Driver> Device<D> {
    /// What is done differently for the device from what its group's default domain says.
    #[inline]
    pub(crate) fn overlay(&self) -> Overlay {
        Overlay::from_u32(peek(&self.overlay.0))
    }
}

/// Completes what the device's DMA has put off. Context: the lock of the group's members is held.
fn settle<D: Driver>(device: &Device<D>) -> Result {
    // SAFETY: By the function's contract.
    let Some(mapper) = (unsafe { mapper::get(device) }) else {
        return Ok(());
    };
    mapper.drain()?;
    mapper.domain.flush(&Invalidation::All).map(drop)
}

fn exchange<D: Driver>(device: &Device<D>, overlay: Overlay) -> Result {
    // Full: who unmaps after it sees it, or the flushes below find the page unmapped.
    if device.overlay.0.xchg(overlay as u32, Full) == overlay as u32 {
        return Ok(());
    }
    settle(device)
}

/// Changes what `device` does, one of the `members` of its group, and completes all flushes that the old
/// way has left.
///
/// Errors: `EPERM` for `lazy` where one of the group is not trusted; `EBUSY` for `strict` above a queue
/// where the device itself is not: what the core copies for such a device, operations of ours would not;
/// what a flush has that failed, and it is changed then.
///
/// Context: may sleep; the lock of the group's members is held.
pub(super) fn set<D: Driver>(
    members: &[Arc<Device<D>>],
    device: &Device<D>,
    overlay: Overlay,
) -> Result {
    match overlay {
        Overlay::Lazy if !are_trusted(members) => Err(EPERM),
        Overlay::Strict if !device.trusted => Err(EBUSY),
        overlay => exchange(device, overlay),
    }
}

/// What the module's parameter says, as far as it is for this kind of unit.
fn first<D: Driver>() -> Overlay {
    match settings::policy() {
        Some(Policy::Lazy) if !D::Table::IS_REMOTE => Overlay::Lazy,
        _ => Overlay::None,
    }
}

/// What a device gets that must not be `lazy` any more.
fn instead<D: Driver>(device: &Device<D>) -> Overlay {
    match device.place.lock().state {
        // Its domain will be a strict one, as the core has it for groups that are not trusted.
        State::Untouched => Overlay::None,
        _ => Overlay::Strict,
    }
}

/// `device` is about to become one of the `members` of a group, before it can reach anything of theirs.
///
/// Errors: a flush failed. Context: as for [`set`].
pub(crate) fn join<D: Driver>(members: &[Arc<Device<D>>], device: &Device<D>) -> Result {
    if !device.trusted {
        for member in members {
            if member.overlay() == Overlay::Lazy {
                member.overlay.0.xchg(instead(member) as u32, Full);
                pr_info!(
                    "{}: not lazy any more: {}, which is not trusted, is to join its group\n",
                    &*member.name,
                    &*device.name
                );
            }
            // Also where that was said before, and the flush has failed.
            settle(member)?;
        }
    } else if are_trusted(members) {
        exchange(device, first::<D>())?;
    }
    Ok(())
}
