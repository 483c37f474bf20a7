// SPDX-License-Identifier: GPL-2.0

//! The ACPI Virtual I/O Translation (VIOT) table: which virtio-iommus exist, and which PCI functions
//! are endpoints of each one.
//!
//! [`Viot::parse`] checks every length of the whole table before it returns anything, so the
//! iterators cannot fail. Nothing is allocated; all values borrow the table's bytes.
//!
//! Specification: ACPI 6.5, section 5.2.34 (Virtual I/O Translation Table).
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::source_id::SourceId;

/// ACPI table header, node count, node offset, 8 reserved bytes.
const HEADER_LEN: usize = 48;
/// Type, reserved, length: the start of every node.
const NODE_HEADER_LEN: usize = 4;

const TYPE_PCI_RANGE: u8 = 1;
const TYPE_MMIO_ENDPOINT: u8 = 2;
const TYPE_VIRTIO_PCI: u8 = 3;
const TYPE_VIRTIO_MMIO: u8 = 4;

const PCI_RANGE_LEN: usize = 24;
const MMIO_ENDPOINT_LEN: usize = 24;
const VIRTIO_PCI_LEN: usize = 16;
const VIRTIO_MMIO_LEN: usize = 16;

/// Most nodes that a table may have; it bounds the search for units.
pub(crate) const MAX_NODES: u16 = 4096;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Fewer bytes than the table's own header needs.
    ShortTable,
    /// The signature is not "VIOT".
    Signature,
    /// The header gives a length this many bytes long, which is smaller than the fixed part or
    /// larger than the memory that holds the table.
    TableLength(u32),
    /// The bytes of the table do not add up to 0 (mod 256), but to this.
    Checksum(u8),
    /// Nodes start at this offset, in the header or beyond the table.
    NodeOffset(u16),
    /// Too few bytes are left for a node's type and length.
    ShortNode,
    /// A node of this type with a length smaller than its fixed part.
    NodeLength {
        /// Node type.
        kind: u8,
        /// The length it gives.
        length: u16,
    },
    /// A node of this type that ends beyond the table.
    NodeBeyond {
        /// Node type.
        kind: u8,
        /// The length it gives.
        length: u16,
    },
    /// A range of PCI functions that ends before it starts.
    RangeOrder,
    /// A range whose endpoint ids do not fit 32 bits.
    RangeIds,
    /// More than [`MAX_NODES`] nodes: this many.
    TooManyNodes(u16),
    /// An endpoint whose unit is said to be at this offset, where none is.
    NoUnit(u16),
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
        write!(f, "VIOT table, offset {:#x}: ", self.offset)?;
        match self.reason {
            Reason::ShortTable => write!(f, "no room for the table header"),
            Reason::Signature => write!(f, "signature is not VIOT"),
            Reason::TableLength(length) => write!(f, "table length {length} is not possible"),
            Reason::Checksum(sum) => write!(f, "checksum is off by {sum:#04x}"),
            Reason::NodeOffset(offset) => write!(f, "node offset {offset:#x} is not possible"),
            Reason::ShortNode => write!(f, "no room for a node header"),
            Reason::NodeLength { kind, length } => {
                write!(f, "node of type {kind} has length {length}, too short")
            }
            Reason::NodeBeyond { kind, length } => {
                write!(
                    f,
                    "node of type {kind} has length {length}, beyond the table"
                )
            }
            Reason::RangeOrder => write!(f, "PCI range ends before it starts"),
            Reason::RangeIds => write!(f, "endpoint ids of a PCI range do not fit"),
            Reason::TooManyNodes(count) => write!(f, "{count} nodes, more than {MAX_NODES}"),
            Reason::NoUnit(offset) => write!(f, "no unit at offset {offset:#x}"),
        }
    }
}

fn error(offset: usize, reason: Reason) -> Error {
    Error { offset, reason }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// A checked VIOT table.
///
/// # Invariants
///
/// `table` is exactly as long as its header says, and every node in it is complete: [`Viot::parse`]
/// found no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viot<'a> {
    table: &'a [u8],
}

