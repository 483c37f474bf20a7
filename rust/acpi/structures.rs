// SPDX-License-Identifier: GPL-2.0

//! ACPI tables that are a header and structures, each of which begins with its type and its length.
//!
//! That is how DMAR, IVRS and VIOT tell of IOMMUs. All lengths are the firmware's, so none is believed: what
//! is returned from here lies within the table, and is as long as its type needs at least.
//!
//! Pure: compiled into the kernel and into the host tests alike.

use core::fmt;

use crate::bytes::{
    u16_at,
    u32_at, //
};

/// The header that all ACPI tables begin with (ACPI 6.5, section 5.2.6), and 12 bytes more: so it is in each
/// of these tables.
pub const HEADER_LEN: usize = 48;

/// Type and length of a structure.
pub const STRUCTURE_HEADER_LEN: usize = 4;

/// What is particular to one kind of table.
#[derive(Debug)]
pub struct Layout {
    /// Its signature.
    pub signature: [u8; 4],
    /// Types have 16 bits. Else they have 8, and the byte behind is something else.
    pub wide_types: bool,
    /// Length of the fixed part of structures of a type, in bytes;
    /// [`STRUCTURE_HEADER_LEN`] for a type that is not known.
    pub fixed_length: fn(u16) -> usize,
}

/// What is wrong with a table's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fewer bytes than the table's header needs.
    ShortTable,
    /// It is another table's signature.
    Signature,
    /// The header gives this length, smaller than the header or larger than the memory.
    TableLength(u32),
    /// The bytes of the table do not add up to 0 (mod 256), but to this.
    Checksum(u8),
    /// Too few bytes are left for a structure's type and length.
    ShortStructure,
    /// A structure of this type with a length smaller than its fixed part.
    StructureLength {
        /// Structure type.
        kind: u16,
        /// The length it gives.
        length: u16,
    },
    /// A structure of this type that ends beyond the table.
    StructureBeyond {
        /// Structure type.
        kind: u16,
        /// The length it gives.
        length: u16,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortTable => write!(f, "no room for the table header"),
            Self::Signature => write!(f, "wrong signature"),
            Self::TableLength(length) => write!(f, "table length {length} is not possible"),
            Self::Checksum(sum) => write!(f, "checksum is off by {sum:#04x}"),
            Self::ShortStructure => write!(f, "no room for a structure header"),
            Self::StructureLength { kind, length } => write!(
                f,
                "structure of type {kind:#x} has length {length}, too short"
            ),
            Self::StructureBeyond { kind, length } => write!(
                f,
                "structure of type {kind:#x} has length {length}, beyond the table"
            ),
        }
    }
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Offset in bytes from the start of the table.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// One structure. It is as long as it says, and no shorter than its type needs.
#[derive(Clone, Copy, Debug)]
pub struct Structure<'a> {
    /// Offset in bytes from the start of the table.
    pub offset: usize,
    /// Its type.
    pub kind: u16,
    /// All of it, with type and length.
    pub bytes: &'a [u8],
}

/// The structures of a table whose header is right.
#[derive(Clone, Copy, Debug)]
pub struct Structures<'a> {
    table: &'a [u8],
    layout: &'static Layout,
}

impl<'a> Structures<'a> {
    /// Checks a table's header, and cuts off what follows the table in `bytes`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with the header; no structure is looked at.
    pub fn new(bytes: &'a [u8], layout: &'static Layout) -> Result<Self, Error> {
        let header = bytes
            .get(..HEADER_LEN)
            .ok_or(error(bytes.len(), Fault::ShortTable))?;
        if !header.starts_with(&layout.signature) {
            return Err(error(0, Fault::Signature));
        }
        let length = u32_at(header, 4).unwrap_or_default();
        let table = usize::try_from(length)
            .ok()
            .filter(|length| *length >= HEADER_LEN)
            .and_then(|length| bytes.get(..length))
            .ok_or(error(4, Fault::TableLength(length)))?;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            return Err(error(9, Fault::Checksum(sum)));
        }
        Ok(Self { table, layout })
    }

    /// A whole table that was looked through before. Nothing is checked again.
    pub const fn accepted(table: &'a [u8], layout: &'static Layout) -> Self {
        Self { table, layout }
    }

    /// The whole table.
    pub const fn table(&self) -> &'a [u8] {
        self.table
    }

    /// The structure at an offset.
    ///
    /// # Errors
    ///
    /// What is wrong with its type and length.
    pub fn at(&self, offset: usize) -> Result<Structure<'a>, Error> {
        let rest = self.table.get(offset..).unwrap_or_default();
        let (Some(kind), Some(length)) = (u16_at(rest, 0), u16_at(rest, 2)) else {
            return Err(error(offset, Fault::ShortStructure));
        };
        let kind = if self.layout.wide_types {
            kind
        } else {
            kind & 0xff
        };
        let least = (self.layout.fixed_length)(kind).max(STRUCTURE_HEADER_LEN);
        if usize::from(length) < least {
            return Err(error(offset, Fault::StructureLength { kind, length }));
        }
        let bytes = rest
            .get(..usize::from(length))
            .ok_or(error(offset, Fault::StructureBeyond { kind, length }))?;
        Ok(Structure {
            offset,
            kind,
            bytes,
        })
    }

    /// The structures from an offset to the end of the table. After an error nothing follows.
    pub const fn checked(&self, first: usize) -> Checked<'a> {
        Checked {
            structures: *self,
            offset: first,
        }
    }

    /// The structures from an offset on, up to the first that has something wrong with it.
    pub const fn from(&self, first: usize) -> Accepted<'a> {
        Accepted(self.checked(first))
    }
}

/// See [`Structures::checked`].
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    structures: Structures<'a>,
    offset: usize,
}

impl<'a> Iterator for Checked<'a> {
    type Item = Result<Structure<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.structures.table.len();
        if self.offset >= end {
            return None;
        }
        let structure = self.structures.at(self.offset);
        self.offset = match &structure {
            Ok(structure) => self.offset + structure.bytes.len(),
            Err(_) => end,
        };
        Some(structure)
    }
}

/// See [`Structures::from`].
#[derive(Clone, Debug)]
pub struct Accepted<'a>(Checked<'a>);

impl<'a> Iterator for Accepted<'a> {
    type Item = Structure<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()?.ok()
    }
}

fn error(offset: usize, fault: Fault) -> Error {
    Error { offset, fault }
}
