// SPDX-License-Identifier: GPL-2.0

//! Flushes by number, and the timer that bounds how long they can be put off.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! The *epoch* is the number of the last flush that was started, *flushed* that of the last one that
//! was completed. Who clears an entry and then reads the epoch as `e` knows that every flush with a
//! higher number starts after the entry was cleared. So what carries the stamp `e` may be reused once
//! `flushed > e`. Not at `flushed == e`: that flush may have been under way already.
//!
//! This holds because both sides write, then read what the other one writes, with a full barrier
//! between: entry, epoch here; epoch, entry (the hardware's walk after the flush) there.

use super::word::{Line, Word};

/// What a window asks of those who use it.
pub trait Hardware {
    /// Why a flush failed.
    type Error;

    /// Removes from all caches of the hardware what they hold of the window.
    ///
    /// It must not begin before it is called, and must be over when it returns `Ok`. Called within
    /// [`Hardware::exclusively`] only.
    ///
    /// Errors: the hardware did not confirm. Nothing is reused on account of this flush.
    fn flush(&self) -> Result<(), Self::Error>;

    /// Calls `f` while nobody else has it called: a lock that may be taken wherever the window is
    /// used (in the kernel: with interrupts off). It makes those who need a flush wait for one that
    /// somebody else has begun, instead of each making one; correctness does not rest on that. But what is
    /// kept is cleared within it, so that who has been in it knows that all of that has gone.
    fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R;

    /// [`Hardware::exclusively`], but `None` if somebody else is within.
    fn exclusively_if_free<R>(&self, f: impl FnOnce() -> R) -> Option<R>;

    /// Starts the timer that calls [`Clock::expire`] after the maximum age. Called by an unmap,
    /// once for each time that the timer is needed; that it runs already does no harm.
    fn start_timer(&self);

    /// Calls `f`, which is short and has others wait for it, without putting it aside half done (in the
    /// kernel: with preemption off). Correctness does not rest on it.
    #[inline]
    fn promptly<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// Passes the time while another CPU has a few instructions to go.
    fn relax(&self);
}

/// No timer runs: the next unmap has one started.
const IDLE: u64 = 0;
/// A timer runs, or is about to be started by whoever wrote this.
const ARMED: u64 = 1;
/// There is no maximum age.
const OFF: u64 = 2;

/// The flushes of one window.
///
/// # Invariants
///
/// `1 <= flushed <= epoch`; neither ever falls. A flush with the number `flushed` or a lower one was
/// completed, or its entries were covered by one with a higher number.
#[derive(Debug)]
pub struct Clock<W> {
    /// Read by every map or unmap, written by flushes.
    shared: Line<Shared<W>>,
    /// Written exclusively.
    failed: W,
}

#[derive(Debug)]
struct Shared<W> {
    epoch: W,
    flushed: W,
    timer: W,
}

impl<W: Word> Clock<W> {
    /// Makes a clock; `ageing` says whether there is a maximum age.
    pub fn new(ageing: bool) -> Self {
        // INVARIANT: stamp 0, that of pages never used, is below `flushed`.
        Self {
            shared: Line(Shared {
                epoch: W::new(1),
                flushed: W::new(1),
                timer: W::new(if ageing { IDLE } else { OFF }),
            }),
            failed: W::new(0),
        }
    }

    /// Returns the stamp for what was cleared before, by a full operation.
    #[inline]
    pub fn epoch(&self) -> u64 {
        // Before the timer's state is read: who sees a flush of an expired timer also sees that the
        // timer is idle.
        self.shared.0.epoch.load_acquire()
    }

    /// Returns the number of the last completed flush: stamps below it may be reused.
    #[inline]
    pub fn flushed(&self) -> u64 {
        // Before the entry is written that the flush has made free.
        self.shared.0.flushed.load_acquire()
    }

    /// Makes sure that a flush which starts after this call has begun covers what was just cleared,
    /// by a full operation, within the maximum age.
    #[inline]
    pub fn age(&self, hardware: &impl Hardware) {
        let timer = &self.shared.0.timer;
        // Clearing the entry was full, and so is making the timer idle, before the flush. Either
        // this load finds it idle, or the flush finds the entry cleared.
        if timer.load() == IDLE {
            self.arm(hardware);
        }
    }

