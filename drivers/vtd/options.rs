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
        let identity_table = match module_parameters::identity_table.value() {
            0 => false,
            1 => true,
            other => {
                pr_err!("identity_table={other}: must be 0 or 1\n");
                return Err(EINVAL);
            }
        };
        Ok(Self {
            address_bits,
            identity_table,
        })
    }
}
