// SPDX-License-Identifier: GPL-2.0

//! Driver for AMD-Vi, the IOMMU of AMD.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification, publication 48882.
//! Section numbers in this crate are those of revision 3.

use iommu::{
    memory,
    registration::Choices,
    shutdown::Started,
    takeover::Remapping, //
};
use kernel::prelude::*;

mod command;
mod commands;
mod driver;
mod dte;
mod event;
mod events;
mod ivhd;
mod ivrs;
mod options;
mod platform;
mod registers;
mod regs;
mod table;
mod unit;

use crate::{
    driver::AmdVi,
    options::Options,
    platform::Platform,
    unit::Unit, //
};

module! {
    type: AmdViModule,
    name: "rust_amdvi",
    authors: ["The Rust IOMMU maintainers"],
    description: "AMD-Vi driver in Rust",
    license: "GPL",
    imports_ns: ["GENERIC_PT_IOMMU"],
    params: {
        address_bits: u32 {
            default: 0,
            description: "Address bits of tables: 39, 48 or 57 (0: 48)",
        },
        park_unbound: u32 {
            default: 0,
            description: "1: DMA of devices is blocked while no driver is bound in their group",
        },
    },
}

iommu::shutdown_parameter!(static SERVICE: Service<Remapping<AmdVi>>, module: AmdViModule);

struct AmdViModule {
    _remapping: Started<Remapping<AmdVi>>,
}

/// Takes all IOMMUs over. Errors, each with a message: see `Documentation/amdvi.rst`.
fn start() -> Result<Remapping<AmdVi>> {
    let options = Options::read()?;
    let platform = Platform::find()?;
    if memory::is_encrypted() {
        pr_err!("memory is encrypted, which this driver does not know\n");
        return Err(EOPNOTSUPP);
    }

    let mut units = KVec::new();
    for (number, info) in (0..).zip(platform.units()?) {
        units.push(
            Unit::take_over(number, info, platform.clone(), &options)?,
            GFP_KERNEL,
        )?;
    }
    for unit in &units {
        unit.start()?;
    }
    let choices = Choices {
        park: options.park_unbound,
    };
    Remapping::start(units, choices)
}

impl kernel::Module for AmdViModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _remapping: SERVICE.start(start)?,
        })
    }
}
