//! What was dropped and refused, counted; told at DEBUG now and then, never per packet.

use super::router::DropReason;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the data path.
#[derive(Debug, Default)]
pub struct Counters {
    drops: Mutex<BTreeMap<DropReason, u64>>,
    invalid: AtomicU64,
    prohibited: AtomicU64,
    reported: AtomicU64,
}

impl Counters {
    /// A packet was dropped.
    pub fn count_drop(&self, reason: DropReason) {
        let mut drops = self.drops.lock().expect("nobody panics while holding it");
        *drops.entry(reason).or_default() += 1;
    }

    /// A datagram was not the gateway's.
    pub fn count_invalid(&self) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// A gateway refused a packet with ICMP.
    pub fn count_prohibited(&self) {
        self.prohibited.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs the counts if any has changed since the last time.
    pub fn report(&self) {
        let drops = self
            .drops
            .lock()
            .expect("nobody panics while holding it")
            .clone();
        let invalid_datagrams = self.invalid.load(Ordering::Relaxed);
        let icmp_prohibited = self.prohibited.load(Ordering::Relaxed);
        let total = drops.values().sum::<u64>() + invalid_datagrams + icmp_prohibited;
        if self.reported.swap(total, Ordering::Relaxed) != total {
            tracing::debug!(icmp_prohibited, invalid_datagrams, ?drops, "counts so far");
        }
    }
}
