// SPDX-License-Identifier: GPL-2.0

//! What mapping and unmapping cost in a lazy window, whose flushes cost nothing:
//! `cargo run --release -p iommu-pure --example lazy-speed`.

#[path = "../../src/tests/lazy/host.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests', which fail by panicking"
)]
mod host;

use host::{entry, Host};
use iommu::lazy::fit::{Geometry, Request};
use iommu::lazy::window::{Error, Window};
use std::hint::black_box;
use std::time::Instant;

const PAIRS: usize = 1000;

/// Fails when the window is full, which it never is.
fn pairs<H: Fn() -> Result<(), host::TimedOut>>(
    window: &Window<Host<H>>,
    cpu: usize,
    pages: usize,
) -> Result<(), Error<host::TimedOut>> {
    let request = black_box(Request::new(pages));
    for _ in 0..PAIRS {
        let first = window.map(cpu, &request, |place| entry(place as u64 + 1))?;
        let _ = black_box(window.unmap(black_box(first), request.pages));
    }
    Ok(())
}

fn main() {
    for threads in [1, 2] {
        for pages in [1, 32] {
            let Some(geometry) = Geometry::new(0, 1 << 18, 512) else {
                return;
            };
            let window = Host::window(geometry, threads, true, || Ok(()));
            std::thread::scope(|scope| {
                for cpu in 0..threads {
                    let window = &window;
                    scope.spawn(move || {
                        // The best of many: other work runs on the machine.
                        let best = (0..2000).filter_map(|_| {
                            let start = Instant::now();
                            pairs(window, cpu, pages).ok()?;
                            Some(start.elapsed().as_nanos())
                        });
                        let best = best.min().unwrap_or_default() as f64 / PAIRS as f64;
                        println!("{threads} threads, {pages} pages: {best:.1} ns a pair");
                    });
                }
            });
        }
    }
}
