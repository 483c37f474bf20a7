// SPDX-License-Identifier: GPL-2.0

//! What a driver left mapped when it went.

use crate::{
    driver::Driver,
    endpoint::{
        Bound,
        Device,
        State, //
    },
    pt::{
        walk::Range,
        PageTable, //
    },
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Ranges that are told one by one.
const LINES: u32 = 8;

/// Tables that are read: 16 GB mapped in pages of 4 KB.
const TABLES: u32 = 8192;

/// What firmware needs mapped in the domain of a group. Errors: `ENOMEM`.
fn firmware<D: Driver>(members: &[Arc<Device<D>>]) -> Result<KVec<Range>> {
    let mut all = KVec::new();
    for member in members {
        all.extend_from_slice(&member.firmware.lock(), GFP_KERNEL)?;
    }
    Ok(all)
}

/// Reports every range that is mapped in the default domain but for what firmware needs.
///
/// `members` are all devices of the group. Context: may sleep.
///
/// # Safety
///
/// Nobody maps or unmaps in the group's default domain during the call.
pub(crate) unsafe fn report<D: Driver>(
    members: &[Arc<Device<D>>],
    device: &Device<D>,
    driver: &Bound,
) {
    let place = device.place.lock();
    let at = match &place.state {
        State::Paging(at) if at.domain.is_default() => at,
        _ => return,
    };
    // For want of memory there is no report; nothing else.
    let Ok(firmware) = firmware(members) else {
        return;
    };
    let name = driver.driver.as_ref().and_then(|name| name.to_str().ok());
    let name = name.unwrap_or("of unknown name");
    let (mut ranges, mut bytes) = (0, 0);
    let mut visit = |range: Range| {
        range.without(&firmware, |left| {
            ranges += 1;
            bytes += left.bytes;
            if ranges <= LINES {
                pr_warn!(
                    "{}: driver {name} left {:#x} mapped, {} bytes\n",
                    &*device.name,
                    left.iova,
                    left.bytes
                );
            }
            ControlFlow::Continue(())
        })
    };
    // SAFETY: By the contract; the lock keeps the domain.
    let seen = unsafe { at.domain.table().for_each_mapping(TABLES, &mut visit) };
    if ranges > LINES || seen.is_break() {
        pr_warn!(
            "{}: driver {name} left {ranges} ranges mapped, {bytes} bytes{}\n",
            &*device.name,
            if seen.is_break() { " or more" } else { "" }
        );
    }
}
