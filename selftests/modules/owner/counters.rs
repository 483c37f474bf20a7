// SPDX-License-Identifier: GPL-2.0

//! What the drivers count, from when the module was loaded:
//!
//! ```text
//! kdma.probes N           probes begun
//! kdma.probe_failures N   ... and neither done nor under way
//! kdma.removes N          times that remove was called
//! kdma.devres_ends N      managed buffers that devres has come to
//! udma.probes N, udma.probe_failures N, udma.removes N
//! udma.claims N           tokens that were got
//! udma.releases N         ... and are gone
//! udma.faults N           calls of fault handlers
//! udma.handled N          ... that are over
//! ```

use kernel::{
    fmt,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What both drivers count.
pub(crate) struct Life {
    pub(crate) probes: Counter,
    failures: Counter,
    pub(crate) removes: Counter,
}

impl Life {
    const fn new() -> Self {
        Self {
            probes: Counter::new(),
            failures: Counter::new(),
            removes: Counter::new(),
        }
    }

    /// Counts a probe that begins. It has failed unless the result is passed to
    /// [`Probe::done`].
    pub(crate) fn probe(&'static self) -> Probe {
        self.probes.count();
        Probe(Some(self))
    }

    fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{name}.probes {}\n", self.probes.get()))?;
        f.write_fmt(fmt!("{name}.probe_failures {}\n", self.failures.get()))?;
        f.write_fmt(fmt!("{name}.removes {}\n", self.removes.get()))
    }
}

/// A probe that is under way.
pub(crate) struct Probe(Option<&'static Life>);

impl Probe {
    pub(crate) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(life) = self.0 {
            life.failures.count();
        }
    }
}

pub(crate) static KDMA: Life = Life::new();
pub(crate) static UDMA: Life = Life::new();
pub(crate) static DEVRES_ENDS: Counter = Counter::new();
pub(crate) static CLAIMS: Counter = Counter::new();
pub(crate) static RELEASES: Counter = Counter::new();
pub(crate) static FAULTS: Counter = Counter::new();
pub(crate) static HANDLED: Counter = Counter::new();

pub(crate) fn show(_: &(), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    KDMA.show("kdma", f)?;
    f.write_fmt(fmt!("kdma.devres_ends {}\n", DEVRES_ENDS.get()))?;
    UDMA.show("udma", f)?;
    f.write_fmt(fmt!("udma.claims {}\n", CLAIMS.get()))?;
    f.write_fmt(fmt!("udma.releases {}\n", RELEASES.get()))?;
    f.write_fmt(fmt!("udma.faults {}\n", FAULTS.get()))?;
    f.write_fmt(fmt!("udma.handled {}\n", HANDLED.get()))
}
