// SPDX-License-Identifier: GPL-2.0

//! What a domain maps, against a model that knows every page.

mod calls;

use std::{cell::Cell, collections::BTreeMap, ops::ControlFlow};

use iommu::mappings::{
    index::{self, Refused, Tree},
    run::{Rights, Run, State},
};
use proptest::prelude::*;
use rand::{rngs::SmallRng, seq::SliceRandom, Rng, SeedableRng};

const PAGE: u64 = 4096;
const RW: Rights = Rights {
    read: true,
    write: true,
    mmio: false,
};

thread_local! {
    /// Room that can still be had; `None`: any number.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Room that is there: that of runs and that which is kept.
    static ROOMS: Cell<usize> = const { Cell::new(0) };
}

/// Room for a run, counted.
struct Room;

impl Room {
    fn new() -> Self {
        ROOMS.set(ROOMS.get() + 1);
        Self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        ROOMS.set(ROOMS.get() - 1);
    }
}

/// What the kernel's tree does, with the library's: each run below its last address.
#[derive(Default)]
struct Host(BTreeMap<u64, (Run, Room)>);

impl Tree for Host {
    type Room = Room;

    fn room() -> Option<Room> {
        match LEFT.get() {
            Some(0) => return None,
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        Some(Room::new())
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn insert(&mut self, room: Room, run: Run) -> Result<(), Room> {
        if self
            .at_or_after(run.iova)
            .is_some_and(|next| next.iova <= run.last)
        {
            return Err(room);
        }
        self.0.insert(run.last, (run, room));
        Ok(())
    }

    fn at_or_after(&self, at: u64) -> Option<Run> {
        self.0.range(at..).next().map(|(_, (run, _))| *run)
    }

    fn visit(
        &mut self,
        start: u64,
        last: u64,
        mut each: impl FnMut(&Run, &mut State) -> ControlFlow<()>,
    ) {
        for (run, _) in self.0.range_mut(start..).map(|(_, value)| value) {
            let shown = *run;
            if shown.iova > last || each(&shown, &mut run.state).is_break() {
                return;
            }
        }
    }

    fn take_while(
        &mut self,
        at: u64,
        mut wanted: impl FnMut(&Run) -> bool,
        mut taken: impl FnMut(Room),
    ) {
        while let Some(run) = self.at_or_after(at).filter(|run| wanted(run)) {
            let (_, room) = self.0.remove(&run.last).unwrap();
            taken(room);
        }
    }
}

type Mappings = index::Mappings<Host>;

fn run(iova: u64, phys: u64, bytes: u64) -> Run {
    Run::new(iova, phys, bytes, RW).unwrap()
}

/// Maps, and tells nobody yet.
fn insert(mappings: &mut Mappings, run: Run) -> bool {
    mappings.insert(Room::new(), run).is_ok()
}

/// Tells of what was mapped between two addresses, first and last.
fn tell(mappings: &mut Mappings, start: u64, last: u64) {
    fresh(mappings, start, last);
    mappings.settle(start, last);
}

/// Maps, and tells of it at once.
fn map(mappings: &mut Mappings, iova: u64, phys: u64, bytes: u64) -> bool {
    let inserted = insert(mappings, run(iova, phys, bytes));
    if inserted {
        tell(mappings, iova, iova + (bytes - 1));
    }
    inserted
}

fn runs(mappings: &Mappings) -> Vec<Run> {
    let mut all = Vec::new();
    let mut at = Some(0);
    while let Some(run) = at.and_then(|at| mappings.at_or_after(at)) {
        all.push(run);
        at = run.last.checked_add(1);
    }
    all
}

/// Fresh runs from `start` to `last`.
fn fresh(mappings: &mut Mappings, start: u64, last: u64) -> Vec<Run> {
    let mut all = Vec::new();
    mappings.each_fresh(start, last, |run| {
        all.push(*run);
        ControlFlow::Continue(())
    });
    all
}

/// What was unmapped and is not forgotten, of the first pages: from which to before which.
fn waiting(mappings: &Mappings) -> Vec<(u64, u64)> {
    let is_waiting = |page: &u64| mappings.is_deferred(page * PAGE, page * PAGE + (PAGE - 1));
    let pages: Vec<u64> = (0..128).filter(is_waiting).collect();
    let ranges = pages.chunk_by(|a, b| a + 1 == *b);
    ranges
        .map(|range| (range[0], range[range.len() - 1] + 1))
        .collect()
}

/// What units are to be asked to forget, after `begin_flush`.
fn spans(mappings: &mut Mappings) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    let mut at = Some(0);
    while let Some(span) = at.and_then(|at| mappings.span(at)) {
        all.push(span);
        at = span.1.checked_add(1);
    }
    all
}

/// An index of `pages`, each mapped by a call of its own.
fn index_of(pages: impl Iterator<Item = (u64, u64)>) -> Mappings {
    let mut mappings = Mappings::new(index::FEW);
    for (iova, phys) in pages {
        assert!(map(&mut mappings, iova, phys, PAGE));
    }
    mappings
}

/// All bytes of it. The kernel's tree does not compile with more for a run.
fn bytes(mappings: &Mappings) -> u64 {
    (ROOMS.get() * index::RUN + size_of_val(mappings)) as u64
}

const GIB8: u64 = 8 << 30;

#[test]
fn e10_scattered_pages_take_two_percent_at_most() {
    let pages = GIB8 / PAGE;
    let mut phys: Vec<u64> = (0..pages).collect();
    phys.shuffle(&mut SmallRng::seed_from_u64(1));
    // Neighbours in DMA addresses, but not in memory.
    let mut mappings = index_of((0..).zip(&phys).map(|(i, phys)| (i * PAGE, phys * PAGE)));
    println!("{} bytes for 8 GB scattered", bytes(&mappings));
    assert!(runs(&mappings).len() as u64 > pages * 99 / 100);
    assert!(bytes(&mappings) <= GIB8 / 50);
    assert_eq!(mappings.remove(0, GIB8 - 1), GIB8);
    assert_eq!(runs(&mappings).len(), 0);
    drop(mappings);
    assert_eq!(ROOMS.get(), 0);
    // Neighbours in neither.
    let mappings = index_of(
        (0..)
            .zip(&phys)
            .map(|(i, phys)| (2 * i * PAGE, phys * PAGE)),
    );
    assert_eq!(runs(&mappings).len() as u64, pages);
    assert!(bytes(&mappings) <= GIB8 / 50);
}

#[test]
fn e10_contiguous_pages_take_a_megabyte_at_most() {
    let pages = GIB8 / PAGE;
    let mut order: Vec<u64> = (0..pages).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(2));
    for order in [(0..pages).collect(), (0..pages).rev().collect(), order] {
        let at = |i| ((1 << 40) + i * PAGE, i * PAGE);
        let mut mappings = index_of(order.into_iter().map(at));
        println!("{} bytes for 8 GB contiguous", bytes(&mappings));
        assert!(bytes(&mappings) <= 1 << 20);
        // One, but for those that came while there were few.
        assert!(runs(&mappings).len() <= index::FEW + 1);
        let mapped = |mappings: &Mappings| {
            let all = runs(mappings);
            all.iter().flat_map(Run::pieces).count() as u64
        };
        assert_eq!(mapped(&mappings), pages);
        // Pieces stay what they are: one goes, its neighbours stay.
        let (start, phys) = at(pages / 2);
        assert_eq!(mappings.remove(start, start + (PAGE - 1)), PAGE);
        assert_eq!(mappings.phys(start), None);
        assert_eq!(mappings.phys(start - 1), Some(phys - 1));
        assert_eq!(mappings.phys(start + PAGE), Some(phys + PAGE));
        assert_eq!(mapped(&mappings), pages - 1);
    }
}

