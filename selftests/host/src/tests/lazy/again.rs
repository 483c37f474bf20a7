// SPDX-License-Identifier: GPL-2.0

//! Runs that are kept when they are unmapped. The hardware has a copy of the table, and learns of a change
//! only where it is told to look: what is mapped has to be in the copy, and what was unmapped before a
//! flush must not.

use super::host::{promptly, HostWord};
use super::model::{explore, LoomWord};
use super::{entry, TimedOut};
use iommu::lazy::clock::Hardware;
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::format::{Format, Permissions};
use iommu::lazy::leaves::{NotMapped, Table};
use iommu::lazy::window::Window;
use iommu::lazy::word::{Line, Word};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

enum Lock {
    Host(Mutex<()>),
    Loom(loom::sync::Mutex<()>),
}

struct Copied<W> {
    leaves: Vec<W>,
    cursors: Vec<Line<W>>,
    recent: Vec<W>,
    copy: Mutex<Vec<u64>>,
    looking: Mutex<()>,
    lock: Lock,
    timers: Mutex<u32>,
    fails: AtomicBool,
}

impl<W: Word> Copied<W> {
    fn window(pages: usize, places: usize, lock: Lock) -> Window<Self> {
        let zero = || W::new(0);
        let copied = Self {
            leaves: (0..pages).map(|_| zero()).collect(),
            cursors: (0..2).map(|_| Line(zero())).collect(),
            recent: (0..places).map(|_| zero()).collect(),
            copy: Mutex::new(vec![0; pages]),
            looking: Mutex::new(()),
            lock,
            timers: Mutex::new(0),
            fails: AtomicBool::new(false),
        };
        Window::new(copied, Geometry::new(0, pages, 8).unwrap(), true).unwrap()
    }

    /// The hardware looks at some entries. It does one thing at a time; loom changes threads only where
    /// a word is used, so there each entry's look is one thing anyway.
    fn look(&self, first: usize, pages: usize) {
        let one_thing = match self.lock {
            Lock::Host(_) => Some(self.looking.lock().unwrap()),
            Lock::Loom(_) => None,
        };
        for (index, word) in self.leaves.iter().enumerate().skip(first).take(pages) {
            let value = word.load() & !Permissions::KEPT;
            let present = Permissions::is_present(value);
            self.copy.lock().unwrap()[index] = if present { value } else { 0 };
        }
        drop(one_thing);
    }

    fn is_known(&self, first: usize, pages: usize, leaf: impl Fn(usize) -> u64) -> bool {
        let copy = self.copy.lock().unwrap();
        (0..pages).all(|place| copy[first + place] == leaf(place))
    }

    fn is_reached(&self, first: usize, pages: usize) -> bool {
        let copy = self.copy.lock().unwrap();
        copy[first..first + pages].iter().any(|entry| *entry != 0)
    }

    /// Whether a timer was started that has not expired; it is about to.
    fn take_timer(&self) -> bool {
        let mut timers = self.timers.lock().unwrap();
        let taken = timers.checked_sub(1);
        *timers = taken.unwrap_or(0);
        taken.is_some()
    }
}

fn host_window(pages: usize, places: usize) -> Window<Copied<HostWord>> {
    Copied::window(pages, places, Lock::Host(Mutex::new(())))
}

impl<W: Word> Table for Copied<W> {
    type Word = W;
    type Format = Permissions;

    fn leaves(&self) -> &[W] {
        &self.leaves
    }

    fn cursors(&self) -> &[Line<W>] {
        &self.cursors
    }

    fn recent(&self) -> &[W] {
        &self.recent
    }
}

impl<W: Word> Hardware for Copied<W> {
    type Error = TimedOut;

    fn flush(&self) -> Result<(), TimedOut> {
        if self.fails.load(Relaxed) {
            return Err(TimedOut);
        }
        self.look(0, self.leaves.len());
        Ok(())
    }

    fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.lock {
            Lock::Host(lock) => {
                let _guard = lock.lock().unwrap();
                f()
            }
            Lock::Loom(lock) => {
                let _guard = lock.lock().unwrap();
                f()
            }
        }
    }

    fn exclusively_if_free<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        match &self.lock {
            Lock::Host(lock) => lock.try_lock().ok().map(|_guard| f()),
            Lock::Loom(lock) => lock.try_lock().ok().map(|_guard| f()),
        }
    }

    fn start_timer(&self) {
        *self.timers.lock().unwrap() += 1;
    }

    fn promptly<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.lock {
            Lock::Host(_) => promptly(f),
            // Of another thread's, in the same thread of the host.
            Lock::Loom(_) => f(),
        }
    }

    fn relax(&self) {
        match self.lock {
            Lock::Host(_) => std::thread::yield_now(),
            Lock::Loom(_) => loom::thread::yield_now(),
        }
    }
}

