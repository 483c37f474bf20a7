// SPDX-License-Identifier: GPL-2.0

//! The event log and its interrupt (specification, section 2.5).
//!
//! The message is that of the IOMMU's own PCI function. It is masked by switching it off; what happens
//! meanwhile is in the log, which the handler reads whole. The IOMMU sends its message when it sets the
//! bit EventLogInt, so never again while the bit stays set.

use crate::{
    commands::Commands,
    driver::AmdVi,
    event::Event,
    registers::Registers,
    regs::{
        self,
        status, //
    },
};
use iommu::{
    entries::Records,
    fault::Reports,
    irq::MsiHw,
    pci::msi::Message,
    queue::Queue,
    ratelimit::RateLimit, //
};
use kernel::{
    bindings::NUMA_NO_NODE,
    prelude::*,
    processor::cpu_relax,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// log2 of the log's pages: 256 records, the fewest there can be.
pub(crate) const ORDER: u32 = 0;
const COUNT: u32 = 256;

/// A device that keeps doing what is refused must not fill the kernel's log.
const SECONDS: u32 = 5;
const MESSAGES: u32 = 10;

/// How often the whole log is looked at for one interrupt, which keeps others waiting.
const PASSES: usize = 8;

/// How often a record is read that is said to be there, but is not yet (erratum 732 of family 15h).
const READS: usize = 10_000;

/// The event log of one IOMMU.
#[pin_data]
pub(crate) struct EventLog {
    unit: u32,
    segment: u16,
    registers: Arc<Registers>,
    queue: Arc<Queue<Commands>>,
    records: Records,
    message: Message,
    #[pin]
    limit: RateLimit,
    #[pin]
    reports: Reports<AmdVi>,
    faults: Atomic<u64>,
    others: Atomic<u64>,
    overflows: Atomic<u64>,
}

impl EventLog {
    /// The log of unit number `unit`. Context: may sleep. Errors: `ENOMEM`.
    pub(crate) fn new(
        unit: u32,
        segment: u16,
        registers: Arc<Registers>,
        queue: Arc<Queue<Commands>>,
        message: Message,
    ) -> Result<Arc<Self>> {
        let records = Records::new(ORDER, NUMA_NO_NODE)?;
        Arc::pin_init(
            pin_init!(Self {
                unit,
                segment,
                registers,
                queue,
                records,
                message,
                limit <- RateLimit::new(SECONDS, MESSAGES),
                reports <- Reports::new(),
                faults: Atomic::new(0),
                others: Atomic::new(0),
                overflows: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Where the log is, for the hardware.
    pub(crate) fn phys(&self) -> u64 {
        self.records.phys()
    }

    /// Requests that the IOMMU has recorded as refused.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Other events.
    pub(crate) fn others(&self) -> u64 {
        self.others.load(Relaxed)
    }

    /// Times that there was no room for a record.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Reports to those who use the devices.
    pub(crate) fn reports(&self) -> &Reports<AmdVi> {
        &self.reports
    }

    /// Takes all records. Only the interrupt handler does, of which one runs at a time.
    fn take(&self) {
        let mmio = self.registers.mmio();
        for _ in 0..PASSES {
            // Before the records are read: what is written later raises an interrupt.
            mmio.write32(regs::STATUS, status::EVENT);
            let tail = regs::index(mmio.read64(regs::EVENT_TAIL), COUNT);
            let mut head = regs::index(mmio.read64(regs::EVENT_HEAD), COUNT);
            while head != tail {
                self.take_one(head as usize);
                head = (head + 1) % COUNT;
                mmio.write64(regs::EVENT_HEAD, regs::position(head));
            }
            let now = mmio.read32(regs::STATUS);
            if now & status::EVENT_OVERFLOW != 0 {
                self.overflows.fetch_add(1, Relaxed);
                if self.limit.allows() {
                    pr_err!(
                        "amdvi{}: more events than the log has room for\n",
                        self.unit
                    );
                }
                self.registers.restart_log();
            }
            if now & status::EVENTS == 0 {
                return;
            }
        }
        // There is more, but others have their turn. The next event interrupts again.
        mmio.write32(regs::STATUS, status::EVENT);
    }

    fn take_one(&self, index: usize) {
        let event = (0..READS).find_map(|_| {
            let event = Event::decode(self.segment, self.records.get(index));
            if event.is_none() {
                cpu_relax();
            }
            event
        });
        // An erased record tells the next one in its place from this one.
        self.records.clear(index);
        let event = event.unwrap_or(Event::Unknown([0, 0]));
        let count = match event {
            Event::Refused { .. } => &self.faults,
            _ => &self.others,
        };
        count.fetch_add(1, Relaxed);
        if let Some(refused) = event.refused() {
            self.reports.report(refused);
        }
        if self.limit.allows() {
            pr_err!("amdvi{}: {}\n", self.unit, core::format_args!("{event}"));
        }
        if event.stops_commands() {
            self.queue.check();
        }
    }
}

impl MsiHw for EventLog {
    fn write_message(&self, address: u64, data: u32) {
        self.message.write(address, data);
    }

    fn mask(&self) {
        self.message.enable(false);
    }

    fn unmask(&self) {
        self.message.enable(true);
        // The bit may have been set while nothing was sent. What was logged then waits for the next
        // event, or for the handler, which runs at once where an interrupt is moved.
        self.registers.mmio().write32(regs::STATUS, status::EVENT);
    }

    fn handle(&self) {
        self.take();
    }
}
