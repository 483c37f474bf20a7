// SPDX-License-Identifier: GPL-2.0

//! How long a command queue is polled.

use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

/// Polls between two looks at the clock and at the hardware's error register, which
/// costs more than a whole submission. Commands normally are done long before.
const POLLS: u32 = 64;

/// How long a submission still waits. The clock is only started, and looked at, every
/// [`POLLS`] polls.
pub(crate) struct Patience {
    limit: Delta,
    since: Option<Instant<Monotonic>>,
    polls: u32,
}

impl Patience {
    /// For a wait that begins now. Context: any, as for all of it.
    pub(crate) fn new(limit: Delta) -> Self {
        Self {
            limit,
            since: None,
            polls: 0,
        }
    }

    /// Counts a poll; returns whether it is time to look at the hardware.
    pub(crate) fn tick(&mut self) -> bool {
        self.polls = (self.polls + 1) % POLLS;
        if self.polls == 0 && self.since.is_none() {
            self.since = Some(Instant::now());
        }
        self.polls == 0
    }

    /// Returns whether the time is over; only exact every [`POLLS`] polls.
    pub(crate) fn is_over(&self) -> bool {
        self.polls == 0 && self.since.is_some_and(|since| since.elapsed() > self.limit)
    }
}
