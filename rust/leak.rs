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

/// Ranges that are remembered, so that the next driver is not blamed for them.
const KNOWN: usize = 256;

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

/// Reports what a driver has left mapped in the default domain: every range but those that
/// firmware needs, and those of an earlier report.
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
    let mut known = at.domain.left.lock();
    // For want of memory there is no report; nothing else.
    let Ok(firmware) = firmware(members) else {
        return;
    };
    let name = driver.name();
    let (mut ranges, mut bytes) = (0, 0);
    let mut all = KVec::new();
    let mut visit = |range: Range| {
        range.without(&firmware, |left| {
            if all.len() < KNOWN {
                let _ = all.push(left, GFP_KERNEL);
            }
            left.without(&known, |new| {
                ranges += 1;
                bytes += new.bytes;
                if ranges <= LINES {
                    pr_warn!(
                        "{}: driver {name} left {:#x} mapped, {} bytes\n",
                        &*device.name,
                        new.iova,
                        new.bytes
                    );
                }
                ControlFlow::Continue(())
            })
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
    *known = all;
}
