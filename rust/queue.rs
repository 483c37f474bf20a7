// SPDX-License-Identifier: GPL-2.0

//! A queue of 128-bit commands in memory, which the hardware works off in order.
//!
//! Both IOMMUs of x86 take invalidations this way: a ring that software fills and
//! hardware empties, and a wait command, which makes the hardware write a number to
//! memory once all commands before it are done. Every submission ends with one, so
//! that its submitter knows, and can prove by a [`Synced`], that the hardware has
//! forgotten what was invalidated.
//!
//! # Concurrency
//!
//! The ring's lock is held only while commands are pushed and while an error of the
//! hardware is dealt with. Waiting is done outside, with interrupts as the caller
//! left them, each submitter on the status word of its own wait command. A CPU that
//! is interrupted or preempted while it waits holds nobody up: whoever needs its
//! places sees by itself that its commands are done, and frees them ([`ring`]). This
//! matters: an interrupt handler may submit while it has interrupted a submitter.
//!
//! # Failure
//!
//! Who finds an error of the hardware while waiting deals with it for everybody. A
//! command that the hardware refuses is replaced by one that does nothing; only its
//! own submitter gets `EIO`. Wait commands that the hardware drops, because a device
//! does not answer, are submitted again together with their commands.
//!
//! A queue that did not answer in time is given up: the hardware may still write the
//! status words and read the ring, so nothing is reused, further submissions fail at
//! once, and the memory is never freed.

use core::{
    mem::{
        replace,
        ManuallyDrop,
        MaybeUninit, //
    },
    pin::Pin, //
};

use kernel::{
    alloc::KVVec,
    page::PAGE_SIZE,
    prelude::*,
    processor::cpu_relax,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        barrier::{
            dma_mb,
            Read, //
        },
        SpinLockIrq, //
    },
    time::Delta, //
};

use crate::{
    batch::Room,
    bindings,
    named,
    pages::{
        Coherency,
        TablePage, //
    },
    patience::Patience,
    ring::{
        self,
        Observed,
        Outcome,
        Ring,
        Verdict, //
    }, //
};

/// Proof that the hardware has acknowledged everything that was submitted before.
///
/// Only queues make one (this file and `virtio/requests.rs`), which is what frees table memory and
/// reuses tags.
#[must_use = "without it, nothing that was invalidated may be freed"]
pub struct Synced(());

impl Synced {
    /// The proof for what no hardware has heard of, so that none can have cached it.
    pub(crate) fn nothing_cached() -> Self {
        Self(())
    }

    /// The proof of another queue of this crate, which was answered.
    pub(crate) fn acknowledged() -> Self {
        Self(())
    }
}

/// A queue that answers for its hardware.
///
/// Only this crate implements it, so a [`Synced`] always is a queue's.
pub trait CommandQueue: Send + Sync + private::Sealed {
    /// One command.
    type Command: Copy;

    /// Room for the commands that a batch collects before it submits early. It lives on the stack of the
    /// flush path: a queue whose commands cost little each has room for few.
    type Room: Room<Self::Command>;

    /// Has the hardware do `commands`, in order, and waits until they are done; none
    /// are done at once.
    ///
    /// Errors: `ETIMEDOUT`, `EIO`. Context: atomic.
    fn submit(&self, commands: &[Self::Command]) -> Result<Synced>;
}

mod private {
    pub trait Sealed {}
}
pub(crate) use self::private::Sealed;

impl<H: QueueHw> private::Sealed for Queue<H> {}

impl<H: QueueHw> CommandQueue for Queue<H> {
    type Command = [u64; 2];
    type Room = [MaybeUninit<Self::Command>; 6];

    fn submit(&self, commands: &[[u64; 2]]) -> Result<Synced> {
        Queue::submit(self, commands)
    }
}

/// An error that the hardware reports for a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The command at this index is malformed. The hardware has stopped there.
    BadCommand {
        /// Index of the command, in entries.
        index: u32,
    },
    /// A device did not answer an invalidation of its own cache in time. The
    /// hardware has stopped, and dropped all wait commands that it had fetched.
    DeviceTimeout,
    /// A device sent an answer that belongs to nothing. The hardware goes on.
    Completion,
}

/// What differs from one hardware's queue to another's: registers and wait command.
///
/// `ring` and `clear_error` are called under the queue's lock, `error` and `head`
/// with and without; all with interrupts off or on, from any context. They access
/// registers and do not take a lock that is held while something is submitted.
///
/// The hardware reads the ring, and writes status words, through the CPU's caches.
pub trait QueueHw: Send + Sync {
    /// Tells the hardware the new tail, in entries.
    fn ring(&self, tail: u32);

