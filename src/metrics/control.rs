//! What the actors count of which there is one: the portal's and the resolver's, the supervisor.

use super::counters::{Counter, Gauge, Headcount, LongestTime, Presence, TimeCounter, micros};
use super::histogram::Histogram;
use crate::config::ReloadOutcome;
use crate::messages::supervisor::Child;
use crate::shell;
use postern_core::lookups::LookupCounts;
use postern_core::names::NameFailure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What became of the actors of one kind.
#[derive(Debug)]
pub(super) struct Lives {
    pub(super) deaths: Counter,
    pub(super) recoveries: Counter,
    pub(super) recovery: TimeCounter,
    pub(super) longest: LongestTime,
    pub(super) answers: Histogram,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            deaths: Counter::default(),
            recoveries: Counter::default(),
            recovery: TimeCounter::default(),
            longest: LongestTime::default(),
            answers: Histogram::new(ANSWERED_WITHIN),
        }
    }
}

/// All kinds of actors that the supervisor looks after, by [`Child::kind`].
pub(super) type AllLives = [Lives; Child::KINDS.len()];

/// What is known of the names that were looked up.
#[derive(Debug)]
pub struct DnsMetrics {
    /// Found first, then by the place in [`NameFailure::ALL`].
    pub(super) results: [Histogram; DNS_RESULTS.len()],
    pub(super) cached: Counter,
    pub(super) refused: Counter,
}

/// What becomes of a question that is put to the DNS. Quota is not among it: that one is never put.
pub(super) const DNS_RESULTS: [&str; NameFailure::ALL.len()] = [
    "found",
    "no_name",
    "no_address",
    "server_failure",
    "timeout",
    "network",
];

impl Default for DnsMetrics {
    fn default() -> Self {
        Self {
            results: std::array::from_fn(|_| Histogram::new(LOOKED_UP_WITHIN)),
            cached: Counter::default(),
            refused: Counter::default(),
        }
    }
}

impl DnsMetrics {
    /// Adds what a core has counted.
    pub fn add(&self, counts: &LookupCounts) {
        let LookupCounts {
            ended,
            cached,
            refused,
        } = counts;
        for (outcome, took) in ended {
            match place(*outcome) {
                Some(place) => self.results[place].note(*took),
                None => self.refused.add(1),
            }
        }
        self.cached.add(*cached);
        self.refused.add(*refused);
    }
}

fn place(outcome: Result<(), NameFailure>) -> Option<usize> {
    Some(match outcome {
        Ok(()) => 0,
        Err(NameFailure::NoSuchName) => 1,
        Err(NameFailure::NoData) => 2,
        Err(NameFailure::ServerFailure) => 3,
        Err(NameFailure::Timeout) => 4,
        Err(NameFailure::Network) => 5,
        Err(NameFailure::Quota) => return None,
    })
}

/// How it stands with the portal.
#[derive(Debug)]
pub struct PortalMetrics {
    joined: Headcount,
    pub(super) joins: Counter,
    pub(super) failures: Counter,
    pub(super) relays: Gauge,
    began: Instant,
    /// When the present outage began, in µs since then.
    out_since: AtomicU64,
    outage: TimeCounter,
}

/// The gateway is joined as long as this is held.
#[derive(Debug)]
pub struct Joined {
    metrics: Arc<super::Metrics>,
    presence: Option<Presence>,
}

impl PortalMetrics {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            joined: Headcount::default(),
            joins: Counter::default(),
            failures: Counter::default(),
            relays: Gauge::default(),
            began: now,
            out_since: AtomicU64::new(0),
            outage: TimeCounter::default(),
        }
    }

    /// The portal did not let us in, or let us go.
    pub fn count_failure(&self) {
        self.failures.add(1);
    }

    /// So many relays are known.
    pub fn set_relays(&self, count: usize) {
        self.relays.set(count);
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined.get() > 0
    }

    /// Time in which the gateway was not joined.
    pub(super) fn outage(&self, now: Instant) -> Duration {
        let present = match self.is_joined() {
            true => Duration::ZERO,
            false => self.present_outage(now),
        };
        self.outage.get() + present
    }

    fn present_outage(&self, now: Instant) -> Duration {
        let since = Duration::from_micros(self.out_since.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began)
            .saturating_sub(since)
    }

    fn enter(&self, now: Instant) -> Presence {
        self.joins.add(1);
        if !self.is_joined() {
            self.outage.add(self.present_outage(now));
        }
        self.joined.enter()
    }

    fn leave(&self, presence: Presence, now: Instant) {
        let since = micros(now.saturating_duration_since(self.began));
        self.out_since.store(since, Ordering::Relaxed);
        drop(presence);
    }
}

impl Joined {
    pub(super) fn new(metrics: &Arc<super::Metrics>) -> Self {
        Self {
            presence: Some(metrics.portal.enter(shell::now())),
            metrics: Arc::clone(metrics),
        }
    }
}

impl Drop for Joined {
    /// Also when the PortalActor dies.
    fn drop(&mut self) {
        if let Some(presence) = self.presence.take() {
            self.metrics.portal.leave(presence, shell::now());
        }
    }
}

/// What became of a configuration that was to be taken over while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Everything that had changed is in effect.
    Applied,
    /// Some of it takes a restart.
    Partial,
    /// Nothing had changed.
    Unchanged,
    /// It is not valid: the former one stays.
    Refused,
}

impl Reload {
    pub(super) fn of(outcome: &ReloadOutcome) -> Self {
        match outcome {
            ReloadOutcome::Applied { needs_restart, .. } if needs_restart.is_empty() => {
                Self::Applied
            }
            ReloadOutcome::Applied { .. } => Self::Partial,
            ReloadOutcome::Unchanged => Self::Unchanged,
            ReloadOutcome::Refused { .. } => Self::Refused,
        }
    }

    /// All variants, in order.
    pub(super) const ALL: [Self; 4] =
        [Self::Applied, Self::Partial, Self::Unchanged, Self::Refused];

    /// What metrics call it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// In ms. A server nearby takes a few, one that does not answer 6 s.
const LOOKED_UP_WITHIN: &[u64] = &[1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 6000];
/// In ms. The supervisor's patience is 1.5 s.
const ANSWERED_WITHIN: &[u64] = &[1, 5, 25, 100, 500, 1500];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_the_place_of_its_label() {
        assert_eq!(DNS_RESULTS[place(Ok(())).expect("a place")], "found");
        for failure in NameFailure::ALL {
            let label = place(Err(failure)).map(|place| DNS_RESULTS[place]);
            match failure {
                NameFailure::Quota => assert_eq!(label, None),
                NameFailure::NoSuchName
                | NameFailure::NoData
                | NameFailure::ServerFailure
                | NameFailure::Timeout
                | NameFailure::Network => assert_eq!(label, Some(failure.label())),
            }
        }
    }
}
