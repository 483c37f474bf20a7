// SPDX-License-Identifier: GPL-2.0
//
// A unit's part that the core knows is not a driver's to change.

include!("common/toy.rs");

use iommu::unit;

fn right(unit: &UnitRef<Toy>) -> &Unit {
    unit
}

#[cfg(wrong)]
fn wrong(reference: &UnitRef<Toy>, unit: &unit::Unit<Toy>) {
    let _ = unit.as_raw(); //~ E0624 method `as_raw` is private
    let _ = &unit.hw; //~ E0616 field `hw` of struct `iommu::unit::Unit` is private
    let _ = reference.same(reference); //~ E0624 method `same` is private
    let _ = Probing::<Toy>::new(todo!(), &[]); //~ E0624 function `new` is private
}
