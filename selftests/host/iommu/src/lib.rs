// SPDX-License-Identifier: GPL-2.0

//! The pure files of the kernel crate `iommu`, under the same paths.

#![no_std]

#[path = "../../../../rust/acpi"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod acpi {
    pub mod structures;
}
#[path = "../../../../rust/bytes.rs"]
pub mod bytes;
#[path = "../../../../rust/confine"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod confine {
    pub mod aperture;
}
#[path = "../../../../rust/fault"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod fault {
    pub mod waiting;
    pub use self::waiting::Refused;
}
#[path = "../../../../rust/inject"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod inject {
    pub mod command;
    pub mod rules;
}
#[path = "../../../../rust/invalidation.rs"]
pub mod invalidation;
pub mod lazy;
#[path = "../../../../rust/mappings"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod mappings {
    pub mod index;
    pub mod run;
}
#[path = "../../../../rust/policy"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod policy {
    pub mod name;
    pub mod segments;
}
pub mod pt;
#[path = "../../../../rust/ring.rs"]
pub mod ring;
#[path = "../../../../rust/source_id.rs"]
pub mod source_id;
#[path = "../../../../rust/virtio"]
#[allow(
    missing_docs,
    reason = "its documentation is in a file that is not pure"
)]
pub mod virtio {
    pub mod answers;
}
