// SPDX-License-Identifier: GPL-2.0
//
// The permit, and the slot that it goes with, are lent for the time of a call.

include!("common/toy.rs");

struct Kept<'a> {
    permit: Option<&'a Permit<'a>>,
    locked: Option<&'a Locked<'a, Toy>>,
    slot: Option<&'a Slot>,
    entry: [u64; 2],
}

fn program(slot: &Locked<'_, Toy>, kept: &mut Kept<'static>) {
    slot.slot().0.program(0, [1, 0], slot.permit());
    kept.entry = slot.slot().0.get(0);
}

// A function each: the compiler names the first place only where a lifetime is too short.

#[cfg(wrong)]
fn keep_permit(slot: &Locked<'_, Toy>, kept: &mut Kept<'static>) {
    kept.permit = Some(slot.permit()); //~ E0521 `slot` escapes
}

#[cfg(wrong)]
fn keep_locked(slot: &Locked<'_, Toy>, kept: &mut Kept<'static>) {
    kept.locked = Some(slot); //~ error lifetime may not live long enough
}

#[cfg(wrong)]
fn keep_slot(slot: &Locked<'_, Toy>, kept: &mut Kept<'static>) {
    kept.slot = Some(slot.slot()); //~ E0521 `slot` escapes
}

#[cfg(wrong)]
fn longer_than_locked<'a>(slot: Locked<'a, Toy>) -> &'a Slot {
    slot.slot() //~ E0515 cannot return value referencing function parameter `slot`
}

#[cfg(wrong)]
fn put_elsewhere<'a, 'b>(slot: &'b Locked<'a, Toy>, kept: &mut Option<&'b Permit<'b>>) {
    *kept = Some(slot.permit()); //~ error lifetime may not live long enough
}
