// SPDX-License-Identifier: GPL-2.0

//! Random sequences, one after the other, compared with a model that has no stamps: it knows which
//! pages were unmapped since the hardware was last flushed.

use super::{entry, fit, Host, TimedOut};
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::leaves::NotMapped;
use iommu::lazy::window::{Error, Window};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Free,
    /// Unmapped since the last flush.
    Stale,
    Mapped(u64),
    Reserved,
}

#[derive(Clone, Debug)]
enum Step {
    Map(usize, Request),
    /// The mapping of this number, modulo how many there are.
    Unmap(usize),
    /// A range, whatever is there.
    UnmapAny(usize, usize),
    MapAt(usize, usize),
    Drain,
    Expire,
    Reserve(usize),
    /// Whether flushes fail from now on.
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..3, fit::request(24)).prop_map(|(cpu, request)| Step::Map(cpu, request)),
        6 => (0usize..3).prop_map(|cpu| Step::Map(cpu, Request::new(1))),
        2 => (0usize..4, fit::request(8), 0u64..300)
            .prop_map(|(cpu, request, last)| Step::Map(cpu, Request { last, ..request })),
        16 => any::<usize>().prop_map(Step::Unmap),
        1 => (0usize..200, 0usize..20).prop_map(|(first, pages)| Step::UnmapAny(first, pages)),
        1 => (0usize..200, 0usize..20).prop_map(|(first, pages)| Step::MapAt(first, pages)),
        1 => Just(Step::Drain),
        1 => Just(Step::Expire),
        1 => (0usize..200).prop_map(Step::Reserve),
        1 => prop::bool::weighted(0.3).prop_map(Step::Fail),
    ]
}

struct Model {
    pages: Rc<RefCell<Vec<Page>>>,
    failing: Rc<Cell<bool>>,
    flushes: Rc<Cell<u64>>,
    mappings: Vec<(usize, usize)>,
    frame: u64,
}

impl Model {
    /// Whether a run that suits has only pages for which `may` holds.
    fn has_room(&self, geometry: &Geometry, request: &Request, may: impl Fn(Page) -> bool) -> bool {
        let pages = self.pages.borrow();
        (0..pages.len()).any(|first| {
            fit::suits(geometry, request, first)
                && pages[first..first + request.pages].iter().all(|p| may(*p))
        })
    }

    fn take(&mut self, first: usize, count: usize) {
        for place in 0..count {
            let mut pages = self.pages.borrow_mut();
            assert_eq!(pages[first + place], Page::Free, "page {}", first + place);
            pages[first + place] = Page::Mapped(entry(self.frame + place as u64));
        }
        self.frame += count as u64;
        self.mappings.push((first, count));
    }

    fn drop_range(&mut self, first: usize, count: usize) -> usize {
        let mut pages = self.pages.borrow_mut();
        let mut wrong = 0;
        for page in first..first + count {
            match pages.get_mut(page) {
                Some(state @ Page::Mapped(_)) => *state = Page::Stale,
                _ => wrong += 1,
            }
        }
        wrong
    }
}

fn run(base: u64, pages: usize, chunk: usize, steps: Vec<Step>) {
    let geometry = Geometry::new(base, pages, chunk).unwrap();
    let mut model = Model {
        pages: Rc::new(RefCell::new(vec![Page::Free; pages])),
        failing: Rc::default(),
        flushes: Rc::default(),
        mappings: Vec::new(),
        frame: 1,
    };
    let (state, failing, flushes) = (
        model.pages.clone(),
        model.failing.clone(),
        model.flushes.clone(),
    );
    let window = Host::window(geometry, 3, true, move || {
        flushes.set(flushes.get() + 1);
        if failing.get() {
            return Err(TimedOut);
        }
        for page in state.borrow_mut().iter_mut() {
            if *page == Page::Stale {
                *page = Page::Free;
            }
        }
        Ok(())
    });
    for step in steps {
        apply(&mut model, &window, step);
        for (index, page) in model.pages.borrow().iter().enumerate() {
            let mapped = match page {
                Page::Mapped(entry) => Some(*entry),
                _ => None,
            };
            assert_eq!(window.lookup(index), mapped, "page {index}");
        }
        assert_eq!(window.counts().flushes, model.flushes.get());
    }
}

