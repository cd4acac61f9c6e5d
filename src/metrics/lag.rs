//! How late the event loops run their timers: the one number that shows an overloaded thread.

use super::Metrics;
use super::counters::micros;
use crate::shell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A thread with an event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLoop {
    Main,
    Control,
    Admin,
    /// The data path of a shard.
    Shard(usize),
}

/// Measures the event loop that it runs on; never returns.
pub async fn measure(metrics: Arc<Metrics>, event_loop: EventLoop) {
    loop {
        let due = shell::now() + EVERY;
        let lag = metrics.lag(event_loop);
        lag.expect(due);
        tokio::time::sleep_until(due.into()).await;
        lag.note(due, shell::now());
    }
}

/// The lag of one event loop. Times are in µs since its beginning.
#[derive(Debug)]
pub struct Lag {
    began: Instant,
    /// 0 while no measurement runs.
    due: AtomicU64,
    last: AtomicU64,
    /// The longest lag of this minute and of the previous one, each with its minute's number.
    longest: [AtomicU64; 2],
}

impl Lag {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            due: AtomicU64::default(),
            last: AtomicU64::default(),
            longest: Default::default(),
        }
    }

    pub fn expect(&self, due: Instant) {
        let due = micros(due.saturating_duration_since(self.began)).max(1);
        self.due.store(due, Ordering::Relaxed);
    }

    pub fn note(&self, due: Instant, now: Instant) {
        let lag = micros(now.saturating_duration_since(due));
        self.last.store(lag, Ordering::Relaxed);
        let entry = (self.minute(now) << MINUTE_SHIFT) | lag.min(LAG_MASK);
        let place = &self.longest[self.minute(now) as usize % 2];
        // A later minute is a greater number, so it replaces an earlier one.
        place.fetch_max(entry, Ordering::Relaxed);
    }

    /// How late the last timer was, or how overdue the next one is, if that is longer: a stuck
    /// thread cannot report its own lag.
    pub fn last(&self, now: Instant) -> Duration {
        let last = Duration::from_micros(self.last.load(Ordering::Relaxed));
        last.max(self.overdue(now))
    }

    /// The longest lag of this minute and of the previous one.
    pub fn longest(&self, now: Instant) -> Duration {
        let minute = self.minute(now);
        let entries = self.longest.iter().map(|it| it.load(Ordering::Relaxed));
        let recent = entries.filter(|entry| (entry >> MINUTE_SHIFT) + 1 >= minute);
        let longest = recent.map(|entry| entry & LAG_MASK).max();
        Duration::from_micros(longest.unwrap_or(0)).max(self.overdue(now))
    }

    fn overdue(&self, now: Instant) -> Duration {
        match self.due.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            due => {
                let now = now.saturating_duration_since(self.began);
                now.saturating_sub(Duration::from_micros(due))
            }
        }
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / 60
    }
}

/// Often enough to catch what a user would notice, rarely enough to cost nothing.
const EVERY: Duration = Duration::from_millis(250);
/// Lags of more than an hour (2³² µs) count as one of that length.
const MINUTE_SHIFT: u32 = 32;
const LAG_MASK: u64 = (1 << MINUTE_SHIFT) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn remembers_the_last_lag_and_the_longest_for_one_to_two_minutes() {
        let began = shell::now();
        let lag = Lag::new(began);
        let late = |at: Duration, by: Duration| {
            lag.expect(began + at);
            lag.note(began + at, began + at + by);
            lag.expect(began + at + by + EVERY);
        };
        late(MS(10_000), MS(80));
        late(MS(20_000), MS(2));
        let at = |ms| began + MS(ms);
        assert_eq!(lag.last(at(20_100)), MS(2));
        assert_eq!(lag.longest(at(20_100)), MS(80));
        late(MS(119_000), MS(3));
        assert_eq!(lag.longest(at(119_100)), MS(80));
        late(MS(120_000), MS(4));
        assert_eq!(lag.longest(at(120_100)), MS(4));
    }

    #[test]
    fn a_stuck_thread_counts_as_late_before_its_timer_fires() {
        let began = shell::now();
        let lag = Lag::new(began);
        assert_eq!(lag.last(began + MS(60_000)), MS(0), "nothing is measured");
        lag.expect(began + MS(250));
        assert_eq!(lag.last(began + MS(100)), MS(0));
        assert_eq!(lag.last(began + MS(3250)), MS(3000));
        assert_eq!(lag.longest(began + MS(3250)), MS(3000));
    }
}