#[test]
fn what_one_mapper_maps_is_told_as_one() {
    let mut mappings = Mappings::new(0);
    for i in [3, 0, 1, 2, 5] {
        assert!(insert(&mut mappings, run(i * PAGE, i * PAGE, PAGE)));
    }
    // Another mapper's page, next to them, is not joined.
    let others = [run(3 * PAGE, 3 * PAGE, PAGE), run(5 * PAGE, 5 * PAGE, PAGE)];
    assert_eq!(fresh(&mut mappings, 0, 3 * PAGE - 1), [run(0, 0, 3 * PAGE)]);
    assert_eq!(fresh(&mut mappings, PAGE, u64::MAX), others);
    mappings.settle(0, 3 * PAGE - 1);
    assert_eq!(fresh(&mut mappings, 0, u64::MAX), others);
    assert!(mappings.told(0, 0).is_some() && mappings.told(3 * PAGE, u64::MAX).is_none());
    // A piece is not cut: it stays if it starts earlier, and goes whole if it ends later.
    assert_eq!(mappings.remove(PAGE, 2 * PAGE - 1), 0);
    assert_eq!(mappings.remove(0, 2 * PAGE - 1), 3 * PAGE);
    assert_eq!(mappings.remove(0, 4 * PAGE - 1), 0);
    assert_eq!(mappings.remove(3 * PAGE, 4 * PAGE - 1), PAGE);
    // It ends at what is not mapped.
    assert_eq!(mappings.remove(4 * PAGE, 6 * PAGE - 1), 0);
    assert_eq!(mappings.phys(5 * PAGE + 7), Some(5 * PAGE + 7));
    assert_eq!(mappings.phys(4 * PAGE), None);
}

