//! The facts of a connection that a diagnosis reads.

use super::Connection;
use crate::peer::PeerFacts;
use crate::policy::Explanation;
use crate::replies::ReplyFacts;
use crate::target::Target;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The state of a connection for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// The transport to the client.
    pub transport: TransportFacts,
    /// The policy's decision about the target.
    pub policy: Explanation,
    /// Packets to the target's address and replies from it, if it is not translated; `None` if
    /// there is no record.
    pub replies: Option<ReplyFacts>,
}

/// The transport to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFacts {
    /// No keys from the portal yet, or the transport was lost.
    None {
        /// Time since the transport was lost.
        lost: Option<Duration>,
    },
    /// There is a transport, with or without a path.
    Peer(PeerFacts),
}

impl Connection {
    /// The facts about a target. Changes nothing.
    #[must_use]
    pub fn explain(&self, target: &Target, now: Instant) -> ConnectionFacts {
        let lost = self.lost_at;
        let lost = lost.map(|at| now.saturating_duration_since(at));
        let replies = |ip: IpAddr| self.destinations.seen(ip, now);
        ConnectionFacts {
            transport: match &self.transport {
                Some((_, peer)) => TransportFacts::Peer(peer.explain(now)),
                None => TransportFacts::None { lost },
            },
            policy: self.policy.explain(&target.host, target.service),
            replies: target.ip().and_then(replies),
        }
    }
}
