// SPDX-License-Identifier: GPL-2.0

//! Records of the event log: which request an IOMMU refused, and what went wrong with it.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), section 2.5.
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::{
    fault::Refused,
    source_id::SourceId, //
};

const CODE_SHIFT: u32 = 60;
const ID_MASK: u64 = 0xffff;
const DOMAIN_SHIFT: u32 = 32;

const ILLEGAL_ENTRY: u64 = 1;
const PAGE_FAULT: u64 = 2;
const ENTRY_HARDWARE: u64 = 3;
const TABLE_HARDWARE: u64 = 4;
const ILLEGAL_COMMAND: u64 = 5;
const COMMAND_HARDWARE: u64 = 6;
const DEVICE_TIMEOUT: u64 = 7;
const INVALID_REQUEST: u64 = 8;

/// Flags of a page fault (section 2.5.3).
const FAULT_INTERRUPT: u64 = 1 << 51;
const FAULT_PRESENT: u64 = 1 << 52;
const FAULT_WRITE: u64 = 1 << 53;
const FAULT_RESERVED: u64 = 1 << 55;
const FAULT_TRANSLATION: u64 = 1 << 56;

/// Addresses that are interrupt messages.
const INTERRUPTS: core::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// What a refused request wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To read memory.
    Read,
    /// To write memory.
    Write,
    /// One of the two: the IOMMU tells which only if the page is present.
    Unknown,
    /// To have an address translated.
    Translation,
    /// To send an interrupt.
    Interrupt,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Unknown => "access",
            Self::Translation => "translation request",
            Self::Interrupt => "interrupt",
        })
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The page is not mapped.
    NotPresent,
    /// The page is mapped, but not for this.
    Permission,
    /// A table entry has bits set that must not be.
    ReservedBits,
    /// The device's own entry is not a possible one.
    IllegalEntry,
    /// The device's entry could not be read.
    EntryHardware,
    /// A page table could not be read.
    TableHardware,
    /// A request that devices may not make.
    InvalidRequest,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPresent => "not mapped",
            Self::Permission => "not permitted",
            Self::ReservedBits => "reserved bits set in a table entry",
            Self::IllegalEntry => "device table entry is invalid",
            Self::EntryHardware => "device table is not accessible",
            Self::TableHardware => "page table is not accessible",
            Self::InvalidRequest => "request is invalid",
        })
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// DMA or an interrupt was refused.
    Refused {
        /// Who sent it.
        source: SourceId,
        /// What it wanted.
        access: Access,
        /// At which address.
        address: u64,
        /// The domain that its entry named, where that matters.
        domain: Option<u16>,
        /// Why it was refused.
        reason: Reason,
    },
    /// The command at this physical address is not a possible one; the IOMMU has stopped there.
    IllegalCommand(u64),
    /// The command at this physical address could not be read; the IOMMU has stopped there.
    CommandHardware(u64),
    /// A device did not answer an invalidation of its own cache.
    DeviceTimeout(SourceId),
    /// A record that this driver does not know: its two words.
    Unknown([u64; 2]),
}

impl Event {
    /// Decodes the low and high 64-bit word of a record of an IOMMU of this segment; `None` where
    /// nothing was written yet.
    pub(crate) fn decode(segment: u16, [low, high]: [u64; 2]) -> Option<Self> {
        let source = SourceId::from_requester_id(segment, field(low, 0));
        let refused = |access, domain, reason| Self::Refused {
            source,
            access,
            address: high,
            domain,
            reason,
        };
        Some(match low >> CODE_SHIFT {
            0 => return None,
            ILLEGAL_ENTRY => refused(direction(low), None, Reason::IllegalEntry),
            PAGE_FAULT => refused(
                fault_access(low, high),
                Some(field(low, DOMAIN_SHIFT)),
                fault_reason(low),
            ),
            ENTRY_HARDWARE => refused(direction(low), None, Reason::EntryHardware),
            TABLE_HARDWARE => refused(direction(low), None, Reason::TableHardware),
            ILLEGAL_COMMAND => Self::IllegalCommand(high),
            COMMAND_HARDWARE => Self::CommandHardware(high),
            DEVICE_TIMEOUT => Self::DeviceTimeout(source),
            INVALID_REQUEST => refused(direction(low), None, Reason::InvalidRequest),
            _ => Self::Unknown([low, high]),
        })
    }

    /// What is reported to who uses the device: an access to memory that its page table refused. Where the
    /// IOMMU does not tell, it passes for a read.
    pub(crate) fn refused(&self) -> Option<Refused> {
        let Self::Refused {
            source,
            access: access @ (Access::Read | Access::Write | Access::Unknown),
            address,
            reason: Reason::NotPresent | Reason::Permission | Reason::ReservedBits,
            ..
        } = *self
        else {
            return None;
        };
        Some(Refused {
            source,
            iova: address,
            write: access == Access::Write,
        })
    }

    /// Whether the IOMMU takes no commands until it is told to go on.
    pub(crate) const fn stops_commands(&self) -> bool {
        matches!(self, Self::IllegalCommand(_) | Self::CommandHardware(_))
    }
}

fn field(low: u64, shift: u32) -> u16 {
    // CAST: a field of 16 bits.
    ((low >> shift) & ID_MASK) as u16
}

/// What a request wanted that failed before its page was looked at.
fn direction(low: u64) -> Access {
    if low & FAULT_TRANSLATION != 0 {
        Access::Translation
    } else if low & FAULT_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// The bit that tells a write from a read means something for present pages only. And QEMU says of
/// every fault that it is an interrupt's, but an interrupt is one by its address.
fn fault_access(low: u64, address: u64) -> Access {
    if low & FAULT_INTERRUPT != 0 && INTERRUPTS.contains(&address) {
        Access::Interrupt
    } else if low & FAULT_TRANSLATION != 0 {
        Access::Translation
    } else if low & FAULT_PRESENT == 0 {
        Access::Unknown
    } else if low & FAULT_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

fn fault_reason(low: u64) -> Reason {
    if low & FAULT_PRESENT == 0 {
        Reason::NotPresent
    } else if low & FAULT_RESERVED != 0 {
        Reason::ReservedBits
    } else {
        Reason::Permission
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Refused {
                source,
                access,
                address,
                domain,
                reason,
            } => {
                write!(
                    f,
                    "DMA fault: {source}: {access} at {address:#x} refused: {reason}"
                )?;
                match domain {
                    Some(domain) => write!(f, ", domain {domain:#x}"),
                    None => Ok(()),
                }
            }
            Self::IllegalCommand(at) => write!(f, "command at {at:#x} was refused"),
            Self::CommandHardware(at) => write!(f, "command at {at:#x} could not be read"),
            Self::DeviceTimeout(source) => {
                write!(f, "{source} did not answer an invalidation of its cache")
            }
            Self::Unknown([low, high]) => write!(f, "unknown event {low:#018x} {high:#018x}"),
        }
    }
}
