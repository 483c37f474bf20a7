// SPDX-License-Identifier: GPL-2.0

//! Register offsets and bits of a remapping unit, in the specification's spelling.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 11.4 (Register
//! Descriptions). Offsets are in bytes from the unit's register base.
//!
//! This file is pure: constants only. It is also built and tested on the host.

#![allow(
    dead_code,
    reason = "the list names every register of legacy mode, used yet or not"
)]

/// Version Register, 32 bits (section 11.4.1).
pub(crate) const VER: usize = 0x00;
/// Capability Register, 64 bits (section 11.4.2).
pub(crate) const CAP: usize = 0x08;
/// Extended Capability Register, 64 bits (section 11.4.3).
pub(crate) const ECAP: usize = 0x10;
/// Global Command Register, 32 bits; write with [`gcmd`].
pub(crate) const GCMD: usize = 0x18;
/// Global Status Register, 32 bits; bits in [`gsts`].
pub(crate) const GSTS: usize = 0x1c;
/// Root Table Address Register, 64 bits. Bits 11:10 (TTM) are 0 in legacy mode.
pub(crate) const RTADDR: usize = 0x20;
/// Context Command Register, 64 bits; bits in [`ccmd`].
pub(crate) const CCMD: usize = 0x28;
/// Fault Status Register, 32 bits; bits in [`fsts`].
pub(crate) const FSTS: usize = 0x34;
/// Fault Event Control Register, 32 bits; bits in [`fectl`].
pub(crate) const FECTL: usize = 0x38;
/// Fault Event Data Register, 32 bits: data of the message signalled interrupt.
pub(crate) const FEDATA: usize = 0x3c;
/// Fault Event Address Register, 32 bits: its address.
pub(crate) const FEADDR: usize = 0x40;
/// Fault Event Upper Address Register, 32 bits: the upper half of its address.
pub(crate) const FEUADDR: usize = 0x44;
/// Protected Memory Enable Register, 32 bits; bits in [`pmen`].
pub(crate) const PMEN: usize = 0x64;
/// Protected Low-Memory Base Register, 32 bits.
pub(crate) const PLMBASE: usize = 0x68;
/// Protected Low-Memory Limit Register, 32 bits.
pub(crate) const PLMLIMIT: usize = 0x6c;
/// Protected High-Memory Base Register, 64 bits.
pub(crate) const PHMBASE: usize = 0x70;
/// Protected High-Memory Limit Register, 64 bits.
pub(crate) const PHMLIMIT: usize = 0x78;
/// Invalidation Queue Head Register, 64 bits: [`iq::POSITION_SHIFT`].
pub(crate) const IQH: usize = 0x80;
/// Invalidation Queue Tail Register, 64 bits: [`iq::POSITION_SHIFT`].
pub(crate) const IQT: usize = 0x88;
/// Invalidation Queue Address Register, 64 bits: [`iq::SIZE_MASK`].
pub(crate) const IQA: usize = 0x90;
/// Invalidation Completion Status Register, 32 bits; bits in [`ics`].
pub(crate) const ICS: usize = 0x9c;
/// Invalidation Event Control Register, 32 bits; bits as in [`fectl`].
pub(crate) const IECTL: usize = 0xa0;
/// Invalidation Event Data Register, 32 bits.
pub(crate) const IEDATA: usize = 0xa4;
/// Invalidation Event Address Register, 32 bits.
pub(crate) const IEADDR: usize = 0xa8;
/// Invalidation Event Upper Address Register, 32 bits.
pub(crate) const IEUADDR: usize = 0xac;
/// Invalidation Queue Error Record Register, 64 bits; fields in [`iqercd`].
pub(crate) const IQERCD: usize = 0xb0;
/// Interrupt Remapping Table Address Register, 64 bits.
pub(crate) const IRTA: usize = 0xb8;

