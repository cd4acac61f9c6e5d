//! What one shard counts: only its own thread writes, so that no two shards meet in a cache line.

use super::counters::{Counter, Gauge, Headcount, Volume};
use super::histogram::Histogram;
use super::mailboxes::Mailboxes;
use postern_core::DropReason;
use postern_core::domains::HealSignal;
use postern_core::nat_table::{HealCounts, NatUsage};
use postern_core::packet::DropCounts;
use postern_core::peer::{HandshakeCounts, PathKind};

/// The counters of one shard.
#[derive(Debug)]
pub struct ShardMetrics {
    drops: [Counter; DropReason::ALL.len()],
    /// What was handed to the TUN device.
    pub tun_inbound: Volume,
    /// What was read from it.
    pub tun_outbound: Volume,
    /// What was read from the UDP sockets.
    pub udp_received: Volume,
    /// What was handed to them.
    pub udp_sent: Volume,
    /// What was read here for clients of other shards.
    pub handed_over: HandedOver,
    /// What waits for the actors.
    pub mailboxes: Mailboxes,
    /// Requests of the portal that a connection granted.
    pub accepted: Counter,
    /// Requests of the portal that a connection refused.
    pub refused: Counter,
    /// Sessions that began.
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

/// What the kernel gave to another shard than its client's.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// Datagrams of the sockets.
    pub udp: Portions,
    /// Packets of the TUN device.
    pub tun: Portions,
}

/// Packets that travel in batches.
#[derive(Debug, Default)]
pub struct Portions {
    /// Batches.
    pub batches: Counter,
    /// The packets in them.
    pub packets: Counter,
}

impl Portions {
    /// One batch more.
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

    /// How many packets were dropped for `reason` so far.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Adds what a core has counted.
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

    /// A client is reached by a path of this kind, until the presence is dropped.
    #[must_use]
    pub fn enter_path(&self, kind: PathKind) -> super::Presence {
        self.paths[kind as usize].enter()
    }

    /// What the NAT keeps now.
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

    /// Adds what a core has counted.
    pub fn add_heals(&self, counts: &HealCounts) {
        for (total, more) in self.signals.iter().zip(counts.raised) {
            total.add(more);
        }
        for (began_with, took) in &counts.healed {
            self.heals[*began_with as usize].note(*took);
        }
    }
}

/// In ms. A name heals within 1.5 s of the revival of its DNS server; the last limits are for
/// outages.
const HEALED_WITHIN: &[u64] = &[
    25, 100, 250, 500, 1000, 1500, 2500, 5000, 10_000, 30_000, 60_000, 300_000,
];
