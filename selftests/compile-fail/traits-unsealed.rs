// SPDX-License-Identifier: GPL-2.0
//
// Nor can the seals be broken.

#[cfg(wrong)]
use iommu::{
    pt::private,                 //~ E0603 module `private` is private
    pt::Sealed,                  //~ E0603 trait `Sealed` is private
    queue::private::Sealed as _, //~ E0603 module `private` is private
};
