// SPDX-License-Identifier: GPL-2.0
//
// The permit stays in the thread that has the lock: another one could use it after the
// lock is free.

include!("common/toy.rs");

fn send<T: Send>(_: T) {}

fn program(slot: &Locked<'_, Toy>) {
    send(slot.slot().0.get(0));
    #[cfg(wrong)]
    {
        send(slot.permit()); //~ E0277 cannot be shared between threads safely
        send(slot); //~ E0277 cannot be shared between threads safely
    }
}

#[cfg(wrong)]
fn take(permit: Permit<'static>) {
    send(permit); //~ E0277 cannot be sent between threads safely
}
