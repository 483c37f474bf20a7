// SPDX-License-Identifier: GPL-2.0

//! Module parameters, checked.

use crate::module_parameters;
use kernel::prelude::*;

/// What the user chose.
pub(crate) struct Options {
    /// Levels of the tables of paging domains.
    pub(crate) levels: u8,
    /// Block DMA of devices without a driver.
    pub(crate) park_unbound: bool,
}

impl Options {
    /// Reads the parameters. Errors, with a message: `EINVAL`.
    pub(crate) fn read() -> Result<Self> {
        let levels = match module_parameters::address_bits.value() {
            39 => 3,
            0 | 48 => 4,
            57 => 5,
            other => {
                pr_err!("address_bits={other}: must be 39, 48 or 57, or 0 for 48\n");
                return Err(EINVAL);
            }
        };
        let park_unbound = match module_parameters::park_unbound.value() {
            0 => false,
            1 => true,
            other => {
                pr_err!("park_unbound={other}: must be 0 or 1\n");
                return Err(EINVAL);
            }
        };
        Ok(Self {
            levels,
            park_unbound,
        })
    }
}
