// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio-iommu, the IOMMU that a virtual machine's host offers as a device.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.13. Section numbers in this crate
//! are those of it.

use iommu::{
    registration::Choices,
    shutdown::{
        Running,
        Started, //
    },
    takeover::Remapping,
    virtio::{
        Devices,
        Kind, //
    },
};
use kernel::{
    faux,
    prelude::*, //
};

mod config;
mod driver;
mod event;
mod faults;
mod options;
mod platform;
mod probe;
mod request;
mod slots;
mod unit;
mod viot;

use crate::{
    config::feature,
    driver::Virtio,
    options::Options,
    platform::Platform,
    unit::Unit, //
};

module! {
    type: VirtioModule,
    name: "rust_virtio_iommu",
    authors: ["The Rust IOMMU maintainers"],
    description: "virtio-iommu driver in Rust",
    license: "GPL",
    imports_ns: ["GENERIC_PT_IOMMU"],
    params: {
        identity_map: u32 {
            default: 0,
            description: "1: identity domains use mappings even if the device can let DMA through",
        },
        park_unbound: u32 {
            default: 0,
            description: "1: DMA of devices is blocked while no driver is bound in their group",
        },
    },
}

/// VIRTIO_ID_IOMMU (section 5).
const VIRTIO_ID_IOMMU: u32 = 23;

static KIND: Kind = Kind {
    name: c"rust_virtio_iommu",
    id: VIRTIO_ID_IOMMU,
    // Not BYPASS: with it, endpoints in no domain would get through.
    features: &[
        feature::INPUT_RANGE,
        feature::DOMAIN_RANGE,
        feature::MAP_UNMAP,
        feature::PROBE,
        feature::MMIO,
        feature::BYPASS_CONFIG,
    ],
    event_bytes: event::SIZE,
};

iommu::shutdown_parameter!(static SERVICE: Service<Service>, module: VirtioModule);

struct VirtioModule {
    _service: Started<Service>,
}

/// What runs, undone in the order of the fields.
struct Service {
    remapping: Remapping<Virtio>,
    devices: Pin<KBox<Devices>>,
}

impl Running for Service {
    fn shut_down(self) -> Result<(), (Self, Error)> {
        let Self { remapping, devices } = self;
        match remapping.shut_down() {
            Ok(()) => {
                drop(devices);
                Ok(())
            }
            Err((remapping, e)) => Err((Self { remapping, devices }, e)),
        }
    }
}

impl Service {
    /// Takes all units over. Errors, each with a message: see `Documentation/virtio-iommu.rst`.
    fn start() -> Result<Self> {
        let options = Options::read()?;
        let platform = Platform::find()?;
        let devices = Devices::register::<crate::LocalModule>(&KIND)
            .inspect_err(|e| pr_err!("no virtio driver: error {}\n", e.to_errno()))?;
        let mut units = KVec::new();
        for (number, device) in (0..).zip(devices.close()?) {
            let unit = Unit::take_over(number, device, platform.clone(), &options)?;
            units.push(unit, GFP_KERNEL)?;
        }
        if units.is_empty() {
            if devices.has_failed() {
                return Err(ENODEV);
            }
            if platform.is_held() {
                pr_err!("the virtio-iommu is held by another driver (virtio_iommu must not be loaded)\n");
                return Err(EBUSY);
            }
            pr_err!("no virtio-iommu here: none of those in the VIOT table is a virtio device\n");
            return Err(ENODEV);
        }
        let choices = Choices {
            park: options.park_unbound,
        };
        let remapping = Remapping::start(units, choices)?;
        // The kernel has kept drivers from their devices until there was somebody for their endpoints
        // (VIOT). It tries all that it has put off again when any device gets a driver, as this one does.
        if faux::Registration::new(c"rust_virtio_iommu", None).is_err() {
            pr_warn!("devices that had to wait are bound with the next driver\n");
        }
        Ok(Self { remapping, devices })
    }
}

impl kernel::Module for VirtioModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _service: SERVICE.start(Service::start)?,
        })
    }
}
