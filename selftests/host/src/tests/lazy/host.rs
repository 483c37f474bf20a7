// SPDX-License-Identifier: GPL-2.0

//! Words and memory of the host. Also for the example that measures.

use iommu::lazy::clock::Hardware;
use iommu::lazy::fit::Geometry;
use iommu::lazy::format::{Format, Permissions, LEAVING};
use iommu::lazy::leaves::Table;
use iommu::lazy::window::Window;
use iommu::lazy::word::{Line, Word};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

/// The hardware did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimedOut;

thread_local! {
    /// Within [`Hardware::promptly`]: how many entries the thread has leaving.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The thread changes an entry from `old` to `new`. Where others may wait for it, it must hurry.
fn changes(old: u64, new: u64) {
    let leaving = Permissions::vacant(LEAVING);
    if new == leaving {
        let left = LEFT
            .get()
            .expect("an entry is leaving, and who took it may be put aside");
        LEFT.set(Some(left + 1));
    } else if old == leaving {
        LEFT.set(LEFT.get().map(|left| left - 1));
    }
}

/// The host's word. A sequentially consistent operation that changes it is full on the host.
pub(super) struct HostWord(pub(super) AtomicU64);

impl Word for HostWord {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn load_acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u64) {
        changes(self.load(), value);
        self.0.store(value, Ordering::Release);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        let order = (Ordering::SeqCst, Ordering::Relaxed);
        self.0.compare_exchange(old, new, order.0, order.1)?;
        changes(old, new);
        Ok(())
    }

    fn fetch_add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::SeqCst)
    }
}

/// Memory of the host, and hardware that is a closure.
pub(super) struct Host<H> {
    pub(super) leaves: Vec<HostWord>,
    cursors: Vec<Line<HostWord>>,
    lock: Mutex<()>,
    pub(super) timers: AtomicU64,
    hardware: H,
}

impl<H: Fn() -> Result<(), TimedOut>> Host<H> {
    pub(super) fn window(
        geometry: Geometry,
        cpus: usize,
        ageing: bool,
        hardware: H,
    ) -> Window<Self> {
        let host = Self {
            leaves: (0..geometry.pages()).map(|_| HostWord::new(0)).collect(),
            cursors: (0..cpus).map(|_| Line(HostWord::new(0))).collect(),
            lock: Mutex::new(()),
            timers: AtomicU64::new(0),
            hardware,
        };
        Window::new(host, geometry, ageing).unwrap()
    }
}

impl<H> Table for Host<H> {
    type Word = HostWord;
    type Format = Permissions;

    fn leaves(&self) -> &[HostWord] {
        &self.leaves
    }

    fn cursors(&self) -> &[Line<HostWord>] {
        &self.cursors
    }
}

impl<H: Fn() -> Result<(), TimedOut>> Hardware for Host<H> {
    type Error = TimedOut;

    fn flush(&self) -> Result<(), TimedOut> {
        (self.hardware)()
    }

    fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.lock.lock().unwrap();
        f()
    }

    fn exclusively_if_free<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.lock.try_lock().ok()?;
        Some(f())
    }

    fn start_timer(&self) {
        assert!(
            LEFT.get().is_some(),
            "others rely on a timer that may be started later"
        );
        self.timers.fetch_add(1, Ordering::Relaxed);
    }

    fn promptly<R>(&self, f: impl FnOnce() -> R) -> R {
        promptly(f)
    }

    fn relax(&self) {
        std::thread::yield_now();
    }
}

/// [`Hardware::promptly`] of all that has words of the host.
pub(super) fn promptly<R>(f: impl FnOnce() -> R) -> R {
    if LEFT.get().is_some() {
        return f();
    }
    LEFT.set(Some(0));
    let result = f();
    assert_eq!(LEFT.replace(None), Some(0), "entries are still leaving");
    result
}

/// An entry that maps page frame `frame`.
pub(super) fn entry(frame: u64) -> u64 {
    (frame << 12) | 3
}