    /// Returns the command that writes `token` to `status_phys`, a multiple of 8, once
    /// all commands before it are done. Four or eight bytes are written, and never after
    /// those of a later wait command: [`Ring::retire`] asks the youngest for all.
    fn wait_command(&self, status_phys: u64, token: u32) -> [u64; 2];

    /// Returns the error that the hardware reports for this queue, if any.
    fn error(&self) -> Option<QueueError>;

    /// Clears what `error` reported, upon which stopped hardware goes on. The queue
    /// has replaced a bad command before.
    fn clear_error(&self, error: QueueError);

    /// Returns the index that the hardware will fetch next.
    fn head(&self) -> u32;
}

/// Status words are a cache line apart: each is polled by another CPU.
const LINE: usize = 64;

/// [`LINE`] in words.
const LINE_WORDS: usize = LINE / size_of::<u64>();

/// How often the hardware may drop a submission because a device does not answer: it
/// does not tell which device it was, so most of the dropped ones can succeed.
const DROPS: u32 = 3;

/// How often a submission is made at most. Each time needs a further error.
const ATTEMPTS: u32 = 64;

/// Errors reported with a line each; further ones are only counted.
const REPORTS: u64 = 10;

/// What the ring's lock protects.
struct State {
    ring: Ring,
    /// Length of the submission that starts at an index.
    lens: KVVec<u32>,
    /// Set for ever once the hardware did not answer in time.
    broken: bool,
    counters: Counters,
}

impl State {
    fn len_at(&self) -> impl Fn(u32) -> u32 + '_ {
        // CAST: u32 to usize, lossless.
        |index| self.lens.get(index as usize).copied().unwrap_or(1)
    }
}

/// What a queue has done so far.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    /// Commands pushed, without wait commands.
    pub commands: u64,
    /// Wait commands pushed.
    pub waits: u64,
    /// Submissions that were not acknowledged in time.
    pub timeouts: u64,
    /// Errors that the hardware has reported.
    pub errors: u64,
}

/// A command queue, and the memory that it shares with the hardware.
///
/// The hardware's head and tail must be 0 when it is first switched on, and it must
/// be switched off, or never be rung again, before the queue is dropped.
#[pin_data(PinnedDrop)]
pub struct Queue<H: QueueHw> {
    hw: H,
    name: &'static CStr,
    timeout: Delta,
    /// Entries less one: the bits of a position that are its index.
    mask: u32,
    largest: usize,
    commands: ManuallyDrop<TablePage>,
    /// A line for each entry, whose first word is the status of its wait command.
    status: ManuallyDrop<TablePage>,
    /// A [`Verdict`] word for each entry.
    verdicts: KVVec<Atomic<u64>>,
    /// Copy of `state.ring.first()` for those who wait, written under the lock.
    retired: Atomic<u64>,
    /// [`Observed::doubt`], written under the lock.
    doubt: Atomic<u64>,
    #[pin]
    state: SpinLockIrq<State>,
}

impl<H: QueueHw> Queue<H> {
    /// Makes a queue of `2^order` pages. May sleep.
    ///
    /// `timeout` is how long the hardware may take for one submission. `name` is the
    /// queue's in messages; all queues' locks are one class, `iommu_queue`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINVAL` for an order that cannot exist.
    pub fn new(
        hw: H,
        order: u32,
        timeout: Delta,
        name: &'static CStr,
    ) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let node = bindings::NUMA_NO_NODE;
            // Read past the CPU's caches are tables at most (VT-d, ECAP_REG.C in 11.4.3): commands are read, and
            // status words written, through them in any case.
            let commands = TablePage::new(order, node, GFP_KERNEL, Coherency::Snooped)?;
            let entries = commands.words() / 2;
            let status_order = (entries * LINE / PAGE_SIZE).max(1).trailing_zeros();
            let status = TablePage::new(status_order, node, GFP_KERNEL, Coherency::Snooped)?;

            let mut verdicts = KVVec::with_capacity(entries, GFP_KERNEL)?;
            for _ in 0..entries {
                verdicts.push(Atomic::new(ring::NO_VERDICT), GFP_KERNEL)?;
            }
            let lens = KVVec::from_elem(1, entries, GFP_KERNEL)?;
            let entries = u32::try_from(entries)?;
            let ring = Ring::new(entries).ok_or(EINVAL)?;
            // CAST: u32 to usize, lossless.
            let largest = ring.largest() as usize;
            let state = State {
                ring,
                lens,
                broken: false,
                counters: Counters::default(),
            };

