// SPDX-License-Identifier: GPL-2.0

//! Module parameters, checked.

use crate::module_parameters;
use kernel::prelude::*;

/// What the user chose.
pub(crate) struct Options {
    /// Largest second-stage table, in address bits.
    pub(crate) address_bits: u32,
    /// Use an identity table also where pass-through entries exist.
    pub(crate) identity_table: bool,
    /// Block DMA of devices without a driver.
    pub(crate) park_unbound: bool,
}

/// The value of a parameter that is 0 or 1. Errors, with a message: `EINVAL`.
fn switch(name: &str, value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            pr_err!("{name}={other}: must be 0 or 1\n");
            Err(EINVAL)
        }
    }
}

impl Options {
    /// Reads the parameters. Errors, with a message: `EINVAL`.
    pub(crate) fn read() -> Result<Self> {
        let address_bits = match module_parameters::address_bits.value() {
            0 => 57,
            bits @ (39 | 48 | 57) => bits,
            other => {
                pr_err!("address_bits={other}: must be 39, 48, 57, or 0 for the best\n");
                return Err(EINVAL);
            }
        };
        let identity_table = module_parameters::identity_table.value();
        let park_unbound = module_parameters::park_unbound.value();
        Ok(Self {
            address_bits,
            identity_table: switch("identity_table", identity_table)?,
            park_unbound: switch("park_unbound", park_unbound)?,
        })
    }
}
