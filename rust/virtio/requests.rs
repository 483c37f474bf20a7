// SPDX-License-Identifier: GPL-2.0

//! Requests that a virtio device answers, polled.
//!
//! The lock is held from the first request of a submission until the last answer, with interrupts off:
//! the device works requests off one after the other anyway. Requests and answers are in memory of
//! the queue, so that a device which answers late writes to nobody else's. After a timeout the queue is
//! given up: all that comes later fails at once, and that memory is never freed.

use super::{
    answers::Answers,
    Device, //
};
use crate::{
    bindings,
    pages::{
        Coherency,
        TablePage, //
    },
    queue::{
        CommandQueue,
        Sealed,
        Synced, //
    },
};
use core::mem::{
    ManuallyDrop,
    MaybeUninit, //
};
use kernel::{
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    processor::cpu_relax,
    sync::{
        Arc,
        SpinLockIrq, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

/// How long a device may take for one submission.
const TIMEOUT: Delta = Delta::from_secs(5);

/// Polls between two looks at the clock.
const POLLS: u32 = 256;

/// Bytes of a slot: a request and its answer.
const SLOT: usize = 64;

/// Where the answer is in a slot: in a word of its own.
const ANSWER: usize = Request::WORDS * size_of::<u64>();

/// Bytes of an answer.
const ANSWER_BYTES: usize = 4;

/// Requests at a time.
const SLOTS: usize = PAGE_SIZE / SLOT;

/// Where the answer is in an exchange of larger messages.
const LARGE_ANSWER: usize = 128;

/// A request, as the device reads it.
#[derive(Clone, Copy)]
pub struct Request {
    words: [[u8; size_of::<u64>()]; Self::WORDS],
    len: u8,
}

impl Request {
    /// Most words of a request, in which it is put into memory.
    pub const WORDS: usize = 5;

    /// A request of the first `len` bytes of these words; of all if that is more.
    #[inline]
    pub fn new(words: &[[u8; size_of::<u64>()]; Self::WORDS], len: usize) -> Self {
        Self {
            words: *words,
            // CAST: 40 at most.
            len: len.min(Self::WORDS * size_of::<u64>()) as u8,
        }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let bytes = self.words.as_flattened();
        bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// What the device wrote for a request.
pub struct Answer {
    /// The bytes that it could write.
    pub bytes: [u8; ANSWER_BYTES],
    /// How many it says that it has written.
    pub written: usize,
}

/// What a queue has done so far.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    /// Requests of each type, the first byte.
    pub by_type: [u64; 8],
    /// How often the device was told that there are requests.
    pub kicks: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Submissions that were not answered in time.
    pub timeouts: u64,
}

struct State {
    /// NULL before the start and after the end.
    queue: *mut bindings::virtqueue,
    /// Requests that fit.
    slots: usize,
    /// What the device has, and what it said.
    answers: Answers<SLOTS>,
    /// Set for ever once the device did not answer in time.
    broken: bool,
    /// Nothing is said of requests that fail because the queue has ended.
    quiet: bool,
    /// A line for the log, which is printed without the queue's lock. Who submits may hold others.
    unsaid: Option<&'static str>,
    counters: Counters,
}

// SAFETY: The queue is used with the lock held.
unsafe impl Send for State {}

/// The queue, and the memory that it shares with the device.
#[pin_data(PinnedDrop)]
pub(super) struct Requests {
    memory: ManuallyDrop<TablePage>,
    #[pin]
    state: SpinLockIrq<State>,
}

impl Requests {
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let memory = TablePage::new(0, bindings::NUMA_NO_NODE, GFP_KERNEL, Coherency::Snooped)?;
        Ok(pin_init!(Self {
            memory: ManuallyDrop::new(memory),
            state <- new_spinlock_irq!(
                State {
                    queue: core::ptr::null_mut(),
                    slots: 0,
                    answers: Answers::new(),
                    broken: false,
                    quiet: false,
                    unsaid: None,
                    counters: Counters::default(),
                },
                "iommu virtio requests"
            ),
        }))
    }

    /// # Safety
    ///
    /// `queue` is a queue that nobody else uses, until [`stop`](Self::stop).
    pub(super) unsafe fn start(&self, queue: *mut bindings::virtqueue) {
        // SAFETY: By the contract.
        let entries = unsafe { bindings::virtqueue_get_vring_size(queue) };
        let mut state = self.state.lock();
        // Two descriptors each. CAST: u32 to usize, lossless.
        state.slots = SLOTS.min(entries as usize / 2);
        state.queue = queue;
    }

    /// The queue is not used any more. If its users have not ended that themselves, the first one who
    /// tries says so.
    pub(super) fn stop(&self, expected: bool) {
        let mut state = self.state.lock();
        state.queue = core::ptr::null_mut();
        state.quiet |= expected;
    }

    fn counters(&self) -> Counters {
        self.state.lock().counters
    }

    /// Runs `with` with the queue's lock held, and says what there is to say after that.
    fn locked<R>(&self, with: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let mut state = self.state.lock();
        let result = with(&mut state);
        let unsaid = state.unsaid.take();
        drop(state);
        if let Some(line) = unsaid {
            pr_err!("the virtio device {line}: all requests fail from here on\n");
        }
        result
    }

    /// Puts a request into a slot.
    fn store(&self, slot: usize, request: &Request) {
        let first = slot * SLOT / size_of::<u64>();
        for (i, word) in request.words.iter().enumerate() {
            self.memory.write(first + i, u64::from_le_bytes(*word));
        }
        self.memory
            .write(first + ANSWER / size_of::<u64>(), u64::MAX);
    }

    /// What the device wrote into a slot.
    fn load(&self, slot: usize) -> [u8; ANSWER_BYTES] {
        let word = self.memory.read((slot * SLOT + ANSWER) / size_of::<u64>());
        // CAST: the lower half.
        (word as u32).to_le_bytes()
    }

    /// Has the device do `requests`, in order, and waits for all answers.
    ///
    /// `judge` says of each what its answer means; the first error is passed on when all were answered,
    /// and given to `refused` with the request and its answer, without the queue's lock.
    ///
    /// Errors: `ETIMEDOUT` if an answer did not come in time, `EIO` if the queue was given up earlier
    /// or the device was taken away, also without requests. Context: atomic.
    fn submit(
        &self,
        requests: &[Request],
        judge: impl Fn(&Request, &Answer) -> Result,
        refused: impl FnOnce(&Request, &Answer),
    ) -> Result {
        let mut first = None;
        self.locked(|state| {
            state.check()?;
            for part in requests.chunks(state.slots.max(1)) {
                self.exchange(state, part)?;
                for (slot, request) in part.iter().enumerate() {
                    let answer = Answer {
                        bytes: self.load(slot),
                        written: state.answers.written(slot),
                    };
                    if let Err(e) = judge(request, &answer) {
                        state.counters.refused += 1;
                        first.get_or_insert((e, *request, answer));
                    }
                }
            }
            Ok(())
        })?;
        match first {
            None => Ok(()),
            Some((e, request, answer)) => {
                refused(&request, &answer);
                Err(e)
            }
        }
    }

    /// Has the device do requests that fit into the slots, and waits. How much it wrote for each is in
    /// `state.answers`.
    fn exchange(&self, state: &mut State, part: &[Request]) -> Result {
        for (slot, request) in part.iter().enumerate() {
            self.store(slot, request);
            let at = self.memory.phys() + (slot * SLOT) as u64;
            let out = request.bytes().len();
            state.add(at, out, at + ANSWER as u64, ANSWER_BYTES, slot)?;
            state.count(request.bytes());
        }
        state.exchange()
    }

    /// Sends one message and takes an answer of `answer` bytes, which `read` is given byte by byte.
    ///
    /// Errors: as for `submit`; `ENOMEM`; `EIO` if the device wrote less. Context: may sleep.
    fn exchange_large(&self, message: &[u8], answer: usize, mut read: impl FnMut(u8)) -> Result {
        if message.len() > LARGE_ANSWER {
            return Err(EINVAL);
        }
        self.locked(State::check)?;
        let pages = (LARGE_ANSWER + answer)
            .div_ceil(PAGE_SIZE)
            .next_power_of_two();
        let order = pages.trailing_zeros();
        let memory = TablePage::new(
            order,
            bindings::NUMA_NO_NODE,
            GFP_KERNEL,
            Coherency::Snooped,
        )?;
        // Given back only after an answer.
        let memory = ManuallyDrop::new(memory);
        for (i, bytes) in message.chunks(size_of::<u64>()).enumerate() {
            let mut word = [0; size_of::<u64>()];
            for (to, from) in word.iter_mut().zip(bytes) {
                *to = *from;
            }
            memory.write(i, u64::from_le_bytes(word));
        }
        let written = self.locked(|state| {
            let at = memory.phys();
            state.add(at, message.len(), at + LARGE_ANSWER as u64, answer, 0)?;
            state.count(message);
            state.exchange()?;
            Ok(state.answers.written(0))
        })?;
        let memory = ManuallyDrop::into_inner(memory);
        if written < answer {
            return Err(EIO);
        }
        for i in LARGE_ANSWER..LARGE_ANSWER + answer {
            let word = memory.read(i / size_of::<u64>()).to_le_bytes();
            read(word.get(i % size_of::<u64>()).copied().unwrap_or_default());
        }
        Ok(())
    }
}

impl State {
    /// Errors: `EIO` if the queue was given up, or has ended.
    fn check(&mut self) -> Result {
        if self.queue.is_null() && !core::mem::replace(&mut self.quiet, true) {
            self.unsaid = Some("is gone");
        }
        if self.broken || self.queue.is_null() {
            return Err(EIO);
        }
        Ok(())
    }

    fn count(&mut self, request: &[u8]) {
        let kind = request.first().copied().unwrap_or_default();
        if let Some(count) = self.counters.by_type.get_mut(usize::from(kind)) {
            *count += 1;
        }
    }

    /// Adds a request: memory that the device reads, and memory that it writes.
    fn add(
        &mut self,
        out: u64,
        out_bytes: usize,
        answer: u64,
        answer_bytes: usize,
        slot: usize,
    ) -> Result {
        self.check()?;
        let token = self.answers.ask(slot).ok_or(EIO)?;
        // The core takes a token for nothing.
        let token = core::ptr::without_provenance_mut(token);
        // SAFETY: The queue is there, and its users are kept apart by the lock, which the caller has
        // as it has `&mut self`. The memory is not freed before there was an answer, nor used for
        // something else.
        let added = unsafe {
            bindings::rust_iommu_virtqueue_add(
                self.queue,
                out,
                out_bytes as u32,
                answer,
                answer_bytes as u32,
                token,
            )
        };
        if added != 0 {
            // There was room for all, so that the queue must have failed before; what was added
            // of this submission stays with the device.
            self.give_up("takes no requests, it is given up");
            return Err(EIO);
        }
        Ok(())
    }

    /// Has the device work off what was added, and takes all answers.
    fn exchange(&mut self) -> Result {
        self.check()?;
        self.counters.kicks += 1;
        // SAFETY: As in `add`.
        unsafe { bindings::virtqueue_kick(self.queue) };
        let mut polls = 0;
        let mut since: Option<Instant<Monotonic>> = None;
        while self.answers.waiting() > 0 {
            // Looked at before the ring: a CPU that was taken away in between must not turn an answer
            // into a timeout.
            let expired = polls == 0 && since.is_some_and(|since| since.elapsed() > TIMEOUT);
            let mut bytes = 0;
            // SAFETY: As in `add`.
            let token = unsafe { bindings::virtqueue_get_buf(self.queue, &mut bytes) };
            if !token.is_null() {
                if self.answers.take(token.addr(), bytes).is_err() {
                    self.give_up("answers what it was not asked, it is given up");
                    return Err(EIO);
                }
                continue;
            }
            // SAFETY: As in `add`.
            if unsafe { bindings::virtqueue_is_broken(self.queue) } {
                self.give_up("is broken, it is given up");
                return Err(EIO);
            }
            if expired {
                self.counters.timeouts += 1;
                self.give_up("does not answer in time, it is given up");
                return Err(ETIMEDOUT);
            }
            polls = (polls + 1) % POLLS;
            if polls == 0 && since.is_none() {
                since = Some(Instant::now());
            }
            cpu_relax();
        }
        Ok(())
    }

    /// Gives the queue up, with one message.
    #[cold]
    fn give_up(&mut self, why: &'static str) {
        if !core::mem::replace(&mut self.broken, true) {
            self.unsaid = Some(why);
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Requests {
    fn drop(self: Pin<&mut Self>) {
        if self.state.lock().broken {
            // The device may get to the requests at any later time.
            return;
        }
        let this = self.project();
        // SAFETY: Not used after this, the only place that drops it; every request was answered.
        unsafe { ManuallyDrop::drop(this.memory) };
    }
}

/// A device's requests, as the queue of an IOMMU. `J` says what answers mean.
pub struct RequestQueue<J> {
    device: Arc<Device>,
    judge: J,
}

/// Says what answers mean.
pub trait Judge: Send + Sync + 'static {
    /// What an answer means. Errors: `ENOMEM` if the device has no memory for this, `EIO`.
    ///
    /// Context: atomic, with the queue's lock held.
    fn judge(&self, request: &Request, answer: &Answer) -> Result;

    /// Says that a request was refused, the first one of several. Context: atomic.
    fn report(&self, request: &Request, answer: &Answer);
}

impl<J: Judge> RequestQueue<J> {
    /// The requests of a device.
    pub fn new(device: Arc<Device>, judge: J) -> Self {
        Self { device, judge }
    }

    /// Who says what answers mean.
    pub fn judge(&self) -> &J {
        &self.judge
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Sends one message of 128 bytes at most, and takes an answer of `answer` bytes.
    ///
    /// Errors: `ETIMEDOUT`, `EIO`, `ENOMEM`. Context: may sleep.
    pub fn exchange(&self, message: &[u8], answer: usize) -> Result<KVec<u8>> {
        let mut bytes = KVec::with_capacity(answer, GFP_KERNEL)?;
        self.device
            .requests
            .exchange_large(message, answer, |byte| {
                // There is room.
                let _ = bytes.push_within_capacity(byte);
            })?;
        Ok(bytes)
    }

    /// What the queue has done so far. Context: any.
    pub fn counters(&self) -> Counters {
        self.device.requests.counters()
    }
}

impl<J: Judge> Sealed for RequestQueue<J> {}

impl<J: Judge> CommandQueue for RequestQueue<J> {
    type Command = Request;
    /// Each submission is a way to the host and back: a list of 32 segments takes one.
    type Room = [MaybeUninit<Request>; 32];

    fn submit(&self, requests: &[Request]) -> Result<Synced> {
        self.device.requests.submit(
            requests,
            |request, answer| self.judge.judge(request, answer),
            |request, answer| self.judge.report(request, answer),
        )?;
        Ok(Synced::acknowledged())
    }
}