            Ok(pin_init!(Self {
                hw,
                name,
                timeout,
                mask: entries - 1,
                largest,
                commands: ManuallyDrop::new(commands),
                status: ManuallyDrop::new(status),
                verdicts,
                retired: Atomic::new(0),
                doubt: Atomic::new(0),
                state <- named::spinlock_irq!(state, "iommu_queue"),
            }? Error))
        })
    }

    /// Returns the physical address of the ring, aligned to its size.
    pub fn base_phys(&self) -> u64 {
        self.commands.phys()
    }

    /// Returns the number of entries.
    pub fn entries(&self) -> u32 {
        self.mask + 1
    }

    /// Returns the hardware that the queue was made with.
    pub fn hw(&self) -> &H {
        &self.hw
    }

    /// Returns what the queue has done so far.
    pub fn counters(&self) -> Counters {
        self.state.lock().counters
    }

    /// Returns how many commands were pushed, without wait commands.
    pub fn submitted(&self) -> u64 {
        self.counters().commands
    }

    /// Returns how many wait commands were pushed.
    pub fn waits(&self) -> u64 {
        self.counters().waits
    }

    /// Returns how many submissions were not acknowledged in time.
    pub fn timeouts(&self) -> u64 {
        self.counters().timeouts
    }

    /// Returns how many errors the hardware has reported.
    pub fn errors(&self) -> u64 {
        self.counters().errors
    }

    /// Returns whether the queue was given up because of a timeout.
    pub fn is_broken(&self) -> bool {
        self.state.lock().broken
    }

    /// Has the hardware do `commands`, in order, and waits until they are done.
    ///
    /// Atomic: busy-waits; may be called wherever a spin lock can be taken (interrupt
    /// handlers included, but not NMIs, and not under a raw spin lock), by several CPUs
    /// at the same time. Commands of one call that do not fit into a quarter of the
    /// ring go in parts, between which other CPUs' commands may come.
    ///
    /// No commands are done at once: without touching the hardware, as all that the
    /// caller submitted before has been waited for.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if the hardware did not answer in time; `EIO` if it has refused a
    /// command, if it drops these commands again and again because of a device that
    /// does not answer, or if the queue was given up earlier. In each case some of
    /// the commands may have been done and others not.
    pub fn submit(&self, commands: &[[u64; 2]]) -> Result<Synced> {
        for part in commands.chunks(self.largest) {
            self.submit_part(part)?;
        }
        Ok(Synced(()))
    }

    /// Looks for an error of the hardware, and deals with it.
    ///
    /// Those who wait do this by themselves from time to time; calling it from the
    /// unit's interrupt handler only makes it faster. Context: as for
    /// [`Queue::submit`].
    pub fn check(&self) {
        // Two errors may be reported at once, a third one can follow; what is still
        // there after that does not go away, and ends in a timeout.
        for _ in 0..4 {
            if self.hw.error().is_none() {
                return;
            }
            let mut state = self.state.lock();
            // Again under the lock: another CPU may have been faster.
            let Some(error) = self.hw.error() else {
                return;
            };
            state.counters.errors += 1;
            let count = state.counters.errors;
            match error {
                QueueError::BadCommand { index } => self.replace(&state, index),
                QueueError::DeviceTimeout => self.drop_waits(&state),
                QueueError::Completion => {}
            }
            // Verdicts are out before the hardware goes on and writes a status.
            self.hw.clear_error(error);
            // QEMU's VT-d goes on only when it is rung again; others do not mind.
            self.hw.ring(state.ring.index(state.ring.next()));
            drop(state);
            if count <= REPORTS {
                report_error(self.name, error);
            }
        }
    }

    /// Submits what fits into the ring at once.
    fn submit_part(&self, commands: &[[u64; 2]]) -> Result {
        let mut drops = 0;
        for _ in 0..ATTEMPTS {
            let wait = self.push(commands)?;
            // First without what it takes to wait for longer.
            if self.is_done(wait, self.status(wait)) {
                return Ok(());
            }
            match self.wait(wait)? {
                Outcome::Done => return Ok(()),
                Outcome::Refused => return Err(EIO),
                Outcome::Dropped => drops += 1,
                Outcome::Unknown | Outcome::Pending => {}
            }
            if drops == DROPS {
                break;
            }
        }
        Err(EIO)
    }

    /// Pushes `commands` and a wait command; returns the position of the latter.
    #[inline]
    fn push(&self, commands: &[[u64; 2]]) -> Result<u64> {
        match self.try_push(commands)? {
            Some(wait) => Ok(wait),
            None => self.push_later(commands),
        }
    }

    /// [`Self::push`] when there was no room just now.
    #[inline(never)]
    fn push_later(&self, commands: &[[u64; 2]]) -> Result<u64> {
        let mut patience = Patience::new(self.timeout);
        let mut retired = self.retired.load(Relaxed);
        loop {
            self.pause(&mut patience);
            let expired = patience.is_over();
            if let Some(wait) = self.try_push(commands)? {
                return Ok(wait);
            }
            if expired {
                // No room for this long, but is it the hardware, or are others faster?
                let now = self.retired.load(Relaxed);
                if now == retired {
                    return Err(self.give_up());
                }
                retired = now;
                patience = Patience::new(self.timeout);
            }
        }
    }

    /// Pushes `commands` and a wait command if there is room. Inlined in both of its callers: for one it
    /// is most of what it does, as a rule.
    #[inline(always)]
    fn try_push(&self, commands: &[[u64; 2]]) -> Result<Option<u64>> {
        // CAST: at most `largest`, which came from a u32.
        let count = commands.len() as u32;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.broken {
            return Err(EIO);
        }
        if state.ring.free() <= count {
            self.retire(state);
        }
        let Some(taken) = state.ring.reserve(count) else {
            return Ok(None);
        };
        // CAST: u32 to usize, lossless.
        if let Some(len) = state.lens.get_mut(state.ring.index(taken.first) as usize) {
            *len = taken.len;
        }

        let wait = taken.wait();
        let place = state.ring.index(wait);
        self.status.write(place as usize * LINE_WORDS, 0);
        let status_phys = self.status_phys(place);
        let ending = self.hw.wait_command(status_phys, ring::token(wait));
        for (position, command) in (taken.first..wait).zip(commands) {
            self.store(state.ring.index(position), *command);
        }
        self.store(place, ending);
        state.counters.commands += u64::from(count);
        state.counters.waits += 1;
        // A register write comes after the stores to memory before it.
        self.hw.ring(state.ring.index(state.ring.next()));
        Ok(Some(wait))
    }

    /// Frees the places of what the hardware is done with.
    #[inline(never)]
    fn retire(&self, state: &mut State) {
        let State { ring, lens, .. } = state;
        // CAST: u32 to usize, lossless.
        let len_at = |index| lens.get(index as usize).copied().unwrap_or(1);
        ring.retire(len_at, |wait| self.is_over(wait));
        // Ordered before the status words of the freed places change: who does not
        // find its own there any more finds this.
        self.retired.store(ring.first(), Release);
    }

    /// Waits for the submission whose wait command is at `wait`.
    #[inline(never)]
    fn wait(&self, wait: u64) -> Result<Outcome> {
        let mut patience = Patience::new(self.timeout);
        loop {
            // Looked at before the status: a CPU that was taken away in between must
            // not turn a success into a timeout.
            let expired = patience.is_over();
            match self.outcome(wait) {
                Outcome::Pending if expired => return Err(self.give_up()),
                Outcome::Pending => self.pause(&mut patience),
                outcome => return Ok(outcome),
            }
        }
    }

    /// Lets some time pass, and looks for errors now and then.
    fn pause(&self, patience: &mut Patience) {
        cpu_relax();
        if patience.tick() {
            self.check();
        }
    }

    /// Reads what there is about a submission, in the order that decides.
    fn outcome(&self, wait: u64) -> Outcome {
        let status = self.status(wait);
        if self.is_done(wait, status) {
            return Outcome::Done;
        }
        let seen = Observed {
            status,
            verdict: self.verdict(wait).load(Acquire),
            retired: self.retired.load(Acquire),
            doubt: self.doubt.load(Relaxed),
        };
        ring::outcome(wait, seen)
    }

    /// Returns whether the status just read says that all is well, which it does as a rule.
    #[inline]
    fn is_done(&self, wait: u64, status: u32) -> bool {
        dma_mb(Read);
        ring::is_done(wait, status, self.doubt.load(Acquire))
    }

    /// Returns whether the places of the submission that waits at `wait` may be used again.
    fn is_over(&self, wait: u64) -> bool {
        let status = self.status(wait);
        dma_mb(Read);
        ring::is_over(wait, status, self.verdict(wait).load(Acquire))
    }

    /// Replaces the command that the hardware has refused by one that does nothing,
    /// and tells its submitter. Later commands are then done as if nothing had been.
    fn replace(&self, state: &State, index: u32) {
        let Some(position) = state.ring.locate(index) else {
            return;
        };
        state.ring.for_each(state.len_at(), |submission| {
            if submission.contains(position) {
                self.condemn(submission.wait(), Verdict::Refused);
                // A wait command that nobody waits for: it writes to the second word.
                let unused = self.status_phys(index) + size_of::<u64>() as u64;
                let nothing = self.hw.wait_command(unused, 0);
                self.store(index, nothing);
            }
        });
    }

    /// Tells all those whose wait command the hardware has dropped.
    fn drop_waits(&self, state: &State) {
        let fetched = state.ring.locate(self.hw.head());
        let fetched = fetched.unwrap_or(state.ring.next());
        state.ring.for_each(state.len_at(), |submission| {
            let wait = submission.wait();
            if wait < fetched {
                let status = self.status(wait);
                let old = self.verdict(wait).load(Relaxed);
                if let Some(new) = ring::drop_wait(wait, status, old) {
                    self.condemn(wait, new);
                }
            }
        });
    }

    /// Records what went wrong with the submission that waits at `wait`.
    fn condemn(&self, wait: u64, verdict: Verdict) {
        // The last submission's comes last, or one later than that went wrong before.
        let doubt = self.doubt.load(Relaxed).max(wait + 1);
        self.doubt.store(doubt, Relaxed);
        self.verdict(wait).store(verdict.pack(wait), Release);
    }

    /// Gives the queue up after a timeout, with one message.
    #[cold]
    fn give_up(&self) -> Error {
        let mut state = self.state.lock();
        state.counters.timeouts += 1;
        let first = !replace(&mut state.broken, true);
        let tail = state.ring.index(state.ring.next());
        drop(state);
        if first {
            report_timeout(self.name, self.hw.head(), tail);
        }
        ETIMEDOUT
    }

    /// Stores a command at an index.
    #[inline]
    fn store(&self, index: u32, command: [u64; 2]) {
        // CAST: u32 to usize, lossless.
        self.commands.write_entry(index as usize, command);
    }

    /// Reads the status word of the place of position `wait`.
    fn status(&self, wait: u64) -> u32 {
        // CAST: the upper half is not ours, hardware may or may not write it.
        self.status.read(self.place(wait) * LINE_WORDS) as u32
    }

    /// Returns the verdict word of the place of position `wait`.
    fn verdict(&self, wait: u64) -> &Atomic<u64> {
        &self.verdicts[self.place(wait)]
    }

    fn place(&self, position: u64) -> usize {
        // CAST: truncation is meant; no more bits than these are asked for.
        (position as u32 & self.mask) as usize
    }

    /// Returns the physical address of a status word.
    fn status_phys(&self, place: u32) -> u64 {
        // CAST: usize to u64, lossless.
        self.status.phys() + u64::from(place) * LINE as u64
    }
}

#[pinned_drop]
impl<H: QueueHw> PinnedDrop for Queue<H> {
    fn drop(self: Pin<&mut Self>) {
        if self.is_broken() {
            // The hardware may get to the commands at any later time.
            return;
        }
        let this = self.project();
        // SAFETY: not used after this, the only place that drops it.
        unsafe { ManuallyDrop::drop(this.commands) };
        // SAFETY: as above; no status is outstanding, as every submitter has waited.
        unsafe { ManuallyDrop::drop(this.status) };
    }
}

/// Not generic, so that the message has this module's prefix and code exists once.
#[cold]
#[inline(never)]
fn report_error(name: &CStr, error: QueueError) {
    match error {
        QueueError::BadCommand { index } => {
            pr_err!("{name}: the hardware refused the command at index {index}\n");
        }
        QueueError::DeviceTimeout => {
            pr_err!("{name}: a device did not answer an invalidation of its cache\n");
        }
        QueueError::Completion => {
            pr_err!("{name}: a device answered an invalidation that it was not sent\n");
        }
    }
}

#[cold]
#[inline(never)]
fn report_timeout(name: &CStr, head: u32, tail: u32) {
    pr_err!("{name}: no answer in time, given up (head {head}, tail {tail})\n");
}
