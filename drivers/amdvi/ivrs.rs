// SPDX-License-Identifier: GPL-2.0

//! The ACPI I/O Virtualization Reporting Structure (IVRS): which IOMMUs exist, which requester ids
//! each one translates, and which memory firmware keeps for devices.
//!
//! [`Ivrs::parse`] checks every length of the whole table before it returns anything, so the
//! iterators cannot fail. Nothing is allocated; all values borrow the table's bytes.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), section 5.2.
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::{
    acpi::structures::{
        self,
        Layout,
        Structure,
        Structures,
        HEADER_LEN,
        STRUCTURE_HEADER_LEN, //
    },
    bytes::{
        u16_at,
        u32_at,
        u64_at,
        u8_at, //
    }, //
};

use crate::ivhd::{
    self,
    Entries,
    Entry, //
};

const TYPE_IVHD_10: u16 = 0x10;
const TYPE_IVHD_11: u16 = 0x11;
const TYPE_IVHD_40: u16 = 0x40;
const TYPE_IVMD_ALL: u16 = 0x20;
const TYPE_IVMD_ONE: u16 = 0x21;
const TYPE_IVMD_RANGE: u16 = 0x22;

/// IVinfo, and the bits of the addresses that devices may use (VASize) in it; 0 stands for all.
const INFO: usize = 36;
const INFO_ADDRESS_SHIFT: u32 = 15;
const INFO_ADDRESS_MASK: u32 = 0x7f;
const ALL_ADDRESS_BITS: u8 = 64;

const IVHD_10_LEN: usize = 24;
const IVHD_11_LEN: usize = 40;
const IVMD_LEN: usize = 32;

/// HATDis, in the attributes of IVHDs of types 11h and 40h: there are no host tables.
const ATTRIBUTES: usize = 20;
const NO_HOST_TABLES: u32 = 1 << 0;

const IVMD_UNITY: u8 = 1 << 0;
const IVMD_EXCLUSION: u8 = 1 << 3;

/// Registers are a multiple of this many bytes, and aligned to it.
const BASE_ALIGNMENT: u64 = 0x4000;

const PAGE_MASK: u64 = 0xfff;

/// The largest physical address of the architecture has 52 bits.
const PHYSICAL_END: u64 = 1 << 52;

/// Most IOMMUs one table may hold; it bounds the search for duplicates.
pub(crate) const MAX_UNITS: usize = 256;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What is wrong with the table's form.
    Form(structures::Fault),
    /// What is wrong with a device entry of an IVHD.
    Entry(ivhd::Reason),
    /// A register base that is 0, not aligned, or above all physical addresses.
    RegisterBase(u64),
    /// Two IOMMUs with this register base.
    DuplicateBase(u64),
    /// More than [`MAX_UNITS`] IVHDs.
    TooManyUnits,
    /// No IOMMU at all.
    NoUnits,
    /// A memory range that is empty, wraps around, or lies above all physical addresses.
    Range {
        /// First byte.
        start: u64,
        /// Number of bytes.
        length: u64,
    },
    /// A memory range that does not consist of whole 4 KiB pages.
    RangeAlignment {
        /// First byte.
        start: u64,
        /// Number of bytes.
        length: u64,
    },
    /// A memory range for the requester ids from the first to the second, which is smaller.
    RangeOrder(u16, u16),
}

/// Why a table cannot be used, and where.
///
/// Prints as one line without a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    /// Offset in bytes from the start of the table.
    pub(crate) offset: usize,
    /// What is wrong there.
    pub(crate) reason: Reason,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IVRS table, offset {:#x}: ", self.offset)?;
        match self.reason {
            Reason::Form(fault) => write!(f, "{fault}"),
            Reason::Entry(reason) => write!(f, "{reason}"),
            Reason::RegisterBase(base) => write!(f, "register base {base:#x} is not possible"),
            Reason::DuplicateBase(base) => write!(f, "second IOMMU with register base {base:#x}"),
            Reason::TooManyUnits => write!(f, "more than {MAX_UNITS} IOMMUs"),
            Reason::NoUnits => write!(f, "no IOMMU"),
            Reason::Range { start, length } => {
                write!(
                    f,
                    "memory of {length:#x} bytes at {start:#x} is not possible"
                )
            }
            Reason::RangeAlignment { start, length } => write!(
                f,
                "memory of {length:#x} bytes at {start:#x} is not made of 4 KiB pages"
            ),
            Reason::RangeOrder(first, last) => {
                write!(f, "memory for the devices {first:#06x} to {last:#06x}")
            }
        }
    }
}

