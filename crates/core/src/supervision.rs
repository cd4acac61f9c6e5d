//! How many deaths a supervisor tolerates before it gives up (OTP: intensity and period).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deaths of one kind of child within a sliding window.
#[derive(Debug)]
pub struct RestartBudget {
    max: usize,
    within: Duration,
    deaths: VecDeque<Instant>,
}

/// What the supervisor does about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartVerdict {
    /// Build the child anew.
    Restart,
    /// The budget is spent: end the process (or, for a connection, cut the client off).
    GiveUp,
}

impl RestartBudget {
    /// A budget of `max` deaths within any window of `within`.
    #[must_use]
    pub fn new(max: usize, within: Duration) -> Self {
        Self {
            max,
            within,
            deaths: VecDeque::with_capacity(max),
        }
    }

    /// Counts a death at `now` and says what to do about it.
    pub fn handle_death(&mut self, now: Instant) -> RestartVerdict {
        while let Some(oldest) = self.deaths.front() {
            if now.saturating_duration_since(*oldest) <= self.within {
                break;
            }
            self.deaths.pop_front();
        }
        if self.deaths.len() >= self.max {
            return RestartVerdict::GiveUp;
        }
        self.deaths.push_back(now);
        RestartVerdict::Restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;
    use proptest::prelude::*;

    #[test]
    fn gives_up_on_the_burst_but_forgets_old_deaths() {
        let now = beginning();
        let mut budget = RestartBudget::new(2, Duration::from_secs(30));
        assert_eq!(budget.handle_death(now), RestartVerdict::Restart);
        assert_eq!(budget.handle_death(now), RestartVerdict::Restart);
        assert_eq!(budget.handle_death(now), RestartVerdict::GiveUp);
        let later = now + Duration::from_secs(31);
        assert_eq!(budget.handle_death(later), RestartVerdict::Restart);
    }

    proptest! {
        /// A naive count over the whole history agrees with the sliding window.
        #[test]
        fn agrees_with_a_naive_count(gaps in proptest::collection::vec(0u64..20, 1..60)) {
            let (max, within) = (3, Duration::from_secs(30));
            let mut budget = RestartBudget::new(max, within);
            let mut now = beginning();
            let mut restarts: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_secs(gap);
                let recent = restarts.iter().filter(|at| now.duration_since(**at) <= within);
                let expected = if recent.count() < max {
                    RestartVerdict::Restart
                } else {
                    RestartVerdict::GiveUp
                };
                prop_assert_eq!(budget.handle_death(now), expected);
                if expected == RestartVerdict::Restart {
                    restarts.push(now);
                }
            }
        }
    }
}
