// SPDX-License-Identifier: GPL-2.0

//! Access Control Services: what keeps functions from reaching each other past the IOMMU.
//!
//! `pci_device_group()` puts functions into one group that could reach each other, and looks for
//! that at each function's ACS control register. The PCI core sets the register only if an IOMMU
//! driver asked for it at boot, which a module cannot do (`pci_request_acs()` is neither exported
//! nor of use that late). So the module sets it, before groups are made. It stays: the core's
//! `pci_enable_acs()`, which runs when a driver is bound and after a reset, starts from the current
//! value and then applies `pci=config_acs=` and `pci=disable_acs_redir=`.
//!
//! Ports without the capability that the kernel isolates in other ways (quirks of some Intel
//! chipsets) keep their boot state.

use super::{
    for_each_function,
    Function, //
};
use crate::bindings;
use kernel::{
    dev_warn,
    ffi::c_int,
    prelude::*, //
};

/// What every function is given, as far as it has it: source validation, request redirect,
/// completion redirect, upstream forwarding.
const ISOLATION: u32 =
    bindings::PCI_ACS_SV | bindings::PCI_ACS_RR | bindings::PCI_ACS_CR | bindings::PCI_ACS_UF;

/// Turns ACS on in every function that has it; returns how many were changed.
///
/// A function that cannot be changed is named in the log, and left as it is: it only makes for a
/// larger group.
///
/// Context: may sleep. Before `iommu_device_register()`.
pub fn enable_acs_all() -> usize {
    let mut changed = 0;
    // The visitor never stops the walk.
    let _ = for_each_function(|function| {
        match enable_acs(&function) {
            Ok(true) => changed += 1,
            Ok(false) => {}
            Err(e) => dev_warn!(function.as_device(), "cannot turn ACS on: {e:?}\n"),
        }
        Ok(())
    });
    changed
}

/// Turns ACS on in one function; says whether that changed anything.
///
/// For functions that are added later: in the driver's probe, which comes before their group is
/// made. Ports are added before what is behind them.
///
/// The register is read and written without a lock, like the PCI core does. Where both write, both
/// add the same bits.
///
/// Errors: `EIO` if the configuration space cannot be accessed.
///
/// Context: any.
pub fn enable_acs(function: &Function<'_>) -> Result<bool> {
    let pdev = function.as_raw();
    // SAFETY: Valid by `Function`'s invariant; written before the device is added only.
    let position = unsafe { (*pdev).acs_cap };
    if position == 0 {
        return Ok(false);
    }
    // Without what quirks took out, unlike the register.
    // SAFETY: As above.
    let supported = unsafe { (*pdev).acs_capabilities };
    let register = c_int::from(position) + bindings::PCI_ACS_CTRL as c_int;

    let mut old = 0;
    // SAFETY: The device is valid, and `old` is for two bytes.
    if unsafe { bindings::pci_read_config_word(pdev, register, &raw mut old) } != 0 {
        return Err(EIO);
    }
    let new = old | (supported & wanted(function));
    if new == old {
        return Ok(false);
    }
    // SAFETY: The device is valid; the register is the function's own.
    if unsafe { bindings::pci_write_config_word(pdev, register, new) } != 0 {
        return Err(EIO);
    }
    Ok(true)
}

fn wanted(function: &Function<'_>) -> u16 {
    // SAFETY: Valid by `Function`'s invariant. The bit is set before the device is added only.
    let outside = unsafe { bindings::pci_dev::external_facing_raw(function.as_raw()) } != 0;
    let bits = if outside || function.is_untrusted() {
        // No address that claims to be translated already, from what cannot be trusted.
        ISOLATION | bindings::PCI_ACS_TB
    } else {
        ISOLATION
    };
    // CAST: The register has 16 bits.
    bits as u16
}