impl From<structures::Error> for Error {
    fn from(error: structures::Error) -> Self {
        Self {
            offset: error.offset,
            reason: Reason::Form(error.fault),
        }
    }
}

/// Blocks (section 5.2.1).
static LAYOUT: Layout = Layout {
    signature: *b"IVRS",
    wide_types: false,
    fixed_length,
};

/// A checked IVRS.
///
/// # Invariants
///
/// Every block and device entry in it is complete: [`Ivrs::parse`] found no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ivrs<'a> {
    blocks: Structures<'a>,
}

impl<'a> Ivrs<'a> {
    /// Checks a whole table. `bytes` may be longer than the table.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in table order. Unknown block types are not errors, but their
    /// lengths must be right.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let blocks = Structures::new(bytes, &LAYOUT)?;
        let mut units = 0;
        for block in blocks.checked(HEADER_LEN) {
            let block = block?;
            if let Some(unit) = Unit::decode(&block) {
                units += 1;
                if units > MAX_UNITS {
                    return Err(error(block.offset, Reason::TooManyUnits));
                }
                check_unit(&blocks, &unit)?;
            }
            if let Some(memory) = Memory::decode(&block) {
                check_memory(&memory)?;
            }
        }
        // INVARIANT: every block was read, and those of IOMMUs had all their entries checked.
        let this = Self { blocks };
        if this.units().next().is_none() {
            return Err(error(blocks.table().len(), Reason::NoUnits));
        }
        Ok(this)
    }

    /// A whole table that [`parse`](Self::parse) has accepted before. Nothing is checked again; of
    /// a table that was not accepted, what comes after the first mistake is missing.
    pub(crate) const fn accepted(table: &'a [u8]) -> Self {
        Self {
            blocks: Structures::accepted(table, &LAYOUT),
        }
    }

    /// All IOMMUs, in table order. Firmware may describe one several times, for software of
    /// several ages: only the newest description counts.
    pub(crate) fn units(&self) -> impl Iterator<Item = Unit<'a>> + Clone {
        let blocks = self.blocks;
        all_units(&blocks).filter(move |unit| {
            !all_units(&blocks).any(|other| other.same(unit) && other.kind > unit.kind)
        })
    }

    /// Bits of the addresses that devices may use: VASize of IVinfo (section 5.2.1).
    pub(crate) fn address_bits(&self) -> u8 {
        let info = u32_at(self.blocks.table(), INFO).unwrap_or(0);
        // CAST: a field of 7 bits.
        match (info >> INFO_ADDRESS_SHIFT & INFO_ADDRESS_MASK) as u8 {
            0 => ALL_ADDRESS_BITS,
            bits => bits,
        }
    }

    /// All memory ranges that firmware wants devices to reach, in table order.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Memory> + Clone + 'a {
        self.blocks
            .from(HEADER_LEN)
            .filter_map(|block| Memory::decode(&block))
    }

    /// The IOMMU that translates a requester id: the first that names it, else the first that takes
    /// all of the segment.
    pub(crate) fn owner(&self, segment: u16, id: u16) -> Option<Unit<'a>> {
        let mut units = self.units().filter(|unit| unit.segment == segment);
        units
            .clone()
            .find(|unit| unit.names(id))
            .or_else(|| units.find(Unit::takes_all))
    }
}