/// Maps as the kernel does; returns the first page, and whether it was had again.
fn map<W: Word>(
    window: &Window<Copied<W>>,
    cpu: usize,
    request: &Request,
    leaf: impl Fn(usize) -> u64,
) -> Option<(usize, bool)> {
    if let Some(first) = window.map_again(request, &leaf) {
        return Some((first, true));
    }
    let first = window.map(cpu, request, &leaf).ok()?;
    // Others may have it looked at already.
    for place in 0..request.pages {
        let known = window.env().copy.lock().unwrap()[first + place];
        assert!(
            known == 0 || known == leaf(place),
            "handed out before a flush"
        );
    }
    window.env().look(first, request.pages);
    Some((first, false))
}

#[derive(Clone, Debug)]
enum Step {
    /// Memory of this number, so many pages; whether it is in one piece.
    Map(u64, usize, bool),
    Unmap(usize),
    /// What was unmapped last, which is a mistake.
    UnmapAgain,
    Drain,
    Expire,
    /// Whether flushes fail from now on.
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..6, 1usize..5, prop::bool::weighted(0.8)).prop_map(|(n, p, o)| Step::Map(n, p, o)),
        1 => (0u64..6, 5usize..70).prop_map(|(n, p)| Step::Map(n, p, true)),
        8 => any::<usize>().prop_map(Step::Unmap),
        1 => Just(Step::UnmapAgain),
        1 => Just(Step::Drain),
        1 => Just(Step::Expire),
        1 => prop::bool::weighted(0.3).prop_map(Step::Fail),
    ]
}

/// Returns how many maps there were, and how many were had again.
fn run(pages: usize, places: usize, steps: &[Step]) -> (usize, usize) {
    let window = host_window(pages, places);
    let mut mapped = Vec::new();
    let mut last = None;
    let (mut maps, mut again) = (0, 0);
    for step in steps {
        let fails = window.env().fails.load(Relaxed);
        match *step {
            Step::Map(number, pages, whole) => {
                let far = if whole { 1 } else { 3 };
                let leaf = move |place: usize| entry(number * 64 + 1 + far * place as u64);
                let request = Request::new(pages);
                if let Some((first, had)) = map(&window, 0, &request, leaf) {
                    mapped.push((first, pages, number, far));
                    maps += 1;
                    again += usize::from(had);
                    last = None;
                }
            }
            Step::Unmap(which) if !mapped.is_empty() => {
                let (first, pages, ..) = mapped.swap_remove(which % mapped.len());
                window.unmap_for_now(first, pages).unwrap();
                last = Some((first, pages));
            }
            Step::UnmapAgain => {
                if let Some((first, pages)) = last {
                    let wrong = Err(NotMapped { pages });
                    assert_eq!(window.unmap_for_now(first, pages), wrong);
                    assert_eq!(window.unmap(first, pages), wrong);
                }
            }
            Step::Unmap(_) => {}
            Step::Drain => assert_eq!(window.drain().is_err(), fails),
            Step::Expire => assert_eq!(window.expire().is_err(), fails),
            Step::Fail(fail) => window.env().fails.store(fail, Relaxed),
        }
        let mut free = vec![true; pages];
        for &(first, pages, number, far) in &mapped {
            let leaf = |place: usize| entry(number * 64 + 1 + far * place as u64);
            for place in 0..pages {
                assert_eq!(window.lookup(first + place), Some(leaf(place)));
                free[first + place] = false;
            }
            assert!(
                window.env().is_known(first, pages, leaf),
                "{step:?}: {first}"
            );
        }
        let drained = matches!(step, Step::Drain | Step::Expire) && !fails;
        for index in (0..pages).filter(|index| free[*index]) {
            assert_eq!(window.lookup(index), None);
            assert!(!drained || !window.env().is_reached(index, 1), "{index}");
        }
        assert!(!drained || window.kept() == 0);
        assert!(window.kept() <= places);
    }
    (maps, again)
}

proptest! {
    #[test]
    fn y4_what_is_mapped_is_known(steps in prop::collection::vec(step(), 1..200)) {
        run(128, 16, &steps);
    }

    #[test]
    fn y4_with_few_places(steps in prop::collection::vec(step(), 1..200), places in 0usize..4) {
        run(128, places, &steps);
    }
}

