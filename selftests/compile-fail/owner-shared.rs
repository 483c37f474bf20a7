// SPDX-License-Identifier: GPL-2.0
//
// Attaching needs the token for oneself.

include!("common/owner.rs");

fn right<'dev>(owner: &mut DmaOwner<'dev>, domain: Arc<UserDomain>) -> Result {
    owner.attach(domain)
}

#[cfg(wrong)]
fn attach<'dev>(owner: &DmaOwner<'dev>, domain: Arc<UserDomain>) -> Result {
    owner.attach(domain) //~ E0596 cannot borrow `*owner` as mutable
}
