//! Durations, counted by fixed limits.

use super::counters::{Counter, TimeCounter};
use std::time::Duration;

/// Counts each duration under the smallest limit that it does not exceed.
#[derive(Debug)]
pub struct Histogram {
    limits: &'static [u64],
    /// One for each limit, and one for longer durations.
    counts: Vec<Counter>,
    sum: TimeCounter,
}

impl Histogram {
    /// `limits` are in ms and ascending.
    pub fn new(limits: &'static [u64]) -> Self {
        Self {
            limits,
            counts: (0..=limits.len()).map(|_| Counter::default()).collect(),
            sum: TimeCounter::default(),
        }
    }

    pub fn note(&self, time: Duration) {
        let place = self
            .limits
            .partition_point(|limit| Duration::from_millis(*limit) < time);
        self.counts[place].add(1);
        self.sum.add(time);
    }

    pub(super) fn read(&self) -> Reading {
        let limits = self.limits.iter().map(|limit| *limit as f64 / 1000.0);
        let counts = self.counts.iter().map(Counter::get);
        Reading {
            buckets: limits.chain([f64::INFINITY]).zip(counts).collect(),
            sum: self.sum.get(),
        }
    }
}

/// The values of a histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Upper limits in seconds, each with the number of durations under it and no smaller one.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: Duration,
}

impl Reading {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Adds up several shards.
    pub(super) fn total(all: impl Iterator<Item = Self>) -> Self {
        let add = |mut sum: Self, other: Self| {
            for (bucket, more) in sum.buckets.iter_mut().zip(other.buckets) {
                bucket.1 += more.1;
            }
            sum.sum += other.sum;
            sum
        };
        all.reduce(add).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const LIMITS: &[u64] = &[10, 100];

    #[test]
    fn a_duration_counts_for_the_smallest_limit_that_it_does_not_exceed() {
        let histogram = Histogram::new(LIMITS);
        for ms in [0, 10, 11, 100, 101] {
            histogram.note(MS(ms));
        }
        let reading = histogram.read();
        assert_eq!(reading.buckets, [(0.01, 2), (0.1, 2), (f64::INFINITY, 1)]);
        assert_eq!((reading.count(), reading.sum), (5, MS(222)));
    }

    #[test]
    fn shards_are_summed() {
        let histograms = [Histogram::new(LIMITS), Histogram::new(LIMITS)];
        histograms[0].note(MS(5));
        histograms[1].note(MS(5));
        histograms[1].note(MS(500));
        let total = Reading::total(histograms.iter().map(Histogram::read));
        assert_eq!(total.buckets, [(0.01, 2), (0.1, 0), (f64::INFINITY, 1)]);
        assert_eq!(total.sum, MS(510));
    }
}
