//! What the portal protocol asks of its owner and tells it.

use super::config::Generation;
use super::connect::ConnectRequest;
use super::noise::Noise;
use crate::grant::{
    AccessRequest, AuthorizationEntry, AuthorizationRequest, GatewayInit, Relay, Resource,
};
use crate::ids::{ClientId, RelayId, ResourceId};
use std::time::Duration;

/// What the owner must do or know.
#[derive(Clone, Debug, PartialEq)]
pub enum PortalEvent {
    /// Open a websocket; answer with `handle_connected`, `handle_upgrade_failed` or
    /// `handle_connect_error`.
    Connect(ConnectRequest),
    /// Close the websocket, or give up opening it; no answer is expected.
    Disconnect,
    /// The portal let us in.
    Joined {
        /// What it speaks.
        generation: Generation,
    },
    /// A portal that had let us in is lost.
    Left {
        /// In words.
        reason: String,
    },
    /// An attempt failed, another follows.
    Retrying {
        /// In words.
        reason: String,
        /// When.
        after: Duration,
        /// Whether this reason is new in this outage.
        news: bool,
    },
    /// It is over; nothing is tried any more.
    Fatal {
        /// In words, with the remedy.
        reason: String,
    },
    /// Addresses, relays and all grants that are still valid.
    Initialized(GatewayInit),
    /// A grant that waits for `accept`.
    AuthorizationRequested(Box<AuthorizationRequest>),
    /// A further grant to a client that is known from another message (generation 0); it waits for
    /// `accept` if it announces a name.
    AccessRequested(Box<AccessRequest>),
    /// A client's candidates.
    CandidatesAdded {
        /// Whose.
        client: ClientId,
        /// `candidate:…`, unparsed.
        candidates: Vec<String>,
    },
    /// A client's candidates that are no longer valid.
    CandidatesRemoved {
        /// Whose.
        client: ClientId,
        /// `candidate:…`, unparsed.
        candidates: Vec<String>,
    },
    /// A grant was withdrawn.
    AccessRejected {
        /// From whom.
        client: ClientId,
        /// What.
        resource: ResourceId,
    },
    /// A resource's filters changed.
    ResourceUpdated(Resource),
    /// Relays came or went.
    RelaysChanged {
        /// Gone.
        disconnected: Vec<RelayId>,
        /// New or still there.
        connected: Vec<Relay>,
    },
    /// The expiry of a grant moved.
    ExpirySet(AuthorizationEntry),
    /// The portal said something that we cannot use; worth a line in the log.
    Noise(Noise),
}
