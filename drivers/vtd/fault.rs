// SPDX-License-Identifier: GPL-2.0

//! Reports of refused DMA: the unit's fault records, taken at its own interrupt.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 7.2
//! (Non-Recoverable Faults).

use crate::{
    fault_record::{
        FaultRecord,
        F_WORD_CLEAR,
        F_WORD_OFFSET, //
    },
    registers::Registers,
    regs::{
        self,
        fectl,
        fsts, //
    },
};
use iommu::{
    irq::MsiHw,
    ratelimit::RateLimit, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// A device that keeps doing what is refused must not fill the log.
const SECONDS: u32 = 5;
const MESSAGES: u32 = 10;

/// The fault log of one unit.
#[pin_data]
pub(crate) struct FaultLog {
    unit: u32,
    segment: u16,
    registers: Arc<Registers>,
    #[pin]
    limit: RateLimit,
    recorded: Atomic<u64>,
    overflows: Atomic<u64>,
}

impl FaultLog {
    /// The log of unit number `unit`. What was recorded before is discarded.
    pub(crate) fn new(unit: u32, segment: u16, registers: Arc<Registers>) -> Result<Arc<Self>> {
        let log = Arc::pin_init(
            pin_init!(Self {
                unit,
                segment,
                registers,
                limit <- RateLimit::new(SECONDS, MESSAGES),
                recorded: Atomic::new(0),
                overflows: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        log.take(|_| ());
        Ok(log)
    }

    /// Refused requests that the unit recorded. It does not record all of a burst.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded.load(Relaxed)
    }

    /// Times that the unit had no room for a record.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Takes all records and clears them. Returns whether records were lost.
    fn take(&self, mut with: impl FnMut(FaultRecord)) -> bool {
        let mmio = self.registers.mmio();
        let caps = self.registers.caps();
        let count = caps.fault_record_count();
        let status = mmio.read32(regs::FSTS);
        let first = fsts::fri(status);
        // From the oldest on, and once around: the unit may add while we read.
        for i in 0..count {
            let index = (first + i) % count;
            let at = caps.fault_record_offset() + index * regs::FRCD_STRIDE;
            let words = [mmio.read64(at), mmio.read64(at + 8)];
            let Some(record) = FaultRecord::decode(self.segment, words) else {
                break;
            };
            mmio.write32(at + F_WORD_OFFSET, F_WORD_CLEAR);
            with(record);
        }
        // Errors of the invalidation queue stand in the same register and are the
        // queue's to clear.
        if status & fsts::PFO != 0 {
            mmio.write32(regs::FSTS, fsts::PFO);
        }
        status & fsts::PFO != 0
    }
}

impl MsiHw for FaultLog {
    fn write_message(&self, address: u64, data: u32) {
        let mmio = self.registers.mmio();
        mmio.write32(regs::FEDATA, data);
        // CAST: the register pair takes the address in two halves.
        mmio.write32(regs::FEADDR, address as u32);
        mmio.write32(regs::FEUADDR, (address >> 32) as u32);
    }

    fn mask(&self) {
        let mmio = self.registers.mmio();
        mmio.write32(regs::FECTL, fectl::IM);
        // The read makes sure that no message is on its way any more.
        let _ = mmio.read32(regs::FECTL);
    }

    fn unmask(&self) {
        let mmio = self.registers.mmio();
        mmio.write32(regs::FECTL, 0);
        let _ = mmio.read32(regs::FECTL);
    }

    fn handle(&self) {
        let lost = self.take(|record| {
            self.recorded.fetch_add(1, Relaxed);
            if self.limit.allows() {
                pr_err!(
                    "vtd{}: DMA fault: {}\n",
                    self.unit,
                    core::format_args!("{record}")
                );
            }
        });
        if lost {
            self.overflows.fetch_add(1, Relaxed);
            if self.limit.allows() {
                pr_err!(
                    "vtd{}: more DMA faults than the unit could record\n",
                    self.unit
                );
            }
        }
    }
}
