// SPDX-License-Identifier: GPL-2.0

//! The registers of one IOMMU.

use crate::{
    ivrs::Flags,
    regs::{
        self,
        control,
        status,
        Features, //
    },
};
use iommu::mmio::Mmio;
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    time::Delta, //
};

/// How long an IOMMU may take to start or stop. The specification names no bound; hardware answers
/// in microseconds.
const TIMEOUT: Delta = Delta::from_secs(1);

/// The same for its event log or its commands alone, which are waited for with interrupts off.
const RESTART_TIMEOUT: Delta = Delta::from_millis(10);

/// Registers of an IOMMU.
#[pin_data]
pub(crate) struct Registers {
    mmio: Mmio,
    features: Features,
    flags: Flags,
    /// 1 from when translation is switched on until it is known to have stopped: what is changed in
    /// memory has to leave the IOMMU's caches. Written with `control` locked, or by who stops it.
    on: Atomic<u32>,
    /// 1 while commands and event log are wanted to run, and are told to go on if they stop.
    /// Written with `control` locked.
    running: Atomic<u32>,
    /// The control register is read and written. Inside every other lock.
    #[pin]
    control: SpinLockIrq<()>,
}

impl Registers {
    /// Takes the registers over, if nobody else has the IOMMU. `has_features`: it has an extended
    /// feature register.
    ///
    /// Errors, each with a message: `EBUSY` if another driver holds the registers or
    /// has translation on; `ENODEV` if nothing answers there.
    pub(crate) fn request(base: u64, flags: Flags, has_features: bool) -> Result<Arc<Self>> {
        let mmio = Mmio::request(base, regs::SPAN, c"rust_amdvi").inspect_err(|e| {
            if *e == EBUSY {
                pr_err!("unit at {base:#x} is held by another driver (boot with amd_iommu=off)\n");
            } else {
                pr_err!("cannot map the unit at {base:#x}: error {}\n", e.to_errno());
            }
        })?;
        let unusable = |e: regs::Error| {
            pr_err!("unit at {base:#x}: {}\n", core::format_args!("{e}"));
            ENODEV
        };
        let now = Features::new(mmio.read64(regs::CONTROL))
            .map_err(unusable)?
            .get();
        if now & control::ENABLE != 0 {
            pr_err!(
                "unit at {base:#x} was left on by firmware or another driver (control {now:#x})\n"
            );
            return Err(EBUSY);
        }
        let features = if has_features {
            Features::new(mmio.read64(regs::FEATURES)).map_err(unusable)?
        } else {
            Features::default()
        };
        Arc::pin_init(
            pin_init!(Self {
                mmio,
                features,
                flags,
                on: Atomic::new(0),
                running: Atomic::new(0),
                control <- new_spinlock_irq!((), "amdvi control"),
            }),
            GFP_KERNEL,
        )
    }

    /// What the IOMMU can do.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// The registers themselves.
    pub(crate) fn mmio(&self) -> &Mmio {
        &self.mmio
    }

    /// Whether the IOMMU may translate, and have things cached: also while it is switched off, and if
    /// it did not stop then. Context: any.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Acquire) != 0
    }

    /// Whether it is to fetch commands and log events. Context: any.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Acquire) != 0
    }

    /// Sets or clears bits of the control register, whose lock the caller has.
    fn change(&self, _guard: &SpinLockIrqGuard<'_, ()>, bits: u64, on: bool) {
        let value = self.mmio.read64(regs::CONTROL);
        let value = if on { value | bits } else { value & !bits };
        self.mmio.write64(regs::CONTROL, value);
    }

    fn wait(&self, timeout: Delta, cond: impl Fn(u32) -> bool) -> Result {
        self.mmio.poll32(regs::STATUS, timeout, cond).map(|_| ())
    }

    /// Tells the IOMMU, which stays off, where its table and its rings are. Both rings are empty.
    ///
    /// Context: may sleep. Errors: `ETIMEDOUT`.
    pub(crate) fn set_up(&self, table: u64, commands: u64, events: u64) -> Result {
        let mmio = &self.mmio;
        mmio.write64(regs::CONTROL, regs::control_off(self.flags));
        self.wait_stopped()?;
        // An exclusion range would pass DMA of every device.
        mmio.write64(regs::EXCLUSION_BASE, 0);
        mmio.write64(regs::DEVICE_TABLE, table);
        mmio.write64(regs::COMMAND_BASE, commands);
        mmio.write64(regs::COMMAND_HEAD, 0);
        mmio.write64(regs::COMMAND_TAIL, 0);
        mmio.write32(regs::STATUS, status::EVENTS);
        mmio.write64(regs::EVENT_BASE, events);
        mmio.write64(regs::EVENT_HEAD, 0);
        mmio.write64(regs::EVENT_TAIL, 0);
        Ok(())
    }

    fn wait_stopped(&self) -> Result {
        let running = status::COMMANDS_RUN | status::EVENT_LOG_RUNS;
        self.wait(TIMEOUT, |s| s & running == 0)
    }

    /// Translation, commands and event log on, at once. Errors: `ETIMEDOUT`; they are off again then,
    /// as far as the IOMMU does that.
    pub(crate) fn enable(&self) -> Result {
        {
            let guard = self.control.lock();
            self.on.store(1, Release);
            self.running.store(1, Release);
            self.change(&guard, regs::CONTROL_ON, true);
        }
        self.wait(TIMEOUT, |s| s & status::COMMANDS_RUN != 0)
            .inspect_err(|_| {
                // It counts as on if this fails too.
                let _ = self.disable();
            })
    }

    /// All of it off. Errors: `ETIMEDOUT`; it counts as on then. Nothing answers its commands any more,
    /// so nothing that it may use is freed.
    pub(crate) fn disable(&self) -> Result {
        {
            let guard = self.control.lock();
            self.running.store(0, Release);
            self.change(&guard, regs::CONTROL_ON, false);
        }
        self.wait_stopped()?;
        self.on.store(0, Release);
        Ok(())
    }

    /// Has the IOMMU go on with its commands, which it has stopped after an error, and waits until it
    /// does: before that it looks as if the next command had stopped it. Context: atomic.
    pub(crate) fn restart_commands(&self) {
        let guard = self.control.lock();
        if !self.is_running() {
            return;
        }
        let head = self.mmio.read64(regs::COMMAND_HEAD);
        self.change(&guard, control::COMMANDS, false);
        self.change(&guard, control::COMMANDS, true);
        // It may have stopped again by now, at a later command.
        let gone_on = self.wait(RESTART_TIMEOUT, |s| {
            s & status::COMMANDS_RUN != 0 || self.mmio.read64(regs::COMMAND_HEAD) != head
        });
        if gone_on.is_err() {
            // No command is to blame: whoever waits runs into the time limit.
            self.running.store(0, Release);
        }
    }

    /// Has the IOMMU go on with its event log, which it has stopped as there was no room. Context:
    /// atomic.
    pub(crate) fn restart_log(&self) {
        let guard = self.control.lock();
        if self.is_running() {
            self.change(&guard, control::EVENT_LOG, false);
            // If it has not stopped there is nothing else to do either.
            let _ = self.wait(RESTART_TIMEOUT, |s| s & status::EVENT_LOG_RUNS == 0);
        }
        self.mmio.write32(regs::STATUS, status::EVENT_OVERFLOW);
        if self.is_running() {
            self.change(&guard, control::EVENT_LOG, true);
        }
    }
}
