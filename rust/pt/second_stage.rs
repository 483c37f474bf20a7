// SPDX-License-Identifier: GPL-2.0

//! Entries of second-stage tables (VT-d specification, section 9.8 "Second-Stage
//! Paging Entries").

use crate::pt::walk::{
    Entry,
    Format, //
};

/// Read and write permission. An entry with neither is not present.
const PERMISSION: u64 = 0b11;

const READ: u64 = 1;
const WRITE: u64 = 1 << 1;

/// Above the lowest level: the entry maps a page, and leads to no table.
const PAGE: u64 = 1 << 7;

/// Physical address, bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry of the lowest level for the page at `phys`.
pub fn leaf(phys: u64, read: bool, write: bool) -> u64 {
    let read = if read { READ } else { 0 };
    let write = if write { WRITE } else { 0 };
    phys & ADDRESS | read | write
}

/// The format of `Vtdss` tables.
pub enum SecondStage {}

impl Format for SecondStage {
    fn decode(level: u32, entry: u64) -> Entry {
        if entry & PERMISSION == 0 {
            Entry::Empty
        } else if level == 0 || entry & PAGE != 0 {
            Entry::Leaf
        } else {
            Entry::Table(entry & ADDRESS)
        }
    }
}
