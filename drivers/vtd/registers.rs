// SPDX-License-Identifier: GPL-2.0

//! The registers of one unit, and its global commands.

use crate::{
    caps::{
        self,
        Capabilities, //
    },
    regs::{
        self,
        gcmd,
        pmen, //
    },
};
use iommu::mmio::Mmio;
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
    time::Delta, //
};

/// How long a unit may take for a global command. The specification names no bound;
/// hardware answers in microseconds.
const COMMAND_TIMEOUT: Delta = Delta::from_secs(1);

/// What is mapped to read the capabilities, which tell how long the rest is.
const FIRST_PAGE: usize = 4096;

/// Registers of a unit.
#[pin_data]
pub(crate) struct Registers {
    mmio: Mmio,
    caps: Capabilities,
    /// GCMD_REG takes one command at a time, and repeats the lasting bits of
    /// GSTS_REG. Inside every other lock.
    #[pin]
    command: SpinLockIrq<()>,
}

impl Registers {
    /// Takes the registers over, if nobody else has the unit.
    ///
    /// Errors, each with a message: `EBUSY` if another driver holds the registers or
    /// has remapping on; `ENODEV` if nothing answers there.
    pub(crate) fn request(base: u64) -> Result<Arc<Self>> {
        let map = |len| {
            Mmio::request(base, len, c"rust_vtd").inspect_err(|e| {
                if *e == EBUSY {
                    pr_err!("unit at {base:#x} is held by another driver (boot with intel_iommu=off intremap=off)\n");
                } else {
                    pr_err!("cannot map the unit at {base:#x}: error {}\n", e.to_errno());
                }
            })
        };
        let mut mmio = map(FIRST_PAGE)?;
        let caps = Capabilities::new(mmio.read64(regs::CAP), mmio.read64(regs::ECAP)).map_err(
            |e: caps::Error| {
                pr_err!("unit at {base:#x}: {}\n", core::format_args!("{e}"));
                ENODEV
            },
        )?;
        let status = mmio.read32(regs::GSTS);
        if status & (regs::gsts::TES | regs::gsts::IRES | regs::gsts::QIES) != 0 {
            pr_err!("unit at {base:#x} is in use already (status {status:#x}); boot with intel_iommu=off intremap=off\n");
            return Err(EBUSY);
        }
        let span = caps.register_span().next_multiple_of(FIRST_PAGE);
        if span > mmio.len() {
            drop(mmio);
            mmio = map(span)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                mmio,
                caps,
                command <- new_spinlock_irq!((), "vtd global command"),
            }),
            GFP_KERNEL,
        )
    }

    /// What the unit can do.
    pub(crate) fn caps(&self) -> &Capabilities {
        &self.caps
    }

    /// The registers themselves.
    pub(crate) fn mmio(&self) -> &Mmio {
        &self.mmio
    }

    /// Gives a command that switches a lasting bit on or off, and waits for GSTS_REG
    /// to show it. Context: atomic. Errors: `ETIMEDOUT`.
    fn switch(&self, bit: u32, on: bool) -> Result {
        let _guard = self.command.lock();
        let status = self.mmio.read32(regs::GSTS);
        if (status & bit != 0) == on {
            return Ok(());
        }
        let command = if on {
            gcmd::set(status, bit)
        } else {
            gcmd::clear(status, bit)
        };
        self.mmio.write32(regs::GCMD, command);
        self.mmio
            .poll32(regs::GSTS, COMMAND_TIMEOUT, |s| (s & bit != 0) == on)?;
        Ok(())
    }

    /// Translation on or off. Errors: `ETIMEDOUT`.
    pub(crate) fn translation(&self, on: bool) -> Result {
        self.switch(gcmd::TE, on)
    }

    /// Starts the invalidation queue in the ring at `base`, of `2^order` pages, empty.
    /// Errors: `ETIMEDOUT`.
    pub(crate) fn start_queue(&self, base: u64, order: u64) -> Result {
        self.mmio.write64(regs::IQT, 0);
        self.mmio.write64(
            regs::IQA,
            (base & regs::iq::ADDRESS_MASK) | (order & regs::iq::SIZE_MASK),
        );
        self.switch(gcmd::QIE, true)
    }

    /// Stops the invalidation queue. Errors: `ETIMEDOUT`.
    pub(crate) fn stop_queue(&self) -> Result {
        self.switch(gcmd::QIE, false)
    }

    /// Points the unit at a root table. Caches are the caller's to invalidate.
    /// Errors: `ETIMEDOUT`.
    pub(crate) fn set_root(&self, phys: u64) -> Result {
        self.mmio.write64(regs::RTADDR, phys);
        let _guard = self.command.lock();
        let status = self.mmio.read32(regs::GSTS);
        self.mmio.write32(regs::GCMD, gcmd::set(status, gcmd::SRTP));
        self.mmio
            .poll32(regs::GSTS, COMMAND_TIMEOUT, |s| s & regs::gsts::RTPS != 0)?;
        Ok(())
    }

    /// Makes stores to tables visible to a unit that buffers them (CAP_REG.RWBF);
    /// nothing to do for others. Context: atomic. Errors: `ETIMEDOUT`.
    #[inline]
    pub(crate) fn flush_write_buffer(&self) -> Result {
        if self.caps.write_buffer_flush() {
            self.flush_present_write_buffer()
        } else {
            Ok(())
        }
    }

    #[cold]
    fn flush_present_write_buffer(&self) -> Result {
        let _guard = self.command.lock();
        let status = self.mmio.read32(regs::GSTS);
        self.mmio.write32(regs::GCMD, gcmd::set(status, gcmd::WBF));
        self.mmio
            .poll32(regs::GSTS, COMMAND_TIMEOUT, |s| s & regs::gsts::WBFS == 0)?;
        Ok(())
    }

    /// Opens memory that firmware had closed for DMA until translation is on.
    /// Errors: `ETIMEDOUT`.
    pub(crate) fn open_protected_memory(&self) -> Result {
        if !self.caps.protected_low() && !self.caps.protected_high() {
            return Ok(());
        }
        let value = self.mmio.read32(regs::PMEN);
        if value & pmen::EPM == 0 {
            return Ok(());
        }
        self.mmio.write32(regs::PMEN, value & !pmen::EPM);
        self.mmio
            .poll32(regs::PMEN, COMMAND_TIMEOUT, |v| v & pmen::PRS == 0)?;
        Ok(())
    }
}