#[test]
fn y4_what_comes_back_is_not_announced() {
    let steps: Vec<Step> = (0..100)
        .flat_map(|n| [Step::Map(n % 4, 4, true), Step::Unmap(0)])
        .collect();
    assert_eq!(run(64, 16, &steps), (100, 96));
    // Not even if there was a lap in between, or others are announced for the first time.
    let window = host_window(64, 16);
    let request = Request::new(1);
    for n in 0..30 {
        let (first, again) = map(&window, 0, &request, |_| entry(1)).unwrap();
        assert_eq!((first, again), (0, n > 0));
        window.unmap_for_now(first, 1).unwrap();
        map(&window, 0, &request, |_| entry(100 + n)).unwrap();
    }
}

#[test]
fn y4_what_does_not_suit_is_not_had_again() {
    let window = host_window(256, 16);
    let leaf = |place: usize| entry(1 + place as u64);
    let (first, _) = map(&window, 0, &Request::new(3), leaf).unwrap();
    window.unmap_for_now(first, 3).unwrap();
    // Another length, other memory behind the first page, less access, a limit.
    assert_eq!(window.map_again(&Request::new(2), leaf), None);
    let scattered = |place: usize| entry(1 + 2 * place as u64);
    assert_eq!(window.map_again(&Request::new(3), scattered), None);
    assert_eq!(window.map_again(&Request::new(3), |p| leaf(p) & !2), None);
    let low = Request {
        last: first as u64 + 1,
        ..Request::new(3)
    };
    assert_eq!(window.map_again(&low, leaf), None);
    assert_eq!(window.map_again(&Request::new(3), leaf), Some(first));
    window.unmap_for_now(first, 3).unwrap();
    assert_eq!(window.kept(), 1);
    // What is too long, or too high in memory, is unmapped like all else.
    for (pages, frame) in [(33, 1000), (1, 1u64 << 32)] {
        let leaf = |place: usize| entry(frame + place as u64);
        let (first, had) = map(&window, 0, &Request::new(pages), leaf).unwrap();
        window.unmap_for_now(first, pages).unwrap();
        assert!(!had && window.kept() == 1);
        assert_eq!(window.map_again(&Request::new(pages), leaf), None);
    }
}

#[test]
fn y4_what_maps_nothing_is_not_had_again() {
    let window = host_window(8, 8);
    let (first, _) = map(&window, 0, &Request::new(1), |_| entry(1)).unwrap();
    window.unmap_for_now(first, 1).unwrap();
    assert_eq!(window.map_again(&Request::new(1), |_| 0), None);
    assert_eq!(window.map_again(&Request::new(1), |_| entry(1)), Some(0));
}

/// A17: what is kept is in nobody's way.
#[test]
fn a17_what_is_kept_is_free() {
    let window = host_window(64, 16);
    let mapped: Vec<_> = (0..16)
        .map(|n| {
            let leaf = move |place: usize| entry(n * 64 + place as u64);
            map(&window, 0, &Request::new(4), leaf).unwrap().0
        })
        .collect();
    for first in mapped {
        window.unmap_for_now(first, 4).unwrap();
    }
    assert!(window.kept() >= 8);
    let leaf = |place: usize| entry(5000 + place as u64);
    assert_eq!(map(&window, 0, &Request::new(64), leaf), Some((0, false)));
    assert_eq!(window.kept(), 0);
}

/// Threads with memory of their own, and one that flushes.
#[test]
fn y4_threads_find_what_they_map_known() {
    let window = host_window(256, 8);
    let again = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mappers: Vec<_> = (0..2)
            .map(|cpu| {
                let (window, again) = (&window, &again);
                scope.spawn(move || {
                    for n in 0..100_000u64 {
                        // More than there are places.
                        let number = cpu as u64 * 6 + n % 6;
                        let leaf = |place: usize| entry(number * 64 + 1 + place as u64);
                        let Some((first, had)) = map(window, cpu, &Request::new(2), leaf) else {
                            continue;
                        };
                        assert!(window.env().is_known(first, 2, leaf), "again: {had}");
                        again.fetch_add(usize::from(had), Relaxed);
                        window.unmap_for_now(first, 2).unwrap();
                    }
                })
            })
            .collect();
        let window = &window;
        scope.spawn(move || {
            while !mappers.iter().all(|mapper| mapper.is_finished()) {
                window.drain().unwrap();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
    });
    assert!(again.into_inner() > 1000, "hardly anything was had again");
    window.drain().unwrap();
    assert!(!window.env().is_reached(0, 256));
}

fn loom_window(places: usize) -> Arc<Window<Copied<LoomWord>>> {
    let window = Copied::window(2, places, Lock::Loom(loom::sync::Mutex::new(())));
    for page in 0..2 {
        let leaf = |_: usize| entry(1 + page);
        map(&window, 0, &Request::new(1), leaf).unwrap();
    }
    Arc::new(window)
}

fn spawn<T: 'static>(
    window: &Arc<Window<Copied<LoomWord>>>,
    f: impl FnOnce(&Window<Copied<LoomWord>>) -> T + 'static,
) -> loom::thread::JoinHandle<T> {
    let window = window.clone();
    loom::thread::spawn(move || f(&window))
}

