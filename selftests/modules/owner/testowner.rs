// SPDX-License-Identifier: GPL-2.0

//! Two PCI drivers, to set owners of DMA against each other.
//!
//! [`rust_kdma`](kdma) does DMA through the DMA API, and [`rust_udma`](udma) manages DMA
//! itself: it claims its device on command. Neither binds by itself; for either, with a
//! device that is an iommu-testdev or an edu:
//!
//! ```text
//! echo rust_udma >/sys/bus/pci/devices/ADDRESS/driver_override
//! echo ADDRESS >/sys/bus/pci/drivers/rust_udma/bind
//! ```
//!
//! Each bound device has `/sys/kernel/debug/DRIVER-ADDRESS/cmd`; see [`console`], and
//! [`command`] and the drivers for what may be written to it. What both count is in
//! `/sys/kernel/debug/rust_testowner/counters`, see [`counters`].
//!
//! Where a test can hold a driver, or fail its probe, is in the drivers' own text.
//!
//! Runs on any IOMMU driver, and without one.

use iommu::{
    owner::OwnerKey,
    pci::managed::ManagedDma,
    shared::{
        Filled,
        Shared, //
    },
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    driver::Registration,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    InPlaceModule, //
};

#[path = "../common/bench.rs"]
mod bench;
#[path = "../common/command.rs"]
mod command;
#[path = "../common/console.rs"]
mod console;
mod counters;
mod domains;
#[path = "../common/engine.rs"]
mod engine;
mod faults;
mod kdma;
mod udma;
#[path = "../common/words.rs"]
mod words;

/// What the devices of the module share.
#[pin_data]
struct State {
    /// The keys that devices can be claimed with, by number.
    keys: [OwnerKey; 4],
    #[pin]
    domains: Mutex<domains::Domains>,
    /// Keeps leaked mappings' memory known, so that kmemleak does not report it yet.
    #[pin]
    leaked: Mutex<KVec<Arc<iommu::dma::Buffer>>>,
}

static STATE: Shared<State> = Shared::new();

impl State {
    fn new() -> Result<Arc<Self>> {
        let keys = [
            OwnerKey::new()?,
            OwnerKey::new()?,
            OwnerKey::new()?,
            OwnerKey::new()?,
        ];
        Arc::pin_init(
            pin_init!(Self {
                keys,
                domains <- new_mutex!(domains::Domains::new()),
                leaked <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }
}

// Matches nothing, so that devices are bound by driver_override only.
kernel::pci_device_table!(
    PCI_TABLE,
    (),
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, 0xffff), ())]
);

// In the order in which it ends: no driver uses the state when it goes.
#[pin_data]
struct TestOwner {
    #[pin]
    _kdma: Registration<pci::Adapter<kdma::Driver>>,
    #[pin]
    _udma: Registration<ManagedDma<udma::Driver>>,
    #[pin]
    _counters: File<()>,
    _dir: Dir,
    _state: Filled<State>,
}

impl InPlaceModule for TestOwner {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let dir = Dir::new(c"rust_testowner");
        try_pin_init!(Self {
            _state: STATE.fill(State::new()?)?,
            _counters <- dir.read_callback_file(c"counters", (), &counters::show),
            _dir: dir.clone(),
            _kdma <- Registration::new(c"rust_kdma", module),
            _udma <- Registration::new(c"rust_udma", module),
        })
    }
}

module! {
    type: TestOwner,
    name: "rust_testowner",
    authors: ["The Rust IOMMU maintainers"],
    description: "Owners of DMA for tests, on QEMU's iommu-testdev and edu",
    license: "GPL",
}
