// SPDX-License-Identifier: GPL-2.0

//! Medians, and how far they can be trusted. Nothing is assumed about how measurements are distributed but
//! that they are independent: the interval of a median is between two of the measurements themselves (order
//! statistics), chosen so that the true median lies outside with at most the probability given.

use serde::{Deserialize, Serialize};

/// With which probability an interval has the true median.
pub const CONFIDENCE: f64 = 0.99;

/// A median and its interval.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Interval {
    /// Its low end
    pub low: f64,
    /// The median of the measurements
    pub middle: f64,
    /// Its high end
    pub high: f64,
}

impl Interval {
    /// Of one measurement, without width.
    pub fn of(value: f64) -> Interval {
        Interval {
            low: value,
            middle: value,
            high: value,
        }
    }

    /// Its width, as a part of the median.
    pub fn width(&self) -> f64 {
        if self.high == self.low {
            return 0.0;
        }
        (self.high - self.low) / self.middle.abs()
    }

    /// Whether there is a value that is in both.
    pub fn meets(&self, other: &Interval) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// With this much to each side of the median, at least.
    pub fn at_least(&self, more: f64) -> Interval {
        Interval {
            low: self.low.min(self.middle - more),
            middle: self.middle,
            high: self.high.max(self.middle + more),
        }
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value in the middle; None where there is none.
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

/// How many of `n` measurements may be left out at each end of the interval; None where even all of them are
/// not enough. How many lie below the true median is binomial, with probability one half.
fn left_out(n: usize, confidence: f64) -> Option<usize> {
    // CAST: numbers of measurements.
    let mut probability = 0.5f64.powi(n as i32);
    let mut below = 0.0;
    let mut result = None;
    for k in 0..n / 2 {
        below += probability;
        if 1.0 - 2.0 * below < confidence {
            break;
        }
        result = Some(k);
        probability *= (n - k) as f64 / (k + 1) as f64;
    }
    result
}

/// The fewest measurements that have an interval.
pub fn fewest() -> usize {
    let enough = |n: &usize| left_out(*n, CONFIDENCE).is_some();
    (1..).find(enough).unwrap_or(usize::MAX)
}

/// The median's interval; None where there are too few measurements.
pub fn interval(samples: &[f64]) -> Option<Interval> {
    let sorted = sorted(samples);
    let out = left_out(sorted.len(), CONFIDENCE)?;
    Some(Interval {
        low: sorted[out],
        middle: median(samples)?,
        high: sorted[sorted.len() - 1 - out],
    })
}

/// From the least to the greatest: of what is counted, and differs little.
pub fn span(samples: &[f64]) -> Option<Interval> {
    let sorted = sorted(samples);
    Some(Interval {
        low: *sorted.first()?,
        middle: median(samples)?,
        high: *sorted.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    /// As tables of the sign test have it.
    #[test]
    fn ranks() {
        let known = [
            (7, None),
            (8, Some(0)),
            (11, Some(0)),
            (12, Some(1)),
            (20, Some(3)),
            (50, Some(15)),
        ];
        for (n, out) in known {
            assert_eq!(left_out(n, 0.99), out, "{n}");
        }
        assert_eq!(left_out(20, 0.95), Some(5));
        assert_eq!(left_out(6, 0.95), Some(0));
        assert_eq!(fewest(), 8);
    }

    #[test]
    fn intervals() {
        let samples: Vec<f64> = (1..=12).rev().map(f64::from).collect();
        let i = interval(&samples).unwrap();
        assert_eq!((i.low, i.middle, i.high), (2.0, 6.5, 11.0));
        assert_eq!(interval(&samples[..7]), None);
        let s = span(&samples).unwrap();
        assert_eq!((s.low, s.middle, s.high), (1.0, 6.5, 12.0));
        let flat = span(&[0.0, 0.0]).unwrap();
        assert_eq!(flat.width(), 0.0);
        assert_eq!(flat.at_least(0.0), flat);
        let wide = span(&[100.0]).unwrap().at_least(1.0);
        assert_eq!((wide.low, wide.high), (99.0, 101.0));
    }

    #[test]
    fn meeting() {
        let interval = |low, high| Interval {
            low,
            middle: low,
            high,
        };
        assert!(interval(1.0, 2.0).meets(&interval(2.0, 3.0)));
        assert!(interval(1.0, 4.0).meets(&interval(2.0, 3.0)));
        assert!(!interval(1.0, 2.0).meets(&interval(2.1, 3.0)));
        assert!(!interval(2.1, 3.0).meets(&interval(1.0, 2.0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_median_is_in_its_interval(samples in prop::collection::vec(0.0..1e9, 8..60)) {
            let i = interval(&samples).unwrap();
            prop_assert!(i.low <= i.middle && i.middle <= i.high);
            let s = span(&samples).unwrap();
            prop_assert!(s.low <= i.low && i.high <= s.high);
        }

        /// The order in which they were made, and a factor, change nothing.
        #[test]
        fn neither_order_nor_unit_matters(samples in prop::collection::vec(1.0..1e6, 8..40)) {
            let i = interval(&samples).unwrap();
            let mut other: Vec<f64> = samples.iter().map(|s| s * 4.0).collect();
            other.reverse();
            let j = interval(&other).unwrap();
            prop_assert_eq!((i.low * 4.0, i.middle * 4.0, i.high * 4.0), (j.low, j.middle, j.high));
        }

        /// Whatever the distribution, as long as it is skewed, with outliers: the true median is outside at most as
        /// often as was said, but for what 2000 trials leave to chance.
        #[test]
        fn the_true_median_is_covered(n in 8usize..40, seed: u64, outliers in 0u64..20) {
            let mut state = seed | 1;
            let mut uniform = || {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
            };
            const TRIALS: usize = 2000;
            let mut covered = 0;
            for _ in 0..TRIALS {
                let samples: Vec<f64> = (0..n)
                    .map(|_| {
                        let exponential = -uniform().ln();
                        // Above the median anyway: the median stays where it is.
                        let slow = exponential > std::f64::consts::LN_2 && uniform() * 100.0 < outliers as f64;
                        exponential * if slow { 50.0 } else { 1.0 }
                    })
                    .collect();
                let i = interval(&samples).unwrap();
                covered += usize::from(i.low <= std::f64::consts::LN_2 && std::f64::consts::LN_2 <= i.high);
            }
            prop_assert!(covered as f64 >= 0.98 * TRIALS as f64, "{} of {}", covered, TRIALS);
        }
    }
}
