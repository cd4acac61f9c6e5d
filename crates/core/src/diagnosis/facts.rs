//! The input of a diagnosis: facts from each part of the gateway.

use super::JournalEntry;
use crate::authorizations::Grant;
use crate::connection::ConnectionFacts;
use crate::grant::TunnelAddresses;
use crate::ids::{ClientId, UnixTime};
use crate::nat_table::NatFacts;
use crate::target::Target;
use std::time::Duration;

/// The input of [`diagnose`](super::diagnose).
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The client as the user wrote it.
    pub asked: String,
    /// The target of the question.
    pub target: Target,
    /// The client that was found.
    pub client: Subject,
    /// Facts about the gateway as a whole.
    pub gateway: GatewayFacts,
    /// The current wall-clock time.
    pub unix_now: UnixTime,
}

/// The client that a question is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// No client matches the text.
    Unknown {
        /// The client with the most similar id.
        nearest: Option<ClientId>,
        /// Number of clients that the gateway serves.
        served: usize,
    },
    /// Several clients match the text.
    Ambiguous(Vec<ClientId>),
    /// Exactly one client matches.
    Client(Box<ClientFacts>),
}

/// The facts about a client that is or was recently served.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientFacts {
    /// The id of the client.
    pub id: ClientId,
    /// The client's tunnel addresses.
    pub tunnel: Option<TunnelAddresses>,
    /// How long it stays cut off, because its connection crashed too often.
    pub cut_off_for: Option<Duration>,
    /// The answer of its connection.
    pub connection: Response<ConnectionFacts>,
    /// The answer of its shard's NAT.
    pub nat: Response<NatFacts>,
    /// The client's grants in the ledger.
    pub grants: Vec<Grant>,
    /// The client's former grants, the latest first.
    pub ended: Vec<JournalEntry>,
}

/// The response of an actor to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Response<T> {
    /// The answer that the actor gave.
    Answer(T),
    /// The actor did not answer in time.
    Timeout,
    /// The actor crashed or hangs, and has not been restarted yet.
    Restarting,
    /// There is no such actor.
    Absent,
}

impl<T> Response<T> {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Timeout | Self::Restarting | Self::Absent => None,
        }
    }
}

/// Facts about the gateway that may concern any client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayFacts {
    /// Whether it refuses new connections and will stop.
    pub is_draining: bool,
    /// How long the portal has been disconnected, if it is.
    pub portal_away: Option<Duration>,
}
