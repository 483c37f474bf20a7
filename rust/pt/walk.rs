// SPDX-License-Identifier: GPL-2.0

//! What a page table maps, read from its entries.
//!
//! For tables of 512 entries of 64 bits, with pages of 4096 bytes at the bottom:
//! second-stage tables of VT-d, tables of AMD-Vi and of the CPU. The kernel's
//! generic page table code can tell where one address leads, but not which
//! addresses lead anywhere.

use core::ops::ControlFlow;

/// Address bits within a page of the lowest level.
const PAGE_BITS: u32 = 12;

/// Address bits that one table translates.
const TABLE_BITS: u32 = 9;

/// Levels that a table can have: five translate 57 bits.
const LEVELS: usize = 5;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped here.
    Empty,
    /// A table of the next lower level is at this physical address.
    Table(u64),
    /// All that the entry stands for is mapped.
    Leaf,
}

/// How the entries of a format are read.
pub trait Format {
    /// What an entry of a table at `level` says; the lowest level is 0.
    ///
    /// What it calls a table at level 0 is taken for empty.
    fn decode(level: u32, entry: u64) -> Entry;
}

/// Where a table starts, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Physical address of the topmost table.
    pub phys: u64,
    /// Its level, 4 at most.
    pub level: u32,
    /// Address bits that can be mapped. If they need only a part of the topmost
    /// table, only this part is read.
    pub address_bits: u32,
}

/// Consecutive DMA addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub iova: u64,
    /// How many there are.
    pub bytes: u64,
}

impl Range {
    /// The first address behind the range, limited to 64 bits.
    fn end(&self) -> u64 {
        self.iova.saturating_add(self.bytes)
    }

    fn contains(&self, iova: u64) -> bool {
        self.iova <= iova && iova < self.end()
    }

    /// Visits what is left of the range without `holes`, in rising order.
    ///
    /// Holes may overlap, and stand in any order; there should be few.
    pub fn without(
        self,
        holes: &[Range],
        mut visit: impl FnMut(Range) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut at = self.iova;
        while at < self.end() {
            let covering = holes.iter().filter(|hole| hole.contains(at));
            if let Some(end) = covering.map(Range::end).max() {
                at = end;
                continue;
            }
            let later = holes.iter().filter(|hole| hole.contains(hole.iova));
            let next = later.map(|hole| hole.iova).filter(|iova| *iova > at).min();
            let end = next.map_or(self.end(), |iova| iova.min(self.end()));
            visit(Range {
                iova: at,
                bytes: end - at,
            })?;
            at = end;
        }
        ControlFlow::Continue(())
    }
}

/// Address bits below the part that indexes a table at `level`.
fn shift(level: u32) -> u32 {
    PAGE_BITS + TABLE_BITS * level
}

/// Finds the lowest table that translates `iova`; `None` if there is none yet, or a larger page, or the
/// topmost table does not reach so far.
///
/// `read` as for [`walk`].
pub fn lowest_table<F: Format>(
    top: Top,
    iova: u64,
    mut read: impl FnMut(u64, usize) -> u64,
) -> Option<u64> {
    let mut table = top.phys;
    let top_level = top.level.min(LEVELS as u32 - 1);
    if iova >> shift(top_level + 1) != 0 {
        return None;
    }
    for level in (1..=top_level).rev() {
        // CAST: nine bits.
        let index = (iova >> shift(level)) as usize & ((1 << TABLE_BITS) - 1);
        match F::decode(level, read(table, index)) {
            Entry::Table(next) => table = next,
            Entry::Empty | Entry::Leaf => return None,
        }
    }
    Some(table)
}

/// How much is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Leaf entries, of whatever size; where there is no table, what the units were told one by one.
    pub mappings: u64,
    /// Bytes that these stand for.
    pub bytes: u64,
}

/// Tables that [`leaves`] has to read to get anywhere, from wherever it starts: one of each level.
pub const LEAST_TABLES: u32 = LEVELS as u32;

/// Visits the leaf entries of a table in rising order, from the address `from` on.
///
/// `read` gives the entry of the table at a physical address and with an index below
/// 512. It may be called with any address that [`Format::decode`] has made of what it
/// gave. `tables` is how many tables are read at most, which bounds the time of a
/// walk through a large table, or through garbage.
///
/// `Break` if not all was seen: `visit` said so, or the table has more than `tables`
/// tables. In the second case its value is where to go on, later than `from` if there were
/// [`LEAST_TABLES`]. Of a leaf that begins before `from` the rest is visited.
pub fn leaves<F: Format>(
    top: Top,
    from: u64,
    mut tables: u32,
    mut read: impl FnMut(u64, usize) -> u64,
    mut visit: impl FnMut(Range) -> ControlFlow<()>,
) -> ControlFlow<u64> {
    let mut level = top.level.min(LEVELS as u32 - 1);
    let top_level = level;
    let end = 1u64 << top.address_bits.min(shift(top_level + 1));

    // The table of each level that leads to `iova`.
    let mut path = [top.phys; LEVELS];
    let mut iova = from;

    while iova < end {
        let size = 1u64 << shift(level);
        // CAST: Nine bits.
        let index = (iova >> shift(level)) as usize % (1 << TABLE_BITS);
        let table = path.get(level as usize).copied().unwrap_or(top.phys);
        let rest = size - iova % size;
        match F::decode(level, read(table, index)) {
            Entry::Table(phys) if level > 0 => {
                if tables <= 1 {
                    return ControlFlow::Break(iova);
                }
                tables -= 1;
                level -= 1;
                if let Some(place) = path.get_mut(level as usize) {
                    *place = phys;
                }
                continue;
            }
            Entry::Leaf => {
                let leaf = Range { iova, bytes: rest };
                if visit(leaf).is_break() {
                    return ControlFlow::Break(iova);
                }
            }
            Entry::Empty | Entry::Table(_) => {}
        }
        iova += rest;
        // Up from the tables that end here.
        while level < top_level && iova % (1 << shift(level + 1)) == 0 {
            level += 1;
        }
    }
    ControlFlow::Continue(())
}

/// Visits what a table maps, in rising order, neighbouring entries as one range. `read` and `tables`
/// as for [`leaves`].
///
/// `Break` if not all was seen: `visit` said so, or the table has more than `tables`
/// tables. What was found until then has been visited in the second case.
pub fn walk<F: Format>(
    top: Top,
    tables: u32,
    read: impl FnMut(u64, usize) -> u64,
    mut visit: impl FnMut(Range) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut found: Option<Range> = None;
    let mut enough = false;
    let seen = leaves::<F>(top, 0, tables, read, |leaf| match &mut found {
        Some(range) if range.end() == leaf.iova => {
            range.bytes += leaf.bytes;
            ControlFlow::Continue(())
        }
        _ => {
            let end = found
                .replace(leaf)
                .map_or(ControlFlow::Continue(()), &mut visit);
            enough = end.is_break();
            end
        }
    });
    if let Some(range) = found.filter(|_| !enough) {
        visit(range)?;
    }
    match seen {
        ControlFlow::Continue(()) => ControlFlow::Continue(()),
        ControlFlow::Break(_) => ControlFlow::Break(()),
    }
}