/// From `Capabilities::iotlb_offset()`: Invalidate Address Register, 64 bits.
pub(crate) const IVA_FROM_IRO: usize = 0x0;
/// From `Capabilities::iotlb_offset()`: IOTLB Invalidate Register, 64 bits; bits in [`iotlb`].
pub(crate) const IOTLB_FROM_IRO: usize = 0x8;
/// Distance of two fault recording registers; the first is at
/// `Capabilities::fault_record_offset()`.
pub(crate) const FRCD_STRIDE: usize = 16;

/// VER_REG (section 11.4.1).
pub(crate) mod ver {
    /// Major version.
    pub(crate) const fn major(ver: u32) -> u32 {
        (ver >> 4) & 0xf
    }

    /// Minor version.
    pub(crate) const fn minor(ver: u32) -> u32 {
        ver & 0xf
    }
}

/// GCMD_REG: what to write.
///
/// The register has bits that stay (TE, EAFL, QIE, IRE, CFI) and bits that start one operation.
/// One write may change one bit, and the value to start from is GSTS_REG without the bits of
/// one-time operations. [`set`](gcmd::set) and [`clear`](gcmd::clear) give the value.
pub(crate) mod gcmd {
    /// Translation Enable.
    pub(crate) const TE: u32 = 1 << 31;
    /// Set Root Table Pointer, one-time.
    pub(crate) const SRTP: u32 = 1 << 30;
    /// Set Fault Log, one-time.
    pub(crate) const SFL: u32 = 1 << 29;
    /// Enable Advanced Fault Logging.
    pub(crate) const EAFL: u32 = 1 << 28;
    /// Write Buffer Flush, one-time.
    pub(crate) const WBF: u32 = 1 << 27;
    /// Queued Invalidation Enable.
    pub(crate) const QIE: u32 = 1 << 26;
    /// Interrupt Remapping Enable.
    pub(crate) const IRE: u32 = 1 << 25;
    /// Set Interrupt Remap Table Pointer, one-time.
    pub(crate) const SIRTP: u32 = 1 << 24;
    /// Compatibility Format Interrupt.
    pub(crate) const CFI: u32 = 1 << 23;

    const LASTING: u32 = TE | EAFL | QIE | IRE | CFI;

    /// The value that sets `bit` and leaves everything else, from GSTS_REG as read.
    pub(crate) const fn set(gsts: u32, bit: u32) -> u32 {
        (gsts & LASTING) | bit
    }

    /// The value that clears `bit` and leaves everything else, from GSTS_REG as read.
    pub(crate) const fn clear(gsts: u32, bit: u32) -> u32 {
        gsts & LASTING & !bit
    }
}

/// GSTS_REG: each bit answers the bit of [`gcmd`] in the same place.
pub(crate) mod gsts {
    /// Translation Enable Status.
    pub(crate) const TES: u32 = 1 << 31;
    /// Root Table Pointer Status.
    pub(crate) const RTPS: u32 = 1 << 30;
    /// Fault Log Status.
    pub(crate) const FLS: u32 = 1 << 29;
    /// Advanced Fault Logging Status.
    pub(crate) const AFLS: u32 = 1 << 28;
    /// Write Buffer Flush Status: 1 while the flush runs.
    pub(crate) const WBFS: u32 = 1 << 27;
    /// Queued Invalidation Enable Status.
    pub(crate) const QIES: u32 = 1 << 26;
    /// Interrupt Remapping Enable Status.
    pub(crate) const IRES: u32 = 1 << 25;
    /// Interrupt Remapping Table Pointer Status.
    pub(crate) const IRTPS: u32 = 1 << 24;
    /// Compatibility Format Interrupt Status.
    pub(crate) const CFIS: u32 = 1 << 23;
}

/// CCMD_REG: context-cache invalidation without a queue.
pub(crate) mod ccmd {
    /// Invalidate Context-Cache: 1 starts it, reads 1 until it is done.
    pub(crate) const ICC: u64 = 1 << 63;
    /// Context Invalidation Request Granularity: everything.
    pub(crate) const GLOBAL: u64 = 1 << 61;
}

