// SPDX-License-Identifier: GPL-2.0

//! Every order of a few CPUs, the flusher and the hardware, as far as the memory model allows it: the
//! real code over words of loom, which also returns old values where no barrier forbids it.
//!
//! The hardware is as bad as it may be. It caches each entry as soon as it is present. A flush drops
//! what is cached when it begins, not when it ends, and walks the table again at once, by loads that
//! are ordered after the flush's beginning and nothing else.

use super::{entry, TimedOut};
use iommu::lazy::clock::{Clock, Hardware};
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::format::{Format, Permissions};
use iommu::lazy::leaves::{NotMapped, Table};
use iommu::lazy::window::{Error, Window};
use iommu::lazy::word::{Line, Word};
use loom::sync::atomic::{fence, AtomicU64, Ordering::*};
use loom::thread;
use std::sync::{Arc, Mutex};

/// What the hardware has cached for each entry, and what is in memory. Not part of the program that
/// is tried: loom does not know of it, and changes to it come with the step before.
#[derive(Default)]
struct Tlb {
    cached: Vec<Vec<u64>>,
    memory: Vec<u64>,
    /// Timers that were started and have not expired.
    timers: u32,
}

impl Tlb {
    fn written(&mut self, index: usize, value: u64) {
        self.memory[index] = value;
        if Permissions::is_present(value) {
            assert!(
                self.cached[index].is_empty(),
                "page {index} was handed out while its old translation is cached"
            );
            self.cached[index].push(value);
        }
    }
}

/// What loads return.
#[derive(Clone, Copy, Debug)]
enum Words {
    Old,
    Newest,
}

thread_local! {
    /// Loom's threads all run in the test's own.
    static WORDS: std::cell::Cell<Words> = const { std::cell::Cell::new(Words::Old) };
}

pub(super) struct LoomWord {
    cell: AtomicU64,
    kind: Words,
    /// For leaf entries.
    watched: Option<(Arc<Mutex<Tlb>>, usize)>,
}

impl LoomWord {
    fn written(&self, value: u64) {
        if let Some((tlb, index)) = &self.watched {
            tlb.lock().unwrap().written(*index, value);
        }
    }
}

impl Word for LoomWord {
    fn new(value: u64) -> Self {
        Self {
            cell: AtomicU64::new(value),
            kind: WORDS.get(),
            watched: None,
        }
    }

    fn load(&self) -> u64 {
        match self.kind {
            Words::Old => self.cell.load(Relaxed),
            Words::Newest => self.cell.fetch_add(0, Relaxed),
        }
    }

    fn load_acquire(&self) -> u64 {
        match self.kind {
            Words::Old => self.cell.load(Acquire),
            Words::Newest => self.cell.fetch_add(0, Acquire),
        }
    }

    fn store(&self, value: u64) {
        match self.kind {
            Words::Old => self.cell.store(value, Relaxed),
            Words::Newest => drop(self.cell.swap(value, Relaxed)),
        }
        self.written(value);
    }

    fn store_release(&self, value: u64) {
        match self.kind {
            Words::Old => self.cell.store(value, Release),
            Words::Newest => drop(self.cell.swap(value, Release)),
        }
        self.written(value);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        fence(SeqCst);
        self.cell.compare_exchange(old, new, AcqRel, Relaxed)?;
        self.written(new);
        fence(SeqCst);
        Ok(())
    }

    fn fetch_add(&self, value: u64) -> u64 {
        fence(SeqCst);
        let old = self.cell.fetch_add(value, AcqRel);
        fence(SeqCst);
        old
    }
}

struct Machine {
    leaves: Vec<LoomWord>,
    cursors: Vec<Line<LoomWord>>,
    lock: loom::sync::Mutex<()>,
    tlb: Arc<Mutex<Tlb>>,
    /// The flush of this number fails.
    fails: Option<u64>,
    flushes: Mutex<u64>,
}

impl Table for Machine {
    type Word = LoomWord;
    type Format = Permissions;

    fn leaves(&self) -> &[LoomWord] {
        &self.leaves
    }

    fn cursors(&self) -> &[Line<LoomWord>] {
        &self.cursors
    }
}

impl Hardware for Machine {
    type Error = TimedOut;

