// SPDX-License-Identifier: GPL-2.0

//! What a remapping unit can do: typed views of its capability registers, and the choices that
//! follow from them.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, sections 11.4.2 (CAP_REG) and
//! 11.4.3 (ECAP_REG).
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

#![allow(
    dead_code,
    reason = "the view names every field of legacy mode, used yet or not"
)]

use core::fmt;

/// Size in bytes of the IVA and IOTLB register pair at [`Capabilities::iotlb_offset`].
const IOTLB_SIZE: usize = 16;
/// Size in bytes of one fault recording register.
const FAULT_RECORD_SIZE: usize = 16;
/// End of the registers with fixed offsets that legacy mode uses.
const FIXED_REGISTERS_END: usize = 0xc0;

/// Why a unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// Both registers read as all ones: nothing answers at the register base.
    NoDevice,
    /// No second-stage table of at most `limit` bits exists; the unit's SAGAW field is `sagaw`.
    NoAddressWidth {
        /// The largest width the caller allows, in bits.
        limit: u32,
        /// The Supported Adjusted Guest Address Widths field.
        sagaw: u8,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDevice => write!(f, "capability registers read as all ones"),
            Self::NoAddressWidth { limit, sagaw } => write!(
                f,
                "no second-stage table of at most {limit} bits (SAGAW {sagaw:#x})"
            ),
        }
    }
}

/// A second-stage page-table format (section 3.7, Second-Stage Translation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    /// 39 bits, 3 levels.
    Bits39,
    /// 48 bits, 4 levels.
    Bits48,
    /// 57 bits, 5 levels.
    Bits57,
}

impl Width {
    const ALL: [Self; 3] = [Self::Bits39, Self::Bits48, Self::Bits57];

    /// Bits of an I/O virtual address that the table translates.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Bits39 => 39,
            Self::Bits48 => 48,
            Self::Bits57 => 57,
        }
    }

    /// Number of table levels.
    pub(crate) const fn levels(self) -> u32 {
        match self {
            Self::Bits39 => 3,
            Self::Bits48 => 4,
            Self::Bits57 => 5,
        }
    }

    /// The Address Width field of a context entry, and the bit number in SAGAW (section 9.3).
    pub(crate) const fn aw(self) -> u8 {
        match self {
            Self::Bits39 => 1,
            Self::Bits48 => 2,
            Self::Bits57 => 3,
        }
    }

    /// `top_level` of generic_pt's VTDSS format: levels count from 0 at the leaf table.
    pub(crate) const fn top_level(self) -> u8 {
        self.aw() + 1
    }

    /// From the Address Width field of a context entry.
    pub(crate) fn from_aw(aw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|width| width.aw() == aw)
    }
}

/// The capability and extended capability registers of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    cap: u64,
    ecap: u64,
}

/// `count` bits of `value` from bit `low` up.
const fn field(value: u64, low: u32, count: u32) -> u64 {
    (value >> low) & ((1 << count) - 1)
}

impl Capabilities {
    /// From the two registers as read.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] if nothing answered.
    pub(crate) const fn new(cap: u64, ecap: u64) -> Result<Self, Error> {
        if cap == u64::MAX && ecap == u64::MAX {
            return Err(Error::NoDevice);
        }
        Ok(Self { cap, ecap })
    }

    /// CAP_REG as read.
    pub(crate) const fn cap(&self) -> u64 {
        self.cap
    }

    /// ECAP_REG as read.
    pub(crate) const fn ecap(&self) -> u64 {
        self.ecap
    }

    const fn cap_bit(&self, bit: u32) -> bool {
        field(self.cap, bit, 1) != 0
    }

    const fn ecap_bit(&self, bit: u32) -> bool {
        field(self.ecap, bit, 1) != 0
    }

    /// ND: number of domain ids, 16 to 65536. The reserved encoding 7 counts as the largest.
    pub(crate) const fn domain_count(&self) -> u32 {
        // CAST: a field of 3 bits.
        let nd = field(self.cap, 0, 3) as u32;
        1 << (4 + 2 * if nd > 6 { 6 } else { nd })
    }

    /// AFL: advanced fault logging in memory.
    pub(crate) const fn advanced_fault_log(&self) -> bool {
        self.cap_bit(3)
    }

    /// RWBF: software must flush the write buffer after changes of remapping structures in memory.
    pub(crate) const fn write_buffer_flush(&self) -> bool {
        self.cap_bit(4)
    }

    /// PLMR: protected low-memory region.
    pub(crate) const fn protected_low(&self) -> bool {
        self.cap_bit(5)
    }

    /// PHMR: protected high-memory region.
    pub(crate) const fn protected_high(&self) -> bool {
        self.cap_bit(6)
    }

    /// CM: the unit caches not-present and faulty entries too (section 6.1).
    pub(crate) const fn caching_mode(&self) -> bool {
        self.cap_bit(7)
    }

    /// SAGAW: bit 1, 2, 3 for tables of 39, 48, 57 bits.
    pub(crate) const fn sagaw(&self) -> u8 {
        // CAST: a field of 5 bits.
        field(self.cap, 8, 5) as u8
    }

    /// MGAW: bits of the largest DMA address the unit lets through, 1 to 64.
    pub(crate) const fn mgaw(&self) -> u32 {
        // CAST: a field of 6 bits.
        field(self.cap, 16, 6) as u32 + 1
    }

    /// ZLR: zero-length reads of write-only pages are let through.
    pub(crate) const fn zero_length_read(&self) -> bool {
        self.cap_bit(22)
    }

    /// FRO: offset in bytes of the first fault recording register.
    pub(crate) const fn fault_record_offset(&self) -> usize {
        // CAST: a field of 10 bits.
        field(self.cap, 24, 10) as usize * 16
    }

