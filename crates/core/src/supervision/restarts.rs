//! How many deaths of a child a supervisor tolerates (OTP: intensity and period), and how long it
//! waits before each restart.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The limit on a child's deaths, and the delays of its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// This many deaths within [`Self::within`] exhaust the budget; the last is not followed by a
    /// restart.
    pub deaths: usize,
    /// The length of the sliding window.
    pub within: Duration,
    /// The delay after the second death in the window, doubled with each further one; the first
    /// restart is immediate.
    pub first_delay: Duration,
    /// The upper limit of the delay.
    pub longest_delay: Duration,
}

impl RestartPolicy {
    /// The policy for an actor that all clients share.
    pub const SHARED: Self = Self {
        deaths: 5,
        within: Duration::from_secs(30),
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_secs(1),
    };

    /// The policy for the connection actor of one client.
    pub const CONNECTION: Self = Self {
        deaths: 3,
        ..Self::SHARED
    };
}

/// The supervisor's reaction to a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartVerdict {
    /// Create a new instance of the child.
    Restart {
        /// The time to wait first; often zero.
        after: Duration,
    },
    /// The budget is exhausted: end the process (or, for a connection, disconnect the client).
    GiveUp,
}

/// The deaths of one child within a sliding window.
#[derive(Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    /// The most recent ones, at most as many as the policy counts.
    deaths: VecDeque<Instant>,
}

impl Restarts {
    /// The record of a child that has not died yet.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            deaths: VecDeque::new(),
        }
    }

    /// Counts a death at `now` and decides on a restart.
    pub fn handle_death(&mut self, now: Instant) -> RestartVerdict {
        let now = self.deaths.back().map_or(now, |last| now.max(*last));
        let within = self.policy.within;
        self.deaths
            .retain(|death| now.duration_since(*death) <= within);
        let earlier = self.deaths.len();
        self.deaths.push_back(now);
        if self.deaths.len() >= self.policy.deaths {
            self.deaths.pop_front();
            return RestartVerdict::GiveUp;
        }
        RestartVerdict::Restart {
            after: self.policy.delay(earlier),
        }
    }

    /// Whether all deaths are outside the window, so that the record is as good as a new one.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        let last = self.deaths.back();
        last.is_none_or(|last| now.saturating_duration_since(*last) > self.policy.within)
    }
}

impl RestartPolicy {
    fn delay(&self, earlier: usize) -> Duration {
        let Some(doublings) = earlier.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = u32::try_from(doublings)
            .ok()
            .and_then(|by| 1_u32.checked_shl(by))
            .unwrap_or(u32::MAX);
        let delay = self.first_delay.saturating_mul(factor);
        delay.min(self.longest_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn restart(after: u64) -> RestartVerdict {
        RestartVerdict::Restart { after: MS(after) }
    }

    #[test]
    fn the_fifth_death_of_a_shared_actor_exhausts_the_budget() {
        let now = beginning();
        let mut restarts = Restarts::new(RestartPolicy::SHARED);
        let verdicts: Vec<_> = (0..5).map(|s| restarts.handle_death(now + MS(s))).collect();
        assert_eq!(
            verdicts[..4],
            [restart(0), restart(10), restart(20), restart(40)]
        );
        assert_eq!(verdicts[4], RestartVerdict::GiveUp);
    }

    #[test]
    fn the_third_death_of_a_connection_exhausts_the_budget() {
        let now = beginning();
        let mut restarts = Restarts::new(RestartPolicy::CONNECTION);
        assert_eq!(restarts.handle_death(now), restart(0));
        assert_eq!(restarts.handle_death(now + MS(29_999)), restart(10));
        assert_eq!(
            restarts.handle_death(now + MS(30_000)),
            RestartVerdict::GiveUp
        );
    }

    #[test]
    fn old_deaths_and_their_delays_are_forgotten() {
        let now = beginning();
        let mut restarts = Restarts::new(RestartPolicy::CONNECTION);
        for round in 0..5 {
            let at = now + MS(60_001) * round;
            assert_eq!(restarts.handle_death(at), restart(0));
            assert_eq!(restarts.handle_death(at + MS(30_000)), restart(10));
        }
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest() {
        let (now, many) = (
            beginning(),
            RestartPolicy {
                deaths: 100,
                ..RestartPolicy::SHARED
            },
        );
        let mut restarts = Restarts::new(many);
        let verdicts: Vec<_> = (0..99).map(|_| restarts.handle_death(now)).collect();
        let doubling = [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000].map(restart);
        assert_eq!(verdicts[..10], doubling);
        assert_eq!(verdicts[98], restart(1000));
    }

    proptest! {
        /// A naive count over the whole history agrees with the sliding window, also if the
        /// supervisor continues after the budget was exhausted.
        #[test]
        fn agrees_with_a_naive_count(
            gaps in proptest::collection::vec(0u64..20, 1..60),
            deaths in 1usize..6,
        ) {
            let policy = RestartPolicy { deaths, ..RestartPolicy::SHARED };
            let mut restarts = Restarts::new(policy);
            let mut now = beginning();
            let mut history: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_secs(gap);
                history.push(now);
                let recent = |at: &&Instant| now.duration_since(**at) <= policy.within;
                let gives_up = history.iter().filter(recent).count() >= deaths;
                let verdict = restarts.handle_death(now);
                prop_assert_eq!(verdict == RestartVerdict::GiveUp, gives_up);
            }
        }

        /// A clock that goes back counts as one that stands still.
        #[test]
        fn is_bounded_for_any_clock(times in proptest::collection::vec(0u64..60, 1..60)) {
            let start = beginning();
            let mut restarts = Restarts::new(RestartPolicy::SHARED);
            for at in times {
                restarts.handle_death(start + Duration::from_secs(at));
                prop_assert!(restarts.deaths.len() <= RestartPolicy::SHARED.deaths);
            }
        }
    }
}
