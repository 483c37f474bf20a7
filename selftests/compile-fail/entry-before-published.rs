// SPDX-License-Identifier: GPL-2.0
//
// Row Y7: an entry is stored when those who flush a domain find the endpoint's tag, not before. The
// framework puts the tag on the domain's list and then, with the list's lock still held, calls
// `program`. Only this is lent a permit: what a driver is called for earlier (`probe`, which makes
// the slot; `alloc_tag`, which makes the tag) has none, and cannot call `program` by itself.

include!("common/toy.rs");

fn program(slot: &Locked<'_, Toy>) {
    slot.slot().0.program(0, [1, 0], slot.permit());
}

#[cfg(wrong)]
fn at_probe(slot: &Slot) {
    slot.0.program(0, [1, 0]); //~ E0061 takes 3 arguments but 2
    program(slot); //~ E0308 mismatched types
}

#[cfg(wrong)]
fn at_alloc_tag(unit: &Unit, to: (&Endpoint, &Slot, &Target<'_, Toy>), mut batch: Batch<'_, Toy>) {
    let (endpoint, slot, target) = to;
    Toy::program(unit, endpoint, slot, target, &mut batch); //~ E0308 mismatched types
    Toy::program(unit, endpoint, &Locked::new(slot), target, &mut batch); //~ E0624 function `new` is private
}
