// SPDX-License-Identifier: GPL-2.0

//! Module parameters, checked.

use crate::module_parameters;
use kernel::prelude::*;

/// What the user chose.
pub(crate) struct Options {
    /// Map all addresses for identity domains also where the device can let DMA through.
    pub(crate) identity_map: bool,
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
        let identity_map = module_parameters::identity_map.value();
        let park_unbound = module_parameters::park_unbound.value();
        Ok(Self {
            identity_map: switch("identity_map", identity_map)?,
            park_unbound: switch("park_unbound", park_unbound)?,
        })
    }
}
