// SPDX-License-Identifier: GPL-2.0

//! Registers of an IOMMU: offsets, bits, and what their values mean.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), sections 3.2 (the
//! capability block) and 3.4 (MMIO registers).
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

#![allow(dead_code, reason = "the kernel uses all of it, the host tests do not")]

use core::fmt;

use crate::{
    dte::MAX_LEVELS,
    ivrs::Flags, //
};

/// Device Table Base Address.
pub(crate) const DEVICE_TABLE: usize = 0x0000;
/// Command Buffer Base Address.
pub(crate) const COMMAND_BASE: usize = 0x0008;
/// Event Log Base Address.
pub(crate) const EVENT_BASE: usize = 0x0010;
/// IOMMU Control.
pub(crate) const CONTROL: usize = 0x0018;
/// IOMMU Exclusion Base, whose bit 0 switches the exclusion range on.
pub(crate) const EXCLUSION_BASE: usize = 0x0020;
/// IOMMU Extended Feature.
pub(crate) const FEATURES: usize = 0x0030;
/// Command Buffer Head Pointer.
pub(crate) const COMMAND_HEAD: usize = 0x2000;
/// Command Buffer Tail Pointer.
pub(crate) const COMMAND_TAIL: usize = 0x2008;
/// Event Log Head Pointer.
pub(crate) const EVENT_HEAD: usize = 0x2010;
/// Event Log Tail Pointer.
pub(crate) const EVENT_TAIL: usize = 0x2018;
/// IOMMU Status.
pub(crate) const STATUS: usize = 0x2020;

/// Bytes from the register base to the end of the registers that this driver uses.
pub(crate) const SPAN: usize = 0x4000;

/// Bits of the control register.
pub(crate) mod control {
    /// IommuEn: requests are translated.
    pub(crate) const ENABLE: u64 = 1 << 0;
    /// HtTunEn.
    pub(crate) const TUNNEL: u64 = 1 << 1;
    /// EventLogEn: events are written to the log.
    pub(crate) const EVENT_LOG: u64 = 1 << 2;
    /// EventIntEn: and an interrupt is sent for them.
    pub(crate) const EVENT_INTERRUPT: u64 = 1 << 3;
    /// InvTimeOut, bits 7:5: how long a device may take for an invalidation of its cache. A second.
    pub(crate) const DEVICE_TIMEOUT_1S: u64 = 4 << 5;
    /// PassPW.
    pub(crate) const PASS_POSTED: u64 = 1 << 8;
    /// ResPassPW.
    pub(crate) const RESPONSE_PASS_POSTED: u64 = 1 << 9;
    /// Coherent: reads of the device table snoop the CPU's caches.
    pub(crate) const COHERENT: u64 = 1 << 10;
    /// Isoc.
    pub(crate) const ISOCHRONOUS: u64 = 1 << 11;
    /// CmdBufEn: commands are fetched.
    pub(crate) const COMMANDS: u64 = 1 << 12;
}

/// Bits of the status register. Those that are not "run" are cleared by writing 1.
pub(crate) mod status {
    /// EventOverflow: an event was lost, and the log has stopped.
    pub(crate) const EVENT_OVERFLOW: u32 = 1 << 0;
    /// EventLogInt: an event was written.
    pub(crate) const EVENT: u32 = 1 << 1;
    /// EventLogRun.
    pub(crate) const EVENT_LOG_RUNS: u32 = 1 << 3;
    /// CmdBufRun.
    pub(crate) const COMMANDS_RUN: u32 = 1 << 4;
    /// Everything that is cleared by writing 1 and belongs to the event log.
    pub(crate) const EVENTS: u32 = EVENT_OVERFLOW | EVENT;
}

/// Registers with base address and length: bits 51:12 and 59:56.
const BASE_MASK: u64 = 0x000f_ffff_ffff_f000;
const LENGTH_SHIFT: u32 = 56;
/// Head and tail: bits 18:4.
const POSITION_SHIFT: u32 = 4;
const POSITION_MASK: u64 = 0x7fff;

/// log2 of the entries in a page of commands or events.
const PAGE_ENTRIES_ORDER: u32 = 8;

/// A command buffer or event log of `2^order` pages at a page's address, as its base register
/// wants it. At most 2^7 pages.
pub(crate) const fn ring_base(physical: u64, order: u32) -> u64 {
    // CAST: widening; `u64::from` is not const.
    physical & BASE_MASK | ((PAGE_ENTRIES_ORDER + order) as u64 & 0xf) << LENGTH_SHIFT
}

/// A device table of `2^order` pages, as its base register wants it. At most 2^9 pages.
pub(crate) const fn table_base(physical: u64, order: u32) -> u64 {
    physical & BASE_MASK | ((1u64 << order) - 1) & 0x1ff
}

/// The value of a head or tail register for an index.
pub(crate) const fn position(index: u32) -> u64 {
    // CAST: widening; `u64::from` is not const.
    (index as u64 & POSITION_MASK) << POSITION_SHIFT
}

