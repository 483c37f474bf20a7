// SPDX-License-Identifier: GPL-2.0
//
// Devices share a domain that was made for one that is bound, but not one that a device is
// attached to without a token: its owner ends that attachment.

include!("common/owner.rs");

use iommu::consumer::OwnedDomain;

fn right<'a, 'b>(one: &mut DmaOwner<'a>, other: &mut DmaOwner<'b>, dev: &Device<Bound>) -> Result {
    let domain = UserDomain::new(dev)?;
    one.attach(domain.clone())?;
    other.attach(domain)
}

#[cfg(wrong)]
fn unbound(dev: &Device) -> Result<Arc<UserDomain>> {
    UserDomain::new(dev) //~ E0308 mismatched types
}

#[cfg(wrong)]
fn taken_out(owner: &mut DmaOwner<'_>, owned: OwnedDomain<'_>) -> Result {
    owner.attach(owned.domain) //~ E0616 field `domain` of struct `OwnedDomain` is private
}

#[cfg(wrong)]
fn moved_out(owner: &mut DmaOwner<'_>, owned: OwnedDomain<'_>) -> Result {
    owner.attach(Arc::new(*owned, GFP_KERNEL)?) //~ E0507 cannot move out of dereference of `OwnedDomain
}
