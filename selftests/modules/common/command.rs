// SPDX-License-Identifier: GPL-2.0

//! The commands that all test drivers have. Numbers are decimal, or hexadecimal
//! after 0x.
//!
//! ```text
//! page [PAGES]               new pages            "handle H phys 0xP"
//! map to|from|both [PAGES]   ... DMA-mapped       "handle H iova 0xI phys 0xP"
//! fill H VALUE               every 32-bit word    "done"
//! check H VALUE                                   "match" or "differs at 0xO: 0xV"
//! unmap H [then-write]       the pages stay       "done", or as dma write
//! free H                     ... and go           "done"
//! mask BITS                  for later mappings   "done"
//! dma write|read IOVA [LEN]  default 4096 bytes   "ok", "tx_fail", "over" or "code 0xC"
//! ```
//!
//! "then-write": the device writes to what was the start of the mapping at once,
//! with nothing in between.

use crate::{
    bench::{
        Bench,
        Item, //
    },
    engine::Outcome,
    words::{
        answer,
        done,
        Words, //
    },
};
use iommu::dma::set_mask;
use kernel::{
    dma::DataDirection,
    page::PAGE_SIZE,
    prelude::*,
    str::CString, //
};

/// Runs the command `name` and returns its answer.
pub(crate) fn run(bench: &mut Bench<'_>, name: &str, mut words: Words<'_>) -> Result<CString> {
    match name {
        "page" => add(bench, None, words),
        "map" => {
            let direction = words.direction()?;
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
        "mask" => {
            let bits = u32::try_from(words.number()?)?;
            words.end()?;
            set_mask(bench.dev, bits)?;
            done()
        }
        "dma" => dma(bench, words),
        _ => Err(EINVAL),
    }
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

pub(crate) fn outcome(outcome: Outcome) -> Result<CString> {
    match outcome {
        Outcome::Ok => answer(fmt!("ok")),
        Outcome::TxFail => answer(fmt!("tx_fail")),
        Outcome::Over => answer(fmt!("over")),
        Outcome::Code(code) => answer(fmt!("code {code:#010x}")),
    }
}
