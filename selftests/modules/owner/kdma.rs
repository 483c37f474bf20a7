// SPDX-License-Identifier: GPL-2.0

//! rust_kdma: a driver that uses the DMA API.
//!
//! Points that a test can hold, in this order. An error at one of the probe fails it:
//!
//! ```text
//! kdma.probe.1   nothing was done yet
//! kdma.probe.2   there is a coherent buffer, which devres frees
//! kdma.probe.3   there is a streaming mapping too, as handle 1
//! kdma.probe.4   and the debugfs file: probe is over
//! kdma.remove    remove was called: all is there, and ends when it returns, but ...
//! kdma.devres    ... the buffer; after the bus' dma_cleanup
//! ```
//!
//! The kernel drops what a Rust driver's probe returned *after* dma_cleanup. So that
//! nothing but the managed buffer is left then, remove drops the rest by itself.
//!
//! Commands beside [those of all](crate::command):
//!
//! ```text
//! buffer                     the managed one      "iova 0xI size 0xS"
//! leak to|from|both [PAGES]  a mapping that is    "iova 0xI size 0xS"
//!                            never unmapped, nor its memory freed (which
//!                            kmemleak reports once the module is unloaded)
//! ```

use crate::{
    bench::Bench,
    command,
    console::{
        Commands,
        Console, //
    },
    counters::{
        Probe,
        DEVRES_ENDS,
        KDMA, //
    },
    engine::{
        Engine,
        Model, //
    },
    words::{
        answer,
        Words, //
    },
    PCI_TABLE, STATE,
};
use iommu::{
    dma::{
        Buffer,
        Mapping, //
    },
    inject::reach,
    lease::Lease, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    dma::{
        CoherentHandle,
        DataDirection,
        DmaAddress, //
    },
    page::PAGE_SIZE,
    pci,
    prelude::*,
    str::CString,
    sync::aref::ARef,
    types::ForLt, //
};

/// Size of the managed buffer.
const MANAGED: usize = 4 * PAGE_SIZE;

/// The buffer that devres frees, in the order of the fields.
struct Managed {
    _buffer: CoherentHandle,
    dev: ARef<Device>,
}

impl Managed {
    /// Returns where the device finds it.
    fn register(dev: &Device<Bound>) -> Result<DmaAddress> {
        let buffer = CoherentHandle::alloc(dev, MANAGED, GFP_KERNEL)?;
        let address = buffer.dma_address();
        let this = Self {
            _buffer: buffer,
            dev: dev.into(),
        };
        devres::register(dev, this, GFP_KERNEL)?;
        Ok(address)
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // Nothing can fail here: a test only holds this point.
        let _ = reach("kdma.devres", Some(&self.dev));
        DEVRES_ENDS.count();
    }
}

struct Kdma<'dev> {
    bench: Bench<'dev>,
    managed: DmaAddress,
}

impl Kdma<'_> {
    fn leak(&self, direction: DataDirection, pages: usize) -> Result<CString> {
        let buffer = Buffer::new(pages)?;
        let state = STATE.get()?;
        let mut leaked = state.leaked.lock();
        leaked.reserve(1, GFP_KERNEL)?;
        let mapping = Mapping::new(self.bench.dev, buffer.clone(), direction)?;
        let (iova, size) = (mapping.dma_addr(), buffer.size());
        // With it goes a reference to the memory, which so is never freed.
        core::mem::forget(mapping);
        leaked.push(buffer, GFP_KERNEL)?;
        answer(fmt!("iova {iova:#x} size {size:#x}"))
    }
}

impl Commands for Kdma<'_> {
    fn run(&mut self, name: &str, mut words: Words<'_>) -> Result<CString> {
        match name {
            "buffer" => {
                words.end()?;
                answer(fmt!("iova {:#x} size {MANAGED:#x}", self.managed))
            }
            "leak" => {
                let direction = words.direction()?;
                let pages = usize::try_from(words.number_or(1)?)?;
                words.end()?;
                self.leak(direction, pages)
            }
            _ => command::run(&mut self.bench, name, words),
        }
    }
}

#[pin_data]
pub(crate) struct Data {
    #[pin]
    console: Console<ForLt!(Kdma<'_>)>,
}

type KdmaLease = Lease<ForLt!(Kdma<'_>)>;

/// All of probe that comes before the file.
fn probe(dev: &pci::Device<Core<'_>>) -> Result<KdmaLease> {
    reach("kdma.probe.1", Some(dev.as_ref()))?;
    let model = Model::of(dev).ok_or(ENODEV)?;
    dev.enable_device_mem()?;
    dev.set_master();
    let managed = Managed::register(dev.as_ref())?;
    reach("kdma.probe.2", Some(dev.as_ref()))?;
    let lease = Lease::new(dev, |dev| {
        let mut bench = Bench::new(dev.as_ref(), Engine::new(dev, model)?);
        bench.add(1, Some(DataDirection::Bidirectional))?;
        Ok(Kdma { bench, managed })
    })?;
    reach("kdma.probe.3", Some(dev.as_ref()))?;
    Ok(lease)
}

pub(crate) struct Driver;

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = Data;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        dev: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let begun: Probe = KDMA.probe();
            let lease = probe(dev)?;
            let name = CString::try_from_fmt(fmt!("rust_kdma-{}", dev.as_ref().name()))?;
            Ok(try_pin_init!(Data {
                console <- Console::new(name, lease),
                _: {
                    reach("kdma.probe.4", Some(dev.as_ref()))?;
                    begun.done();
                },
            }? Error))
        })
    }

    fn unbind<'bound>(dev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        KDMA.removes.count();
        // Nothing can fail here: a test only holds this point.
        let _ = reach("kdma.remove", Some(dev.as_ref()));
        this.console.end();
    }
}
