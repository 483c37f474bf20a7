// SPDX-License-Identifier: GPL-2.0
//
// A page that leads to pages of entries is changed by who has it for himself.

use iommu::entries::Directory;
use kernel::prelude::*;

fn right(directory: &mut Directory) -> Result {
    directory.link(0, [1, 0])
}

#[cfg(wrong)]
fn link(directory: &Directory) -> Result {
    directory.link(0, [1, 0]) //~ E0596 cannot borrow `*directory` as mutable
}
