// SPDX-License-Identifier: GPL-2.0
//
// The core finds one static of operations for a driver, which the macro makes.

include!("common/toy.rs");

struct Other;

#[cfg(wrong)]
impl iommu::ops::HasOps for Other {
    //~^ E0200 requires an `unsafe impl` declaration
    fn ops() -> &'static iommu::ops::Ops<Self>
    where
        Self: Driver,
    {
        todo!()
    }
}

#[cfg(wrong)]
mod again {
    use super::Toy;

    iommu::ops!(static OPS: Toy); //~ E0119 conflicting implementations of trait `HasOps`
}
