// SPDX-License-Identifier: GPL-2.0
//
// Only the framework says that a slot is locked, and permits something for that.

include!("common/toy.rs");

fn program(slot: &Slot, locked: &Locked<'_, Toy>) {
    slot.0.program(0, [1, 0], locked.permit());
}

#[cfg(wrong)]
fn made(slot: &Slot, locked: &Locked<'_, Toy>) {
    slot.0.program(0, [1, 0], Locked::<Toy>::new(slot).permit()); //~ E0624 function `new` is private
    let _: Permit<'_> = locked.permit().clone(); //~ E0308 mismatched types
    let _: Permit<'_> = Default::default(); //~ E0277 Default
}
