//! Counters that many actors add to and few read: relaxed atomics, one set for each shard.

use crate::messages::supervisor::Child;
use postern_core::DropReason;
use postern_core::packet::DropCounts;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of one shard.
#[derive(Debug, Default)]
pub struct Metrics {
    drops: [AtomicU64; DropReason::ALL.len()],
    lives: [Lives; Child::KINDS.len()],
}

/// What became of the actors of one kind.
#[derive(Debug, Default)]
struct Lives {
    deaths: AtomicU64,
    recoveries: AtomicU64,
    recovery_micros: AtomicU64,
    longest_micros: AtomicU64,
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
        self.drops[reason as usize].fetch_add(packets as u64, Ordering::Relaxed);
    }

    /// Adds what a core has counted.
    pub fn add_drops(&self, counts: &DropCounts) {
        for (reason, packets) in counts.iter() {
            self.drops[reason as usize].fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// An actor died.
    pub fn count_death(&self, child: Child) {
        self.lives[child.kind()]
            .deaths
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Its successor works, so long after its death.
    pub fn count_recovery(&self, child: Child, took: Duration) {
        let lives = &self.lives[child.kind()];
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        lives.recoveries.fetch_add(1, Ordering::Relaxed);
        lives.recovery_micros.fetch_add(micros, Ordering::Relaxed);
        lives.longest_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Deaths and recoveries by kind of actor, as log lines name it.
    #[must_use]
    pub fn lives(&self) -> Vec<(&'static str, LifeCounts)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = self.lives.iter().map(|lives| LifeCounts {
            deaths: read(&lives.deaths),
            recoveries: read(&lives.recoveries),
            recovery: Duration::from_micros(read(&lives.recovery_micros)),
            longest: Duration::from_micros(read(&lives.longest_micros)),
        });
        Child::KINDS.into_iter().zip(counts).collect()
    }

    /// As Prometheus reads it.
    #[must_use]
    pub fn render(&self) -> String {
        String::new()
    }

    /// The reasons that occurred so far, with their counts.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops[reason as usize].load(Ordering::Relaxed)))
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }
}
