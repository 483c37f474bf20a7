// SPDX-License-Identifier: GPL-2.0

//! Device scopes: which devices a structure of the DMAR table is for.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 8.3.1.
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::source_id::SourceId;

/// Type, length, flags, reserved, enumeration id, start bus.
const HEADER_LEN: usize = 6;

/// What is wrong with a device scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Too few bytes are left for a device scope's fixed part.
    Short,
    /// A device scope with a length that does not hold its fixed part and one path element.
    Length(u8),
    /// A device scope with a path that is not a whole number of (device, function) pairs.
    Path(u8),
    /// A device scope that ends beyond its structure.
    Beyond(u8),
    /// A path element with a device above 31 or a function above 7.
    PathElement(u8, u8),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short => write!(f, "no room for a device scope"),
            Self::Length(length) => write!(f, "device scope length {length} is too short"),
            Self::Path(length) => {
                write!(
                    f,
                    "device scope length {length} cuts a path element in half"
                )
            }
            Self::Beyond(length) => {
                write!(f, "device scope length {length} is beyond its structure")
            }
            Self::PathElement(device, function) => {
                write!(f, "path element {device:#04x}.{function} is not possible")
            }
        }
    }
}

/// What kind of device a scope names (field Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    /// One PCI function.
    Endpoint,
    /// A PCI bridge and everything below it.
    SubHierarchy,
    /// An I/O APIC; the enumeration id is its APIC id.
    IoApic,
    /// An HPET that can send message signalled interrupts; the enumeration id is its number.
    Hpet,
    /// A device in the ACPI namespace; the enumeration id is the number its ANDD structure gives.
    Namespace,
    /// A type this driver does not know.
    Unknown(u8),
}

impl ScopeKind {
    fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Endpoint,
            2 => Self::SubHierarchy,
            3 => Self::IoApic,
            4 => Self::Hpet,
            5 => Self::Namespace,
            other => Self::Unknown(other),
        }
    }
}

/// One device scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope<'a> {
    /// What it names.
    pub(crate) kind: ScopeKind,
    /// APIC id, HPET number or ACPI device number; no meaning for PCI scopes.
    pub(crate) enumeration_id: u8,
    /// Bus on which `path` starts.
    pub(crate) start_bus: u8,
    path: &'a [u8],
}

impl<'a> Scope<'a> {
    /// (device, function) of each bridge from the start bus down, and last of the device itself.
    pub(crate) fn path(&self) -> impl ExactSizeIterator<Item = (u8, u8)> + 'a {
        self.path.chunks_exact(2).map(|pair| match *pair {
            [device, function] => (device, function),
            _ => (0, 0),
        })
    }

    /// Whether this scope covers a PCI device.
    ///
    /// `path` is the device's way from its root bus: the id of each bridge from the top down, and
    /// last the device's own. For a virtual function it is the way of its physical function, which
    /// is what firmware can name. The caller has compared segments.
    ///
    /// The bridges that a scope's path names are among those above every device it covers, so the
    /// device's own way already holds each secondary bus number: it is the bus of the next id.
    pub(crate) fn covers(&self, path: &[SourceId]) -> bool {
        let tail_is_all = match self.kind {
            ScopeKind::Endpoint => false,
            ScopeKind::SubHierarchy => true,
            _ => return false,
        };
        let named = self.path().len();
        let Some(start) = path.iter().position(|id| id.bus() == self.start_bus) else {
            return false;
        };
        let Some(rest) = path.get(start..) else {
            return false;
        };
        let long_enough = if tail_is_all {
            rest.len() >= named
        } else {
            rest.len() == named
        };
        long_enough
            && self
                .path()
                .zip(rest)
                .all(|(pair, id)| pair == (id.device(), id.function()))
    }
}

/// The device scopes of one structure; an iterator, up to the first that has something wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scopes<'a> {
    bytes: &'a [u8],
}

impl<'a> Scopes<'a> {
    /// The scopes in `bytes`, whether they are right or not: see [`check`](Self::check).
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Checks all scopes.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, and the offset in bytes of its scope from the first one.
    pub(crate) fn check(self) -> Result<(), (usize, Reason)> {
        let mut bytes = self.bytes;
        let at = |rest: &[u8]| self.bytes.len() - rest.len();
        while let Some((scope, rest)) = read(bytes).map_err(|reason| (at(bytes), reason))? {
            if !matches!(scope.kind, ScopeKind::Unknown(_)) {
                for (device, function) in scope.path() {
                    if device > 31 || function > 7 {
                        return Err((at(bytes), Reason::PathElement(device, function)));
                    }
                }
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl<'a> Iterator for Scopes<'a> {
    type Item = Scope<'a>;

    fn next(&mut self) -> Option<Scope<'a>> {
        let (scope, rest) = read(self.bytes).ok()??;
        self.bytes = rest;
        Some(scope)
    }
}

/// Splits off the first scope; `None` at the end.
fn read(bytes: &[u8]) -> Result<Option<(Scope<'_>, &[u8])>, Reason> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let header = bytes.get(..HEADER_LEN).ok_or(Reason::Short)?;
    let &[kind, length, _flags, _, enumeration_id, start_bus] = header else {
        return Err(Reason::Short);
    };
    let kind = ScopeKind::from_raw(kind);
    // A scope of an unknown type may hold something else than a path.
    let known = !matches!(kind, ScopeKind::Unknown(_));
    let shortest = HEADER_LEN + if known { 2 } else { 0 };
    if usize::from(length) < shortest {
        return Err(Reason::Length(length));
    }
    if known && length % 2 != 0 {
        return Err(Reason::Path(length));
    }
    let (scope, rest) = bytes
        .split_at_checked(usize::from(length))
        .ok_or(Reason::Beyond(length))?;
    let scope = Scope {
        kind,
        enumeration_id,
        start_bus,
        path: scope.get(HEADER_LEN..).unwrap_or_default(),
    };
    Ok(Some((scope, rest)))
}
