//! Counters that many actors add to and few read: relaxed atomics, one set for each shard.
//!
//! Nobody is asked when the numbers are read, so that they can be read while an actor hangs.
//! docs/metrics.md says what each of them means.

mod counters;
mod exposition;

use crate::messages::supervisor::Child;
use crate::shell;
pub use counters::{Counter, Gauge};
pub use exposition::CONTENT_TYPE;
use postern_core::DropReason;
use postern_core::packet::DropCounts;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All counters of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    drops: [Counter; DropReason::ALL.len()],
    lives: [Lives; Child::KINDS.len()],
}

/// What became of the actors of one kind.
#[derive(Debug, Default)]
struct Lives {
    deaths: Counter,
    recoveries: Counter,
    recovery_micros: Counter,
    longest_micros: Gauge,
}

/// What became of the actors of one kind so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifeCounts {
    /// How many died.
    pub deaths: u64,
    /// How many were built anew and have shown that they work.
    pub recoveries: u64,
    /// The time between the two, in all.
    pub recovery: Duration,
    /// The longest of these times.
    pub longest: Duration,
}

impl Metrics {
    /// Adds `packets` packets that were dropped for `reason`.
    pub fn count_drops(&self, reason: DropReason, packets: usize) {
        self.drops[reason as usize].add(packets as u64);
    }

    /// Adds what a core has counted.
    pub fn add_drops(&self, counts: &DropCounts) {
        for (reason, packets) in counts.iter() {
            self.drops[reason as usize].add(packets);
        }
    }

    /// An actor died.
    pub fn count_death(&self, child: Child) {
        self.lives[child.kind()].deaths.add(1);
    }

    /// Its successor works, so long after its death.
    pub fn count_recovery(&self, child: Child, took: Duration) {
        let lives = &self.lives[child.kind()];
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        lives.recoveries.add(1);
        lives.recovery_micros.add(micros);
        lives.longest_micros.raise_to(micros);
    }

    /// Deaths and recoveries by kind of actor, as log lines name it.
    #[must_use]
    pub fn lives(&self) -> Vec<(&'static str, LifeCounts)> {
        let counts = self.lives.iter().map(|lives| LifeCounts {
            deaths: lives.deaths.get(),
            recoveries: lives.recoveries.get(),
            recovery: Duration::from_micros(lives.recovery_micros.get()),
            longest: Duration::from_micros(lives.longest_micros.get()),
        });
        Child::KINDS.into_iter().zip(counts).collect()
    }

    /// The reasons that occurred so far, with their counts.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops[reason as usize].get()))
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }

    /// Everything, as it is now, in the OpenMetrics text format; to be served as [`CONTENT_TYPE`].
    #[must_use]
    pub fn page(self: &Arc<Self>) -> String {
        self.render(shell::now())
    }

    /// As [`Self::page`], as of `now`.
    #[must_use]
    pub fn render(self: &Arc<Self>, now: Instant) -> String {
        exposition::render(self, now)
    }
}
