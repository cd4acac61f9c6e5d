//! Numbers that one thread writes and another reads: relaxed, because each stands for itself.

use postern_core::packet::{DatagramBatch, PacketBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more.
    pub fn add(&self, more: u64) {
        // Most batches change few counters, and to look is cheaper than to write.
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// So many in all.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// So many there are now.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    /// So many there are.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts those who are there. Whoever goes is counted out, however it ends.
#[derive(Debug, Default)]
pub struct Headcount(Arc<()>);

/// Somebody who is there.
#[derive(Debug)]
pub struct Presence(#[expect(dead_code, reason = "it counts by being there")] Arc<()>);

impl Headcount {
    /// One more, until the presence is dropped.
    #[must_use]
    pub fn enter(&self) -> Presence {
        Presence(Arc::clone(&self.0))
    }

    /// How many are there.
    #[must_use]
    pub fn get(&self) -> u64 {
        Arc::strong_count(&self.0).saturating_sub(1) as u64
    }
}

/// Time in all.
#[derive(Debug, Default)]
pub struct TimeCounter(Counter);

impl TimeCounter {
    /// So much more.
    pub fn add(&self, more: Duration) {
        self.0.add(micros(more));
    }

    /// So much in all.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.get())
    }
}

/// The longest time of all.
#[derive(Debug, Default)]
pub struct LongestTime(AtomicU64);

impl LongestTime {
    /// It took so long.
    pub fn note(&self, time: Duration) {
        self.0.fetch_max(micros(time), Ordering::Relaxed);
    }

    /// The longest so far.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// What went by.
#[derive(Debug, Default)]
pub struct Volume {
    /// Packets or datagrams.
    pub count: Counter,
    /// Their bytes.
    pub bytes: Counter,
}

impl Volume {
    /// IP packets.
    pub fn add_packets(&self, batch: &PacketBatch) {
        self.count.add(batch.segments() as u64);
        self.bytes.add(batch.total_bytes() as u64);
    }

    /// UDP payloads.
    pub fn add_datagrams(&self, batch: &DatagramBatch) {
        self.count.add(batch.len() as u64);
        self.bytes.add(batch.bytes().len() as u64);
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
