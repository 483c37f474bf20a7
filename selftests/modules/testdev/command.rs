// SPDX-License-Identifier: GPL-2.0

//! The commands, and their answers. Numbers are decimal, or hexadecimal after 0x.
//!
//! ```text
//! page [PAGES]               new pages            "handle H phys 0xP"
//! map to|from|both [PAGES]   ... DMA-mapped       "handle H iova 0xI phys 0xP"
//! fill H VALUE               every 32-bit word    "done"
//! check H VALUE                                   "match" or "differs at 0xO: 0xV"
//! unmap H [then-write]       the pages stay       "done", or as dma write
//! free H                     ... and go           "done"
//! dma write|read IOVA [LEN]  default 4096 bytes   "ok", "tx_fail", "over" or "code 0xC"
//! domain-alloc               own domain           "done"
//! domain-map IOVA H r|w|rw                        "done"
//! domain-unmap IOVA [then-write]                  "done", or as dma write
//! domain-phys IOVA           as the tables say    "phys 0xP" or "none"
//! domain-free                default domain again "done"
//! ```
//!
//! "then-write": the device writes to what was the start of the mapping at once,
//! with nothing in between.

use crate::{
    bench::{
        Bench,
        Item, //
    },
    engine::Outcome, //
};
use core::str::SplitAsciiWhitespace;
use iommu::consumer::{
    Access,
    OwnedDomain, //
};
use kernel::{
    dma::DataDirection,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::CString, //
};

/// The words after the command's name.
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str> {
        self.0.next().ok_or(EINVAL)
    }

    fn number(&mut self) -> Result<u64> {
        parse(self.word()?)
    }

    fn number_or(&mut self, default: u64) -> Result<u64> {
        self.0.next().map_or(Ok(default), parse)
    }

    /// Whether `flag` is there.
    fn flag(&mut self, flag: &str) -> Result<bool> {
        match self.0.next() {
            None => Ok(false),
            Some(word) if word == flag => Ok(true),
            Some(_) => Err(EINVAL),
        }
    }

    fn end(&mut self) -> Result {
        self.0.next().map_or(Ok(()), |_| Err(E2BIG))
    }
}

fn parse(word: &str) -> Result<u64> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.map_err(|_| EINVAL)
}

/// Runs one command and returns its answer.
pub(crate) fn run(bench: &mut Bench<'_>, line: &str) -> Result<CString> {
    let mut words = Words(line.split_ascii_whitespace());
    match words.word()? {
        "page" => add(bench, None, words),
        "map" => {
            let direction = match words.word()? {
                "to" => DataDirection::ToDevice,
                "from" => DataDirection::FromDevice,
                "both" => DataDirection::Bidirectional,
                _ => return Err(EINVAL),
            };
            add(bench, Some(direction), words)
        }
        "fill" => {
            let (handle, value) = handle_and_value(words)?;
            bench.item(handle)?.fill(value);
            done()
        }
        "check" => {
            let (handle, value) = handle_and_value(words)?;
            match bench.item(handle)?.first_other(value) {
                None => answer(fmt!("match")),
                Some((offset, word)) => answer(fmt!("differs at {offset:#x}: {word:#010x}")),
            }
        }
        "unmap" => unmap(bench, words),
        "free" => {
            let handle = words.number()?;
            words.end()?;
            bench.remove(handle)?;
            done()
        }
        "dma" => dma(bench, words),
        name => domain(bench, name, words),
    }
}

fn domain(bench: &mut Bench<'_>, name: &str, mut words: Words<'_>) -> Result<CString> {
    match name {
        "domain-alloc" => {
            words.end()?;
            bench.attach()?;
            done()
        }
        "domain-map" => {
            let iova = words.number()?;
            let buffer = bench.item(words.number()?)?.buffer.clone();
            let access = match words.word()? {
                "r" => Access::Read,
                "w" => Access::Write,
                "rw" => Access::ReadWrite,
                _ => return Err(EINVAL),
            };
            words.end()?;
            own_domain(&mut bench.domain)?.map(iova, buffer, access)?;
            done()
        }
        "domain-unmap" => {
            let iova = words.number()?;
            let then_write = words.flag("then-write")?;
            words.end()?;
            own_domain(&mut bench.domain)?.unmap(iova)?;
            if then_write {
                return outcome(bench.engine.write(iova, 4)?);
            }
            done()
        }
        "domain-phys" => {
            let iova = words.number()?;
            words.end()?;
            match own_domain(&mut bench.domain)?.iova_to_phys(iova) {
                Some(phys) => answer(fmt!("phys {phys:#x}")),
                None => answer(fmt!("none")),
            }
        }
        "domain-free" => {
            words.end()?;
            bench.domain.take().ok_or(ENOENT)?;
            done()
        }
        _ => Err(EINVAL),
    }
}

fn own_domain<'a, 'dev>(
    domain: &'a mut Option<OwnedDomain<'dev>>,
) -> Result<&'a mut OwnedDomain<'dev>> {
    domain.as_mut().ok_or(ENOENT)
}

fn add(
    bench: &mut Bench<'_>,
    direction: Option<DataDirection>,
    mut words: Words<'_>,
) -> Result<CString> {
    let pages = usize::try_from(words.number_or(1)?)?;
    words.end()?;
    let Item {
        handle,
        mapping,
        buffer,
    } = bench.add(pages, direction)?;
    let phys = buffer.phys();
    match mapping {
        Some(m) => answer(fmt!(
            "handle {handle} iova {:#x} phys {phys:#x}",
            m.dma_addr()
        )),
        None => answer(fmt!("handle {handle} phys {phys:#x}")),
    }
}

fn unmap(bench: &mut Bench<'_>, mut words: Words<'_>) -> Result<CString> {
    let handle = words.number()?;
    let then_write = words.flag("then-write")?;
    words.end()?;
    let mapping = bench.item(handle)?.mapping.take().ok_or(ENOENT)?;
    let iova = mapping.dma_addr();
    drop(mapping);
    if then_write {
        return outcome(bench.engine.write(iova, 4)?);
    }
    done()
}

fn dma(bench: &mut Bench<'_>, mut words: Words<'_>) -> Result<CString> {
    let direction = words.word()?;
    let iova = words.number()?;
    let len = u32::try_from(words.number_or(PAGE_SIZE as u64)?)?;
    words.end()?;
    match direction {
        "write" => outcome(bench.engine.write(iova, len)?),
        "read" => outcome(bench.engine.read(iova, len)?),
        _ => Err(EINVAL),
    }
}

fn handle_and_value(mut words: Words<'_>) -> Result<(u64, u32)> {
    let handle = words.number()?;
    let value = u32::try_from(words.number()?)?;
    words.end()?;
    Ok((handle, value))
}

fn outcome(outcome: Outcome) -> Result<CString> {
    match outcome {
        Outcome::Ok => answer(fmt!("ok")),
        Outcome::TxFail => answer(fmt!("tx_fail")),
        Outcome::Over => answer(fmt!("over")),
        Outcome::Code(code) => answer(fmt!("code {code:#010x}")),
    }
}

fn done() -> Result<CString> {
    answer(fmt!("done"))
}

fn answer(text: fmt::Arguments<'_>) -> Result<CString> {
    CString::try_from_fmt(text)
}
