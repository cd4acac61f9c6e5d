//! Statistics of a client's connection for the operator.

use super::Connection;
use crate::packet::{PacketBatch, Path};
use std::time::{Duration, Instant};

/// A snapshot of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The path of its datagrams; `None` before one was found.
    pub path: Option<Path>,
    /// Whether a WireGuard session exists.
    pub has_session: bool,
    /// Time since the client was last heard.
    pub heard_before: Option<Duration>,
    /// Packets to resources, after the policy.
    pub inbound: TrafficStats,
    /// Packets to the client, after the policy.
    pub outbound: TrafficStats,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Number of packets, super-packets cut.
    pub packets: u64,
    /// Total bytes of the IP packets.
    pub bytes: u64,
    /// Time since the last packet; `None` without any.
    pub last_before: Option<Duration>,
}

/// Counts packets of one direction, a batch at a time.
#[derive(Debug, Default)]
pub(super) struct TrafficMeter {
    packets: u64,
    bytes: u64,
    last: Option<Instant>,
}

impl TrafficMeter {
    pub(super) fn note(&mut self, batch: &PacketBatch, now: Instant) {
        if !batch.is_empty() {
            self.packets += batch.segments() as u64;
            self.bytes += batch.total_bytes() as u64;
            self.last = Some(now);
        }
    }

    fn stats(&self, now: Instant) -> TrafficStats {
        TrafficStats {
            packets: self.packets,
            bytes: self.bytes,
            last_before: self.last.map(|last| now.saturating_duration_since(last)),
        }
    }
}

impl Connection {
    /// The statistics at `now`.
    #[must_use]
    pub fn stats(&self, now: Instant) -> ConnectionStats {
        let peer = self.transport.as_ref().map(|(_, peer)| peer);
        let heard = peer.and_then(|peer| peer.authentic_heard());
        ConnectionStats {
            path: peer.and_then(|peer| peer.path_in_use()),
            has_session: peer.is_some_and(|peer| peer.has_session()),
            heard_before: heard.map(|at| now.saturating_duration_since(at)),
            inbound: self.inbound_meter.stats(now),
            outbound: self.outbound_meter.stats(now),
        }
    }
}
