// SPDX-License-Identifier: GPL-2.0

//! What it costs to map and unmap, and whether it always works.
//!
//! A driver that no device has by itself; it does no DMA, so any device will do:
//!
//! ```text
//! echo rust_bench >/sys/bus/pci/devices/ADDRESS/driver_override
//! echo ADDRESS >/sys/bus/pci/drivers/rust_bench/bind
//! ```
//!
//! Each device has a file `/sys/kernel/debug/rust_bench-ADDRESS/cmd`; see [`console`] for how to
//! use it, and [`plan`] for what may be written to it. What is wrong with a command is in the
//! kernel's log.
//!
//! Runs on any IOMMU driver, and without one.

use iommu::{
    dma,
    lease::Lease, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    pci,
    prelude::*,
    str::CString,
    types::ForLt, //
};

#[path = "../common/console.rs"]
#[allow(dead_code, reason = "shared with other modules")]
mod console;
mod plan;
mod run;
#[path = "../common/words.rs"]
#[allow(dead_code, reason = "shared with other modules")]
mod words;

use console::{
    Commands,
    Console, //
};
use plan::Plan;
use words::{
    answer,
    done,
    Words, //
};

struct Bench<'dev> {
    dev: &'dev Device<Bound>,
}

impl Commands for Bench<'_> {
    fn run(&mut self, name: &str, mut words: Words<'_>) -> Result<CString> {
        match name {
            "run" => {
                let plan = Plan::parse(words)?;
                let sum = run::run(self.dev, &plan)?;
                answer(fmt!(
                    "ns {} loop {} pairs {} failed {} low {:#x} high {:#x}",
                    sum.per_pair(),
                    sum.per_loop(),
                    sum.pairs,
                    sum.failed,
                    sum.low,
                    sum.high
                ))
            }
            "mask" => {
                let bits = plan::bits(words.number()?)?;
                words.end()?;
                dma::set_mask(self.dev, bits)?;
                done()
            }
            _ => {
                pr_err!("{name}: no such command\n");
                Err(EINVAL)
            }
        }
    }
}

// Matches nothing, so that devices are bound by driver_override only.
kernel::pci_device_table!(
    PCI_TABLE,
    (),
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, 0xffff), ())]
);

struct Driver;

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Console<ForLt!(Bench<'_>)>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let bench = Lease::new(dev, |dev| Ok(Bench { dev: dev.as_ref() }))?;
            let name = CString::try_from_fmt(fmt!("rust_bench-{}", dev.as_ref().name()))?;
            Ok(Console::new(name, bench))
        })
    }
}

kernel::module_pci_driver! {
    type: Driver,
    name: "rust_bench",
    authors: ["The Rust IOMMU maintainers"],
    description: "What mapping for DMA costs, on any PCI device",
    license: "GPL",
}
