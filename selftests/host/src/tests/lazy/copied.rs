// SPDX-License-Identifier: GPL-2.0

//! Hardware whose emulation has a copy of the table, and learns of a change only where something is
//! invalidated: what is mapped has to be in the copy.

use super::host::{promptly, HostWord};
use super::model::{explore, LoomWord};
use super::{entry, TimedOut};
use iommu::lazy::clock::Hardware;
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::format::{Format, Permissions};
use iommu::lazy::leaves::Table;
use iommu::lazy::quiet::Quiet;
use iommu::lazy::recent::Slot;
use iommu::lazy::window::Window;
use iommu::lazy::word::{Line, Word};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

struct Copied<W> {
    leaves: Vec<W>,
    cursors: Vec<Line<W>>,
    recent: Vec<Slot<W>>,
    domain: Quiet<W>,
    elsewhere: Quiet<W>,
    copy: Mutex<Vec<u64>>,
    looking: Mutex<()>,
    /// Not for loom, whose threads are all in one; there only one of them flushes.
    lock: Option<Mutex<()>>,
}

impl<W: Word> Copied<W> {
    fn window(pages: usize, lock: Option<Mutex<()>>) -> Window<Self> {
        let zero = || W::new(0);
        let copied = Self {
            leaves: (0..pages).map(|_| zero()).collect(),
            cursors: (0..2).map(|_| Line(zero())).collect(),
            recent: (0..16).map(|_| Slot::empty()).collect(),
            domain: Quiet::new(zero()),
            elsewhere: Quiet::new(zero()),
            copy: Mutex::new(vec![0; pages]),
            looking: Mutex::new(()),
            lock,
        };
        Window::new(copied, Geometry::new(0, pages, 8).unwrap(), false).unwrap()
    }

    /// The emulation looks at some entries. It does one thing at a time; loom changes threads only where
    /// a word is used, so there each entry's look is one thing anyway.
    fn look(&self, first: usize, pages: usize) {
        let one_thing = self.lock.is_some().then(|| self.looking.lock().unwrap());
        for (index, word) in self.leaves.iter().enumerate().skip(first).take(pages) {
            let value = word.load();
            self.copy.lock().unwrap()[index] = value;
        }
        drop(one_thing);
    }

    fn disturb(&self, first: usize, pages: usize) {
        let _under_way = self.elsewhere.begin();
        self.look(first, pages);
    }

    fn is_known(&self, first: usize, pages: usize, leaf: impl Fn(usize) -> u64) -> bool {
        let copy = self.copy.lock().unwrap();
        (0..pages).all(|place| copy[first + place] == leaf(place))
    }
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

    fn recent(&self) -> &[Slot<W>] {
        &self.recent
    }

    fn quiet(&self) -> Option<u64> {
        self.domain.now(&self.elsewhere)
    }
}

impl<W: Word> Hardware for Copied<W> {
    type Error = TimedOut;

    fn flush(&self) -> Result<(), TimedOut> {
        let _under_way = self.domain.begin();
        self.look(0, self.leaves.len());
        Ok(())
    }

    fn exclusively<R>(&self, f: impl FnOnce() -> R) -> R {
        let _guard = self.lock.as_ref().map(|lock| lock.lock().unwrap());
        f()
    }

    fn start_timer(&self) {}

    fn promptly<R>(&self, f: impl FnOnce() -> R) -> R {
        promptly(f)
    }

    fn relax(&self) {
        std::thread::yield_now();
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
    window.env().look(first, request.pages);
    Some((first, false))
}

#[derive(Clone, Debug)]
enum Step {
    /// Memory of this number, so many pages; whether it is in one piece.
    Map(u64, usize, bool),
    Unmap(usize),
    Drain,
    Disturb(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..6, 1usize..5, prop::bool::weighted(0.8)).prop_map(|(n, p, o)| Step::Map(n, p, o)),
        8 => any::<usize>().prop_map(Step::Unmap),
        1 => Just(Step::Drain),
        1 => (0usize..32, 1usize..32).prop_map(|(first, pages)| Step::Disturb(first, pages)),
    ]
}

/// Returns how many maps there were, and how many were had again.
fn run(steps: &[Step]) -> (usize, usize) {
    let window = Copied::<HostWord>::window(64, Some(Mutex::new(())));
    let mut mapped = Vec::new();
    let (mut maps, mut again) = (0, 0);
    for step in steps {
        match *step {
            Step::Map(number, pages, whole) => {
                let far = if whole { 1 } else { 3 };
                let leaf = move |place: usize| entry(number * 64 + 1 + far * place as u64);
                let request = Request::new(pages);
                if let Some((first, had)) = map(&window, 0, &request, leaf) {
                    mapped.push((first, pages, number, far));
                    maps += 1;
                    again += usize::from(had);
                }
            }
            Step::Unmap(which) if !mapped.is_empty() => {
                let (first, pages, ..) = mapped.swap_remove(which % mapped.len());
                window.unmap_for_now(first, pages).unwrap();
            }
            Step::Unmap(_) => {}
            Step::Drain => window.drain().unwrap(),
            Step::Disturb(first, pages) => window.env().disturb(first, pages),
        }
        for &(first, pages, number, far) in &mapped {
            let leaf = |place: usize| entry(number * 64 + 1 + far * place as u64);
            for place in 0..pages {
                assert_eq!(window.lookup(first + place), Some(leaf(place)));
            }
            assert!(
                window.env().is_known(first, pages, leaf),
                "{step:?}: {first}"
            );
        }
    }
    (maps, again)
}

