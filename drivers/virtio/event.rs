// SPDX-License-Identifier: GPL-2.0

//! Reports of the event queue.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.13.6.9 (Fault reporting).
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::{
    fault::Refused,
    source_id::SourceId, //
};

/// Bytes of a report.
pub(crate) const SIZE: usize = 24;

const F_READ: u32 = 1 << 0;
const F_WRITE: u32 = 1 << 1;
const F_ADDRESS: u32 = 1 << 8;

/// Why a request of an endpoint was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The device does not say, or something that is not known.
    Unknown,
    /// The endpoint is in no domain.
    Domain,
    /// The address is not mapped, or not for this.
    Mapping,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Unknown => "no reason given",
            Self::Domain => "not in a domain",
            Self::Mapping => "not mapped, or not for this",
        }
    }
}

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Who made it.
    pub(crate) endpoint: u32,
    /// Where to, if the device says so.
    pub(crate) address: Option<u64>,
    /// The device says that it was a read.
    pub(crate) read: bool,
    /// The device says that it was a write.
    pub(crate) write: bool,
    /// Why it was refused.
    pub(crate) reason: Reason,
}

impl Fault {
    /// Reads a report. `None` if the device wrote less than one.
    pub(crate) fn decode(bytes: &[u8; SIZE], written: usize) -> Option<Self> {
        if written < SIZE {
            return None;
        }
        let [reason, _, _, _, f0, f1, f2, f3, e0, e1, e2, e3, _, _, _, _, address @ ..] = *bytes;
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        Some(Self {
            endpoint: u32::from_le_bytes([e0, e1, e2, e3]),
            address: (flags & F_ADDRESS != 0).then_some(u64::from_le_bytes(address)),
            read: flags & F_READ != 0,
            write: flags & F_WRITE != 0,
            reason: match reason {
                1 => Reason::Domain,
                2 => Reason::Mapping,
                _ => Reason::Unknown,
            },
        })
    }
}

impl Fault {
    /// What is reported to who uses the device with this id: an access whose address is known. Where the
    /// device does not say what was wanted, it passes for a read.
    pub(crate) fn refused(&self, source: SourceId) -> Option<Refused> {
        self.address.map(|iova| Refused {
            source,
            iova,
            write: self.write,
        })
    }
}

/// What was refused and why, without the endpoint.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match (self.read, self.write) {
            (true, false) => "read",
            (false, true) => "write",
            _ => "access",
        };
        match self.address {
            Some(address) => write!(f, "{access} at {address:#x} ")?,
            None => write!(f, "{access} at an unknown address ")?,
        }
        write!(f, "({})", self.reason.text())
    }
}
