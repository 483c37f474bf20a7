// SPDX-License-Identifier: GPL-2.0

//! Properties of an endpoint, as a PROBE request answers them.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.13.6.7 (PROBE request).
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

use iommu::bytes::{
    u16_at,
    u64_at, //
};

/// Type and length, the start of every property.
const HEADER: usize = 4;

const TYPE_MASK: u16 = 0xfff;
const TYPE_NONE: u16 = 0;
const TYPE_RESV_MEM: u16 = 1;

/// Bytes of a reserved region after the header.
const RESV_MEM: usize = 20;

const SUBTYPE_MSI: u8 = 1;

/// Addresses that are not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// First address.
    pub(crate) start: u64,
    /// Last address.
    pub(crate) last: u64,
    /// Writes there are interrupt messages. Of other kinds, those that are not known among them,
    /// nothing may be mapped and nothing gets through.
    pub(crate) msi: bool,
}

impl Reserved {
    /// Where the CPU's interrupt logic takes writes (Intel SDM, volume 3, section 11.11).
    pub(crate) const MSI: Self = Self {
        start: 0xfee0_0000,
        last: 0xfeef_ffff,
        msi: true,
    };

    /// How many bytes it has; one less than that if it is all addresses.
    pub(crate) fn bytes(&self) -> u64 {
        (self.last - self.start).saturating_add(1)
    }
}

/// What is wrong with a list of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Too few bytes are left for a property's header, at this offset.
    ShortHeader(usize),
    /// A property ends beyond the list, at this offset.
    Beyond(usize),
    /// A reserved region is too short for its fields, at this offset.
    ShortRegion(usize),
    /// A reserved region ends before it starts, at this offset.
    Order(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortHeader(at) => write!(f, "offset {at:#x}: no room for a property's header"),
            Self::Beyond(at) => write!(f, "offset {at:#x}: property beyond the list"),
            Self::ShortRegion(at) => write!(f, "offset {at:#x}: reserved region is too short"),
            Self::Order(at) => write!(f, "offset {at:#x}: reserved region ends before it starts"),
        }
    }
}

/// Calls `with` for each reserved region of a list of properties; properties of other types are
/// skipped.
///
/// # Errors
///
/// The first thing that is wrong. What came before it has been visited.
pub(crate) fn for_each_reserved(list: &[u8], mut with: impl FnMut(Reserved)) -> Result<(), Error> {
    let mut at = 0;
    while at < list.len() {
        let (Some(kind), Some(length)) = (u16_at(list, at), u16_at(list, at + 2)) else {
            return Err(Error::ShortHeader(at));
        };
        if kind & TYPE_MASK == TYPE_NONE {
            return Ok(());
        }
        let next = at + HEADER + usize::from(length);
        let property = list.get(at + HEADER..next).ok_or(Error::Beyond(at))?;
        if kind & TYPE_MASK == TYPE_RESV_MEM {
            if property.len() < RESV_MEM {
                return Err(Error::ShortRegion(at));
            }
            let (Some(subtype), Some(start), Some(last)) =
                (property.first(), u64_at(property, 4), u64_at(property, 12))
            else {
                return Err(Error::ShortRegion(at));
            };
            if last < start {
                return Err(Error::Order(at));
            }
            with(Reserved {
                start,
                last,
                msi: *subtype == SUBTYPE_MSI,
            });
        }
        at = next;
    }
    Ok(())
}

/// Calls `with` for what nobody may map for an endpoint: all that was reported, and where no window for
/// interrupt messages is among that, the [usual one](Reserved::MSI).
pub(crate) fn for_each_not_free(reported: &[Reserved], mut with: impl FnMut(&Reserved)) {
    reported.iter().for_each(&mut with);
    if !reported.iter().any(|region| region.msi) {
        with(&Reserved::MSI);
    }
}

/// Calls `with` for what is not reserved between two addresses, first and last: with the first address and
/// a number of bytes, in whole pages of `page` bytes.
pub(crate) fn for_each_free(
    reserved: &[Reserved],
    start: u64,
    last: u64,
    page: u64,
    mut with: impl FnMut(u64, u64),
) {
    let mask = page.wrapping_sub(1);
    // First and last addresses of pages of which a part is reserved.
    let pages = reserved.iter().map(|r| (r.start & !mask, r.last | mask));
    let mut at = start;
    while at <= last {
        let covering = pages
            .clone()
            .filter(|(start, last)| (*start..=*last).contains(&at));
        let end = match covering.map(|(_, last)| last).max() {
            Some(end) => end,
            None => {
                let next = pages.clone().map(|(start, _)| start).filter(|s| *s > at);
                let end = next.min().map_or(last, |next| last.min(next - 1));
                // All of 64 bits would be one byte too many to count.
                let bytes = (end - at).checked_add(1).unwrap_or(!mask);
                with(at, bytes);
                end
            }
        };
        match end.checked_add(1) {
            Some(next) => at = next,
            None => return,
        }
    }
}
