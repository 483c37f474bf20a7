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

use crate::ivhd::{
    self,
    Entries,
    Entry, //
};

/// ACPI table header, IVinfo, 8 reserved bytes (section 5.2.1).
const HEADER_LEN: usize = 48;
/// Type, flags and length, the start of every block.
const BLOCK_HEADER_LEN: usize = 4;

const TYPE_IVHD_10: u8 = 0x10;
const TYPE_IVHD_11: u8 = 0x11;
const TYPE_IVHD_40: u8 = 0x40;
const TYPE_IVMD_ALL: u8 = 0x20;
const TYPE_IVMD_ONE: u8 = 0x21;
const TYPE_IVMD_RANGE: u8 = 0x22;

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
    /// Fewer bytes than the table's own header needs.
    ShortTable,
    /// The signature is not "IVRS".
    Signature,
    /// The header gives this length, smaller than the fixed part or larger than the memory.
    TableLength(u32),
    /// The bytes of the table do not add up to 0 (mod 256), but to this.
    Checksum(u8),
    /// Too few bytes are left for a block's type and length.
    ShortBlock,
    /// A block of this type with a length smaller than its fixed part.
    BlockLength {
        /// Block type.
        kind: u8,
        /// The length it gives.
        length: u16,
    },
    /// A block of this type that ends beyond the table.
    BlockBeyond {
        /// Block type.
        kind: u8,
        /// The length it gives.
        length: u16,
    },
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
            Reason::ShortTable => write!(f, "no room for the table header"),
            Reason::Signature => write!(f, "signature is not IVRS"),
            Reason::TableLength(length) => write!(f, "table length {length} is not possible"),
            Reason::Checksum(sum) => write!(f, "checksum is off by {sum:#04x}"),
            Reason::ShortBlock => write!(f, "no room for a block header"),
            Reason::BlockLength { kind, length } => {
                write!(f, "block of type {kind:#x} has length {length}, too short")
            }
            Reason::BlockBeyond { kind, length } => {
                write!(
                    f,
                    "block of type {kind:#x} has length {length}, beyond the table"
                )
            }
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

/// A checked IVRS.
///
/// # Invariants
///
/// `table` is exactly as long as its header says, and every block and device entry in it is
/// complete: [`Ivrs::parse`] found no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ivrs<'a> {
    table: &'a [u8],
}

