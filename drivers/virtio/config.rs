// SPDX-License-Identifier: GPL-2.0

//! The configuration of a virtio-iommu, checked.
//!
//! Specification: Virtual I/O Device (VIRTIO) Version 1.3, section 5.13.4 (Device configuration
//! layout).
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

/// Feature bits (5.13.3).
pub(crate) mod feature {
    pub(crate) const INPUT_RANGE: u32 = 0;
    pub(crate) const DOMAIN_RANGE: u32 = 1;
    pub(crate) const MAP_UNMAP: u32 = 2;
    pub(crate) const PROBE: u32 = 4;
    pub(crate) const MMIO: u32 = 5;
    pub(crate) const BYPASS_CONFIG: u32 = 6;
}

/// Bytes of the configuration that the driver knows.
pub(crate) const SIZE: usize = 40;

/// Bytes of the configuration that are there: a field is only with the feature that it belongs to.
/// `has` says which features were agreed on.
pub(crate) fn size(has: impl Fn(u32) -> bool) -> usize {
    let fields = [
        (feature::INPUT_RANGE, 24),
        (feature::DOMAIN_RANGE, 32),
        (feature::PROBE, 36),
        (feature::BYPASS_CONFIG, BYPASS as usize + 1),
    ];
    let there = fields.iter().filter(|(bit, _)| has(*bit));
    there.map(|(_, end)| *end).max().unwrap_or(8)
}

/// Offset of the field that says whether endpoints in no domain get through.
pub(crate) const BYPASS: u32 = 36;

/// Domains that the driver needs for itself: for blocked endpoints, and for those that get through.
const OWN_DOMAINS: u32 = 2;

/// The largest answer to a PROBE request that there is memory for.
const PROBE_MAX: u32 = 64 << 10;

/// The page of the CPU, which all that is mapped consists of.
const PAGE: u64 = 4096;

/// What the device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Sizes of pages, a bit each: that of the CPU's, and larger ones.
    pub(crate) page_sizes: u64,
    /// First DMA address that can be mapped.
    pub(crate) start: u64,
    /// Last DMA address that can be mapped.
    pub(crate) last: u64,
    /// The domain of blocked endpoints, in which nothing is ever mapped.
    pub(crate) blocked: u32,
    /// The domain of endpoints that get through, where the device has one.
    pub(crate) bypass: u32,
    /// First domain for other uses.
    pub(crate) first_domain: u32,
    /// Last domain.
    pub(crate) last_domain: u32,
    /// Bytes of a list of properties; 0 if there are none.
    pub(crate) probe_size: u32,
    /// Endpoints can be let through, and those in no domain need not be.
    pub(crate) has_bypass: bool,
    /// What endpoints in no domain did when the driver came.
    pub(crate) bypass_before: bool,
    /// Mappings that are no memory are told apart.
    pub(crate) has_mmio: bool,
}

/// Why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// It does not know MAP and UNMAP.
    NoMap,
    /// It has no pages as small as those of the CPU. The smallest are of these bytes, 0 for none.
    PageSize(u64),
    /// The range of addresses is empty, or has no whole page.
    InputRange(u64, u64),
    /// There are too few domains.
    DomainRange(u32, u32),
    /// A list of properties is not made of words of 8 bytes, or too long.
    ProbeSize(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMap => write!(f, "the device has no MAP and UNMAP"),
            Self::PageSize(0) => write!(f, "the device has no page size"),
            Self::PageSize(bytes) => {
                write!(f, "pages have at least {bytes} bytes, more than the CPU's")
            }
            Self::InputRange(start, last) => {
                write!(f, "input range {start:#x}..={last:#x} is not possible")
            }
            Self::DomainRange(first, last) => {
                write!(f, "domain range {first}..={last} is too small")
            }
            Self::ProbeSize(bytes) => write!(f, "probe size {bytes} is not possible"),
        }
    }
}

fn u32_at(bytes: &[u8; SIZE], at: usize) -> u32 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

fn u64_at(bytes: &[u8; SIZE], at: usize) -> u64 {
    let field = bytes
        .get(at..at + 8)
        .and_then(|field| field.try_into().ok());
    u64::from_le_bytes(field.unwrap_or_default())
}

impl Config {
    /// Reads the configuration. `has` says which features were agreed on: fields of others mean
    /// nothing.
    pub(crate) fn decode(bytes: &[u8; SIZE], has: impl Fn(u32) -> bool) -> Result<Self, Error> {
        if !has(feature::MAP_UNMAP) {
            return Err(Error::NoMap);
        }
        let page_sizes = u64_at(bytes, 0);
        let smallest = page_sizes & page_sizes.wrapping_neg();
        if smallest == 0 || smallest > PAGE {
            return Err(Error::PageSize(smallest));
        }
        // Nothing smaller than the CPU's is mapped.
        let page_sizes = page_sizes & !(PAGE - 1) | PAGE;
        let (start, last) = if has(feature::INPUT_RANGE) {
            (u64_at(bytes, 8), u64_at(bytes, 16))
        } else {
            (0, u64::MAX)
        };
        // Whole pages of it.
        let mask = PAGE - 1;
        let pages = start.checked_add(mask).map(|start| start & !mask);
        let pages = pages.zip(
            last.checked_add(1)
                .map_or(Some(last), |end| (end & !mask).checked_sub(1)),
        );
        let (start, last) = pages
            .filter(|(start, last)| start < last && last - start >= PAGE - 1)
            .ok_or(Error::InputRange(start, last))?;
        let (first, last_domain) = if has(feature::DOMAIN_RANGE) {
            (u32_at(bytes, 24), u32_at(bytes, 28))
        } else {
            (0, u32::MAX)
        };
        let first_domain = first
            .checked_add(OWN_DOMAINS)
            .filter(|first| *first <= last_domain)
            .ok_or(Error::DomainRange(first, last_domain))?;
        let probe_size = if has(feature::PROBE) {
            u32_at(bytes, 32)
        } else {
            0
        };
        if probe_size % 8 != 0 || probe_size > PROBE_MAX {
            return Err(Error::ProbeSize(probe_size));
        }
        let has_bypass = has(feature::BYPASS_CONFIG);
        Ok(Self {
            page_sizes,
            start,
            last,
            blocked: first,
            bypass: first + 1,
            first_domain,
            last_domain,
            probe_size,
            has_bypass,
            bypass_before: has_bypass && bytes.get(BYPASS as usize).is_some_and(|b| *b != 0),
            has_mmio: has(feature::MMIO),
        })
    }

    /// Bits of a DMA address; `None` where what can be mapped is not all addresses of so many bits.
    pub(crate) fn address_bits(&self) -> Option<u32> {
        let bits = u64::BITS - self.last.leading_zeros();
        (self.start == 0 && self.last.count_ones() == bits).then_some(bits)
    }
}
