//! Exponential backoff with jitter: the delays between attempts.
//!
//! Only computes durations; the caller waits. The numbers of the portal's reconnect policy come
//! from docs/protocol.md 1.7.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::time::Duration;

/// The parameters of a [`Backoff`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffConfig {
    /// The first delay, before jitter.
    pub initial: Duration,
    /// Factor from each delay to the next; at least 1.
    pub factor: f64,
    /// Upper limit of every delay, jitter included.
    pub cap: Duration,
    /// Share of a delay by which it is randomly lengthened or shortened, from 0 to 1.
    pub jitter: f64,
}

impl Default for BackoffConfig {
    /// 0.5 s, growing by half to at most 60 s, ±50 % (docs/protocol.md 1.7).
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            factor: 1.5,
            cap: Duration::from_secs(60),
            jitter: 0.5,
        }
    }
}

/// A growing sequence of delays.
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    interval: Duration,
    rng: ChaCha8Rng,
}

impl Backoff {
    /// A sequence that starts at `config.initial`; the same seed gives the same jitter.
    #[must_use]
    pub fn new(config: BackoffConfig, seed: [u8; 32]) -> Self {
        Self {
            interval: config.initial.min(config.cap),
            config,
            rng: ChaCha8Rng::from_seed(seed),
        }
    }

    /// The next delay; the one after it is longer.
    ///
    /// The jitter is uniform between `interval × (1 - jitter)` and the smaller of
    /// `interval × (1 + jitter)` and the cap. Limiting the range rather than the result prevents
    /// callers at the cap from waking simultaneously.
    pub fn next_delay(&mut self) -> Duration {
        let interval = self.interval.as_secs_f64();
        let cap = self.config.cap.as_secs_f64();
        let low = interval * (1.0 - self.config.jitter);
        let high = (interval * (1.0 + self.config.jitter)).min(cap);
        let delay = low + (high - low) * self.unit();
        self.interval = Duration::from_secs_f64((interval * self.config.factor).min(cap));
        Duration::from_secs_f64(delay)
    }

    /// As [`Self::next_delay`], unless the remote side requested a delay: it replaces the computed
    /// value, which grows all the same.
    pub fn next_delay_unless(&mut self, requested: Option<Duration>) -> Duration {
        let computed = self.next_delay();
        requested.unwrap_or(computed)
    }

    /// Starts over, because the last attempt succeeded.
    pub fn reset(&mut self) {
        self.interval = self.config.initial.min(self.config.cap);
    }

    /// A uniform number in 0 ≤ x < 1, from the upper 53 bits of one draw.
    fn unit(&mut self) -> f64 {
        let mantissa = (self.rng.next_u64() >> 11) as f64;
        mantissa / 9_007_199_254_740_992.0 // 2^53
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn without_jitter() -> Backoff {
        let config = BackoffConfig {
            jitter: 0.0,
            ..BackoffConfig::default()
        };
        Backoff::new(config, [0; 32])
    }

    #[test]
    fn grows_by_half_to_the_cap_and_stays_there() {
        let mut backoff = without_jitter();
        let waits: Vec<u128> = (0..14).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(waits[..4], [500, 750, 1125, 1687]);
        assert_eq!(waits[12..], [60_000, 60_000]);
    }

    #[test]
    fn starts_over_after_a_reset() {
        let mut backoff = without_jitter();
        backoff.next_delay();
        backoff.next_delay();
        backoff.reset();
        assert_eq!(backoff.next_delay(), Duration::from_millis(500));
    }

    #[test]
    fn a_requested_delay_replaces_the_value_but_not_the_growth() {
        let mut backoff = without_jitter();
        let requested = Duration::from_secs(7);
        assert_eq!(backoff.next_delay_unless(Some(requested)), requested);
        assert_eq!(backoff.next_delay_unless(None), Duration::from_millis(750));
    }

    #[test]
    fn two_seeds_give_different_delays() {
        let mut one = Backoff::new(BackoffConfig::default(), [1; 32]);
        let mut two = Backoff::new(BackoffConfig::default(), [2; 32]);
        assert_ne!(one.next_delay(), two.next_delay());
    }

    proptest! {
        #[test]
        fn every_delay_is_within_half_of_its_interval_and_below_the_cap(
            seed: [u8; 32], steps in 1usize..40,
        ) {
            let mut backoff = Backoff::new(BackoffConfig::default(), seed);
            let mut interval = 0.5f64;
            for _ in 0..steps {
                let wait = backoff.next_delay().as_secs_f64();
                prop_assert!(wait >= interval * 0.5 - 1e-6);
                prop_assert!(wait <= (interval * 1.5).min(60.0) + 1e-6);
                interval = (interval * 1.5).min(60.0);
            }
        }
    }
}