    /// SLLPS: second-stage 2 MiB pages.
    pub(crate) const fn pages_2m(&self) -> bool {
        self.cap_bit(34)
    }

    /// SLLPS: second-stage 1 GiB pages.
    pub(crate) const fn pages_1g(&self) -> bool {
        self.cap_bit(35)
    }

    /// All second-stage page sizes, as a bitmap of sizes in bytes.
    pub(crate) const fn page_sizes(&self) -> u64 {
        let mut sizes = 1 << 12;
        if self.pages_2m() {
            sizes |= 1 << 21;
        }
        if self.pages_1g() {
            sizes |= 1 << 30;
        }
        sizes
    }

    /// PSI: page-selective invalidation.
    pub(crate) const fn page_selective(&self) -> bool {
        self.cap_bit(39)
    }

    /// NFR: number of fault recording registers, 1 to 256.
    pub(crate) const fn fault_record_count(&self) -> usize {
        // CAST: a field of 8 bits.
        field(self.cap, 40, 8) as usize + 1
    }

    /// MAMV: log2 of the most 4 KiB pages one page-selective invalidation names, or `None`
    /// without page-selective invalidation. The value `iommu::invalidation` plans with.
    pub(crate) const fn max_block_order(&self) -> Option<u32> {
        if self.page_selective() {
            // CAST: a field of 6 bits.
            Some(field(self.cap, 48, 6) as u32)
        } else {
            None
        }
    }

    /// DWD: an invalidation can wait for writes that were translated before it.
    pub(crate) const fn drain_writes(&self) -> bool {
        self.cap_bit(54)
    }

    /// DRD: an invalidation can wait for reads that were translated before it.
    pub(crate) const fn drain_reads(&self) -> bool {
        self.cap_bit(55)
    }

    /// ESRTPS: setting the root table pointer also invalidates all caches (section 6.6).
    pub(crate) const fn set_root_invalidates(&self) -> bool {
        self.cap_bit(63)
    }

    /// C: the unit's walks of root, context and page tables snoop processor caches.
    pub(crate) const fn coherent(&self) -> bool {
        self.ecap_bit(0)
    }

    /// QI: queued invalidation.
    pub(crate) const fn queued_invalidation(&self) -> bool {
        self.ecap_bit(1)
    }

    /// DT: device-TLBs (address translation services).
    pub(crate) const fn device_tlb(&self) -> bool {
        self.ecap_bit(2)
    }

    /// IR: interrupt remapping.
    pub(crate) const fn interrupt_remapping(&self) -> bool {
        self.ecap_bit(3)
    }

    /// EIM: 32-bit APIC ids in interrupt remapping.
    pub(crate) const fn extended_interrupt_mode(&self) -> bool {
        self.ecap_bit(4)
    }

    /// PT: context entries of the pass-through type.
    pub(crate) const fn pass_through(&self) -> bool {
        self.ecap_bit(6)
    }

    /// SC: second-stage entries can force snooping.
    pub(crate) const fn snoop_control(&self) -> bool {
        self.ecap_bit(7)
    }

    /// IRO: offset in bytes of the IVA register; the IOTLB register follows it.
    pub(crate) const fn iotlb_offset(&self) -> usize {
        // CAST: a field of 10 bits.
        field(self.ecap, 8, 10) as usize * 16
    }

    /// SMTS: scalable-mode translation.
    pub(crate) const fn scalable_mode(&self) -> bool {
        self.ecap_bit(43)
    }

    /// Bytes from the register base to the end of the last register legacy mode uses.
    pub(crate) const fn register_span(&self) -> usize {
        let faults = self.fault_record_offset() + self.fault_record_count() * FAULT_RECORD_SIZE;
        let iotlb = self.iotlb_offset() + IOTLB_SIZE;
        let mut span = FIXED_REGISTERS_END;
        if faults > span {
            span = faults;
        }
        if iotlb > span {
            span = iotlb;
        }
        span
    }

    fn widths(&self) -> impl DoubleEndedIterator<Item = Width> {
        let sagaw = self.sagaw();
        Width::ALL
            .into_iter()
            .filter(move |width| (sagaw >> width.aw()) & 1 != 0)
    }

    /// The table format for paging domains of at most `limit` bits: the smallest that reaches
    /// every address the unit lets through, else the largest there is. A larger one would only add
    /// a level to each walk.
    ///
    /// # Errors
    ///
    /// [`Error::NoAddressWidth`] if the unit has no table that small.
    pub(crate) fn address_width(&self, limit: u32) -> Result<Width, Error> {
        let allowed = || self.widths().filter(|width| width.bits() <= limit);
        let useful = self.mgaw().min(limit);
        allowed()
            .find(|width| width.bits() >= useful)
            .or_else(|| allowed().next_back())
            .ok_or(Error::NoAddressWidth {
                limit,
                sagaw: self.sagaw(),
            })
    }

    /// The format that pass-through context entries must name: the largest (section 9.3, AW).
    ///
    /// # Errors
    ///
    /// [`Error::NoAddressWidth`] if the unit supports none that this driver knows.
    pub(crate) fn pass_through_width(&self) -> Result<Width, Error> {
        self.widths().next_back().ok_or(Error::NoAddressWidth {
            limit: Width::Bits57.bits(),
            sagaw: self.sagaw(),
        })
    }

    /// Bits of the addresses a domain with this table can use: what both table and unit take.
    pub(crate) fn iova_bits(&self, width: Width) -> u32 {
        width.bits().min(self.mgaw())
    }

    /// Last address, inclusive, that a domain with this table can use.
    pub(crate) fn iova_last(&self, width: Width) -> u64 {
        // At most 57 bits, so the shift cannot overflow.
        (1 << self.iova_bits(width)) - 1
    }
}
