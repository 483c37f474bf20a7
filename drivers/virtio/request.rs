// SPDX-License-Identifier: GPL-2.0

//! Requests to a virtio-iommu, and its answers.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.13.6 (Device operations).
//!
//! This file is pure: integers in, bytes out. It is also built and tested on the host.

use iommu::mappings::run::Run;

/// Words of memory for a request, without its answer: the longest one has 36 bytes.
pub(crate) const WORDS: usize = 5;

/// Bytes of an answer: status and padding (5.13.6, struct virtio_iommu_req_tail).
pub(crate) const TAIL: usize = 4;

/// Bytes of a PROBE request before the properties (5.13.6.7).
pub(crate) const PROBE_HEAD: usize = 72;

const T_ATTACH: u8 = 1;
const T_DETACH: u8 = 2;
const T_MAP: u8 = 3;
const T_UNMAP: u8 = 4;
const T_PROBE: u8 = 5;

const ATTACH_F_BYPASS: u32 = 1 << 0;

const MAP_F_READ: u32 = 1 << 0;
const MAP_F_WRITE: u32 = 1 << 1;
const MAP_F_MMIO: u32 = 1 << 2;

/// The answer to a request (5.13.6, "status").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done.
    Ok,
    /// The device failed.
    IoError,
    /// It does not know the request.
    Unsupported,
    /// It failed by itself.
    DeviceError,
    /// A parameter is wrong.
    Invalid,
    /// A parameter is out of range, or the range cuts a mapping.
    Range,
    /// There is no such endpoint or domain.
    NoEntry,
    /// The request is not in memory that the device reaches.
    Fault,
    /// It has no memory for this.
    NoMemory,
    /// A number that means nothing.
    Unknown(u8),
    /// Nothing, or less than an answer.
    Missing,
}

impl Status {
    fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Ok,
            1 => Self::IoError,
            2 => Self::Unsupported,
            3 => Self::DeviceError,
            4 => Self::Invalid,
            5 => Self::Range,
            6 => Self::NoEntry,
            7 => Self::Fault,
            8 => Self::NoMemory,
            other => Self::Unknown(other),
        }
    }

    /// Reads an answer. `written` is how many bytes the device says that it wrote, of which the
    /// last `TAIL` are the answer.
    pub(crate) fn read(tail: [u8; TAIL], written: usize, expected: usize) -> Self {
        if written < expected {
            return Self::Missing;
        }
        Self::from_raw(tail[0])
    }
}

/// What an answer means for the request it was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was asked for is so now.
    Done,
    /// Not done, for want of memory in the device.
    NoMemory,
    /// Not done.
    Failed,
}

/// Judges an answer.
///
/// A domain is there for the device as long as an endpoint is in it. To forget mappings of one that
/// is not there is done already (5.13.6.6). So it is to block an endpoint that the device does not know any
/// more, as it was unplugged; `blocked` is the domain for that.
pub(crate) fn judge(request: &[u8], status: Status, blocked: u32) -> Verdict {
    let kind = request.first().copied();
    let domain = request.get(4..8).and_then(|field| field.try_into().ok());
    match (kind, status) {
        (_, Status::Ok) | (Some(T_UNMAP), Status::NoEntry) => Verdict::Done,
        (Some(T_ATTACH), Status::NoEntry) if domain == Some(blocked.to_le_bytes()) => Verdict::Done,
        (_, Status::NoMemory) => Verdict::NoMemory,
        _ => Verdict::Failed,
    }
}

/// The endpoint id that an ATTACH request puts into a domain; `None` for other requests.
pub(crate) fn attached(request: &[u8]) -> Option<u32> {
    let id = request.get(8..12).and_then(|field| field.try_into().ok());
    (request.first() == Some(&T_ATTACH)).then_some(u32::from_le_bytes(id?))
}

/// The name of a request's type, for messages.
pub(crate) fn name(request: &[u8]) -> &'static str {
    match request.first().copied() {
        Some(T_ATTACH) => "ATTACH",
        Some(T_DETACH) => "DETACH",
        Some(T_MAP) => "MAP",
        Some(T_UNMAP) => "UNMAP",
        Some(T_PROBE) => "PROBE",
        _ => "unknown",
    }
}

/// A request's bytes, without the answer.
pub(crate) struct Encoded {
    words: [[u8; size_of::<u64>()]; WORDS],
    len: usize,
}

impl Encoded {
    /// A request of `len` bytes. Fields of 8 bytes are aligned to that in all of them.
    fn new(kind: u8, domain: u32, rest: [u64; WORDS - 1], len: usize) -> Self {
        // Type and three reserved bytes (struct virtio_iommu_req_head), then the domain.
        let head = pair(u32::from(kind), domain);
        let [a, b, c, d] = rest;
        Self {
            words: [head, a, b, c, d].map(u64::to_le_bytes),
            len,
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.words
            .as_flattened()
            .get(..self.len)
            .unwrap_or_default()
    }

    /// The bytes in whole words, and how many of them there are.
    pub(crate) fn words(&self) -> (&[[u8; size_of::<u64>()]; WORDS], usize) {
        (&self.words, self.len)
    }
}

/// Two fields of 4 bytes.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// Puts an endpoint into a domain, and takes it out of the one it was in (5.13.6.3).
pub(crate) fn attach(domain: u32, endpoint: u32, bypass: bool) -> Encoded {
    let flags = if bypass { ATTACH_F_BYPASS } else { 0 };
    Encoded::new(T_ATTACH, domain, [pair(endpoint, flags), 0, 0, 0], 20)
}

/// Takes an endpoint out of its domain (5.13.6.4). What it reaches then is decided by the device's bypass
/// field.
pub(crate) fn detach(domain: u32, endpoint: u32) -> Encoded {
    Encoded::new(T_DETACH, domain, [pair(endpoint, 0), 0, 0, 0], 20)
}

/// Maps all pieces of a run as one mapping (5.13.6.5).
pub(crate) fn map(domain: u32, run: &Run) -> Encoded {
    let flag = |allowed: bool, flag: u32| if allowed { flag } else { 0 };
    let flags = flag(run.rights.read, MAP_F_READ)
        | flag(run.rights.write, MAP_F_WRITE)
        | flag(run.rights.mmio, MAP_F_MMIO);
    let fields = [run.iova, run.last, run.phys, pair(flags, 0)];
    Encoded::new(T_MAP, domain, fields, 36)
}

/// Forgets all mappings between two addresses, first and last; none may be cut (5.13.6.6).
pub(crate) fn unmap(domain: u32, start: u64, last: u64) -> Encoded {
    Encoded::new(T_UNMAP, domain, [start, last, 0, 0], 28)
}

/// Asks for an endpoint's properties (5.13.6.7).
pub(crate) fn probe(endpoint: u32) -> [u8; PROBE_HEAD] {
    let mut bytes = [0; PROBE_HEAD];
    bytes[0] = T_PROBE;
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&endpoint.to_le_bytes());
    }
    bytes
}
