// SPDX-License-Identifier: GPL-2.0
//
// Where the root of a table is that may grow, only the lock of its domain's attachments says.

use iommu::pt::{
    AmdV1,
    PageTable,
    Vtdss, //
};

fn right(table: &Vtdss) -> u64 {
    table.root().phys
}

#[cfg(wrong)]
fn wrong(table: &AmdV1) -> u64 {
    table.root().phys //~ E0061 this method takes 1 argument but 0 arguments were supplied
}
