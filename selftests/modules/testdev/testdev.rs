// SPDX-License-Identifier: GPL-2.0

//! A DMA oracle: makes QEMU's test devices do DMA, and tells what came of it.
//!
//! Each device has a file `/sys/kernel/debug/rust_testdev-<PCI address>/cmd`. A
//! line written to it is a command, reading it gives the answer to the last one;
//! see [`command`]. A command that fails also fails the write.
//!
//! Runs on any IOMMU driver, and without one.

use iommu::lease::Lease;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    device::{
        Bound,
        Core, //
    },
    fmt,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::Mutex,
    types::ForLt,
    uaccess::UserSliceReader, //
};

mod bench;
mod command;
mod engine;

use bench::Bench;
use engine::{
    Engine,
    Model, //
};

/// The longest command, in bytes.
const LINE: usize = 128;

/// What the file needs.
#[pin_data]
struct Console {
    bench: Lease<ForLt!(Bench<'_>)>,
    #[pin]
    answer: Mutex<Option<CString>>,
}

impl Console {
    fn new(dev: &pci::Device<Bound>, model: Model) -> Result<impl PinInit<Self, Error>> {
        let bench: Lease<ForLt!(Bench<'_>)> = Lease::new(dev, |dev| {
            Bench::new(dev.as_ref(), Engine::new(dev, model)?)
        })?;
        Ok(try_pin_init!(Self {
            bench,
            answer <- new_mutex!(None),
        }))
    }

    fn run(&self, reader: &mut UserSliceReader) -> Result {
        let mut line = [0; LINE];
        let len = reader.len();
        reader.read_slice(line.get_mut(..len).ok_or(EMSGSIZE)?)?;
        let text = core::str::from_utf8(&line[..len]).map_err(|_| EINVAL)?;

        let reply = self.bench.with(|bench| command::run(bench, text));
        let (answer, result) = match reply.unwrap_or(Err(ENODEV)) {
            Ok(answer) => (answer, Ok(())),
            Err(error) => (CString::try_from_fmt(fmt!("error {error:?}"))?, Err(error)),
        };
        *self.answer.lock() = Some(answer);
        result
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.answer.lock() {
            Some(answer) => f.write_fmt(fmt!("{}\n", &**answer)),
            None => Ok(()),
        }
    }
}

#[pin_data]
struct TestDevice {
    #[pin]
    file: File<Console>,
    /// Kept for as long as there is a file in it.
    _dir: Dir,
}

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
    type Data<'bound> = TestDevice;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let model = Model::of(dev).ok_or(ENODEV)?;
            dev.enable_device_mem()?;
            dev.set_master();
            let console = Console::new(dev, model)?;
            let name = CString::try_from_fmt(fmt!("rust_testdev-{}", dev.as_ref().name()))?;
            let dir = Dir::new(&name);
            Ok(try_pin_init!(TestDevice {
                _dir: dir.clone(),
                file <- dir.read_write_callback_file(c"cmd", console, &Console::show, &Console::run),
            }))
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
