// SPDX-License-Identifier: GPL-2.0

//! rust_udma: a driver that manages DMA itself, as vfio-pci does.
//!
//! Points that a test can hold; an error at those of probe fails it:
//!
//! ```text
//! udma.probe.1   all was done but the debugfs file
//! udma.probe.2   ... and that
//! udma.remove    remove was called: what is claimed is released when it returns
//! ```
//!
//! Commands beside [those of all](crate::command), of which "map" and "unmap" are not
//! for such a driver:
//!
//! ```text
//! claim KEY                  number of one of the module's keys, 0..4   "done"
//! release                    of the token, detached before it           "done"
//! domain-new [note|map]      D differs from those of all other devices  "domain D"
//!                            "note": it has a handler, which counts faults; "map":
//!                            ... and maps a page for each
//! domain-faults D            what a handler has seen: see [`faults`]
//! domain-free D              it stays while it is attached              "done"
//! domain-map D IOVA H r|w|rw                                            "done"
//! domain-unmap D IOVA                                                   "done"
//! attach D                   with the token, the whole group            "done"
//! detach                     all DMA is refused again                   "done"
//! ```
//!
//! Where it says D it may be another device's, but for "domain-free"; see [`domains`].
//!
//! [`faults`]: crate::faults

use crate::{
    bench::Bench,
    command,
    console::{
        Commands,
        Console, //
    },
    counters::{
        Probe,
        CLAIMS,
        RELEASES,
        UDMA, //
    },
    domains::{
        self,
        Made, //
    },
    engine::{
        Engine,
        Model, //
    },
    faults::Watch,
    words::{
        answer,
        done,
        Words, //
    },
    PCI_TABLE, STATE,
};
use iommu::{
    inject::reach,
    lease::Lease,
    owner::DmaOwner, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    pci,
    prelude::*,
    str::CString,
    types::ForLt, //
};

/// A token that is counted, when it is there and when it is gone.
struct Token<'dev> {
    owner: DmaOwner<'dev>,
    _released: CountRelease,
}

impl<'dev> Token<'dev> {
    fn claim(dev: &'dev Device<Bound>, key: u64) -> Result<Self> {
        let state = STATE.get()?;
        let key = state.keys.get(usize::try_from(key)?).ok_or(EINVAL)?;
        let owner = DmaOwner::claim(dev, key)?;
        CLAIMS.count();
        Ok(Self {
            owner,
            _released: CountRelease,
        })
    }
}

struct CountRelease;

impl Drop for CountRelease {
    fn drop(&mut self) {
        RELEASES.count();
    }
}

struct Udma<'dev> {
    bench: Bench<'dev>,
    token: Option<Token<'dev>>,
    domains: Made,
}

impl Udma<'_> {
    fn claim(&mut self, mut words: Words<'_>) -> Result<CString> {
        let key = words.number()?;
        words.end()?;
        // Asked even where there is a token: it is the framework that has to refuse.
        let token = Token::claim(self.bench.dev, key)?;
        self.token = Some(token);
        done()
    }

    fn new_domain(&mut self, mut words: Words<'_>) -> Result<CString> {
        let watch = match words.word() {
            Err(_) => None,
            Ok("note") => Some(Watch::new(false)?),
            Ok("map") => Some(Watch::new(true)?),
            Ok(_) => return Err(EINVAL),
        };
        words.end()?;
        let number = self.domains.add(self.bench.dev, watch)?;
        answer(fmt!("domain {number}"))
    }

    fn map(&mut self, mut words: Words<'_>) -> Result<CString> {
        let number = words.number()?;
        let iova = words.number()?;
        let buffer = self.bench.item(words.number()?)?.buffer.clone();
        let access = words.access()?;
        words.end()?;
        domains::get(number)?.map(iova, buffer, access)?;
        done()
    }
}

impl Commands for Udma<'_> {
    fn run(&mut self, name: &str, mut words: Words<'_>) -> Result<CString> {
        match name {
            "claim" => return self.claim(words),
            "domain-map" => return self.map(words),
            "release" => {
                words.end()?;
                self.token.take().ok_or(ENOENT)?;
            }
            "domain-new" => return self.new_domain(words),
            "domain-faults" => {
                let number = words.number()?;
                words.end()?;
                return domains::watch(number)?.answer();
            }
            "domain-free" => {
                let number = words.number()?;
                words.end()?;
                self.domains.free(number)?;
            }
            "domain-unmap" => {
                let number = words.number()?;
                let iova = words.number()?;
                words.end()?;
                domains::get(number)?.unmap(iova)?;
            }
            "attach" => {
                let domain = domains::get(words.number()?)?;
                words.end()?;
                let token = self.token.as_mut().ok_or(EPERM)?;
                token.owner.attach(domain)?;
            }
            "detach" => {
                words.end()?;
                let token = self.token.as_mut().ok_or(EPERM)?;
                token.owner.detach().ok_or(ENOENT)?;
            }
            "map" | "unmap" => return Err(EOPNOTSUPP),
            _ => return command::run(&mut self.bench, name, words),
        }
        done()
    }
}

#[pin_data]
pub(crate) struct Data {
    #[pin]
    console: Console<ForLt!(Udma<'_>)>,
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
            let begun: Probe = UDMA.probe();
            let model = Model::of(dev).ok_or(ENODEV)?;
            dev.enable_device_mem()?;
            dev.set_master();
            let lease = Lease::new(dev, |dev| {
                Ok(Udma {
                    bench: Bench::new(dev.as_ref(), Engine::new(dev, model)?),
                    token: None,
                    domains: Made::new(),
                })
            })?;
            reach("udma.probe.1", Some(dev.as_ref()))?;
            let name = CString::try_from_fmt(fmt!("rust_udma-{}", dev.as_ref().name()))?;
            Ok(try_pin_init!(Data {
                console <- Console::new(name, lease),
                _: {
                    reach("udma.probe.2", Some(dev.as_ref()))?;
                    begun.done();
                },
            }? Error))
        })
    }

    fn unbind<'bound>(dev: &'bound pci::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        UDMA.removes.count();
        // Nothing can fail here: a test only holds this point.
        let _ = reach("udma.remove", Some(dev.as_ref()));
        this.console.end();
    }
}