#[test]
fn a_list_is_told_in_parts_of_any_length() {
    // Pages in memory: 3 that follow each other, 1, 2, 1, 2.
    let phys = [0, 1, 2, 9, 20, 21, 30, 40, 41];
    let pieces = [(0, 3), (3, 1), (4, 2), (6, 1), (7, 2)];
    for part in 1..=pieces.len() {
        let mut mappings = Mappings::new(0);
        for (i, phys) in (0..).zip(&phys) {
            assert!(insert(&mut mappings, run(i * PAGE, phys * PAGE, PAGE)));
        }
        let mut shown = Vec::new();
        let mut at = Some(0);
        while let Some(from) = at.take() {
            let mut room = part;
            mappings.each_fresh(from, 9 * PAGE - 1, |run| {
                if room == 0 {
                    at = Some(run.iova);
                    return ControlFlow::Break(());
                }
                room -= 1;
                assert_eq!(run.piece.get(), run.bytes());
                shown.push((run.iova / PAGE, run.bytes() / PAGE));
                ControlFlow::Continue(())
            });
        }
        assert_eq!(shown, pieces);
        // Another unit is told the same, and so they stay.
        assert_eq!(fresh(&mut mappings, 0, 9 * PAGE - 1).len(), pieces.len());
        mappings.settle(0, 9 * PAGE - 1);
        assert_eq!(runs(&mappings).len(), pieces.len());
        assert_eq!(mappings.remove(PAGE, 2 * PAGE - 1), 0);
        assert_eq!(mappings.remove(0, 9 * PAGE - 1), 9 * PAGE);
    }
}

#[test]
fn the_last_address_is_one_like_others() {
    let last = u64::MAX - (PAGE - 1);
    let mut mappings = Mappings::new(0);
    assert!(map(&mut mappings, last, 0, PAGE));
    assert!(map(&mut mappings, last - PAGE, 5 * PAGE, PAGE));
    assert!(!map(&mut mappings, last, 0, PAGE));
    assert_eq!(mappings.phys(u64::MAX), Some(PAGE - 1));
    assert_eq!(mappings.remove(last - PAGE, u64::MAX), 2 * PAGE);
    assert!(mappings.defer(last - PAGE, u64::MAX));
    assert!(!map(&mut mappings, last, 0, PAGE));
    assert!(mappings.begin_flush());
    assert_eq!(spans(&mut mappings), [(last - PAGE, u64::MAX)]);
    assert!(Run::new(last, 0, PAGE + 1, RW).is_none());
    assert!(Run::new(0, last, PAGE + 1, RW).is_none());
    assert!(Run::new(0, 0, 0, RW).is_none());
}

#[test]
fn what_was_deferred_goes_in_few_ranges() {
    let mut mappings = Mappings::new(0);
    for i in 0..10 {
        assert!(map(&mut mappings, i * PAGE, (100 - 2 * i) * PAGE, PAGE));
    }
    for i in [7, 3, 1, 2, 8] {
        assert_eq!(mappings.remove(i * PAGE, (i + 1) * PAGE - 1), PAGE);
        assert!(mappings.defer(i * PAGE, (i + 1) * PAGE - 1));
    }
    assert_eq!(runs(&mappings).len(), 5);
    assert_eq!(waiting(&mappings), [(1, 4), (7, 9)]);
    // 5 goes without being deferred: a hole, which may be forgotten as well. 4, 6 and 9 stay.
    assert_eq!(mappings.remove(5 * PAGE, 6 * PAGE - 1), PAGE);
    assert!(mappings.begin_flush());
    let expected = [(PAGE, 4 * PAGE - 1), (7 * PAGE, 9 * PAGE - 1)];
    assert_eq!(spans(&mut mappings), expected);
    // Without 4 and 6 it is one.
    mappings.remove(4 * PAGE, 5 * PAGE - 1);
    mappings.remove(6 * PAGE, 7 * PAGE - 1);
    assert_eq!(spans(&mut mappings), [(PAGE, 9 * PAGE - 1)]);
    // What units do not know yet is no hindrance: they are told of it later.
    assert!(insert(&mut mappings, run(5 * PAGE, 0, PAGE)));
    assert_eq!(spans(&mut mappings), [(PAGE, 9 * PAGE - 1)]);
    // What is deferred meanwhile is no part of it.
    assert!(mappings.defer(20 * PAGE, 21 * PAGE - 1));
    assert_eq!(spans(&mut mappings), [(PAGE, 9 * PAGE - 1)]);
}

