// SPDX-License-Identifier: GPL-2.0
//
// A token comes from a claim, of a device that is bound.

include!("common/owner.rs");

fn right(dev: &Device<Bound>, key: &OwnerKey) -> Result {
    DmaOwner::claim(dev, key).map(drop)
}

#[cfg(wrong)]
fn wrong(dev: &Device, bound: &Device<Bound>, key: &OwnerKey, domain: Arc<UserDomain>) {
    let _ = DmaOwner::claim(dev, key); //~ E0308 mismatched types
    let _ = DmaOwner::claim(bound, 1 as *const _); //~ E0308 mismatched types
    let _ = domain.as_raw(); //~ E0624 method `as_raw` is private
    let _ = domain.attach(bound); //~ E0599 no method named `attach`
    let _ = key.0; //~ E0616 field `0` of struct `OwnerKey` is private
}