fn apply<H>(model: &mut Model, window: &Window<Host<H>>, step: Step)
where
    H: Fn() -> Result<(), TimedOut>,
{
    let geometry = *window.geometry();
    let frame = model.frame;
    let leaf = |place: usize| entry(frame + place as u64);
    let before = model.flushes.get();
    match step {
        Step::Map(cpu, request) => match window.map(cpu, &request, leaf) {
            Ok(first) => {
                assert!(
                    fit::suits(&geometry, &request, first),
                    "{request:?}: {first}"
                );
                model.take(first, request.pages);
            }
            Err(Error::Invalid) => assert!(!model.has_room(&geometry, &request, |_| true)),
            Err(Error::Full) => {
                let may = |page| matches!(page, Page::Free | Page::Stale);
                assert!(!model.has_room(&geometry, &request, may), "{request:?}");
            }
            Err(Error::Flush(TimedOut)) => {
                assert!(model.failing.get());
                assert!(!model.has_room(&geometry, &request, |page| page == Page::Free));
            }
        },
        Step::Unmap(number) => {
            if model.mappings.is_empty() {
                return;
            }
            let number = number % model.mappings.len();
            let (first, count) = model.mappings.swap_remove(number);
            let wrong = model.drop_range(first, count);
            let result = window.unmap(first, count);
            assert_eq!(result.map_or_else(|e| e.pages, |()| 0), wrong);
        }
        Step::UnmapAny(first, count) => {
            let result = window.unmap(first, count);
            if first + count > geometry.pages() {
                assert_eq!(result, Err(NotMapped { pages: count }));
            } else {
                let wrong = model.drop_range(first, count);
                assert_eq!(result.map_or_else(|e| e.pages, |()| 0), wrong);
            }
        }
        Step::MapAt(first, count) => {
            let free = |pages: &[Page]| pages.iter().all(|page| *page == Page::Free);
            let room = model.pages.borrow().get(first..first + count).map(free);
            match window.map_at(first, count, leaf) {
                Ok(()) => model.take(first, count),
                Err(Error::Full) => assert_eq!(room, Some(false)),
                Err(error) => assert_eq!((error, room), (Error::Invalid, None)),
            }
        }
        Step::Drain | Step::Expire => {
            let result = match step {
                Step::Drain => window.drain(),
                _ => window.expire(),
            };
            assert_eq!(result.is_err(), model.failing.get());
            assert_eq!(model.flushes.get(), before + 1);
        }
        Step::Reserve(page) => {
            let mut pages = model.pages.borrow_mut();
            let state = pages.get_mut(page);
            let may = state
                .as_deref()
                .is_some_and(|s| matches!(s, Page::Free | Page::Reserved));
            assert_eq!(window.reserve(page, 1), may);
            if let (Some(state), true) = (state, may) {
                *state = Page::Reserved;
            }
        }
        Step::Fail(fail) => model.failing.set(fail),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// A8, A16, A17: nothing is handed out before a flush that began after its unmap; everything is
    /// after one; there is no refusal while a flush could help, and flushes that failed free nothing.
    #[test]
    fn a16_behaves_as_the_model(
        base in prop_oneof![Just(0u64), 0u64..100],
        pages in 1usize..200,
        chunk in (0u32..7).prop_map(|order| 1 << order),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        run(base, pages, chunk, steps);
    }
}

/// A8: at most one flush for each window's worth of unmapped pages, but what is too small for a
/// request at the end of the window; if CPUs take turns, also at the end of what each took.
#[test]
fn a8_one_flush_a_lap() {
    const PAGES: usize = 4096;
    for (cpus, sizes) in [
        (1, &[1][..]),
        (1, &[32]),
        (1, &[1, 7, 32, 3]),
        (1, &[33]),
        (1, &[257]),
        (4, &[1]),
        (4, &[32]),
        (4, &[128]),
        (4, &[33]),
        (4, &[1, 7, 257, 3]),
    ] {
        let geometry = Geometry::new(0, PAGES, 64).unwrap();
        let window = Host::window(geometry, cpus, false, || Ok(()));
        let mut unmapped = 0;
        for round in 0..100_000 {
            let request = Request::new(sizes[round % sizes.len()]);
            // CPUs take turns of several requests each.
            let first = window
                .map(round / 5 % cpus, &request, |_| entry(1))
                .unwrap();
            window.unmap(first, request.pages).unwrap();
            unmapped += request.pages;
        }
        let counts = window.counts();
        let most = *sizes.iter().max().unwrap();
        // What the CPUs have taken stays behind when a lap ends.
        let taken = cpus * (most * 4).next_multiple_of(64);
        let lap = match (cpus, sizes) {
            (1, [size]) => PAGES / size * size,
            (1, _) => PAGES - most,
            (_, [size]) if size.is_power_of_two() => PAGES - taken,
            _ => PAGES.saturating_sub(taken) * 3 / 4,
        };
        let lap = lap.max(PAGES / 2);
        assert!(
            counts.flushes as usize <= unmapped / lap + 1,
            "{cpus} CPUs, {sizes:?}: {counts:?} for {unmapped} pages"
        );
        assert!(counts.flushes <= counts.laps + counts.searches);
    }
}

/// A17: 28 bits of addresses, 128 KiB and 1 MiB back to back, some of it mapped for long.
#[test]
fn a17_narrow_device_never_fails() {
    let geometry = Geometry::new(16, (1 << 16) - 16, 512).unwrap();
    let window = Host::window(geometry, 2, false, || Ok(()));
    let long: Vec<_> = (0..100)
        .map(|cpu| {
            window
                .map(cpu % 2, &Request::new(300), |_| entry(1))
                .unwrap()
        })
        .collect();
    for round in 0..200_000 {
        let request = Request::new(if round % 2 == 0 { 32 } else { 256 });
        let first = window.map(round % 2, &request, |_| entry(1)).unwrap();
        window.unmap(first, request.pages).unwrap();
    }
    assert_eq!(window.mapped(), long.len() * 300);
}

/// Nothing is to be gained by a flush if all is mapped, so there is none.
#[test]
fn full_window_is_not_flushed() {
    let geometry = Geometry::new(0, 64, 16).unwrap();
    let window = Host::window(geometry, 1, false, || Ok(()));
    for _ in 0..64 {
        window.map(0, &Request::new(1), |_| entry(1)).unwrap();
    }
    let before = window.counts().flushes;
    for _ in 0..100 {
        let result = window.map(7, &Request::new(1), |_| entry(1));
        assert_eq!(result, Err(Error::Full));
    }
    assert_eq!(window.counts().flushes, before);
}

/// The timer is started for the first unmap after each flush that it made, and only for that.
#[test]
fn a11_timer_is_started_once() {
    let failing = Rc::new(Cell::new(false));
    let fails = failing.clone();
    let geometry = Geometry::new(0, 64, 16).unwrap();
    let window = Host::window(geometry, 1, true, move || {
        if fails.get() {
            Err(TimedOut)
        } else {
            Ok(())
        }
    });
    let timers = || {
        window
            .env()
            .timers
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let pair = || {
        let first = window.map(0, &Request::new(1), |_| entry(1)).unwrap();
        window.unmap(first, 1).unwrap();
    };
    pair();
    pair();
    assert_eq!(timers(), 1);
    window.expire().unwrap();
    assert_eq!(timers(), 1);
    pair();
    pair();
    assert_eq!(timers(), 2);
    // Whoever handles the timer starts it again then.
    failing.set(true);
    assert_eq!(window.expire(), Err(TimedOut));
    pair();
    assert_eq!(timers(), 2);
    window.set_ageing(false);
    failing.set(false);
    window.expire().unwrap();
    pair();
    assert_eq!(timers(), 2);
    window.set_ageing(true);
    pair();
    assert_eq!(timers(), 3);
    // What maps nothing starts no timer.
    window.expire().unwrap();
    assert_eq!(window.unmap(60, 4), Err(NotMapped { pages: 4 }));
    assert_eq!(timers(), 3);
}

/// A new entry that is not present would be a page that is handed out twice.
#[test]
fn entries_that_are_not_present_are_refused() {
    let geometry = Geometry::new(0, 64, 16).unwrap();
    let window = Host::window(geometry, 1, false, || Ok(()));
    let result = window.map(0, &Request::new(3), |place| entry(1) * u64::from(place < 2));
    assert_eq!(result, Err(Error::Invalid));
    assert_eq!(window.mapped(), 0);
    assert_eq!(window.map(0, &Request::new(1), |_| 0), Err(Error::Invalid));
}
