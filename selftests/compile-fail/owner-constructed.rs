// SPDX-License-Identifier: GPL-2.0
//
// The parts of tokens and keys are private, and so is the group's C side.

use iommu::owner::OwnerKey;

#[cfg(wrong)]
use iommu::{
    group::Group,  //~ E0603 module `group` is private
    owner::Listed, //~ E0603 struct `Listed` is private
};

#[cfg(wrong)]
fn constructed() -> OwnerKey {
    OwnerKey(todo!()) //~ E0423 private fields
}
