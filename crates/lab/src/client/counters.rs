//! Counts of dropped and refused packets, logged at DEBUG now and then, never per packet.

use super::packet::DropReason;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    drops: BTreeMap<DropReason, u64>,
    invalid_datagrams: u64,
    icmp_prohibited: u64,
    is_changed: bool,
}

impl Counters {
    pub fn count_drop(&self, reason: DropReason) {
        *self.change().drops.entry(reason).or_default() += 1;
    }

    /// Counts a datagram that does not come from the gateway.
    pub fn count_invalid(&self) {
        self.change().invalid_datagrams += 1;
    }

    /// Counts an ICMP error by which a gateway refuses a packet.
    pub fn count_prohibited(&self) {
        self.change().icmp_prohibited += 1;
    }

    /// Logs the counts if any has changed since the last report.
    pub fn report(&self) {
        let mut counts = self.lock();
        if std::mem::take(&mut counts.is_changed) {
            let Counts {
                drops,
                invalid_datagrams,
                icmp_prohibited,
                ..
            } = &*counts;
            tracing::debug!(icmp_prohibited, invalid_datagrams, ?drops, "counts so far");
        }
    }

    fn change(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.lock();
        counts.is_changed = true;
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no holder panics")
    }
}