fn again(window: &Window<Copied<LoomWord>>) -> bool {
    let first = window.map_again(&Request::new(1), |_| entry(1));
    assert!(matches!(first, None | Some(0)));
    first.is_some()
}

/// Whoever has a page again finds it known, and whoever drains finds it gone unless somebody has it.
#[test]
fn model_y4_a_flush_while_a_page_is_had_again() {
    explore(None, Some(3), || {
        let window = loom_window(1);
        window.unmap_for_now(0, 1).unwrap();
        let flusher = spawn(&window, |w| w.drain().unwrap());
        let had = again(&window);
        assert!(!had || window.env().is_known(0, 1, |_| entry(1)));
        flusher.join().unwrap();
        assert_eq!(window.env().is_known(0, 1, |_| entry(1)), had);
        assert_eq!(window.lookup(0).is_some(), had);
    });
}

#[test]
fn model_y4_two_want_the_same_page() {
    explore(None, Some(3), || {
        let window = loom_window(1);
        let other = spawn(&window, again);
        window.unmap_for_now(0, 1).unwrap();
        let had = again(&window);
        assert!(had ^ other.join().unwrap());
        assert!(window.env().is_known(0, 1, |_| entry(1)));
    });
}

#[test]
fn model_y4_unmapped_twice() {
    for pages in [1, 2] {
        explore(Some(3), Some(3), move || {
            let window = loom_window(1);
            let other = spawn(&window, move |w| w.unmap_for_now(0, pages));
            let this = window.unmap_for_now(0, pages);
            let others = other.join().unwrap();
            // Who kept only a part gives that up, and is told so of all.
            assert!(this.is_err() || others.is_err());
            assert_eq!(window.lookup(0), None);
            window.drain().unwrap();
            assert!(!window.env().is_reached(0, 2) || pages == 1);
            assert!(!window.env().is_reached(0, 1));
            assert_eq!(window.kept(), 0);
        });
    }
}

/// A17: one wants a page while another one is kept and had again.
#[test]
fn model_a17_a_search_while_a_page_is_had_again() {
    explore(Some(3), Some(3), || {
        let window = loom_window(1);
        window.unmap_for_now(0, 1).unwrap();
        let other = spawn(&window, |w| {
            let found = w.map(1, &Request::new(1), |_| entry(3));
            found.is_ok().then(|| {
                assert_eq!(found, Ok(0));
                assert!(!w.env().is_known(0, 1, |_| entry(1)), "before its flush");
            })
        });
        let had = again(&window);
        assert!(had ^ other.join().unwrap().is_some());
    });
}

/// One page is pushed out by another one. It was unmapped before the drain, so it has gone after it.
#[test]
fn model_y4_a_flush_while_a_page_is_pushed_out() {
    explore(None, Some(3), || {
        let window = loom_window(1);
        window.unmap_for_now(0, 1).unwrap();
        let flusher = spawn(&window, |w| {
            w.drain().unwrap();
            assert!(!w.env().is_reached(0, 1));
        });
        window.unmap_for_now(1, 1).unwrap();
        flusher.join().unwrap();
    });
}

/// A11: when all is quiet, and all timers have expired, nothing that was unmapped can be reached.
#[test]
fn model_a11_what_is_kept_is_covered_by_a_timer() {
    for places in [0, 1, 2] {
        explore(None, Some(3), move || {
            let window = loom_window(places);
            window.unmap_for_now(0, 1).unwrap();
            assert!(window.env().take_timer());
            let timer = spawn(&window, |w| {
                w.expire().unwrap();
                assert!(!w.env().is_reached(0, 1), "longer than one age");
            });
            window.unmap_for_now(1, 1).unwrap();
            timer.join().unwrap();
            while window.env().take_timer() {
                window.expire().unwrap();
            }
            assert!(!window.env().is_reached(0, 2), "reachable for ever");
        });
    }
}
