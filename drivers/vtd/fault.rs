// SPDX-License-Identifier: GPL-2.0

//! Reports of refused DMA: the unit's fault records, taken at its own interrupt.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, section 7.2
//! (Non-Recoverable Faults).

use crate::{
    driver::Vtd,
    fault_record::{
        FaultRecord,
        F_WORD_CLEAR,
        F_WORD_OFFSET, //
    },
    qi::Qi,
    registers::Registers,
    regs::{
        self,
        fectl,
        fsts, //
    },
};
use iommu::{
    fault::Reports,
    irq::MsiHw,
    queue::Queue,
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

/// How often all records are looked at for one interrupt, some milliseconds in all.
const PASSES: usize = 1000;

/// The fault log of one unit.
#[pin_data]
pub(crate) struct FaultLog {
    unit: u32,
    segment: u16,
    registers: Arc<Registers>,
    queue: Arc<Queue<Qi>>,
    #[pin]
    limit: RateLimit,
    #[pin]
    reports: Reports<Vtd>,
    recorded: Atomic<u64>,
    overflows: Atomic<u64>,
}

impl FaultLog {
    /// The log of unit number `unit`. Errors: `ENOMEM`.
    pub(crate) fn new(
        unit: u32,
        segment: u16,
        registers: Arc<Registers>,
        queue: Arc<Queue<Qi>>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                unit,
                segment,
                registers,
                queue,
                limit <- RateLimit::new(SECONDS, MESSAGES),
                reports <- Reports::new(),
                recorded: Atomic::new(0),
                overflows: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Discards what was recorded before the unit was taken over.
    pub(crate) fn discard(&self) {
        self.take(|_| ());
        self.registers.mmio().write32(regs::FSTS, fsts::ALL);
    }

    /// Refused requests that the unit recorded. It does not record all of a burst.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded.load(Relaxed)
    }

    /// Times that the unit had no room for a record.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Reports to those who use the devices.
    pub(crate) fn reports(&self) -> &Reports<Vtd> {
        &self.reports
    }

    /// Takes all records and clears them, until the unit has nothing more to report:
    /// it sends an interrupt only when the first of its status bits appears. Returns
    /// how often records were lost.
    fn take(&self, mut with: impl FnMut(FaultRecord)) -> u64 {
        let mmio = self.registers.mmio();
        let count = self.registers.caps().fault_record_count();
        let mut lost = 0;
        for _ in 0..PASSES {
            let status = mmio.read32(regs::FSTS);
            if status & (fsts::PPF | fsts::PFO) == 0 {
                return lost;
            }
            let first = fsts::fri(status);
            // Oldest first, and every record once: the unit fills them in a ring.
            for i in 0..count {
                self.take_one((first + i) % count, &mut with);
            }
            // Only after the records have room again.
            if status & fsts::PFO != 0 {
                mmio.write32(regs::FSTS, fsts::PFO);
                lost += 1;
            }
        }
        pr_err!(
            "vtd{}: DMA faults come faster than they can be read: no more reports\n",
            self.unit
        );
        lost
    }

    fn take_one(&self, index: usize, with: &mut impl FnMut(FaultRecord)) {
        let mmio = self.registers.mmio();
        let at = self.registers.caps().fault_record_offset() + index * regs::FRCD_STRIDE;
        let words = [mmio.read64(at), mmio.read64(at + 8)];
        if let Some(record) = FaultRecord::decode(self.segment, words) {
            mmio.write32(at + F_WORD_OFFSET, F_WORD_CLEAR);
            with(record);
        }
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
        // Errors of the queue raise the same interrupt, and while one stands no fault
        // raises another.
        self.queue.check();
        let lost = self.take(|record| {
            self.recorded.fetch_add(1, Relaxed);
            if let Some(refused) = record.refused() {
                self.reports.report(refused);
            }
            if self.limit.allows() {
                pr_err!(
                    "vtd{}: DMA fault: {}\n",
                    self.unit,
                    core::format_args!("{record}")
                );
            }
        });
        if lost > 0 {
            self.overflows.fetch_add(lost, Relaxed);
            if self.limit.allows() {
                pr_err!(
                    "vtd{}: more DMA faults than the unit could record\n",
                    self.unit
                );
            }
        }
    }
}
