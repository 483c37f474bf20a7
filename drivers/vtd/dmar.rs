// SPDX-License-Identifier: GPL-2.0

//! The ACPI DMA Remapping Reporting (DMAR) table: which remapping units exist, which devices each
//! one translates, and which memory firmware keeps for devices.
//!
//! [`Dmar::parse`] checks every length of the whole table before it returns anything, so the
//! iterators cannot fail. Nothing is allocated; all values borrow the table's bytes.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, chapter 8.
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
        u64_at,
        u8_at, //
    },
    source_id::SourceId, //
};

use crate::scope::{
    self,
    Scopes, //
};

const TYPE_DRHD: u16 = 0;
const TYPE_RMRR: u16 = 1;
const TYPE_ATSR: u16 = 2;
const TYPE_RHSA: u16 = 3;
const TYPE_ANDD: u16 = 4;
const TYPE_SATC: u16 = 5;
const TYPE_SIDP: u16 = 6;

const DRHD_LEN: usize = 16;
const RMRR_LEN: usize = 24;

const DRHD_INCLUDE_PCI_ALL: u8 = 1 << 0;

const PAGE_MASK: u64 = 0xfff;

/// The largest physical address of the architecture has 52 bits.
const PHYSICAL_LAST: u64 = (1 << 52) - 1;

/// Most remapping units one table may hold; it bounds the search for duplicates.
pub(crate) const MAX_UNITS: usize = 1024;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What is wrong with the table's form.
    Form(structures::Fault),
    /// A host address width of this many bits.
    AddressWidth(u16),
    /// What is wrong with a device scope.
    Scope(scope::Reason),
    /// A register base that is 0, not aligned to 4 KiB, or too close to the end of memory.
    RegisterBase(u64),
    /// Two units with this register base.
    DuplicateBase(u64),
    /// Two units that both take all remaining devices of this segment.
    DuplicateIncludeAll(u16),
    /// More than [`MAX_UNITS`] units.
    TooManyUnits,
    /// No remapping unit at all.
    NoUnits,
    /// A reserved region whose limit is below its base.
    RegionOrder {
        /// First byte.
        base: u64,
        /// Last byte.
        limit: u64,
    },
    /// A reserved region above all physical addresses.
    RegionBeyond {
        /// First byte.
        base: u64,
        /// Last byte.
        limit: u64,
    },
    /// A reserved region that does not consist of whole 4 KiB pages.
    RegionAlignment {
        /// First byte.
        base: u64,
        /// Last byte.
        limit: u64,
    },
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
        write!(f, "DMAR table, offset {:#x}: ", self.offset)?;
        match self.reason {
            Reason::Form(fault) => write!(f, "{fault}"),
            Reason::AddressWidth(bits) => write!(f, "host address width {bits} is not possible"),
            Reason::Scope(reason) => write!(f, "{reason}"),
            Reason::RegisterBase(base) => write!(f, "register base {base:#x} is not possible"),
            Reason::DuplicateBase(base) => write!(f, "second unit with register base {base:#x}"),
            Reason::DuplicateIncludeAll(segment) => {
                write!(
                    f,
                    "second unit with INCLUDE_PCI_ALL in segment {segment:04x}"
                )
            }
            Reason::TooManyUnits => write!(f, "more than {MAX_UNITS} remapping units"),
            Reason::NoUnits => write!(f, "no remapping unit"),
            Reason::RegionOrder { base, limit } => {
                write!(
                    f,
                    "reserved region {base:#x}..={limit:#x} ends before it starts"
                )
            }
            Reason::RegionBeyond { base, limit } => write!(
                f,
                "reserved region {base:#x}..={limit:#x} is above all physical addresses"
            ),
            Reason::RegionAlignment { base, limit } => {
                write!(
                    f,
                    "reserved region {base:#x}..={limit:#x} is not made of 4 KiB pages"
                )
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

/// Remapping structures (section 8.2).
static LAYOUT: Layout = Layout {
    signature: *b"DMAR",
    wide_types: true,
    fixed_length,
};

/// A checked DMAR table.
///
/// # Invariants
///
/// Every structure and device scope in it is complete: [`Dmar::parse`] found no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dmar<'a> {
    structures: Structures<'a>,
}

impl<'a> Dmar<'a> {
    /// Checks a whole table. `bytes` may be longer than the table.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in table order. Unknown structure and scope types are not
    /// errors (section 8.2: software skips them), but their lengths must be right.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let structures = Structures::new(bytes, &LAYOUT)?;
        check_width(structures.table())?;
        let mut units = 0;
        for structure in structures.checked(HEADER_LEN) {
            let structure = structure?;
            match structure.kind {
                TYPE_DRHD => {
                    units += 1;
                    if units > MAX_UNITS {
                        return Err(error(structure.offset, Reason::TooManyUnits));
                    }
                    check_unit(&structures, &structure)?;
                }
                TYPE_RMRR => check_region(&structure)?,
                _ => {}
            }
        }
        if units == 0 {
            return Err(error(structures.table().len(), Reason::NoUnits));
        }
        // INVARIANT: every structure was read, and those with device scopes that this driver uses
        // had all their scopes checked.
        Ok(Self { structures })
    }

    /// A whole table that [`parse`](Self::parse) has accepted before. Nothing is checked again; of
    /// a table that was not accepted, what comes after the first mistake is missing.
    pub(crate) const fn accepted(table: &'a [u8]) -> Self {
        Self {
            structures: Structures::accepted(table, &LAYOUT),
        }
    }

    /// Number of bits of a physical address (section 8.1, Host Address Width).
    #[allow(dead_code, reason = "a fact of the table, used yet or not")]
    pub(crate) fn host_address_width(&self) -> u16 {
        width(self.structures.table())
    }

    /// The flags byte (section 8.1).
    #[allow(dead_code, reason = "a fact of the table, used yet or not")]
    pub(crate) fn flags(&self) -> Flags {
        Flags(u8_at(self.structures.table(), 37).unwrap_or_default())
    }

    /// All remapping units, in table order.
    pub(crate) fn units(&self) -> impl Iterator<Item = Unit<'a>> + Clone {
        self.structures
            .from(HEADER_LEN)
            .filter_map(|structure| Unit::decode(&structure))
    }

    /// All reserved memory regions, in table order.
    pub(crate) fn reserved_regions(&self) -> impl Iterator<Item = ReservedRegion<'a>> + Clone {
        self.structures
            .from(HEADER_LEN)
            .filter_map(|structure| ReservedRegion::decode(&structure))
    }

    /// The unit that translates a device: the first whose scopes name it or a bridge above it,
    /// else the one that takes all remaining devices of its segment (section 8.3).
    ///
    /// `path` is as in [`scope::Scope::covers`].
    pub(crate) fn owner(&self, path: &[SourceId]) -> Option<Unit<'a>> {
        let segment = path.last()?.segment();
        let mut units = self.units().filter(|unit| unit.segment == segment);
        units
            .clone()
            .find(|unit| unit.scopes().any(|scope| scope.covers(path)))
            .or_else(|| units.find(|unit| unit.include_pci_all))
    }
}

