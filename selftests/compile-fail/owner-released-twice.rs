// SPDX-License-Identifier: GPL-2.0
//
// Who has given it back has it no more.

include!("common/owner.rs");

fn release(mut owner: DmaOwner<'_>) {
    let _ = owner.detach();
    drop(owner);
    #[cfg(wrong)]
    drop(owner); //~ E0382 use of moved value: `owner`
}

#[cfg(wrong)]
fn attach_after(mut owner: DmaOwner<'_>) {
    drop(owner);
    let _ = owner.detach(); //~ E0382 borrow of moved value: `owner`
}

#[cfg(wrong)]
fn release_lent(owner: &mut DmaOwner<'_>) {
    drop(*owner); //~ E0507 cannot move out of `*owner`
}