/// An IOMMU: an IVHD block (section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    /// Position in the table, for messages.
    pub(crate) offset: usize,
    /// Type of the block, 10h, 11h or 40h.
    pub(crate) kind: u16,
    /// What firmware wants the control register to say.
    pub(crate) flags: Flags,
    /// Requester id of the IOMMU's own PCI function.
    pub(crate) function: u16,
    /// Offset of the IOMMU's capability in that function's configuration space.
    pub(crate) capability: u16,
    /// Physical address of its registers.
    pub(crate) register_base: u64,
    /// PCI segment of all its devices.
    pub(crate) segment: u16,
    /// A copy of the extended feature register, where the block has one (types 11h and 40h).
    pub(crate) features: Option<u64>,
    /// Whether the IOMMU has host tables, as far as the block says (types 11h and 40h).
    pub(crate) host_tables: bool,
    entries: &'a [u8],
}

/// Bits of an IVHD's flags byte; they stand for bits of the control register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    /// HtTunEn: HyperTransport tunnel translation.
    pub(crate) const fn tunnel(self) -> bool {
        self.0 & (1 << 0) != 0
    }

    /// PassPW: writes may pass posted writes.
    pub(crate) const fn pass_posted(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// ResPassPW: responses may pass posted writes.
    pub(crate) const fn response_pass_posted(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// Isoc: isochronous requests for the tables.
    pub(crate) const fn isochronous(self) -> bool {
        self.0 & (1 << 3) != 0
    }
}

impl<'a> Unit<'a> {
    fn decode(block: &Structure<'a>) -> Option<Self> {
        let header = ivhd_header(block.kind)?;
        let bytes = block.bytes;
        Some(Self {
            offset: block.offset,
            kind: block.kind,
            flags: Flags(u8_at(bytes, 1)?),
            function: u16_at(bytes, 4)?,
            capability: u16_at(bytes, 6)?,
            register_base: u64_at(bytes, 8)?,
            segment: u16_at(bytes, 16)?,
            features: (block.kind != TYPE_IVHD_10)
                .then(|| u64_at(bytes, 24))
                .flatten(),
            host_tables: block.kind == TYPE_IVHD_10
                || u32_at(bytes, ATTRIBUTES)? & NO_HOST_TABLES == 0,
            entries: bytes.get(header..)?,
        })
    }

    /// Whether two blocks describe one IOMMU.
    fn same(&self, other: &Self) -> bool {
        (self.segment, self.function, self.capability)
            == (other.segment, other.function, other.capability)
    }

    /// The device entries, in table order.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries::new(self.entries)
    }

    /// Whether an entry other than "all" is for this requester id.
    pub(crate) fn names(&self, id: u16) -> bool {
        self.entries().any(|entry| entry.contains(id))
    }

    /// Whether the IOMMU takes every requester id of its segment.
    pub(crate) fn takes_all(&self) -> bool {
        self.entries()
            .any(|entry| matches!(entry, Entry::All { .. }))
    }

    /// The id that requests of this one carry, if firmware says that they carry another.
    pub(crate) fn alias(&self, id: u16) -> Option<u16> {
        self.entries().filter_map(|entry| entry.alias_of(id)).last()
    }

    /// The settings for a requester id: what the last entry for it says.
    pub(crate) fn settings(&self, id: u16) -> ivhd::Settings {
        self.entries()
            .filter_map(|entry| entry.settings_of(id))
            .last()
            .unwrap_or_default()
    }

    /// The largest requester id that any entry names.
    pub(crate) fn last_id(&self) -> u16 {
        self.entries()
            .map(|entry| entry.last_id())
            .max()
            .unwrap_or(0)
    }
}

