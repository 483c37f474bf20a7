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
        u32_at, //
    },
    source_id::SourceId, //
};

const TYPE_PCI_RANGE: u16 = 1;
const TYPE_MMIO_ENDPOINT: u16 = 2;
const TYPE_VIRTIO_PCI: u16 = 3;
const TYPE_VIRTIO_MMIO: u16 = 4;

const PCI_RANGE_LEN: usize = 24;
const MMIO_ENDPOINT_LEN: usize = 24;
const VIRTIO_PCI_LEN: usize = 16;
const VIRTIO_MMIO_LEN: usize = 16;

/// Most nodes that a table may have; it bounds the search for units.
pub(crate) const MAX_NODES: u16 = 4096;

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What is wrong with the table's form.
    Form(structures::Fault),
    /// Nodes start at this offset, in the header or beyond the table.
    NodeOffset(u16),
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
            Reason::Form(fault) => write!(f, "{fault}"),
            Reason::NodeOffset(offset) => write!(f, "node offset {offset:#x} is not possible"),
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

impl From<structures::Error> for Error {
    fn from(error: structures::Error) -> Self {
        Self {
            offset: error.offset,
            reason: Reason::Form(error.fault),
        }
    }
}

/// Nodes (section 5.2.34).
static LAYOUT: Layout = Layout {
    signature: *b"VIOT",
    wide_types: false,
    fixed_length,
};

/// A checked VIOT table.
///
/// # Invariants
///
/// Every node in it is complete: [`Viot::parse`] found no error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viot<'a> {
    nodes: Structures<'a>,
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
    fn decode(node: &Structure<'_>) -> Option<Self> {
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
        let nodes = Structures::new(bytes, &LAYOUT)?;
        let this = Self { nodes };
        this.check_first()?;
        if this.count() > MAX_NODES {
            return Err(error(36, Reason::TooManyNodes(this.count())));
        }
        let mut offset = this.first();
        for _ in 0..this.count() {
            let node = nodes.at(offset)?;
            let unit = match node.kind {
                TYPE_PCI_RANGE => {
                    let range = PciRange::decode(&node).ok_or(error(
                        offset,
                        Reason::Form(structures::Fault::ShortStructure),
                    ))?;
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
        Self {
            nodes: Structures::accepted(table, &LAYOUT),
        }
    }

    fn count(&self) -> u16 {
        u16_at(self.nodes.table(), 36).unwrap_or_default()
    }

    /// Offset of the first node.
    fn first(&self) -> usize {
        usize::from(u16_at(self.nodes.table(), 38).unwrap_or_default())
    }

    fn check_first(&self) -> Result<(), Error> {
        if (HEADER_LEN..=self.nodes.table().len()).contains(&self.first()) {
            return Ok(());
        }
        // CAST: it has 16 bits.
        Err(error(38, Reason::NodeOffset(self.first() as u16)))
    }

    fn nodes(&self) -> impl Iterator<Item = Structure<'a>> + Clone {
        self.nodes.from(self.first()).take(self.count().into())
    }

    /// Whether a node at this offset is a unit.
    fn has_unit(&self, unit: u16) -> bool {
        let kinds = [TYPE_VIRTIO_PCI, TYPE_VIRTIO_MMIO];
        let mut nodes = self.nodes();
        nodes.any(|node| node.offset == usize::from(unit) && kinds.contains(&node.kind))
    }

    fn pci_unit_at(&self, unit: u16) -> Option<PciUnit> {
        let mut nodes = self.nodes();
        let node = nodes.find(|node| node.offset == usize::from(unit))?;
        PciUnit::decode(&node)
    }

    fn ranges(&self) -> impl Iterator<Item = PciRange> + Clone + 'a {
        self.nodes().filter_map(|node| PciRange::decode(&node))
    }

    /// All units that are PCI functions, in table order.
    pub(crate) fn pci_units(&self) -> impl Iterator<Item = PciUnit> + 'a {
        self.nodes().filter_map(|node| PciUnit::decode(&node))
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
    fn decode(node: &Structure<'_>) -> Option<Self> {
        if node.kind != TYPE_VIRTIO_PCI {
            return None;
        }
        let id = u16_at(node.bytes, 6)?;
        Some(Self {
            id: SourceId::from_requester_id(u16_at(node.bytes, 4)?, id),
        })
    }
}

/// Length of a node's fixed part.
fn fixed_length(kind: u16) -> usize {
    match kind {
        TYPE_PCI_RANGE => PCI_RANGE_LEN,
        TYPE_MMIO_ENDPOINT => MMIO_ENDPOINT_LEN,
        TYPE_VIRTIO_PCI => VIRTIO_PCI_LEN,
        TYPE_VIRTIO_MMIO => VIRTIO_MMIO_LEN,
        _ => STRUCTURE_HEADER_LEN,
    }
}
