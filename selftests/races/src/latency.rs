// SPDX-License-Identifier: GPL-2.0

//! Row B8: how long it takes to bind a driver, and to unbind it. A figure, never a test: what the
//! machine does besides counts too.

use crate::sysfs::Device;
use anyhow::{ensure, Result};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// PCI address; without a driver, and its override allows for the one that is bound
    address: String,
    driver: String,
}

pub fn run(o: &Options) -> Result<()> {
    ensure!(o.rounds > 0, "no rounds");
    let device = Device::new(&o.address);
    let mut binds = Vec::new();
    let mut unbinds = Vec::new();
    for _ in 0..o.rounds {
        binds.push(timed(|| device.bind(&o.driver))?);
        unbinds.push(timed(|| device.unbind())?);
    }
    println!("bind {}", Figures::of(binds));
    println!("unbind {}", Figures::of(unbinds));
    Ok(())
}

fn timed(step: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    step()?;
    Ok(start.elapsed())
}

/// Median and quartiles, in microseconds.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    median: u128,
    low: u128,
    high: u128,
}

impl Figures {
    /// Of one value at least.
    fn of(mut times: Vec<Duration>) -> Figures {
        times.sort();
        let at = |quarter: usize| times[(times.len() - 1) * quarter / 4].as_micros();
        Figures {
            median: at(2),
            low: at(1),
            high: at(3),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { median, low, high } = self;
        write!(f, "median {median} quartiles {low} {high} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let times = |micros: &[u64]| micros.iter().map(|m| Duration::from_micros(*m)).collect();
        let figures = |median, low, high| Figures { median, low, high };
        assert_eq!(Figures::of(times(&[7])), figures(7, 7, 7));
        assert_eq!(Figures::of(times(&[5, 1, 3, 2, 4])), figures(3, 2, 4));
        assert_eq!(figures(3, 2, 4).to_string(), "median 3 quartiles 2 4 us");
    }
}
