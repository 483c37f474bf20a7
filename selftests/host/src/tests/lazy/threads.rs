// SPDX-License-Identifier: GPL-2.0

//! Threads that map and unmap for real, and note who has what.

use super::{entry, Host, TimedOut};
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::window::Error;
use rand::{rngs::SmallRng, Rng, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

const CPUS: usize = 4;

/// What the threads note about a page.
#[derive(Default)]
struct Page {
    /// Who has it mapped; 0 if nobody.
    owner: AtomicU64,
    /// How many flushes had begun before its last unmap did; that and lower ones are too old. So is one that
    /// begins between this note and the unmap, which is not seen here: noted after the unmap it would blame
    /// flushes that are right, and whoever has the page by then. These moments are what `model.rs` goes through.
    begun: AtomicU64,
}

/// Returns the windows of pages unmapped, and the flushes begun.
fn run(pages: usize, chunk: usize, ops: usize, most: usize, fail: u32) -> (usize, u64) {
    let begun = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let hardware = {
        let (begun, done) = (begun.clone(), done.clone());
        move || {
            let number = begun.fetch_add(1, SeqCst) + 1;
            if fail > 0 && number % u64::from(fail) == 0 {
                return Err(TimedOut);
            }
            std::thread::yield_now();
            done.fetch_max(number, SeqCst);
            Ok(())
        }
    };
    let geometry = Geometry::new(0, pages, chunk).unwrap();
    let window = Host::window(geometry, CPUS, false, hardware);
    let notes: Vec<Page> = (0..pages).map(|_| Page::default()).collect();
    let unmapped = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (window, notes, unmapped) = (&window, &notes, &unmapped);
            let (begun, done) = (&begun, &done);
            scope.spawn(move || {
                let mut rng = SmallRng::seed_from_u64(cpu as u64);
                let me = cpu as u64 + 1;
                let mut mine: Vec<(usize, usize)> = Vec::new();
                let share = pages / CPUS / most / 2;
                for _ in 0..ops {
                    if mine.len() >= share || (!mine.is_empty() && rng.random_bool(0.4)) {
                        let (first, count) = mine.swap_remove(rng.random_range(0..mine.len()));
                        for (place, page) in notes[first..first + count].iter().enumerate() {
                            assert_eq!(
                                window.lookup(first + place),
                                Some(entry((me << 8) | place as u64))
                            );
                            assert_eq!(page.owner.swap(0, SeqCst), me);
                            page.begun.store(begun.load(SeqCst) + 1, SeqCst);
                        }
                        window.unmap(first, count).unwrap();
                        unmapped.fetch_add(count as u64, SeqCst);
                        continue;
                    }
                    let count = rng.random_range(1..=most);
                    let leaf = |place: usize| entry((me << 8) | place as u64);
                    // Half of the window is free, but runs may be hard to find.
                    let first = match window.map(cpu, &Request::new(count), leaf) {
                        Ok(first) => first,
                        Err(Error::Full) => {
                            assert!(most > 1, "no page");
                            continue;
                        }
                        Err(error) => {
                            assert!(fail > 0, "{error:?}");
                            continue;
                        }
                    };
                    for page in &notes[first..first + count] {
                        assert_eq!(page.owner.swap(me, SeqCst), 0, "handed out twice");
                        // 1 more than had begun, so that 0 is a page never used.
                        let needed = page.begun.load(SeqCst);
                        assert!(done.load(SeqCst) >= needed, "too early");
                    }
                    mine.push((first, count));
                }
                for (first, count) in mine {
                    for page in &notes[first..first + count] {
                        page.owner.store(0, SeqCst);
                        page.begun.store(begun.load(SeqCst) + 1, SeqCst);
                    }
                    window.unmap(first, count).unwrap();
                }
            });
        }
    });
    assert_eq!(window.mapped(), 0);
    let flushes = begun.load(SeqCst);
    assert_eq!(window.counts().flushes, flushes);
    (unmapped.load(SeqCst) as usize / pages, flushes)
}

/// A million operations.
#[test]
fn single_pages() {
    let (windows, flushes) = run(4096, 64, 250_000, 1, 0);
    // Threads that lap others, and those that find only what others are about to use.
    assert!(flushes as usize <= windows * 3 + 10, "{flushes}: {windows}");
}

/// So few pages that all threads are at the same ones.
#[test]
fn narrow_window() {
    run(16, 2, 50_000, 1, 0);
}

#[test]
fn runs_of_pages() {
    run(4096, 64, 100_000, 40, 0);
}

#[test]
fn flushes_that_fail() {
    run(512, 16, 50_000, 8, 3);
}