    #[cold]
    #[inline(never)]
    fn arm(&self, hardware: &impl Hardware) {
        // From the exchange on others rely on the timer.
        hardware.promptly(|| {
            if self.shared.0.timer.compare_exchange(IDLE, ARMED).is_ok() {
                hardware.start_timer();
            }
        });
    }

    /// Makes sure that a flush with a number above `stamp` is completed.
    ///
    /// Errors: the flush failed. Context: as [`Hardware::flush`] and [`Hardware::exclusively`] allow.
    pub fn flush_after<H: Hardware>(&self, stamp: u64, hardware: &H) -> Result<(), H::Error> {
        if self.flushed() > stamp {
            return Ok(());
        }
        hardware.exclusively(|| self.flush_after_locked(stamp, hardware))
    }

    /// [`Clock::flush_after`] for one who is within [`Hardware::exclusively`].
    pub(super) fn flush_after_locked<H: Hardware>(
        &self,
        stamp: u64,
        hardware: &H,
    ) -> Result<(), H::Error> {
        // Another one's flush will do if it was started late enough; its number tells.
        if self.flushed() > stamp {
            return Ok(());
        }
        let number = self.flush_locked(hardware)?;
        self.publish(number);
        Ok(())
    }

    /// Flushes, and returns the number of the flush: who has called this may reuse stamps below it;
    /// others may once it is published. Within [`Hardware::exclusively`].
    ///
    /// Errors: the flush failed.
    pub(super) fn flush_locked<H: Hardware>(&self, hardware: &H) -> Result<u64, H::Error> {
        // Full, so before anything that the flush does.
        let number = self.shared.0.epoch.fetch_add(1).wrapping_add(1);
        hardware.flush().inspect_err(|_| {
            // Its number stays used: stamps that were read since say that they came after it.
            self.failed.store(self.failed.load().wrapping_add(1));
        })?;
        Ok(number)
    }

    /// Says that the flush `number` is completed.
    pub(super) fn publish(&self, number: u64) {
        let flushed = &self.shared.0.flushed;
        let mut before = flushed.load();
        // INVARIANT: never falls, whatever other flushes do. Full, so after all that the flush did.
        while before < number {
            match flushed.compare_exchange(before, number) {
                Ok(()) => break,
                Err(now) => before = now,
            }
        }
    }

    /// Flushes everything that was freed before this call.
    ///
    /// Errors, context: as for [`Clock::flush_after`].
    pub fn drain<H: Hardware>(&self, hardware: &H) -> Result<(), H::Error> {
        self.flush_after(self.epoch(), hardware)
    }

    /// What the timer calls: flushes all that was freed while it ran, and what `free` frees.
    ///
    /// Errors: the flush failed. What was freed is still owed a flush, so the caller starts the timer
    /// again, unless the hardware is given up. Context: as for [`Clock::flush_after`].
    pub fn expire<H: Hardware>(&self, hardware: &H, free: impl FnOnce()) -> Result<(), H::Error> {
        let timer = &self.shared.0.timer;
        // Idle first. An unmap that comes while the flush runs may be too late for it, and must have
        // the timer started again.
        let _ = timer.compare_exchange(ARMED, IDLE);
        free();
        self.drain(hardware).inspect_err(|_| {
            let _ = timer.compare_exchange(IDLE, ARMED);
        })
    }

    /// Says whether there is a maximum age from now on. Nobody starts a timer for what was freed
    /// before it is switched on: the caller drains after it.
    pub fn set_ageing(&self, ageing: bool) {
        let timer = &self.shared.0.timer;
        if ageing {
            let _ = timer.compare_exchange(OFF, IDLE);
        } else {
            timer.store(OFF);
        }
    }

    /// Returns how many flushes were started, and how many of these failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.0.epoch.load() - 1, self.failed.load())
    }
}
