// SPDX-License-Identifier: GPL-2.0

//! Driver for Intel VT-d remapping hardware in legacy mode.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, Architecture
//! Specification. Section numbers in this crate are those of revision 4.1.

use iommu::{
    registration::Choices,
    shutdown::Started,
    takeover::Remapping, //
};
use kernel::prelude::*;

mod caps;
mod context;
mod descriptor;
mod dids;
mod dmar;
mod driver;
mod fault;
mod fault_record;
mod options;
mod platform;
mod qi;
mod registers;
mod regs;
mod scope;
mod tables;
mod unit;

use crate::{
    driver::Vtd,
    options::Options,
    platform::Platform,
    unit::Unit, //
};

module! {
    type: VtdModule,
    name: "rust_vtd",
    authors: ["The Rust IOMMU maintainers"],
    description: "Intel VT-d driver in Rust",
    license: "GPL",
    imports_ns: ["GENERIC_PT_IOMMU"],
    params: {
        address_bits: u32 {
            default: 0,
            description: "Largest second-stage table: 39, 48 or 57 address bits (0: what the unit has)",
        },
        identity_table: u32 {
            default: 0,
            description: "1: identity domains use a table even if the unit can pass DMA through",
        },
        park_unbound: u32 {
            default: 0,
            description: "1: DMA of devices is blocked while no driver is bound in their group",
        },
    },
}

iommu::shutdown_parameter!(static SERVICE: Service<Remapping<Vtd>>, module: VtdModule);

struct VtdModule {
    _remapping: Started<Remapping<Vtd>>,
}

/// Takes all units over. Errors, each with a message: see `Documentation/vtd.rst`.
fn start() -> Result<Remapping<Vtd>> {
    let options = Options::read()?;
    let platform = Platform::find()?;

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

impl kernel::Module for VtdModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _remapping: SERVICE.start(start)?,
        })
    }
}
