// SPDX-License-Identifier: GPL-2.0

//! Refused requests that wait to be reported: a queue with an end.
//!
//! This file is pure: values in, values out. It is also built and tested on the host.

use crate::source_id::SourceId;

/// A request of a device that its unit has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who made it.
    pub source: SourceId,
    /// Where to, as precisely as the unit says it.
    pub iova: u64,
    /// It was a write. False where the unit does not say what it was.
    pub write: bool,
}

/// The first of those that came and were not taken, in their order, and how many more there were.
///
/// With `N` waiting a further one is dropped, not the oldest: what is reported of a burst is how it began. So is
/// one whose source has half of the places, so that a single device does not keep all others out.
pub struct Waiting<const N: usize> {
    places: [Option<Refused>; N],
    /// Where the oldest is.
    first: usize,
    count: usize,
    dropped: u64,
}

impl<const N: usize> Waiting<N> {
    /// Nobody waits.
    pub const fn empty() -> Self {
        Self {
            places: [None; N],
            first: 0,
            count: 0,
            dropped: 0,
        }
    }

    /// Adds one, or counts it as dropped.
    pub fn put(&mut self, refused: Refused) {
        let waiting = self.places.iter().flatten();
        let own = waiting.filter(|waiting| waiting.source == refused.source);
        if own.count() >= N / 2 {
            self.dropped += 1;
            return;
        }
        let at = (self.first + self.count) % N;
        match self.places.get_mut(at) {
            Some(place) if self.count < N => {
                *place = Some(refused);
                self.count += 1;
            }
            _ => self.dropped += 1,
        }
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Refused> {
        let taken = self.places.get_mut(self.first)?.take()?;
        self.first = (self.first + 1) % N;
        self.count -= 1;
        Some(taken)
    }

    /// How many were dropped so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}