/// The table's flags byte (section 8.1).
#[allow(dead_code, reason = "a fact of the table, used yet or not")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

#[allow(dead_code, reason = "a fact of the table, used yet or not")]
impl Flags {
    /// Firmware supports interrupt remapping.
    pub(crate) fn interrupt_remapping(self) -> bool {
        self.0 & (1 << 0) != 0
    }

    /// Firmware asks software not to turn x2APIC mode on.
    pub(crate) fn x2apic_opt_out(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// Firmware asks for DMA protection.
    pub(crate) fn dma_protection_opt_in(self) -> bool {
        self.0 & (1 << 2) != 0
    }
}

/// A remapping unit: the DRHD structure (section 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    /// Position in the table, for messages.
    pub(crate) offset: usize,
    /// It also translates all devices of its segment that no other unit's scopes name.
    pub(crate) include_pci_all: bool,
    /// PCI segment of all its devices.
    pub(crate) segment: u16,
    /// Physical address of its registers; a multiple of 4 KiB.
    pub(crate) register_base: u64,
    /// Size of its registers in bytes; a power of two, at least 4 KiB.
    pub(crate) register_size: u64,
    scopes: Scopes<'a>,
}

impl<'a> Unit<'a> {
    fn decode(structure: &Structure<'a>) -> Option<Self> {
        if structure.kind != TYPE_DRHD {
            return None;
        }
        let bytes = structure.bytes;
        Some(Self {
            offset: structure.offset,
            include_pci_all: u8_at(bytes, 4)? & DRHD_INCLUDE_PCI_ALL != 0,
            segment: u16_at(bytes, 6)?,
            register_base: u64_at(bytes, 8)?,
            register_size: 4096 << (u8_at(bytes, 5)? & 0xf),
            scopes: Scopes::new(bytes.get(DRHD_LEN..)?),
        })
    }

    /// The device scopes of this unit, in table order.
    pub(crate) fn scopes(&self) -> Scopes<'a> {
        self.scopes
    }
}