/// A virtio-iommu that is a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PciUnit {
    /// Which one.
    pub(crate) id: SourceId,
}

/// PCI functions, in order, and the endpoint ids that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PciRange {
    endpoint_start: u32,
    segments: (u16, u16),
    ids: (u16, u16),
    /// Offset of the unit's node.
    unit: u16,
}

impl PciRange {
    fn decode(node: &Node<'_>) -> Option<Self> {
        if node.kind != TYPE_PCI_RANGE {
            return None;
        }
        let bytes = node.bytes;
        Some(Self {
            endpoint_start: u32_at(bytes, 4)?,
            segments: (u16_at(bytes, 8)?, u16_at(bytes, 10)?),
            ids: (u16_at(bytes, 12)?, u16_at(bytes, 14)?),
            unit: u16_at(bytes, 16)?,
        })
    }

    /// The endpoint id of a function, if it is in the range.
    fn endpoint(&self, function: SourceId) -> Option<u32> {
        let segment = function.segment().checked_sub(self.segments.0)?;
        let id = function.requester_id().checked_sub(self.ids.0)?;
        let inside = function.segment() <= self.segments.1 && function.requester_id() <= self.ids.1;
        let offset = u32::from(segment) << 16 | u32::from(id);
        // Fits, as `parse` has checked for the last one.
        inside.then(|| self.endpoint_start.wrapping_add(offset))
    }

    /// The function with an endpoint id, if it is in the range.
    fn function(&self, endpoint: u32) -> Option<SourceId> {
        let offset = endpoint.checked_sub(self.endpoint_start)?;
        // CAST: the upper and the lower half.
        let segment = self.segments.0.checked_add((offset >> 16) as u16)?;
        // CAST: as above.
        let id = self.ids.0.checked_add(offset as u16)?;
        let inside = segment <= self.segments.1 && id <= self.ids.1;
        inside.then(|| SourceId::from_requester_id(segment, id))
    }

    fn check(&self) -> Result<(), Reason> {
        if self.segments.1 < self.segments.0 || self.ids.1 < self.ids.0 {
            return Err(Reason::RangeOrder);
        }
        let offset =
            u32::from(self.segments.1 - self.segments.0) << 16 | u32::from(self.ids.1 - self.ids.0);
        match self.endpoint_start.checked_add(offset) {
            Some(_) => Ok(()),
            None => Err(Reason::RangeIds),
        }
    }
}

