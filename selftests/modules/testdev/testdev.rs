// SPDX-License-Identifier: GPL-2.0

//! A DMA oracle: makes QEMU's test devices do DMA, and tells what came of it.
//!
//! Each device has a file `/sys/kernel/debug/rust_testdev-<PCI address>/cmd`; see
//! [`console`], and [`command`] and [`commands`] for what may be written to it.
//!
//! Runs on any IOMMU driver, and without one.

use iommu::lease::Lease;
use kernel::{
    device::Core,
    pci,
    prelude::*,
    str::CString,
    types::ForLt, //
};

#[path = "../common/bench.rs"]
mod bench;
#[path = "../common/command.rs"]
mod command;
mod commands;
#[path = "../common/console.rs"]
mod console;
#[path = "../common/engine.rs"]
mod engine;
#[path = "../common/words.rs"]
mod words;

use bench::Bench;
use commands::Oracle;
use console::Console;
use engine::{
    Engine,
    Model, //
};

struct TestDriver;

kernel::pci_device_table!(
    PCI_TABLE,
    <TestDriver as pci::Driver>::IdInfo,
    [
        (
            pci::DeviceId::from_id(pci::Vendor::REDHAT, engine::TESTDEV as u32),
            ()
        ),
        // For edu, whose vendor the kernel crate cannot name: probe looks further.
        (pci::DeviceId::from_class(0x00_ff00, 0xff_ffff), ()),
    ]
);

impl pci::Driver for TestDriver {
    type IdInfo = ();
    type Data<'bound> = Console<ForLt!(Oracle<'_>)>;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let model = Model::of(dev).ok_or(ENODEV)?;
            dev.enable_device_mem()?;
            dev.set_master();
            let oracle = Lease::new(dev, |dev| {
                Ok(Oracle {
                    bench: Bench::new(dev.as_ref(), Engine::new(dev, model)?),
                    domain: None,
                })
            })?;
            let name = CString::try_from_fmt(fmt!("rust_testdev-{}", dev.as_ref().name()))?;
            Ok(Console::new(name, oracle))
        })
    }
}

kernel::module_pci_driver! {
    type: TestDriver,
    name: "rust_testdev",
    authors: ["The Rust IOMMU maintainers"],
    description: "DMA oracle for tests, on QEMU's iommu-testdev and edu",
    license: "GPL",
}
