// SPDX-License-Identifier: GPL-2.0
//
// What is unsafe in C is unsafe here. (That drivers have no unsafe blocks, tools/lint sees to.)

include!("common/toy.rs");

use iommu::{
    ops::Ops,
    pt::PageTable, //
};
use kernel::bindings;

fn right(table: &Vtdss) -> u64 {
    table.root().phys
}

#[cfg(wrong)]
fn wrong(table: &Vtdss, device: *mut bindings::device) {
    bindings::iommu_group_get(device); //~ E0133 call to unsafe function
    let _ = (*device).iommu; //~ E0133 dereference of raw pointer
    let _ = Ops::<Toy>::new(core::ptr::null()); //~ E0133 call to unsafe function
    let _ = table.for_each_mapping(1, &mut |_| core::ops::ControlFlow::Continue(()));
    //~^ E0133 call to unsafe
}
