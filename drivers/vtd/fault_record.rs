// SPDX-License-Identifier: GPL-2.0

//! Primary fault records: which request a remapping unit refused, and why.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 11.4 (FRCD_REG, Fault
//! Recording Registers), chapter 7 (fault conditions) and appendix A (Fault Reason Encodings).
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::{
    fault::Refused,
    source_id::SourceId, //
};

const ADDRESS_MASK: u64 = !0xfff;
const INTERRUPT_INDEX_SHIFT: u32 = 48;

const SOURCE_MASK: u64 = 0xffff;
const TYPE2: u64 = 1 << 28;
const PASID_PRESENT: u64 = 1 << 31;
const REASON_SHIFT: u32 = 32;
const REASON_MASK: u64 = 0xff;
const PASID_SHIFT: u32 = 40;
const PASID_MASK: u64 = 0xf_ffff;
const TYPE1: u64 = 1 << 62;
const FAULT: u64 = 1 << 63;

/// Offset in bytes, in a fault record, of the 32-bit word with the F bit.
pub(crate) const F_WORD_OFFSET: usize = 12;
/// The F bit in that word. Writing 1 clears it and frees the record.
pub(crate) const F_WORD_CLEAR: u32 = 1 << 31;

/// What the refused request wanted (T1 and T2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To read memory, or to have an address translated for reading.
    Read,
    /// To write memory.
    Write,
    /// To do an AtomicOp.
    Atomic,
    /// To have a page made present.
    PageRequest,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Atomic => "atomic",
            Self::PageRequest => "page request",
        })
    }
}

/// The kind of request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// An access to memory.
    Memory {
        /// What it wanted.
        access: Access,
        /// The page's address: bits 11:0 are 0.
        address: u64,
        /// The process address space id it carried, if any.
        pasid: Option<u32>,
    },
    /// A message signalled interrupt.
    Interrupt {
        /// Its index in the interrupt remapping table.
        index: u16,
    },
}

/// Why a request was refused: a number of appendix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u8);

impl Reason {
    /// Whether interrupt remapping refused the request.
    pub(crate) const fn is_interrupt(self) -> bool {
        matches!(self.0, 0x20..=0x2f)
    }

    /// Whether the page table of the device's domain refused the request: not a fault of the unit's own tables.
    const fn is_of_the_page_table(self) -> bool {
        matches!(self.0, 0x04..=0x06 | 0x0c)
    }

    /// A few words for a person.
    pub(crate) const fn text(self) -> &'static str {
        match self.0 {
            0x01 => "no root entry for this bus",
            0x02 => "no context entry for this device",
            0x03 => "context entry is invalid",
            0x04 => "address above the unit's or the table's width",
            0x05 => "page is not writable",
            0x06 => "page is not readable",
            0x07 => "page table is not accessible",
            0x08 => "root table is not accessible",
            0x09 => "context table is not accessible",
            0x0a => "reserved bits set in root entry",
            0x0b => "reserved bits set in context entry",
            0x0c => "reserved bits set in page-table entry",
            0x0d => "context entry refuses this type of request",
            0x20 => "reserved bits set in interrupt request",
            0x21 => "interrupt index above the table's size",
            0x22 => "no interrupt remapping entry",
            0x23 => "interrupt remapping table is not accessible",
            0x24 => "reserved bits set in interrupt remapping entry",
            0x25 => "compatibility format interrupt",
            0x26 => "interrupt from a source that may not send it",
            0x30..=0x9f => "refused in scalable mode",
            _ => "unknown reason",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}, {}", self.0, self.text())
    }
}

/// One refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultRecord {
    /// Who sent it.
    pub(crate) source: SourceId,
    /// What it was.
    pub(crate) request: Request,
    /// Why it was refused.
    pub(crate) reason: Reason,
}

impl FaultRecord {
    /// Decodes the low and high 64-bit word of a fault record of a unit of this segment; `None` if
    /// the record holds no fault.
    pub(crate) const fn decode(segment: u16, [low, high]: [u64; 2]) -> Option<Self> {
        if high & FAULT == 0 {
            return None;
        }
        // CAST: a field of 8 bits.
        let reason = Reason(((high >> REASON_SHIFT) & REASON_MASK) as u8);
        let request = if reason.is_interrupt() {
            Request::Interrupt {
                // CAST: the upper 16 bits.
                index: (low >> INTERRUPT_INDEX_SHIFT) as u16,
            }
        } else {
            Request::Memory {
                access: match (high & TYPE1 != 0, high & TYPE2 != 0) {
                    (false, false) => Access::Write,
                    (false, true) => Access::PageRequest,
                    (true, false) => Access::Read,
                    (true, true) => Access::Atomic,
                },
                address: low & ADDRESS_MASK,
                pasid: if high & PASID_PRESENT != 0 {
                    // CAST: a field of 20 bits.
                    Some(((high >> PASID_SHIFT) & PASID_MASK) as u32)
                } else {
                    None
                },
            }
        };
        Some(Self {
            // CAST: a field of 16 bits.
            source: SourceId::from_requester_id(segment, (high & SOURCE_MASK) as u16),
            request,
            reason,
        })
    }
}

impl FaultRecord {
    /// What is reported to who uses the device: an access to memory that its page table refused. One with a PASID
    /// is none of the device's domain.
    pub(crate) fn refused(&self) -> Option<Refused> {
        if !self.reason.is_of_the_page_table() {
            return None;
        }
        let Request::Memory {
            access,
            address,
            pasid: None,
            ..
        } = self.request
        else {
            return None;
        };
        let write = match access {
            Access::Read => false,
            Access::Write | Access::Atomic => true,
            Access::PageRequest => return None,
        };
        Some(Refused {
            source: self.source,
            iova: address,
            write,
        })
    }
}

impl fmt::Display for FaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match self.request {
            Request::Memory {
                access,
                address,
                pasid,
            } => {
                write!(f, "{access} at {address:#x}")?;
                if let Some(pasid) = pasid {
                    write!(f, " with PASID {pasid:#x}")?;
                }
            }
            Request::Interrupt { index } => write!(f, "interrupt {index}")?,
        }
        write!(f, " refused: reason {}", self.reason)
    }
}