proptest! {
    #[test]
    fn y4_what_is_mapped_is_known(steps in prop::collection::vec(step(), 1..200)) {
        run(&steps);
    }
}

#[test]
fn y4_what_comes_back_is_not_announced() {
    let steps: Vec<Step> = (0..100)
        .flat_map(|n| [Step::Map(n % 4, 4, true), Step::Unmap(0)])
        .collect();
    assert_eq!(run(&steps), (100, 96));
    // Nor is it while others are announced for the first time.
    let window = Copied::<HostWord>::window(64, Some(Mutex::new(())));
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
    let window = Copied::<HostWord>::window(64, Some(Mutex::new(())));
    let leaf = |place: usize| entry(1 + place as u64);
    let (first, _) = map(&window, 0, &Request::new(3), leaf).unwrap();
    window.unmap_for_now(first, 3).unwrap();
    // Another length, other memory behind the first page, a limit.
    assert_eq!(window.map_again(&Request::new(2), leaf), None);
    let scattered = |place: usize| entry(1 + 2 * place as u64);
    assert_eq!(window.map_again(&Request::new(3), scattered), None);
    let (first, again) = map(&window, 0, &Request::new(3), leaf).unwrap();
    assert!(!again, "it was forgotten by the last try");
    window.unmap_for_now(first, 3).unwrap();
    let low = Request {
        last: first as u64 + 1,
        ..Request::new(3)
    };
    assert_eq!(window.map_again(&low, leaf), None);
}

#[test]
fn y4_a_failed_invalidation_is_the_last_quiet_time() {
    let window = Copied::<HostWord>::window(8, None);
    let leaf = |_: usize| entry(1);
    let (first, _) = map(&window, 0, &Request::new(1), leaf).unwrap();
    window.unmap_for_now(first, 1).unwrap();
    for _ in 0..1 << 21 {
        window.env().domain.begin().has_failed();
    }
    assert_eq!(window.map_again(&Request::new(1), leaf), None);
    window.env().elsewhere.begin().has_failed();
    assert_eq!(window.env().quiet(), None);
}

#[test]
fn y4_what_maps_nothing_is_not_had_again() {
    let window = Copied::<HostWord>::window(8, None);
    let (first, _) = map(&window, 0, &Request::new(1), |_| entry(1)).unwrap();
    window.unmap_for_now(first, 1).unwrap();
    let (first, had) = map(&window, 0, &Request::new(1), |_| entry(1)).unwrap();
    assert!(had);
    window.unmap(first, 1).unwrap();
    assert_eq!(window.map_again(&Request::new(1), |_| 0), None);
}

/// Threads with memory of their own, and one that flushes and disturbs.
#[test]
fn y4_threads_find_what_they_map_known() {
    let window = Copied::<HostWord>::window(256, Some(Mutex::new(())));
    let again = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mappers: Vec<_> = (0..2)
            .map(|cpu| {
                let (window, again) = (&window, &again);
                scope.spawn(move || {
                    for n in 0..100_000u64 {
                        let number = cpu as u64 * 4 + n % 4;
                        let leaf = |place: usize| entry(number * 64 + 1 + place as u64);
                        let Some((first, had)) = map(window, cpu, &Request::new(2), leaf) else {
                            continue;
                        };
                        assert!(window.env().is_known(first, 2, leaf), "again: {had}");
                        again.fetch_add(usize::from(had), std::sync::atomic::Ordering::Relaxed);
                        window.unmap_for_now(first, 2).unwrap();
                    }
                })
            })
            .collect();
        let window = &window;
        scope.spawn(move || {
            let mut first = 0;
            while !mappers.iter().all(|mapper| mapper.is_finished()) {
                window.drain().unwrap();
                first = (first + 7) % 256;
                window.env().disturb(first, 16);
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
    });
    assert!(again.into_inner() > 1000, "hardly anything was had again");
}

/// A page that was mapped is unmapped and mapped, while `other` goes on.
fn unmapper(other: impl Fn(&Window<Copied<LoomWord>>) + Copy + Send + Sync + 'static) {
    explore(None, Some(3), move || {
        let window = Arc::new(Copied::<LoomWord>::window(2, None));
        map(&window, 0, &Request::new(1), |_| entry(1)).unwrap();
        let thread = {
            let window = window.clone();
            loom::thread::spawn(move || other(&window))
        };
        window.unmap_for_now(0, 1).unwrap();
        let again = window.map_again(&Request::new(1), |_| entry(1));
        thread.join().unwrap();
        let present = Permissions::is_present(window.env().leaves[0].load());
        assert!(again.is_none() || present);
        assert!(!present || window.env().is_known(0, 1, |_| entry(1)));
    });
}

#[test]
fn model_y4_a_flush_while_a_page_is_unmapped() {
    unmapper(|window| window.drain().unwrap());
}

#[test]
fn model_y4_an_invalidation_elsewhere_while_a_page_is_unmapped() {
    unmapper(|window| window.env().disturb(0, 1));
}

#[test]
fn model_y4_two_want_the_same_page() {
    unmapper(|window| {
        if let Some(first) = window.map_again(&Request::new(1), |_| entry(1)) {
            assert_eq!(first, 0);
        }
    });
}
