// SPDX-License-Identifier: GPL-2.0
//
// A proof that the hardware has answered has private parts.

use iommu::queue::Synced;

#[cfg(wrong)]
fn made() -> Synced {
    Synced(()) //~ E0423 private fields
}