impl<'a> Ivrs<'a> {
    /// Checks a whole table. `bytes` may be longer than the table.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in table order. Unknown block types are not errors, but their
    /// lengths must be right.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let table = check_header(bytes)?;
        let mut units = 0;
        let mut offset = HEADER_LEN;
        while offset < table.len() {
            let block = Block::read(table, offset)?;
            if let Some(unit) = Unit::decode(&block) {
                units += 1;
                if units > MAX_UNITS {
                    return Err(error(offset, Reason::TooManyUnits));
                }
                check_unit(table, &unit)?;
            }
            if let Some(memory) = Memory::decode(&block) {
                check_memory(&memory)?;
            }
            offset += block.bytes.len();
        }
        // INVARIANT: every block was read, and those of IOMMUs had all their entries checked.
        let this = Self { table };
        if this.units().next().is_none() {
            return Err(error(table.len(), Reason::NoUnits));
        }
        Ok(this)
    }

    /// A whole table that [`parse`](Self::parse) has accepted before. Nothing is checked again; of
    /// a table that was not accepted, what comes after the first mistake is missing.
    pub(crate) const fn accepted(table: &'a [u8]) -> Self {
        Self { table }
    }

    /// All IOMMUs, in table order. Firmware may describe one several times, for software of
    /// several ages: only the newest description counts.
    pub(crate) fn units(&self) -> impl Iterator<Item = Unit<'a>> + Clone {
        let table = self.table;
        all_units(table).filter(move |unit| {
            !all_units(table).any(|other| other.same(unit) && other.kind > unit.kind)
        })
    }

    /// Bits of the addresses that devices may use: VASize of IVinfo (section 5.2.1).
    pub(crate) fn address_bits(&self) -> u8 {
        let info = u32_at(self.table, INFO).unwrap_or(0);
        // CAST: a field of 7 bits.
        match (info >> INFO_ADDRESS_SHIFT & INFO_ADDRESS_MASK) as u8 {
            0 => ALL_ADDRESS_BITS,
            bits => bits,
        }
    }

    /// All memory ranges that firmware wants devices to reach, in table order.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Memory> + Clone + 'a {
        blocks(self.table).filter_map(|block| Memory::decode(&block))
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
    pub(crate) kind: u8,
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
    fn decode(block: &Block<'a>) -> Option<Self> {
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
    fn decode(block: &Block<'_>) -> Option<Self> {
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

/// One block, with a length that fits its type and its table.
#[derive(Clone, Copy)]
struct Block<'a> {
    offset: usize,
    kind: u8,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn read(table: &'a [u8], offset: usize) -> Result<Self, Error> {
        let rest = table.get(offset..).unwrap_or_default();
        let (Some(kind), Some(length)) = (u8_at(rest, 0), u16_at(rest, 2)) else {
            return Err(error(offset, Reason::ShortBlock));
        };
        if usize::from(length) < fixed_length(kind) {
            return Err(error(offset, Reason::BlockLength { kind, length }));
        }
        let bytes = rest
            .get(..usize::from(length))
            .ok_or(error(offset, Reason::BlockBeyond { kind, length }))?;
        Ok(Self {
            offset,
            kind,
            bytes,
        })
    }
}

/// Length of an IVHD's fixed part, if the block is one that this driver knows.
fn ivhd_header(kind: u8) -> Option<usize> {
    match kind {
        TYPE_IVHD_10 => Some(IVHD_10_LEN),
        TYPE_IVHD_11 | TYPE_IVHD_40 => Some(IVHD_11_LEN),
        _ => None,
    }
}

fn fixed_length(kind: u8) -> usize {
    match kind {
        TYPE_IVMD_ALL | TYPE_IVMD_ONE | TYPE_IVMD_RANGE => IVMD_LEN,
        _ => ivhd_header(kind).unwrap_or(BLOCK_HEADER_LEN),
    }
}

/// The blocks of a table whose header was checked, up to the first bad one.
fn blocks(table: &[u8]) -> impl Iterator<Item = Block<'_>> + Clone {
    let mut offset = HEADER_LEN;
    core::iter::from_fn(move || {
        let block = Block::read(table, offset).ok()?;
        offset += block.bytes.len();
        Some(block)
    })
}

fn all_units(table: &[u8]) -> impl Iterator<Item = Unit<'_>> + Clone {
    blocks(table).filter_map(|block| Unit::decode(&block))
}

/// Checks the fixed part and cuts off what follows the table.
fn check_header(bytes: &[u8]) -> Result<&[u8], Error> {
    let header = bytes
        .get(..HEADER_LEN)
        .ok_or(error(bytes.len(), Reason::ShortTable))?;
    if !header.starts_with(b"IVRS") {
        return Err(error(0, Reason::Signature));
    }
    let length = u32_at(header, 4).unwrap_or_default();
    let table = usize::try_from(length)
        .ok()
        .filter(|length| *length >= HEADER_LEN)
        .and_then(|length| bytes.get(..length))
        .ok_or(error(4, Reason::TableLength(length)))?;
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != 0 {
        return Err(error(9, Reason::Checksum(sum)));
    }
    Ok(table)
}

fn check_unit(table: &[u8], unit: &Unit<'_>) -> Result<(), Error> {
    let base = unit.register_base;
    if base == 0 || base % BASE_ALIGNMENT != 0 || base > PHYSICAL_END - BASE_ALIGNMENT {
        return Err(error(unit.offset, Reason::RegisterBase(base)));
    }
    let duplicate = all_units(table)
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

/// The `N` bytes at an offset, if they exist.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}
