//! Counters that many actors add to and few read: relaxed atomics, one set for each shard.

use postern_core::DropReason;
use postern_core::packet::DropCounts;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one shard.
#[derive(Debug, Default)]
pub struct Metrics {
    drops: [AtomicU64; DropReason::ALL.len()],
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
