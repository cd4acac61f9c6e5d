//! What an operator is told about a client's connection.

use super::Connection;
use crate::packet::{PacketBatch, Path};
use std::time::{Duration, Instant};

/// A connection at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Where its datagrams go; `None` before a path was found.
    pub path: Option<Path>,
    /// Whether a WireGuard session stands.
    pub has_session: bool,
    /// How long ago the client was heard.
    pub heard_before: Option<Duration>,
    /// Towards resources, after the policy.
    pub inbound: TrafficStats,
    /// Towards the client, after the policy.
    pub outbound: TrafficStats,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// How many.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// How long ago the last of them was; `None` when there was none.
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
    /// How it is at this moment.
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
