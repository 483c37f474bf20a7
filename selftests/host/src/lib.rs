// SPDX-License-Identifier: GPL-2.0

//! The pure files of the kernel crates `vtd` and `amdvi`, under the same paths, and of `virtio_iommu`,
//! in a module; and the tests of all pure files.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    not(test),
    allow(dead_code, reason = "only the tests use the driver's files here")
)]

#[path = "../../../drivers/amdvi/regs.rs"]
mod amd_regs;
#[path = "../../../drivers/vtd/caps.rs"]
mod caps;
#[path = "../../../drivers/amdvi/command.rs"]
mod command;
#[path = "../../../drivers/vtd/context.rs"]
mod context;
#[path = "../../../drivers/vtd/descriptor.rs"]
mod descriptor;
#[path = "../../../drivers/vtd/dmar.rs"]
mod dmar;
#[path = "../../../drivers/amdvi/dte.rs"]
mod dte;
#[path = "../../../drivers/amdvi/event.rs"]
mod event;
#[path = "../../../drivers/vtd/fault_record.rs"]
mod fault_record;
#[path = "../../../drivers/amdvi/ivhd.rs"]
mod ivhd;
#[path = "../../../drivers/amdvi/ivrs.rs"]
mod ivrs;
#[path = "../../../drivers/vtd/regs.rs"]
mod regs;
#[path = "../../../drivers/vtd/scope.rs"]
mod scope;

#[path = "../../../drivers/virtio"]
mod virtio {
    pub(crate) mod config;
    pub(crate) mod event;
    pub(crate) mod probe;
    pub(crate) mod request;
    pub(crate) mod viot;
}

#[cfg(test)]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
mod tests;