#[test]
fn what_was_not_forgotten_is_in_the_way() {
    let mut mappings = Mappings::new(0);
    assert!(!mappings.begin_flush());
    for i in [1, 5] {
        assert!(map(&mut mappings, i * PAGE, 0, PAGE));
        assert_eq!(mappings.remove(i * PAGE, (i + 1) * PAGE - 1), PAGE);
        assert!(mappings.defer(i * PAGE, (i + 1) * PAGE - 1));
    }
    for _ in 0..2 {
        assert!(!map(&mut mappings, PAGE, 0, PAGE));
        assert!(mappings.is_deferred(0, PAGE) && !mappings.is_deferred(2 * PAGE, 3 * PAGE));
        assert!(mappings.begin_flush());
        // While units are asked, and after they have not done it.
        assert!(!map(&mut mappings, 5 * PAGE, 0, PAGE));
        assert!(mappings.defer(9 * PAGE, 10 * PAGE - 1));
        drop(mappings.end_flush(false));
        assert!(!map(&mut mappings, 5 * PAGE, 0, PAGE));
    }
    assert_eq!(waiting(&mappings), [(1, 2), (5, 6), (9, 10)]);
    assert!(mappings.begin_flush());
    assert_eq!(spans(&mut mappings), [(PAGE, 10 * PAGE - 1)]);
    drop(mappings.end_flush(true));
    assert_eq!(waiting(&mappings), []);
    assert!(map(&mut mappings, PAGE, 0, PAGE) && map(&mut mappings, 9 * PAGE, 0, PAGE));
}

/// What is in the way of a page: `None` if nothing is, and then it is mapped.
fn in_the_way(mappings: &mut Mappings, page: u64) -> Option<&'static str> {
    match mappings.insert(Room::new(), run(page * PAGE, 0, PAGE)) {
        Ok(()) => None,
        Err(Refused::Mapped(_)) => Some("mapped"),
        Err(Refused::Deferred(_)) => Some("deferred"),
    }
}

#[test]
fn who_is_refused_is_told_why() {
    let mut mappings = Mappings::new(0);
    assert_eq!(in_the_way(&mut mappings, 1), None);
    assert_eq!(in_the_way(&mut mappings, 1), Some("mapped"));
    assert_eq!(mappings.remove(PAGE, 2 * PAGE - 1), PAGE);
    assert!(mappings.defer(PAGE, 2 * PAGE - 1));
    assert_eq!(in_the_way(&mut mappings, 1), Some("deferred"));
    // While units are asked, too: when they have done it, it is free.
    assert!(mappings.begin_flush());
    assert_eq!(in_the_way(&mut mappings, 1), Some("deferred"));
    drop(mappings.end_flush(true));
    assert_eq!(in_the_way(&mut mappings, 1), None);
    // Of a range that meets both, what is deferred can be helped.
    assert!(mappings.defer(2 * PAGE, 3 * PAGE - 1));
    let both = mappings.insert(Room::new(), run(PAGE, 0, 2 * PAGE));
    assert!(matches!(both, Err(Refused::Deferred(_))));
}

#[test]
fn what_is_deferred_twice_is_one() {
    let mut mappings = Mappings::new(0);
    for (start, end) in [(4, 6), (10, 12), (5, 11), (12, 13), (3, 4), (0, 1)] {
        assert!(mappings.defer(start * PAGE, end * PAGE - 1));
    }
    assert_eq!(waiting(&mappings), [(0, 1), (3, 13)]);
    assert!(mappings.is_deferred(3 * PAGE, 3 * PAGE) && !mappings.is_deferred(PAGE, 3 * PAGE - 1));
    assert!(
        mappings.is_deferred(13 * PAGE - 1, u64::MAX) && !mappings.is_deferred(13 * PAGE, u64::MAX)
    );
}

