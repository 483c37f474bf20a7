// SPDX-License-Identifier: GPL-2.0

//! Queued invalidation descriptors of 128 bits.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 6.5.2 (Queued
//! Invalidation Interface).
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

#![allow(
    dead_code,
    reason = "the layouts are complete as the specification gives them, used yet or not"
)]

use core::fmt;

use iommu::{
    invalidation::Block,
    source_id::SourceId, //
};

use crate::{
    caps::Capabilities,
    context::Did, //
};

/// Size of a descriptor in bytes.
pub(crate) const SIZE: usize = 16;

const TYPE_CONTEXT_CACHE: u64 = 0x1;
const TYPE_IOTLB: u64 = 0x2;
const TYPE_WAIT: u64 = 0x5;

const GRANULARITY_SHIFT: u32 = 4;
const GLOBAL: u64 = 1 << GRANULARITY_SHIFT;
const DOMAIN: u64 = 2 << GRANULARITY_SHIFT;
const SELECTIVE: u64 = 3 << GRANULARITY_SHIFT;

const DID_SHIFT: u32 = 16;

const CONTEXT_SID_SHIFT: u32 = 32;
const CONTEXT_MASK_SHIFT: u32 = 48;

const IOTLB_DRAIN_WRITES: u64 = 1 << 6;
const IOTLB_DRAIN_READS: u64 = 1 << 7;
const IOTLB_HINT: u64 = 1 << 6;
const IOTLB_ORDER_MASK: u64 = 0x3f;
const IOTLB_ADDRESS_MASK: u64 = !0xfff;

const WAIT_STATUS_WRITE: u64 = 1 << 5;
const WAIT_FENCE: u64 = 1 << 6;
const WAIT_DATA_SHIFT: u32 = 32;

/// Which functions of a device a device-selective invalidation means, as the bits of the function
/// number it ignores (section 6.5.2.1, FM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionMask {
    /// The one function.
    One,
    /// The two that differ in bit 2.
    Two,
    /// The four that differ in bits 2:1.
    Four,
    /// All eight.
    Eight,
}

impl FunctionMask {
    const fn bits(self) -> u64 {
        match self {
            Self::One => 0,
            Self::Two => 1,
            Self::Four => 2,
            Self::Eight => 3,
        }
    }
}

/// Which requests an IOTLB invalidation waits for (section 6.5, Draining of Requests to
/// Memory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Reads that were translated before the invalidation.
    pub(crate) reads: bool,
    /// Writes that were translated before the invalidation.
    pub(crate) writes: bool,
}

impl Drain {
    /// Everything the unit can wait for: without it, unmapped memory may still be accessed.
    pub(crate) const fn all(caps: &Capabilities) -> Self {
        Self {
            reads: caps.drain_reads(),
            writes: caps.drain_writes(),
        }
    }

    const fn bits(self) -> u64 {
        let mut bits = 0;
        if self.reads {
            bits |= IOTLB_DRAIN_READS;
        }
        if self.writes {
            bits |= IOTLB_DRAIN_WRITES;
        }
        bits
    }
}

/// An address at which no status word can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misaligned(pub(crate) u64);

impl fmt::Display for Misaligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status address {:#x} is not a multiple of 4", self.0)
    }
}

/// Physical address of the 32-bit word that a wait descriptor writes.
///
/// # Invariants
///
/// A multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusAddress(u64);

impl StatusAddress {
    /// Checks an address.
    ///
    /// # Errors
    ///
    /// [`Misaligned`] if it is no multiple of 4.
    pub(crate) const fn new(physical: u64) -> Result<Self, Misaligned> {
        if physical & 3 != 0 {
            return Err(Misaligned(physical));
        }
        // INVARIANT: just checked.
        Ok(Self(physical))
    }
}

/// One descriptor: low and high 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    words: [u64; 2],
}

impl Descriptor {
    const fn new(low: u64, high: u64) -> Self {
        Self { words: [low, high] }
    }

    /// Low and high word, in memory order.
    pub(crate) const fn words(self) -> [u64; 2] {
        self.words
    }

    /// All context entries leave the context cache (section 6.5.2.1).
    pub(crate) const fn context_cache_global() -> Self {
        Self::new(TYPE_CONTEXT_CACHE | GLOBAL, 0)
    }

    /// All context entries of a domain leave the context cache (section 6.5.2.1).
    pub(crate) const fn context_cache_domain(did: Did) -> Self {
        Self::new(TYPE_CONTEXT_CACHE | DOMAIN | did_bits(did), 0)
    }

    /// The context entries of a device that are cached under `did` leave the context cache
    /// (section 6.5.2.1).
    pub(crate) const fn context_cache_device(
        did: Did,
        source: SourceId,
        functions: FunctionMask,
    ) -> Self {
        // CAST: widening; `u64::from` is not const.
        let sid = source.requester_id() as u64;
        Self::new(
            TYPE_CONTEXT_CACHE
                | SELECTIVE
                | did_bits(did)
                | (sid << CONTEXT_SID_SHIFT)
                | (functions.bits() << CONTEXT_MASK_SHIFT),
            0,
        )
    }

    /// All translations leave the IOTLB (section 6.5.2.3).
    pub(crate) const fn iotlb_global(drain: Drain) -> Self {
        Self::new(TYPE_IOTLB | GLOBAL | drain.bits(), 0)
    }

    /// All translations of a domain leave the IOTLB (section 6.5.2.3).
    pub(crate) const fn iotlb_domain(did: Did, drain: Drain) -> Self {
        Self::new(TYPE_IOTLB | DOMAIN | drain.bits() | did_bits(did), 0)
    }

    /// The translations of some pages of a domain leave the IOTLB (section 6.5.2.3).
    ///
    /// `block.order` must not exceed `Capabilities::max_block_order()`. With `leaf_only`, cached
    /// pointers to page tables may stay.
    pub(crate) const fn iotlb_pages(did: Did, block: Block, leaf_only: bool, drain: Drain) -> Self {
        // CAST: widening; `u64::from` is not const.
        let order = block.order as u64 & IOTLB_ORDER_MASK;
        let hint = if leaf_only { IOTLB_HINT } else { 0 };
        Self::new(
            TYPE_IOTLB | SELECTIVE | drain.bits() | did_bits(did),
            (block.address & IOTLB_ADDRESS_MASK) | hint | order,
        )
    }

    /// When all descriptors before it are done, `data` is written to `status` (section 6.5.2.8).
    ///
    /// Its fence also keeps later descriptors from starting before that, which `QueueHw` asks for.
    pub(crate) const fn wait(status: StatusAddress, data: u32) -> Self {
        // CAST: widening; `u64::from` is not const.
        let data = (data as u64) << WAIT_DATA_SHIFT;
        Self::new(TYPE_WAIT | WAIT_STATUS_WRITE | WAIT_FENCE | data, status.0)
    }
}

const fn did_bits(did: Did) -> u64 {
    // CAST: widening; `u64::from` is not const.
    (did.get() as u64) << DID_SHIFT
}
