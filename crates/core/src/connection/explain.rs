//! What a connection answers to people who ask why something does not work.

use super::Connection;
use crate::peer::PeerFacts;
use crate::policy::Explanation;
use crate::replies::ReplyFacts;
use crate::target::Target;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What a connection knows about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// How the client is reached.
    pub transport: TransportFacts,
    /// Whether it may reach the target.
    pub policy: Explanation,
    /// What went to the target's address and came back, where that is not translated; `None` if
    /// nothing is remembered.
    pub replies: Option<ReplyFacts>,
}

/// How a client is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFacts {
    /// The portal has told no keys yet, or the last way was lost.
    None {
        /// How long ago that was.
        lost: Option<Duration>,
    },
    /// There is, or may soon be, a way.
    Peer(PeerFacts),
}

impl Connection {
    /// What is known here about a target. Changes nothing.
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
