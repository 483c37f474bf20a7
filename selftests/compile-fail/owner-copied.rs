// SPDX-License-Identifier: GPL-2.0
//
// There is one token for a claim, and it is given back once.

include!("common/owner.rs");

fn hand_over(_: DmaOwner<'_>) {}

fn once(dev: &Device<Bound>, key: &OwnerKey) -> Result {
    let same = key.clone();
    hand_over(DmaOwner::claim(dev, key)?);
    hand_over(DmaOwner::claim(dev, &same)?);
    Ok(())
}

#[cfg(wrong)]
fn copy(mut owner: DmaOwner<'_>) {
    hand_over(owner.clone()); //~ E0599 no method named `clone` found for struct `DmaOwner`
    Drop::drop(&mut owner); //~ E0040 explicit use of destructor method
}
