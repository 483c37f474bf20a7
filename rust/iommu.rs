// SPDX-License-Identifier: GPL-2.0

//! IOMMU drivers in safe Rust.

use kernel::prelude::*;

pub mod acpi;
mod attach;
mod attached;
pub mod batch;
mod binding;
mod bindings;
pub mod bytes;
pub mod confine;
pub mod consumer;
pub mod dma;
mod domain;
mod domain_ops;
pub mod driver;
mod endpoint;
pub mod entries;
pub mod fault;
pub mod freeze;
mod gather;
mod group;
mod group_ref;
pub mod holders;
pub mod ids;
pub mod inject;
pub mod invalidation;
pub mod irq;
mod late;
pub mod lazy;
mod leak;
pub mod lease;
pub mod locked;
mod mapped;
pub mod mappings;
pub mod memory;
pub mod mmio;
mod named;
pub mod ops;
pub mod owner;
mod pages;
pub mod path;
mod patience;
pub mod pci;
mod peek;
pub mod policy;
mod preemption;
pub mod pt;
pub mod queue;
pub mod ratelimit;
mod raw;
pub mod registration;
mod registry;
mod remote;
pub mod resv;
pub mod ring;
pub mod scatter;
pub mod shared;
pub mod sharing;
pub mod shutdown;
pub mod source_id;
pub mod standby;
mod sysfs;
pub mod takeover;
pub mod threads;
mod timer;
mod top;
pub mod unit;
pub mod virtio;
mod work;

module! {
    type: Framework,
    name: "rust_iommu",
    authors: ["The Rust IOMMU maintainers"],
    description: "Framework for IOMMU drivers in Rust",
    license: "GPL",
    imports_ns: ["GENERIC_PT_IOMMU"],
    params: {
        lazy_window_mb: u32 {
            default: 0,
            description: "MB of IOVAs for a device under the policy lazy, at most (power of two; 0: chosen)",
        },
        max_age_ms: u32 {
            default: 1000,
            description: "Milliseconds for which an IOVA stays reachable under the policy lazy, at most (0: until all were used)",
        },
    },
}

struct Framework {
    #[cfg(inject)]
    _inject: Pin<KBox<inject::Control>>,
}

impl kernel::Module for Framework {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        policy::settings::check()?;
        // SAFETY: Only here, before any module that uses this one can be loaded.
        unsafe { owner::init() };
        // SAFETY: As above.
        unsafe { shared::init() };
        Ok(Framework {
            #[cfg(inject)]
            _inject: inject::Control::new()?,
        })
    }
}
