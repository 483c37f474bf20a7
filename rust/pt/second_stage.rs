// SPDX-License-Identifier: GPL-2.0

//! Entries of second-stage tables (VT-d specification, section 9.8 "Second-Stage
//! Paging Entries").

use crate::pt::walk::{
    Entry,
    Format, //
};

/// Read and write permission. An entry with neither is not present.
const PERMISSION: u64 = 0b11;

/// Above the lowest level: the entry maps a page, and leads to no table.
const PAGE: u64 = 1 << 7;

/// Physical address, bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

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
