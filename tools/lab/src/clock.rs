// SPDX-License-Identifier: GPL-2.0

//! The clock of an emulated CPU, which is the host's time stamp counter.
//!
//! A kernel that isn't told how fast it counts finds out with emulated timers. Where those were
//! late, that guest's clock ran 30 times too fast for the rest of its life.

use quanta::Clock;

/// Any number of ticks that is long to a clock's resolution.
const TICKS: u64 = 1 << 40;

/// How fast the host's counter counts, or None where it isn't fit for a clock.
pub fn tsc_khz() -> Option<u64> {
    khz(Clock::new().delta_as_nanos(0, TICKS))
}

/// From the time of `TICKS`, which is a nanosecond each where the clock isn't the counter.
fn khz(nanos: u64) -> Option<u64> {
    if nanos == 0 || nanos == TICKS {
        return None;
    }
    let khz = u128::from(TICKS) * 1_000_000 / u128::from(nanos);
    u64::try_from(khz).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn ticks_become_a_frequency() {
        assert_eq!(khz(TICKS / 2), Some(2_000_000));
        assert_eq!(khz(TICKS * 4), Some(250_000));
        assert_eq!((khz(TICKS), khz(0)), (None, None));
    }

    /// Against another clock of the host, with room for a loaded machine.
    #[test]
    fn the_counter_is_as_fast_as_it_says() {
        let Some(khz) = tsc_khz() else { return };
        let (clock, start) = (Clock::new(), Instant::now());
        let before = clock.raw();
        std::thread::sleep(Duration::from_millis(200));
        let (ticks, millis) = (clock.raw() - before, start.elapsed().as_millis() as u64);
        let measured = ticks / millis;
        assert!(measured.abs_diff(khz) * 20 < khz, "{measured} and {khz}");
    }
}
