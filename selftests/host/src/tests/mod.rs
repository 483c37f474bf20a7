// SPDX-License-Identifier: GPL-2.0

//! Tests of the pure files, one module for each. A name that starts with a row of the design's
//! requirements (`e1_`, `e7_`) is a test of that row.

#[path = "../../../races/src/cells.rs"]
#[allow(unreachable_pub, reason = "a program of the guest has it, too")]
mod cells;
#[path = "../../../races/src/model.rs"]
#[allow(unreachable_pub, reason = "as above")]
mod model;

mod amdvi;
mod answers;
mod aperture;
mod caps;
mod context;
mod descriptor;
mod dmar;
mod dmar_bytes;
mod dmar_scope;
mod ending;
mod fault;
mod fault_record;
mod inject;
mod invalidation;
mod ivrs;
mod ivrs_bytes;
mod kept;
mod lazy;
mod mappings;
mod ownership;
mod policy;
mod regs;
mod ring;
mod segments;
mod source_id;
mod viot;
mod virtio;
mod walk;

use crate::caps::Capabilities;

/// QEMU's intel-iommu as it stands, with caching mode, and with a table of 39 bits only.
const QEMU_CAP: u64 = 0x80d2_008c_222f_0606;
const QEMU_CAP_CACHING: u64 = 0x80d2_008c_222f_0686;
const QEMU_CAP_39: u64 = 0x80d2_008c_2226_0206;
const QEMU_ECAP: u64 = 0x00f0_0f4a;

fn capabilities(cap: u64) -> Capabilities {
    Capabilities::new(cap, QEMU_ECAP).unwrap()
}
