//! One open websocket: the replies it awaits. Their deadlines are timers of the protocol.
//!
//! Source: docs/protocol.md 1.5 and 1.6.

use super::wire;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The state of an open websocket.
#[derive(Debug)]
pub(super) struct Session {
    /// The reference of the join that is not yet answered.
    join: Option<u64>,
    unanswered: VecDeque<u64>,
    rejoined_at: Option<Instant>,
}

/// The kind of message that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Join,
    Heartbeat,
    Message,
}

impl Session {
    /// A socket on which a join with this reference has been sent.
    pub(super) fn new(join: u64) -> Self {
        Self {
            join: Some(join),
            unanswered: VecDeque::with_capacity(MAX_UNANSWERED + 1),
            rejoined_at: None,
        }
    }

    /// Whether the portal has answered the join.
    pub(super) fn is_joined(&self) -> bool {
        self.join.is_none()
    }

    /// Whether too many heartbeats are unanswered.
    pub(super) fn is_dead(&self) -> bool {
        self.unanswered.len() > MAX_UNANSWERED
    }

    /// A heartbeat with this reference was sent.
    pub(super) fn sent_heartbeat(&mut self, reference: u64) {
        self.unanswered.push_back(reference);
    }

    /// Matches a reply to its message and stops waiting for it. The reply to a heartbeat also
    /// answers the earlier ones: each only checks that the portal is alive.
    pub(super) fn take_reply(&mut self, topic: &str, reference: Option<u64>) -> Reply {
        let Some(reference) = reference else {
            return Reply::Message;
        };
        if let Some(at) = self.unanswered.iter().position(|sent| *sent == reference) {
            self.unanswered.drain(..=at);
            return Reply::Heartbeat;
        }
        if topic != wire::GATEWAY_TOPIC {
            return Reply::Heartbeat; // Late, for a topic that the gateway does not join.
        }
        match self.join.take_if(|join| *join == reference) {
            Some(_) => Reply::Join,
            None => Reply::Message,
        }
    }

    /// Whether the last rejoin, if any, is long enough ago for another.
    pub(super) fn may_rejoin(&self, now: Instant) -> bool {
        self.rejoined_at
            .is_none_or(|at| now.saturating_duration_since(at) >= REJOIN_INTERVAL)
    }

    /// A further join with this reference was sent on the same socket.
    pub(super) fn rejoin(&mut self, join: u64, now: Instant) {
        self.join = Some(join);
        self.rejoined_at = Some(now);
    }
}

/// With one more unanswered heartbeat the socket counts as dead (docs/protocol.md 1.6).
const MAX_UNANSWERED: usize = 3;

/// A portal that loses a join sooner than this after the last one is disconnected instead of joined
/// again. Our own choice: two sides that disagree must not loop at the speed of the network.
const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
