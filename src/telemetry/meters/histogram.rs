//! How long something took: counts by upper bounds, and the sum.
//!
//! `prometheus-client`, which writes what is counted here, has a histogram of its own. It takes a lock
//! for every observation, on one line of memory that all threads share; this one takes two atomic
//! additions on lines that they seldom share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::row::Row;

/// How many bounds there are: with the count of what is longer and the sum they fill two rows.
const BOUNDS: usize = 2 * Row::LENGTH - 2;

/// Where the sum stands.
const SUM: usize = BOUNDS + 1;

/// Upper bounds, rising.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bounds([Duration; BOUNDS]);

impl Bounds {
    /// Whole exchanges: 1 ms to 60 s.
    pub(super) const EXCHANGES: Self = Self::of_micros([
        1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000, 30_000_000, 60_000_000,
    ]);

    /// The gateway's own share of them: 50 µs to 1 s.
    pub(super) const OWN: Self = Self::of_micros([
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000,
    ]);

    const fn of_micros(micros: [u64; BOUNDS]) -> Self {
        let mut bounds = [Duration::ZERO; BOUNDS];
        let mut index = 0;
        while index < BOUNDS {
            bounds[index] = Duration::from_micros(micros[index]);
            index += 1;
        }
        Self(bounds)
    }
}

/// Durations. Takes no room before the first.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    rows: OnceLock<Box<[Row; 2]>>,
}

/// What a histogram has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// In seconds.
    pub sum: f64,
    /// Of all.
    pub count: u64,
    /// For each bound in seconds, how many lie between it and the one before; the last one is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn of(bounds: &'static Bounds) -> Arc<Self> {
        Arc::new(Self::new(bounds))
    }

    fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            rows: OnceLock::new(),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let rows = self.rows.get_or_init(Box::default);
        let bucket = self.bounds.0.partition_point(|bound| *bound < took);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        for (index, amount) in [(bucket, 1), (SUM, nanos)] {
            rows[index / Row::LENGTH].add(index % Row::LENGTH, amount);
        }
    }

    /// What was counted so far; `None` for nothing.
    pub fn observed(&self) -> Option<Observed> {
        let rows = self.rows.get()?;
        let sum_at = |index: usize| rows[index / Row::LENGTH].sum(index % Row::LENGTH);
        let bounds = self.bounds.0.iter().map(Duration::as_secs_f64);
        let bounds = bounds.chain([f64::INFINITY]).enumerate();
        let buckets: Vec<_> = bounds
            .map(|(index, bound)| (bound, sum_at(index)))
            .collect();
        Some(Observed {
            sum: Duration::from_nanos(sum_at(SUM)).as_secs_f64(),
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_belong_to_what_is_below() {
        for bounds in [Bounds::EXCHANGES, Bounds::OWN] {
            assert!(bounds.0.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
        let histogram = Histogram::new(&Bounds::EXCHANGES);
        assert_eq!(histogram.observed(), None);
        for micros in [0, 1_000, 1_001, 60_000_000, 60_000_001, 90_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let observed = histogram.observed().unwrap();
        let counts: Vec<_> = observed.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(observed.count, 6);
        assert!((observed.sum - 210.002_002).abs() < 1e-9, "{observed:?}");
        let bounds: Vec<_> = observed.buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds[..2], [0.001, 0.005]);
        assert_eq!(bounds[13..], [60.0, f64::INFINITY]);
    }
}