/// Memory that firmware makes devices use: an IVMD block (section 5.2.3).
///
/// A range that is to be excluded from translation counts as one that is to be mapped one to one: the
/// exclusion registers of an IOMMU have room for one range only, and no permissions for a device. The
/// permissions of a range are not kept: what firmware lets a device read it may write too, as with
/// VT-d, whose ranges have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Position in the table, for messages.
    pub(crate) offset: usize,
    /// PCI segment of all its devices.
    pub(crate) segment: u16,
    /// First requester id that uses it.
    pub(crate) first: u16,
    /// Last one.
    pub(crate) last: u16,
    /// Physical address of the first byte; a multiple of 4 KiB.
    pub(crate) start: u64,
    /// Number of bytes; a multiple of 4 KiB, not 0.
    pub(crate) length: u64,
}

impl Memory {
    fn decode(block: &Structure<'_>) -> Option<Self> {
        let bytes = block.bytes;
        let id = u16_at(bytes, 4)?;
        let (first, last) = match block.kind {
            TYPE_IVMD_ALL => (0, u16::MAX),
            TYPE_IVMD_ONE => (id, id),
            TYPE_IVMD_RANGE => (id, u16_at(bytes, 6)?),
            _ => return None,
        };
        // Without either bit the range says nothing.
        if u8_at(bytes, 1)? & (IVMD_UNITY | IVMD_EXCLUSION) == 0 {
            return None;
        }
        Some(Self {
            offset: block.offset,
            segment: u16_at(bytes, 8)?,
            first,
            last,
            start: u64_at(bytes, 16)?,
            length: u64_at(bytes, 24)?,
        })
    }

    /// Whether a device with this id must keep access.
    pub(crate) fn covers(&self, segment: u16, id: u16) -> bool {
        segment == self.segment && (self.first..=self.last).contains(&id)
    }
}

/// Length of an IVHD's fixed part, if the block is one that this driver knows.
fn ivhd_header(kind: u16) -> Option<usize> {
    match kind {
        TYPE_IVHD_10 => Some(IVHD_10_LEN),
        TYPE_IVHD_11 | TYPE_IVHD_40 => Some(IVHD_11_LEN),
        _ => None,
    }
}

fn fixed_length(kind: u16) -> usize {
    match kind {
        TYPE_IVMD_ALL | TYPE_IVMD_ONE | TYPE_IVMD_RANGE => IVMD_LEN,
        _ => ivhd_header(kind).unwrap_or(STRUCTURE_HEADER_LEN),
    }
}

fn all_units<'a>(blocks: &Structures<'a>) -> impl Iterator<Item = Unit<'a>> + Clone + use<'a> {
    blocks
        .from(HEADER_LEN)
        .filter_map(|block| Unit::decode(&block))
}

fn check_unit(blocks: &Structures<'_>, unit: &Unit<'_>) -> Result<(), Error> {
    let base = unit.register_base;
    if base == 0 || base % BASE_ALIGNMENT != 0 || base > PHYSICAL_END - BASE_ALIGNMENT {
        return Err(error(unit.offset, Reason::RegisterBase(base)));
    }
    let duplicate = all_units(blocks)
        .take_while(|other| other.offset < unit.offset)
        .any(|other| other.register_base == base && (!other.same(unit) || other.kind == unit.kind));
    if duplicate {
        return Err(error(unit.offset, Reason::DuplicateBase(base)));
    }
    let entries = unit.offset + ivhd_header(unit.kind).unwrap_or(0);
    ivhd::check(unit.entries)
        .map_err(|(offset, reason)| error(entries + offset, Reason::Entry(reason)))
}

fn check_memory(memory: &Memory) -> Result<(), Error> {
    let (start, length) = (memory.start, memory.length);
    let end = start.checked_add(length);
    let reason = if length == 0 || end.is_none_or(|end| end > PHYSICAL_END) {
        Reason::Range { start, length }
    } else if (start | length) & PAGE_MASK != 0 {
        Reason::RangeAlignment { start, length }
    } else if memory.last < memory.first {
        Reason::RangeOrder(memory.first, memory.last)
    } else {
        return Ok(());
    };
    Err(error(memory.offset, reason))
}

fn error(offset: usize, reason: Reason) -> Error {
    Error { offset, reason }
}
