//! The counters of one shard. Only its own thread writes them, so no two shards share a cache line.

use super::counters::{Counter, Gauge, Volume};
use super::histogram::Histogram;
use super::mailboxes::Mailboxes;
use crate::messages::presence::{Headcount, Presence};
use postern_core::DropReason;
use postern_core::domains::HealSignal;
use postern_core::nat_table::{HealCounts, NatUsage};
use postern_core::packet::DropCounts;
use postern_core::peer::{HandshakeCounts, PathKind};

#[derive(Debug)]
pub struct ShardMetrics {
    drops: [Counter; DropReason::ALL.len()],
    /// Written to the TUN device.
    pub tun_inbound: Volume,
    /// Read from the TUN device.
    pub tun_outbound: Volume,
    pub udp_received: Volume,
    pub udp_sent: Volume,
    pub handed_over: HandedOver,
    pub mailboxes: Mailboxes,
    /// Requests of the portal that connections granted.
    pub accepted: Counter,
    /// Requests of the portal that connections refused.
    pub refused: Counter,
    pub sessions_begun: Counter,
    /// Clients with a session.
    pub sessions: Headcount,
    /// Clients with a path, by its kind.
    pub(super) paths: [Headcount; PathKind::ALL.len()],
    pub(super) handshakes: Handshakes,
    pub(super) nat: Nat,
    pub(super) signals: [Counter; HealSignal::ALL.len()],
    pub(super) heals: [Histogram; HealSignal::ALL.len()],
}

/// Packets that this shard read for clients of other shards.
#[derive(Debug, Default)]
pub struct HandedOver {
    pub udp: BatchCounters,
    pub tun: BatchCounters,
}

/// Packets and the batches in which they travel.
#[derive(Debug, Default)]
pub struct BatchCounters {
    pub batches: Counter,
    pub packets: Counter,
}

impl BatchCounters {
    pub fn add_batch(&self, packets: usize) {
        self.batches.add(1);
        self.packets.add(packets as u64);
    }
}

#[derive(Debug, Default)]
pub(super) struct Handshakes {
    pub(super) answered: Counter,
    pub(super) confirmed: Counter,
    pub(super) rejected: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Nat {
    pub(super) flows: Gauge,
    pub(super) mappings: Gauge,
    pub(super) held_packets: Gauge,
    pub(super) held_bytes: Gauge,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self {
            drops: Default::default(),
            tun_inbound: Volume::default(),
            tun_outbound: Volume::default(),
            udp_received: Volume::default(),
            udp_sent: Volume::default(),
            handed_over: HandedOver::default(),
            mailboxes: Mailboxes::default(),
            accepted: Counter::default(),
            refused: Counter::default(),
            sessions_begun: Counter::default(),
            sessions: Headcount::default(),
            paths: Default::default(),
            handshakes: Handshakes::default(),
            nat: Nat::default(),
            signals: Default::default(),
            heals: std::array::from_fn(|_| Histogram::new(HEALED_WITHIN)),
        }
    }
}

impl ShardMetrics {
    pub fn count_drops(&self, reason: DropReason, packets: usize) {
        self.drops[reason as usize].add(packets as u64);
    }

    pub fn add_drops(&self, counts: &DropCounts) {
        for (reason, packets) in counts.iter() {
            self.drops[reason as usize].add(packets);
        }
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    pub fn add_handshakes(&self, counts: HandshakeCounts) {
        let HandshakeCounts {
            answered,
            confirmed,
            rejected,
        } = counts;
        self.handshakes.answered.add(answered);
        self.handshakes.confirmed.add(confirmed);
        self.handshakes.rejected.add(rejected);
    }

    /// Counts a client with a path of this kind until the presence is dropped.
    pub fn enter_path(&self, kind: PathKind) -> Presence {
        self.paths[kind as usize].enter()
    }

    pub fn set_nat_usage(&self, usage: NatUsage) {
        let NatUsage {
            flows,
            mappings,
            held_packets,
            held_bytes,
        } = usage;
        self.nat.flows.set(flows);
        self.nat.mappings.set(mappings);
        self.nat.held_packets.set(held_packets);
        self.nat.held_bytes.set(held_bytes);
    }

    pub fn add_heals(&self, counts: &HealCounts) {
        for (total, more) in self.signals.iter().zip(counts.raised) {
            total.add(more);
        }
        for (began_with, took) in &counts.healed {
            self.heals[*began_with as usize].note(*took);
        }
    }
}

/// In ms. A name heals within 1.5 s after its DNS server is back; the last limits are for outages.
const HEALED_WITHIN: &[u64] = &[
    25, 100, 250, 500, 1000, 1500, 2500, 5000, 10_000, 30_000, 60_000, 300_000,
];