    fn flush(&self) -> Result<(), TimedOut> {
        // Time goes by.
        self.leaves[0].load();
        {
            let mut number = self.flushes.lock().unwrap();
            *number += 1;
            if self.fails == Some(*number) {
                return Err(TimedOut);
            }
            let mut tlb = self.tlb.lock().unwrap();
            let memory = tlb.memory.clone();
            for (cached, entry) in tlb.cached.iter_mut().zip(memory) {
                cached.clear();
                cached.extend(Some(entry).filter(|entry| Permissions::is_present(*entry)));
            }
        }
        for (index, word) in self.leaves.iter().enumerate() {
            let entry = word.load();
            let cached = &mut self.tlb.lock().unwrap().cached[index];
            if Permissions::is_present(entry) && !cached.contains(&entry) {
                cached.push(entry);
            }
        }
        Ok(())
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
        self.tlb.lock().unwrap().timers += 1;
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

/// A window of `pages` pages of which the first `mapped` ones are mapped, each as a chunk of its own,
/// with two cursors that stand at its beginning.
fn window(pages: usize, mapped: usize, ageing: bool, fails: Option<u64>) -> Arc<Window<Machine>> {
    let tlb = Arc::new(Mutex::new(Tlb {
        cached: vec![Vec::new(); pages],
        memory: vec![0; pages],
        timers: 0,
    }));
    let machine = Machine {
        leaves: (0..pages)
            .map(|index| LoomWord {
                watched: Some((tlb.clone(), index)),
                ..LoomWord::new(0)
            })
            .collect(),
        cursors: (0..2).map(|_| Line(LoomWord::new(0))).collect(),
        lock: loom::sync::Mutex::new(()),
        tlb,
        fails,
        flushes: Mutex::new(0),
    };
    let window = Window::new(machine, Geometry::new(0, pages, 1).unwrap(), ageing).unwrap();
    for index in 0..mapped {
        window.map_at(index, 1, |_| entry(index as u64)).unwrap();
    }
    Arc::new(window)
}

/// Tries all orders, twice: with loads that may return old values, and with loads that return the
/// newest and take part in the order as stores do. Of a thread that loads and then writes a word loom
/// forgets what others loaded before, and so the first way leaves orders out. The second way has many
/// more. The numbers limit the switches from a thread that could go on.
pub(super) fn explore(
    old: Option<usize>,
    newest: Option<usize>,
    model: impl Fn() + Sync + Send + 'static,
) {
    let model = Arc::new(model);
    for (words, switches) in [(Words::Old, old), (Words::Newest, newest)] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = switches;
        builder.max_branches = 100_000;
        let orders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (count, model) = (orders.clone(), model.clone());
        WORDS.set(words);
        builder.check(move || {
            count.fetch_add(1, Relaxed);
            model();
        });
        println!("{words:?}: {} orders", orders.load(Relaxed));
    }
}

fn spawn<T: 'static>(
    window: &Arc<Window<Machine>>,
    f: impl FnOnce(&Window<Machine>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let window = window.clone();
    thread::spawn(move || f(&window))
}

/// The invariant itself: `Tlb::written()` checks it.
fn unmappers_mapper_flusher(fails: Option<u64>) {
    let window = window(2, 2, false, fails);
    let unmappers = [0, 1].map(|page| spawn(&window, move |w| w.unmap(page, 1).unwrap()));
    let flusher = spawn(&window, |w| w.drain().is_ok());
    let early = window.map_at(0, 1, |_| entry(10)).is_ok();
    for unmapper in unmappers {
        unmapper.join().unwrap();
    }
    let flushed = flusher.join().unwrap();
    assert_eq!(flushed, fails.is_none());
    assert!(flushed || !early, "handed out on account of a failed flush");
    // Later it comes back in any case.
    window.drain().unwrap();
    assert_eq!(window.map_at(0, 1, |_| entry(11)).is_err(), early);
    assert_eq!(window.map_at(1, 1, |_| entry(12)), Ok(()));
}

#[test]
fn never_handed_out_before_a_flush() {
    explore(None, Some(3), || unmappers_mapper_flusher(None));
}

#[test]
fn a_flush_that_fails_frees_nothing() {
    explore(None, Some(3), || unmappers_mapper_flusher(Some(1)));
}

/// A run is mapped over pages that are unmapped in two parts, while the flusher goes by twice.
#[test]
fn runs_are_claimed_as_a_whole() {
    explore(Some(3), Some(3), || {
        let window = window(3, 3, false, None);
        let unmapper = spawn(&window, |w| {
            w.unmap(1, 2).unwrap();
            w.unmap(0, 1).unwrap();
        });
        let flusher = spawn(&window, |w| {
            w.drain().unwrap();
            w.drain().unwrap();
        });
        let other = spawn(&window, |w| w.map_at(2, 1, |_| entry(20)).is_ok());
        let run = window.map_at(0, 3, |p| entry(10 + p as u64)).is_ok();
        unmapper.join().unwrap();
        flusher.join().unwrap();
        let other = other.join().unwrap();
        assert!(!(run && other));
        assert_eq!(window.mapped(), 3 * usize::from(run) + usize::from(other));
    });
}

/// A run fails in the middle. What it had mapped until then, the hardware may have seen.
#[test]
fn pages_given_back_wait_for_a_flush() {
    explore(None, None, || {
        let window = window(2, 0, false, None);
        let other = spawn(&window, |w| w.map_at(1, 1, |_| entry(20)).is_ok());
        let run = window.map_at(0, 2, |p| entry(10 + p as u64)).is_ok();
        if !run {
            let _ = window.map_at(0, 1, |_| entry(30));
            window.drain().unwrap();
            let _ = window.map_at(0, 1, |_| entry(40));
            assert!(window.lookup(0).is_some());
        }
        assert!(run ^ other.join().unwrap());
    });
}

#[test]
fn a_page_has_one_owner() {
    explore(None, None, || {
        let window = window(1, 0, false, None);
        let other = spawn(&window, |w| w.map_at(0, 1, |_| entry(1)).is_ok());
        let this = window.map_at(0, 1, |_| entry(2)).is_ok();
        assert!(this ^ other.join().unwrap());
    });
}

/// Two unmap the same page, which is a driver's mistake: one of them is told so, unless the page was
/// handed out between.
#[test]
fn unmapped_twice() {
    explore(Some(3), Some(4), || {
        let window = window(1, 1, false, None);
        let unmappers = [(); 2].map(|()| spawn(&window, |w| w.unmap(0, 1)));
        let flusher = spawn(&window, |w| w.drain().unwrap());
        let again = window.map_at(0, 1, |_| entry(10)).is_ok();
        let results = unmappers.map(|unmapper| unmapper.join().unwrap());
        flusher.join().unwrap();
        let done = results.iter().filter(|result| result.is_ok()).count();
        let mapped = window.lookup(0).is_some();
        assert_eq!(done + usize::from(mapped), 1 + usize::from(again));
        for result in results {
            assert!(result.is_ok() || result == Err(NotMapped { pages: 1 }));
        }
        // No trace of it is left.
        window.drain().unwrap();
        assert_eq!(window.map_at(0, 1, |_| entry(11)).is_ok(), !mapped);
    });
}

/// A11: when all is quiet, and all timers have expired, nothing that was unmapped can be reached.
#[test]
fn a11_every_unmap_is_covered_by_a_timer() {
    explore(None, None, || {
        let window = window(2, 2, true, None);
        window.unmap(0, 1).unwrap();
        window.env().tlb.lock().unwrap().timers -= 1;
        let timer = spawn(&window, |w| w.expire().unwrap());
        window.unmap(1, 1).unwrap();
        timer.join().unwrap();
        let tlb = || window.env().tlb.lock().unwrap();
        while tlb().timers > 0 {
            tlb().timers -= 1;
            window.expire().unwrap();
        }
        assert_eq!(tlb().cached, [[0u64; 0]; 2], "reachable for ever");
    });
}

/// The same with another one's flush between, which the expired timer may share.
#[test]
fn a11_timer_may_share_a_flush() {
    explore(Some(3), Some(4), || {
        let window = window(2, 2, true, None);
        window.unmap(0, 1).unwrap();
        window.env().tlb.lock().unwrap().timers -= 1;
        let timer = spawn(&window, |w| w.expire().unwrap());
        let flusher = spawn(&window, |w| w.drain().unwrap());
        window.unmap(1, 1).unwrap();
        timer.join().unwrap();
        flusher.join().unwrap();
        let tlb = || window.env().tlb.lock().unwrap();
        while tlb().timers > 0 {
            tlb().timers -= 1;
            window.expire().unwrap();
        }
        assert_eq!(tlb().cached, [[0u64; 0]; 2], "reachable for ever");
    });
}

/// A17: two want the two pages that wait for a flush. Both get one.
#[test]
fn a17_both_find_what_is_left() {
    explore(Some(3), Some(4), || {
        let window = window(2, 2, false, None);
        window.unmap(0, 2).unwrap();
        let map = |cpu: usize| {
            move |w: &Window<Machine>| w.map(cpu, &Request::new(1), |_| entry(10)).unwrap()
        };
        let other = spawn(&window, map(1));
        let this = map(0)(&window);
        assert_ne!(this, other.join().unwrap());
        assert!(window.counts().flushes <= 2);
    });
}

/// A17: one page is mapped for good. Who wants one gets the other, unless it was not unmapped yet.
#[test]
fn a17_page_that_is_leaving() {
    explore(Some(3), Some(4), || {
        let window = window(2, 2, false, None);
        let unmapper = spawn(&window, |w| w.unmap(1, 1).unwrap());
        match window.map(0, &Request::new(1), |_| entry(10)) {
            Ok(first) => assert_eq!(first, 1),
            Err(error) => assert_eq!(error, Error::Full),
        }
        unmapper.join().unwrap();
    });
}

/// Why an entry is *leaving* before it is freed: with the stamp read first, and one write, the model
/// finds a page that is handed out while the hardware has it cached.
#[test]
#[should_panic = "old translation is cached"]
fn stamp_that_is_read_first_is_too_old() {
    explore(None, None, || {
        let window = window(1, 1, false, None);
        let clock: Arc<Clock<LoomWord>> = Arc::new(Clock::new(false));
        let unmapper = {
            let clock = clock.clone();
            spawn(&window, move |w| {
                let stamp = clock.epoch();
                w.env().leaves[0]
                    .compare_exchange(entry(0), Permissions::vacant(stamp))
                    .unwrap();
            })
        };
        let flusher = {
            let clock = clock.clone();
            spawn(&window, move |w| clock.drain(w.env()).unwrap())
        };
        let word = &window.env().leaves[0];
        let old = word.load();
        if !Permissions::is_present(old) && Permissions::stamp(old) < clock.flushed() {
            let _ = word.compare_exchange(old, entry(10));
        }
        unmapper.join().unwrap();
        flusher.join().unwrap();
    });
}
