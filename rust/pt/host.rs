// SPDX-License-Identifier: GPL-2.0

//! Entries of host tables of AMD-Vi, "v1" (AMD I/O Virtualization Technology specification, 48882,
//! section 2.2.3).

use crate::pt::walk::{
    Entry,
    Format, //
};

/// PR: present.
const PRESENT: u64 = 1;

/// Next Level: which level the table has that the entry leads to; 0 and 7 for a page.
const NEXT_SHIFT: u32 = 9;
const NEXT_MASK: u64 = 7;
/// A page of another size than the level's own; its entry is repeated.
const NEXT_SIZED: u64 = 7;

/// Physical address, bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// FC: requests snoop the CPU's caches whatever they say.
const COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// An entry of the lowest level for the page at `phys`, as generic_pt makes it.
pub fn leaf(phys: u64, read: bool, write: bool) -> u64 {
    let read = if read { READ } else { 0 };
    let write = if write { WRITE } else { 0 };
    phys & ADDRESS | PRESENT | COHERENT | read | write
}

/// The format of `AmdV1` tables.
pub enum HostTable {}

impl Format for HostTable {
    fn decode(level: u32, entry: u64) -> Entry {
        let next = (entry >> NEXT_SHIFT) & NEXT_MASK;
        if entry & PRESENT == 0 {
            Entry::Empty
        } else if level == 0 || next == 0 || next == NEXT_SIZED {
            // Neither: it lets nothing through (`lazy/format.rs` has such entries).
            if entry & (READ | WRITE) == 0 {
                Entry::Empty
            } else {
                Entry::Leaf
            }
        } else {
            Entry::Table(entry & ADDRESS)
        }
    }
}