/// The IOTLB Invalidate Register: IOTLB invalidation without a queue.
pub(crate) mod iotlb {
    /// Invalidate IOTLB: 1 starts it, reads 1 until it is done.
    pub(crate) const IVT: u64 = 1 << 63;
    /// IOTLB Invalidation Request Granularity: everything.
    pub(crate) const GLOBAL: u64 = 1 << 60;
    /// Drain Reads.
    pub(crate) const DR: u64 = 1 << 49;
    /// Drain Writes.
    pub(crate) const DW: u64 = 1 << 48;
}

/// FSTS_REG. The error bits are cleared by writing 1, except PPF, which follows the F bits of the
/// fault records.
pub(crate) mod fsts {
    /// Primary Fault Overflow: faults were lost.
    pub(crate) const PFO: u32 = 1 << 0;
    /// Primary Pending Fault: some fault record holds a fault.
    pub(crate) const PPF: u32 = 1 << 1;
    /// Advanced Fault Overflow.
    pub(crate) const AFO: u32 = 1 << 2;
    /// Advanced Pending Fault.
    pub(crate) const APF: u32 = 1 << 3;
    /// Invalidation Queue Error: the queue stopped at a bad descriptor.
    pub(crate) const IQE: u32 = 1 << 4;
    /// Invalidation Completion Error: a device answered wrongly.
    pub(crate) const ICE: u32 = 1 << 5;
    /// Invalidation Time-out Error: a device did not answer.
    pub(crate) const ITE: u32 = 1 << 6;

    /// Every bit that is cleared by writing 1.
    pub(crate) const ALL: u32 = PFO | AFO | APF | QUEUE_ERRORS;

    /// All invalidation errors. Each one stops the queue until it is cleared.
    pub(crate) const QUEUE_ERRORS: u32 = IQE | ICE | ITE;

    /// Fault Record Index: the record that held the first pending fault when PPF became 1.
    pub(crate) const fn fri(fsts: u32) -> usize {
        // CAST: a field of 8 bits.
        ((fsts >> 8) & 0xff) as usize
    }
}

/// FECTL_REG.
pub(crate) mod fectl {
    /// Interrupt Mask.
    pub(crate) const IM: u32 = 1 << 31;
    /// Interrupt Pending, read-only.
    pub(crate) const IP: u32 = 1 << 30;
}

/// PMEN_REG.
pub(crate) mod pmen {
    /// Enable Protected Memory.
    pub(crate) const EPM: u32 = 1 << 31;
    /// Protected Region Status: 1 while regions are protected.
    pub(crate) const PRS: u32 = 1 << 0;
}

/// IQH_REG, IQT_REG and IQA_REG.
pub(crate) mod iq {
    /// Head and tail hold the index of a 128-bit descriptor from this bit up: they are offsets in
    /// bytes from the queue's start.
    pub(crate) const POSITION_SHIFT: u32 = 4;
    /// IQA.QS: the queue has 2^QS pages of 256 descriptors. IQA.DW (bit 11) stays 0: descriptors
    /// of 128 bits.
    pub(crate) const SIZE_MASK: u64 = 0x7;
    /// IQA.IQA: physical address of the queue.
    pub(crate) const ADDRESS_MASK: u64 = !0xfff;
}

/// ICS_REG.
pub(crate) mod ics {
    /// Invalidation Wait Descriptor Complete; cleared by writing 1.
    pub(crate) const IWC: u32 = 1 << 0;
}

/// IQERCD_REG: why the queue stopped.
pub(crate) mod iqercd {
    /// Invalidation Queue Error Info: why IQE was set.
    pub(crate) const fn iqei(iqercd: u64) -> u8 {
        // CAST: a field of 4 bits.
        (iqercd & 0xf) as u8
    }

    /// Requester id of the device that did not answer (ITE).
    pub(crate) const fn itesid(iqercd: u64) -> u16 {
        // CAST: a field of 16 bits.
        (iqercd >> 32) as u16
    }

    /// Requester id of the device that answered wrongly (ICE).
    pub(crate) const fn icesid(iqercd: u64) -> u16 {
        // CAST: a field of 16 bits.
        (iqercd >> 48) as u16
    }
}