#[test]
fn without_memory_nothing_is_lost() {
    let mut mappings = Mappings::new(0);
    for i in 0..100 {
        assert!(map(&mut mappings, i * PAGE, i * PAGE, PAGE));
    }
    LEFT.set(Some(0));
    // Spare nodes, which were freed by coalescing, serve four times.
    let mut split = 0;
    for i in (1..99).step_by(2) {
        split += mappings.remove(i * PAGE, (i + 1) * PAGE - 1) / PAGE;
    }
    assert_eq!(split, 4);
    assert_eq!(
        runs(&mappings).iter().map(Run::bytes).sum::<u64>(),
        96 * PAGE
    );
    // Ends of a run need none.
    assert_eq!(mappings.remove(99 * PAGE, 100 * PAGE - 1), PAGE);
    assert!(!mappings.defer(99 * PAGE, 100 * PAGE - 1));
    LEFT.set(None);
    assert!(mappings.defer(99 * PAGE, 100 * PAGE - 1));
}

#[test]
fn a_few_runs_stay_as_they_are() {
    let mut mappings = Mappings::new(3);
    for i in 0..3 {
        assert!(map(&mut mappings, i * PAGE, i * PAGE, PAGE));
    }
    assert_eq!(runs(&mappings).len(), 3);
    // One goes and comes without any others.
    assert_eq!(mappings.remove(PAGE, 2 * PAGE - 1), PAGE);
    assert!(map(&mut mappings, PAGE, PAGE, PAGE));
    assert_eq!(runs(&mappings).len(), 3);
    // The fourth becomes one with the one before it, and goes by itself.
    assert!(map(&mut mappings, 3 * PAGE, 3 * PAGE, PAGE));
    assert_eq!(runs(&mappings).len(), 3);
    assert_eq!(mappings.remove(3 * PAGE, 4 * PAGE - 1), PAGE);
    assert_eq!(mappings.phys(2 * PAGE), Some(2 * PAGE));
}

/// Every page: where it leads, and the piece it belongs to.
type Model = BTreeMap<u64, (u64, u64)>;

#[derive(Clone, Debug)]
enum Step {
    Map { page: u64, pages: u64, phys: u64 },
    Sg { page: u64, phys: Vec<u64> },
    Unmap { page: u64, pages: u64, defer: bool },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // As often as not a piece that makes one run with those next to it.
        6 => (0..64u64, 1..5u64, 0..64u64)
            .prop_map(|(page, pages, phys)| Step::Map { page, pages, phys }),
        6 => (0..32u64, 1..3u64).prop_map(|(place, pages)| {
            let page = place * pages;
            Step::Map { page, pages, phys: page }
        }),
        // Contiguous as often as not.
        2 => (0..64u64, prop::collection::vec(0..3u64, 1..6), 0..8u64)
            .prop_map(|(page, steps, phys)| {
                let mut at = phys;
                let phys = steps.iter().map(|step| { at += step; at }).collect();
                Step::Sg { page, phys }
            }),
        4 => (0..64u64, 1..12u64, any::<bool>())
            .prop_map(|(page, pages, defer)| Step::Unmap { page, pages, defer }),
        1 => Just(Step::Flush),
    ]
}

