//! The counters of the PortalActor, the DnsActor and the supervisor.

use super::counters::{Counter, Gauge, LongestTime, TimeCounter, micros};
use super::histogram::Histogram;
use crate::messages::presence::{Headcount, Presence};
use crate::messages::reload::ReloadOutcome;
use crate::shell;
use postern_core::lookups::LookupCounts;
use postern_core::names::NameFailure;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Deaths, recoveries and answers of the actors of one kind.
#[derive(Debug)]
pub struct ActorCounters {
    pub deaths: Counter,
    /// Restarted actors that have shown that they work.
    pub recoveries: Counter,
    /// Sum of the times from a death to its recovery.
    pub(super) recovery: TimeCounter,
    pub(super) longest: LongestTime,
    pub(super) answers: Histogram,
}

impl Default for ActorCounters {
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

#[derive(Debug)]
pub struct DnsMetrics {
    /// Indexed as [`DNS_RESULTS`].
    pub(super) results: [Histogram; DNS_RESULTS.len()],
    pub(super) cached: Counter,
    pub(super) refused: Counter,
}

/// Results of a query. [`NameFailure::Quota`] is not among them: no query is sent for it.
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

/// The state of the connection to the portal.
#[derive(Debug)]
pub struct PortalMetrics {
    joined: Headcount,
    pub(super) joins: Counter,
    pub(super) failures: Counter,
    pub(super) relays: Gauge,
    began: Instant,
    /// When the present outage began, in µs since `began`.
    out_since: AtomicU64,
    outage: TimeCounter,
}

/// Counts the gateway as joined while it is held.
#[derive(Debug)]
#[must_use = "the gateway counts as joined only while it is held"]
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

    /// Counts a refused join or a lost connection.
    pub fn count_failure(&self) {
        self.failures.add(1);
    }

    pub fn set_relays(&self, count: usize) {
        self.relays.set(count);
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined.get() > 0
    }

    /// Total time during which the gateway was not joined.
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
    /// Runs also when the PortalActor panics.
    fn drop(&mut self) {
        if let Some(presence) = self.presence.take() {
            self.metrics.portal.leave(presence, shell::now());
        }
    }
}

/// Results of a reload, as labels. `partial`: some changes need a restart.
pub(super) const RELOADS: [&str; 4] = ["applied", "partial", "unchanged", "refused"];

pub(super) fn reload_index(outcome: &ReloadOutcome) -> usize {
    match outcome {
        ReloadOutcome::Applied { needs_restart, .. } if needs_restart.is_empty() => 0,
        ReloadOutcome::Applied { .. } => 1,
        ReloadOutcome::Unchanged => 2,
        ReloadOutcome::Refused { .. } => 3,
    }
}

/// In ms. A nearby server takes a few; a query without an answer ends after 6 s.
const LOOKED_UP_WITHIN: &[u64] = &[1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 6000];
/// In ms. The supervisor's patience is 1.5 s.
const ANSWERED_WITHIN: &[u64] = &[1, 5, 25, 100, 500, 1500];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_the_index_of_its_label() {
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
