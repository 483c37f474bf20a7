// SPDX-License-Identifier: GPL-2.0
//
// What belongs to a bound device ends with the binding.

use iommu::{
    dma::{
        Buffer,
        Mapping, //
    },
    lease::Lease, //
};
use kernel::{
    device::Bound,
    dma::DataDirection,
    pci,
    prelude::*,
    types::ForLt, //
};

struct Bench<'dev>(&'dev pci::Device<Bound>, Option<Mapping<'dev>>);

fn map<'dev>(dev: &'dev pci::Device<Bound>) -> Result<Bench<'dev>> {
    let buffer = Buffer::new(1)?;
    let mapping = Mapping::new(dev.as_ref(), buffer, DataDirection::FromDevice)?;
    Ok(Bench(dev, Some(mapping)))
}

fn use_it(lease: &Lease<ForLt!(Bench<'_>)>, dev: &pci::Device<Bound>) -> Result {
    let mut address = None;
    lease.with(|bench| address = bench.1.as_ref().map(|mapping| mapping.dma_addr()));
    let bench = map(dev)?;
    let _ = (address, bench.0);
    #[cfg(wrong)]
    {
        let mut kept = None;
        lease.with(|bench| kept = bench.1.take()); //~ E0521 borrowed data escapes outside of closure
        let _: Option<&pci::Device<Bound>> = lease.with(|bench| bench.0); //~ error lifetime may not
        let _: Bench<'static> = map(dev)?; //~ error lifetime may not
    }
    Ok(())
}
