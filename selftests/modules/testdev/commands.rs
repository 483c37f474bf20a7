// SPDX-License-Identifier: GPL-2.0

//! The commands of this module, beside [those of all](crate::command).
//!
//! ```text
//! domain-alloc               own domain           "done"
//! domain-map IOVA H r|w|rw                        "done"
//! domain-unmap IOVA [then-write]                  "done", or as dma write
//! domain-phys IOVA           as the tables say    "phys 0xP" or "none"
//! domain-free                default domain again "done"
//! ```

use crate::{
    bench::Bench,
    command::{
        self,
        outcome, //
    },
    console::Commands,
    words::{
        answer,
        done,
        Words, //
    },
};
use iommu::consumer::OwnedDomain;
use kernel::{
    prelude::*,
    str::CString, //
};

pub(crate) struct Oracle<'dev> {
    pub(crate) bench: Bench<'dev>,
    pub(crate) domain: Option<OwnedDomain<'dev>>,
}

impl<'dev> Oracle<'dev> {
    fn domain(&self) -> Result<&OwnedDomain<'dev>> {
        self.domain.as_ref().ok_or(ENOENT)
    }
}

impl Commands for Oracle<'_> {
    fn run(&mut self, name: &str, mut words: Words<'_>) -> Result<CString> {
        match name {
            "domain-alloc" => {
                words.end()?;
                if self.domain.is_some() {
                    return Err(EBUSY);
                }
                self.domain = Some(OwnedDomain::new(self.bench.dev)?);
                done()
            }
            "domain-map" => {
                let iova = words.number()?;
                let buffer = self.bench.item(words.number()?)?.buffer.clone();
                let access = words.access()?;
                words.end()?;
                self.domain()?.map(iova, buffer, access)?;
                done()
            }
            "domain-unmap" => {
                let iova = words.number()?;
                let then_write = words.flag("then-write")?;
                words.end()?;
                self.domain()?.unmap(iova)?;
                if then_write {
                    return outcome(self.bench.engine.write(iova, 4)?);
                }
                done()
            }
            "domain-phys" => {
                let iova = words.number()?;
                words.end()?;
                match self.domain()?.iova_to_phys(iova) {
                    Some(phys) => answer(fmt!("phys {phys:#x}")),
                    None => answer(fmt!("none")),
                }
            }
            "domain-free" => {
                words.end()?;
                self.domain.take().ok_or(ENOENT)?;
                done()
            }
            _ => command::run(&mut self.bench, name, words),
        }
    }
}