impl<'a> Viot<'a> {
    /// Checks a whole table. `bytes` may be longer than the table.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in table order. Unknown node types are no errors, but their
    /// lengths must be right.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let table = check_header(bytes)?;
        let this = Self { table };
        if this.count() > MAX_NODES {
            return Err(error(36, Reason::TooManyNodes(this.count())));
        }
        let mut offset = this.first();
        for _ in 0..this.count() {
            let node = Node::read(table, offset)?;
            let unit = match node.kind {
                TYPE_PCI_RANGE => {
                    let range = PciRange::decode(&node).ok_or(error(offset, Reason::ShortNode))?;
                    range.check().map_err(|reason| error(offset, reason))?;
                    Some(range.unit)
                }
                TYPE_MMIO_ENDPOINT => u16_at(node.bytes, 16),
                _ => None,
            };
            if let Some(unit) = unit {
                if !this.has_unit(unit) {
                    return Err(error(offset, Reason::NoUnit(unit)));
                }
            }
            offset += node.bytes.len();
        }
        // INVARIANT: every node was read.
        Ok(this)
    }

    /// A whole table that [`parse`](Self::parse) has accepted before. Nothing is checked again.
    pub(crate) const fn accepted(table: &'a [u8]) -> Self {
        Self { table }
    }

    fn count(&self) -> u16 {
        u16_at(self.table, 36).unwrap_or_default()
    }

    /// Offset of the first node.
    fn first(&self) -> usize {
        usize::from(u16_at(self.table, 38).unwrap_or_default())
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, Node<'a>)> + Clone {
        let table = self.table;
        let mut offset = self.first();
        (0..self.count()).map_while(move |_| {
            let node = Node::read(table, offset).ok()?;
            let at = offset;
            offset += node.bytes.len();
            Some((at, node))
        })
    }

    /// Whether a node at this offset is a unit.
    fn has_unit(&self, unit: u16) -> bool {
        let kinds = [TYPE_VIRTIO_PCI, TYPE_VIRTIO_MMIO];
        let mut nodes = self.nodes();
        nodes.any(|(offset, node)| offset == usize::from(unit) && kinds.contains(&node.kind))
    }

    fn pci_unit_at(&self, unit: u16) -> Option<PciUnit> {
        let mut nodes = self.nodes();
        let (_, node) = nodes.find(|(offset, _)| *offset == usize::from(unit))?;
        PciUnit::decode(&node)
    }

    fn ranges(&self) -> impl Iterator<Item = PciRange> + Clone + 'a {
        self.nodes().filter_map(|(_, node)| PciRange::decode(&node))
    }

    /// All units that are PCI functions, in table order.
    pub(crate) fn pci_units(&self) -> impl Iterator<Item = PciUnit> + 'a {
        self.nodes().filter_map(|(_, node)| PciUnit::decode(&node))
    }

    /// The unit that a PCI function is behind, and its endpoint id there. A unit is not behind
    /// itself.
    pub(crate) fn endpoint(&self, function: SourceId) -> Option<(PciUnit, u32)> {
        let (range, endpoint) = self
            .ranges()
            .find_map(|range| Some((range, range.endpoint(function)?)))?;
        let unit = self.pci_unit_at(range.unit)?;
        (unit.id != function).then_some((unit, endpoint))
    }

    /// The PCI function that has an endpoint id behind a unit.
    pub(crate) fn function(&self, unit: SourceId, endpoint: u32) -> Option<SourceId> {
        self.ranges()
            .filter(|range| self.pci_unit_at(range.unit).is_some_and(|at| at.id == unit))
            .find_map(|range| range.function(endpoint))
    }
}

impl PciUnit {
    fn decode(node: &Node<'_>) -> Option<Self> {
        if node.kind != TYPE_VIRTIO_PCI {
            return None;
        }
        let id = u16_at(node.bytes, 6)?;
        Some(Self {
            id: SourceId::from_requester_id(u16_at(node.bytes, 4)?, id),
        })
    }
}

/// One node, with a length that fits its type and its table.
#[derive(Clone, Copy)]
struct Node<'a> {
    kind: u8,
    bytes: &'a [u8],
}

impl<'a> Node<'a> {
    fn read(table: &'a [u8], offset: usize) -> Result<Self, Error> {
        let rest = table.get(offset..).unwrap_or_default();
        let (Some(kind), Some(length)) = (rest.first().copied(), u16_at(rest, 2)) else {
            return Err(error(offset, Reason::ShortNode));
        };
        if usize::from(length) < fixed_length(kind) {
            return Err(error(offset, Reason::NodeLength { kind, length }));
        }
        let bytes = rest
            .get(..usize::from(length))
            .ok_or(error(offset, Reason::NodeBeyond { kind, length }))?;
        Ok(Self { kind, bytes })
    }
}

/// Length of a node's fixed part.
fn fixed_length(kind: u8) -> usize {
    match kind {
        TYPE_PCI_RANGE => PCI_RANGE_LEN,
        TYPE_MMIO_ENDPOINT => MMIO_ENDPOINT_LEN,
        TYPE_VIRTIO_PCI => VIRTIO_PCI_LEN,
        TYPE_VIRTIO_MMIO => VIRTIO_MMIO_LEN,
        _ => NODE_HEADER_LEN,
    }
}

/// Checks the fixed part and cuts off what follows the table.
fn check_header(bytes: &[u8]) -> Result<&[u8], Error> {
    let header = bytes
        .get(..HEADER_LEN)
        .ok_or(error(bytes.len(), Reason::ShortTable))?;
    if !header.starts_with(b"VIOT") {
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
    let nodes = u16_at(header, 38).unwrap_or_default();
    if usize::from(nodes) < HEADER_LEN || usize::from(nodes) > table.len() {
        return Err(error(38, Reason::NodeOffset(nodes)));
    }
    Ok(table)
}
