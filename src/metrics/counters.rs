//! Numbers that one thread writes and another reads: relaxed, because each is independent.

use postern_core::packet::{DatagramBatch, PacketBatch};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        // Most batches change few counters, and a test is cheaper than a write.
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// So many there are now.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct TimeCounter(Counter);

impl TimeCounter {
    pub fn add(&self, more: Duration) {
        self.0.add(micros(more));
    }

    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.get())
    }
}

/// The longest time of all.
#[derive(Debug, Default)]
pub struct LongestTime(AtomicU64);

impl LongestTime {
    pub fn note(&self, time: Duration) {
        self.0.fetch_max(micros(time), Ordering::Relaxed);
    }

    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
pub struct Volume {
    /// Packets or datagrams.
    pub count: Counter,
    pub bytes: Counter,
}

impl Volume {
    pub fn add_packets(&self, batch: &PacketBatch) {
        self.count.add(batch.segments() as u64);
        self.bytes.add(batch.total_bytes() as u64);
    }

    pub fn add_datagrams(&self, batch: &DatagramBatch) {
        self.count.add(batch.len() as u64);
        self.bytes.add(batch.bytes().len() as u64);
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