/// Memory that firmware makes devices use: the RMRR structure (section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReservedRegion<'a> {
    /// Position in the table, for messages.
    pub(crate) offset: usize,
    /// PCI segment of all its devices.
    pub(crate) segment: u16,
    /// Physical address of the first byte; a multiple of 4 KiB.
    pub(crate) base: u64,
    /// Physical address of the last byte, inclusive; `limit + 1` is a multiple of 4 KiB, and
    /// `base < limit < 2^52`.
    pub(crate) limit: u64,
    scopes: Scopes<'a>,
}

impl<'a> ReservedRegion<'a> {
    fn decode(structure: &Structure<'a>) -> Option<Self> {
        if structure.kind != TYPE_RMRR {
            return None;
        }
        let bytes = structure.bytes;
        Some(Self {
            offset: structure.offset,
            segment: u16_at(bytes, 6)?,
            base: u64_at(bytes, 8)?,
            limit: u64_at(bytes, 16)?,
            scopes: Scopes::new(bytes.get(RMRR_LEN..)?),
        })
    }

    /// The device scopes of this region, in table order.
    pub(crate) fn scopes(&self) -> Scopes<'a> {
        self.scopes
    }

    /// Whether a device must keep access to this region; `path` is as in [`scope::Scope::covers`].
    pub(crate) fn covers(&self, path: &[SourceId]) -> bool {
        path.last()
            .is_some_and(|device| device.segment() == self.segment)
            && self.scopes().any(|scope| scope.covers(path))
    }
}

/// Length of a structure's fixed part (sections 8.3 to 8.9).
fn fixed_length(kind: u16) -> usize {
    match kind {
        TYPE_DRHD => DRHD_LEN,
        TYPE_RMRR => RMRR_LEN,
        TYPE_RHSA => 20,
        TYPE_ATSR | TYPE_ANDD | TYPE_SATC | TYPE_SIDP => 8,
        _ => STRUCTURE_HEADER_LEN,
    }
}

/// The byte holds the width minus one.
fn width(table: &[u8]) -> u16 {
    u8_at(table, 36).map_or(0, |width| u16::from(width) + 1)
}

fn check_width(table: &[u8]) -> Result<(), Error> {
    // Linux also refuses a width of one bit: firmware that left the byte empty.
    match width(table) {
        2..=64 => Ok(()),
        width => Err(error(36, Reason::AddressWidth(width))),
    }
}

fn check_unit(structures: &Structures<'_>, structure: &Structure<'_>) -> Result<(), Error> {
    let offset = structure.offset;
    let Some(unit) = Unit::decode(structure) else {
        return Ok(());
    };
    let base = unit.register_base;
    if base == 0 || base & PAGE_MASK != 0 || base.checked_add(unit.register_size).is_none() {
        return Err(error(offset, Reason::RegisterBase(base)));
    }
    let mut earlier = structures
        .from(HEADER_LEN)
        .take_while(|other| other.offset < offset)
        .filter_map(|other| Unit::decode(&other));
    if earlier.clone().any(|other| other.register_base == base) {
        return Err(error(offset, Reason::DuplicateBase(base)));
    }
    if unit.include_pci_all
        && earlier.any(|other| other.include_pci_all && other.segment == unit.segment)
    {
        return Err(error(offset, Reason::DuplicateIncludeAll(unit.segment)));
    }
    check_scopes(unit.scopes, offset + DRHD_LEN)
}

fn check_region(structure: &Structure<'_>) -> Result<(), Error> {
    let Some(region) = ReservedRegion::decode(structure) else {
        return Ok(());
    };
    let (base, limit) = (region.base, region.limit);
    if limit <= base {
        return Err(error(structure.offset, Reason::RegionOrder { base, limit }));
    }
    if limit > PHYSICAL_LAST {
        let reason = Reason::RegionBeyond { base, limit };
        return Err(error(structure.offset, reason));
    }
    if base & PAGE_MASK != 0 || limit & PAGE_MASK != PAGE_MASK {
        return Err(error(
            structure.offset,
            Reason::RegionAlignment { base, limit },
        ));
    }
    check_scopes(region.scopes, structure.offset + RMRR_LEN)
}

/// Checks all scopes of one structure; `offset` is where they stand in the table.
fn check_scopes(scopes: Scopes<'_>, offset: usize) -> Result<(), Error> {
    scopes
        .check()
        .map_err(|(at, reason)| error(offset + at, Reason::Scope(reason)))
}

fn error(offset: usize, reason: Reason) -> Error {
    Error { offset, reason }
}
