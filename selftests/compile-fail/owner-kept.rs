// SPDX-License-Identifier: GPL-2.0
//
// A token ends with the binding of the device that it is for, and so does a domain that is
// attached without one.

include!("common/owner.rs");

use iommu::{
    consumer::OwnedDomain,
    lease::Lease, //
};
use kernel::{
    pci,
    types::ForLt, //
};

struct Bench<'dev>(Option<DmaOwner<'dev>>);

fn claim<'dev>(dev: &'dev Device<Bound>, key: &OwnerKey) -> Result<DmaOwner<'dev>> {
    let mut owner = DmaOwner::claim(dev, key)?;
    owner.attach(UserDomain::new(dev)?)?;
    Ok(owner)
}

fn release(lease: &Lease<ForLt!(Bench<'_>)>) {
    lease.with(|bench| drop(bench.0.take()));
}

#[cfg(wrong)]
fn claim_for_ever(dev: &Device<Bound>, key: &OwnerKey) -> Result<DmaOwner<'static>> {
    DmaOwner::claim(dev, key) //~ error lifetime may not live long enough
}

#[cfg(wrong)]
fn take(lease: &Lease<ForLt!(Bench<'_>)>) {
    let mut kept = None;
    lease.with(|bench| kept = bench.0.take()); //~ E0521 borrowed data escapes outside of closure
}

#[cfg(wrong)]
fn owned_for_ever(dev: &Device<Bound>) -> Result<OwnedDomain<'static>> {
    OwnedDomain::new(dev) //~ error lifetime may not live long enough
}