/// The pieces of the model, in order: start, pages.
fn pieces(model: &Model) -> Vec<(u64, u64, u64)> {
    let mut all: Vec<(u64, u64, u64)> = Vec::new();
    for (page, (phys, piece)) in model {
        match all.last_mut() {
            Some((start, _, pages)) if start == piece => *pages += 1,
            _ => all.push((*page, *phys, 1)),
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn e8_as_the_model(
        few in prop::sample::select(&[0, 8, 1000][..]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut mappings = Mappings::new(few);
        let mut model = Model::new();
        let mut waiting = BTreeMap::new();
        for step in steps {
            match step {
                Step::Map { page, pages, phys } => {
                    let mut range = page..page + pages;
                    let deferred = range.clone().any(|p| waiting.contains_key(&p));
                    let free = !deferred && !range.any(|p| model.contains_key(&p));
                    match mappings.insert(Room::new(), run(page * PAGE, phys * PAGE, pages * PAGE)) {
                        Ok(()) => prop_assert!(free),
                        Err(Refused::Deferred(_)) => prop_assert!(deferred),
                        Err(Refused::Mapped(_)) => prop_assert!(!free && !deferred),
                    }
                    if free {
                        tell(&mut mappings, page * PAGE, (page + pages) * PAGE - 1);
                        model.extend((0..pages).map(|i| (page + i, (phys + i, page))));
                    }
                }
                Step::Sg { page, phys } => {
                    let end = page + phys.len() as u64;
                    if (page..end).any(|p| model.contains_key(&p) || waiting.contains_key(&p)) {
                        continue;
                    }
                    let mut piece = page;
                    for (i, phys_page) in (0..).zip(&phys) {
                        prop_assert!(insert(&mut mappings, run((page + i) * PAGE, phys_page * PAGE, PAGE)));
                        if i > 0 && phys[i as usize - 1] + 1 != *phys_page {
                            piece = page + i;
                        }
                        model.insert(page + i, (*phys_page, piece));
                    }
                    tell(&mut mappings, page * PAGE, end * PAGE - 1);
                }
                Step::Unmap { page, pages, defer } => {
                    let done = mappings.remove(page * PAGE, (page + pages) * PAGE - 1) / PAGE;
                    // Whole pieces that start there, up to the first hole.
                    let mut expected = 0;
                    for (start, _, length) in pieces(&model) {
                        if start == page + expected && start < page + pages {
                            expected += length;
                        }
                    }
                    prop_assert_eq!(done, expected);
                    for p in page..page + done {
                        model.remove(&p);
                        if defer {
                            waiting.insert(p, ());
                        }
                    }
                    if defer && done > 0 {
                        prop_assert!(mappings.defer(page * PAGE, (page + done) * PAGE - 1));
                    }
                }
                Step::Flush => {
                    mappings.begin_flush();
                    let spans = spans(&mut mappings);
                    // All that waits, and nothing that is mapped; and no two that could be one.
                    for p in waiting.keys() {
                        prop_assert!(spans.iter().any(|(s, l)| *s <= p * PAGE && p * PAGE < *l));
                    }
                    for p in model.keys() {
                        prop_assert!(!spans.iter().any(|(s, l)| *s <= p * PAGE && p * PAGE < *l));
                    }
                    for pair in spans.windows(2) {
                        let mut between = model.keys().map(|p| p * PAGE);
                        prop_assert!(between.any(|at| pair[0].1 < at && at < pair[1].0));
                    }
                    drop(mappings.end_flush(true));
                    waiting.clear();
                }
            }
            let all = runs(&mappings);
            let seen: Vec<_> = all
                .iter()
                .flat_map(Run::pieces)
                .map(|p| (p.iova / PAGE, p.phys / PAGE, p.piece.get() / PAGE))
                .collect();
            prop_assert_eq!(seen, pieces(&model));
            prop_assert!(all.iter().all(|run| run.state == State::Told));
            // Neighbours with pieces of one size are one run, unless they came while there were few.
            for pair in all.windows(2) {
                let adjacent = pair[0].last + 1 == pair[1].iova
                    && pair[0].phys + pair[0].bytes() == pair[1].phys;
                prop_assert!(few > 0 || !adjacent || pair[0].piece != pair[1].piece);
            }
            for p in 0..80 {
                prop_assert_eq!(mappings.phys(p * PAGE), model.get(&p).map(|m| m.0 * PAGE));
            }
        }
    }
}

#[test]
fn e8_a_million_operations() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut mappings = Mappings::new(0);
    let mut model = BTreeMap::new();
    for _ in 0..1_000_000 {
        let page = rng.random_range(0..4096u64);
        if model.remove(&page).is_some() {
            assert_eq!(mappings.remove(page * PAGE, (page + 1) * PAGE - 1), PAGE);
        } else {
            // Contiguous with its neighbours half of the time.
            let phys = page + if rng.random() { 0 } else { 10_000 };
            assert!(map(&mut mappings, page * PAGE, phys * PAGE, PAGE));
            model.insert(page, phys);
        }
    }
    let pages = runs(&mappings)
        .iter()
        .map(|run| run.bytes() / run.piece)
        .sum::<u64>();
    assert_eq!(pages, model.len() as u64);
    for (page, phys) in &model {
        assert_eq!(mappings.phys(page * PAGE), Some(phys * PAGE));
    }
}