/// The index that a head or tail register of a ring of `entries` stands at, a power of two. Right after the
/// last entry QEMU shows one more than there are.
pub(crate) const fn index(register: u64, entries: u32) -> u32 {
    // CAST: at most 15 bits.
    ((register >> POSITION_SHIFT) & POSITION_MASK) as u32 & (entries - 1)
}

/// The control register for a unit that is off: what firmware wants, and what does not depend on it.
/// All else is off, whatever firmware may have used: features that this driver does not know change
/// where tables and logs are, or what is in them.
pub(crate) const fn control_off(flags: Flags) -> u64 {
    let mut value = control::COHERENT | control::DEVICE_TIMEOUT_1S;
    if flags.tunnel() {
        value |= control::TUNNEL;
    }
    if flags.pass_posted() {
        value |= control::PASS_POSTED;
    }
    if flags.response_pass_posted() {
        value |= control::RESPONSE_PASS_POSTED;
    }
    if flags.isochronous() {
        value |= control::ISOCHRONOUS;
    }
    value
}

/// Everything that is switched on together with translation.
pub(crate) const CONTROL_ON: u64 =
    control::ENABLE | control::EVENT_LOG | control::EVENT_INTERRUPT | control::COMMANDS;

/// The capability block's header, and the identifiers in it that have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability(u32);

impl Capability {
    const ID: u32 = 0x0f;
    const TYPE_SHIFT: u32 = 16;
    const TYPE_IOMMU: u32 = 3;

    /// The header, if it is that of an IOMMU.
    pub(crate) const fn new(header: u32) -> Option<Self> {
        let id = header & 0xff;
        let kind = (header >> Self::TYPE_SHIFT) & 7;
        if id == Self::ID && kind == Self::TYPE_IOMMU {
            Some(Self(header))
        } else {
            None
        }
    }

    /// NpCache: that an address is not mapped is cached too.
    pub(crate) const fn caches_not_present(self) -> bool {
        self.0 & (1 << 26) != 0
    }

    /// Whether software plays the IOMMU's part. Only for that NpCache is meant (section 3.2.1).
    pub(crate) const fn is_emulated(self) -> bool {
        self.caches_not_present()
    }

    /// EFRSup: there is an extended feature register.
    pub(crate) const fn has_features(self) -> bool {
        self.0 & (1 << 27) != 0
    }

    /// The header as read.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// Why an IOMMU cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The register reads as all ones: nothing answers at the register base.
    NoDevice,
    /// The IOMMU has no table of so many levels; it has tables of at most `most`.
    Levels {
        /// What was wanted.
        wanted: u8,
        /// What there is.
        most: u8,
    },
    /// The IOMMU has no host tables.
    NoHostTables,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDevice => write!(f, "registers read as all ones"),
            Self::Levels { wanted, most } => {
                write!(f, "no tables of {wanted} levels, {most} at most")
            }
            Self::NoHostTables => write!(f, "no host tables"),
        }
    }
}

/// The extended feature register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(u64);

impl Features {
    /// From the register as read; 0 for an IOMMU that has none.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] if nothing answered.
    pub(crate) const fn new(register: u64) -> Result<Self, Error> {
        if register == u64::MAX {
            return Err(Error::NoDevice);
        }
        Ok(Self(register))
    }

    /// The register as read.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// IASup: everything can be invalidated with one command.
    pub(crate) const fn invalidate_all(self) -> bool {
        self.0 & (1 << 6) != 0
    }

    /// HATS: levels of the largest host table, 4 to 6.
    ///
    /// # Errors
    ///
    /// [`Error::NoHostTables`] for the value that is none of them. The kernel's driver takes it so
    /// too (`early_amd_iommu_init()`).
    pub(crate) const fn levels(self) -> Result<u8, Error> {
        match (self.0 >> 10) & 3 {
            0 => Ok(4),
            1 => Ok(5),
            2 => Ok(6),
            _ => Err(Error::NoHostTables),
        }
    }

    /// Levels of the tables of paging domains: as many as `wanted`. `address_bits` is what firmware says
    /// of the addresses that devices may use.
    ///
    /// # Errors
    ///
    /// [`Error::Levels`] if there are no such tables; as [`levels`](Self::levels).
    pub(crate) fn table_levels(self, wanted: u8, address_bits: u8) -> Result<u8, Error> {
        // 4 KiB, and nine bits a level.
        let reached = address_bits.saturating_sub(12) / 9;
        let most = self.levels()?.min(MAX_LEVELS).min(reached);
        if wanted <= most {
            Ok(wanted)
        } else {
            Err(Error::Levels { wanted, most })
        }
    }
}

/// log2 of the pages of a device table with an entry for each id up to `last`.
pub(crate) const fn table_order(last: u16) -> u32 {
    // 128 entries of 32 bytes a page. CAST: widening; `u32::from` is not const.
    let pages = (last as u32 >> 7) + 1;
    pages.next_power_of_two().trailing_zeros()
}
