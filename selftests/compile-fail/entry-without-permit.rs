// SPDX-License-Identifier: GPL-2.0
//
// Entries of a live table are stored with a permit, or not at all.

include!("common/toy.rs");

fn program(slot: &Slot, locked: &Locked<'_, Toy>) {
    slot.0.program(0, [1, 0], locked.permit());
}

#[cfg(wrong)]
fn without(slot: &Slot) {
    slot.0.program(0, [1, 0]); //~ E0061 takes 3 arguments but 2
    slot.0.program(0, [1, 0], &()); //~ E0308 mismatched types
    slot.0 .0.write(0, 1); //~ E0616 field `0` of struct `Entries` is private
    slot.0.write_pair(0, 1, 0); //~ E0599 no method named `write_pair`
}
