// SPDX-License-Identifier: GPL-2.0

//! The report `groups` of our drivers (rust/holders.rs): who holds which group.

use crate::model::Machine;

/// Adds what a report says to `machine`.
pub(super) fn apply(machine: &mut Machine, report: &str) {
    for line in report.lines() {
        if let Some((number, state)) = line
            .strip_prefix("group ")
            .and_then(|rest| rest.split_once(": "))
        {
            let number: Option<u32> = number.parse().ok();
            let found = number.and_then(|n| machine.groups.get_mut(&n));
            if let Some(found) = found.filter(|_| state.starts_with("claimed")) {
                found.claim = Some(state.to_string());
            }
            continue;
        }
        let Some((address, state)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let Some(device) = address
            .parse()
            .ok()
            .and_then(|address| machine.devices.get_mut(&address))
        else {
            continue;
        };
        if state.contains("manages DMA itself") {
            device.manages_dma = Some(true);
        } else if state.contains("uses the DMA API") {
            device.manages_dma = Some(false);
        }
        let found = device.group.and_then(|n| machine.groups.get_mut(&n));
        if let (true, Some(driver), Some(found)) =
            (state.contains("has claimed"), &device.driver, found)
        {
            found.claim = Some(format!("claimed by {driver} through {address}"));
        }
    }
}
