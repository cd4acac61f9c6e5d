//! Backoff of lookups: waits that double, with jitter.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use std::time::{Duration, Instant};

/// The parameters of a growing wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// The first wait, before jitter.
    pub(super) first: Duration,
    /// The longest wait, before jitter.
    pub(super) cap: Duration,
}

/// After a lookup without an answer: 0.25, 0.5, 1, 1, … s.
///
/// The cap is 1 s so that a name heals within 1.5 s after its DNS server is back.
pub(super) const TRANSIENT: Growth = Growth {
    first: Duration::from_millis(250),
    cap: Duration::from_secs(1),
};

/// After an answer that did not help: 5, 10, … 300 s (docs/lessons.md 2).
pub(super) const SETTLED: Growth = Growth {
    first: Duration::from_secs(5),
    cap: Duration::from_secs(300),
};

/// Random share by which a wait is longer or shorter, so that names that failed together are not
/// looked up together.
pub(super) const JITTER: f64 = 0.2;

/// A growing wait. The default is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    steps: u32,
    until: Option<Instant>,
}

impl Wait {
    /// Waits from `now` on, twice as long as the last time.
    pub(super) fn extend(&mut self, growth: Growth, now: Instant, rng: &mut ChaCha8Rng) {
        let doubled = growth.first.saturating_mul(1 << self.steps.min(16));
        let share = 1.0 - JITTER + 2.0 * JITTER * unit(rng);
        self.until = Some(now + doubled.min(growth.cap).mul_f64(share));
        self.steps = self.steps.saturating_add(1);
    }

    /// Ends the wait; the next one is short again.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Whether it was extended since the last reset.
    pub(super) fn has_begun(&self) -> bool {
        self.steps > 0
    }

    /// When it is over; `None` if it has not begun.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// A uniform number in 0 ≤ x < 1, from the upper 53 bits of one draw.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0 // 2^53
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;
    use rand_chacha::rand_core::SeedableRng;

    fn waits(growth: Growth, count: usize) -> Vec<f64> {
        let (now, mut rng) = (beginning(), ChaCha8Rng::from_seed([3; 32]));
        let mut wait = Wait::default();
        let mut next = || {
            wait.extend(growth, now, &mut rng);
            (wait.until().expect("it was extended") - now).as_secs_f64()
        };
        (0..count).map(|_| next()).collect()
    }

    fn assert_near(waits: &[f64], expected: &[f64]) {
        for (wait, expected) in waits.iter().zip(expected) {
            assert!((wait / expected - 1.0).abs() <= JITTER, "{waits:?}");
        }
    }

    #[test]
    fn retries_a_failed_lookup_within_a_second() {
        assert_near(&waits(TRANSIENT, 5), &[0.25, 0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn retries_a_useless_answer_after_5_seconds_doubling_to_5_minutes() {
        let expected = [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0];
        assert_near(&waits(SETTLED, 8), &expected);
        assert!(waits(SETTLED, 100)[99] <= 360.0);
    }

    #[test]
    fn two_waits_of_one_length_end_at_different_times() {
        let waits = waits(TRANSIENT, 5);
        assert_ne!(waits[3], waits[4]);
    }
}
