//! Events that the portal protocol emits for its owner.

use super::anomaly::Anomaly;
use super::config::Generation;
use super::connect::ConnectRequest;
use crate::command::ClientCommand;
use crate::grant::{GatewayInit, Relay};
use crate::ids::RelayId;
use std::time::Duration;

/// Actions and news for the owner of a [`PortalProtocol`](super::PortalProtocol).
#[derive(Clone, Debug, PartialEq)]
pub enum PortalEvent {
    /// Open a websocket; answer with `handle_connected`, `handle_upgrade_failed` or
    /// `handle_connect_error`.
    Connect(ConnectRequest),
    /// Close the websocket, or stop opening it; no answer is expected.
    Disconnect,
    /// The portal accepted the join.
    Joined {
        /// The generation of the signalling in use.
        generation: Generation,
    },
    /// The connection to a joined portal was lost.
    Left {
        /// The cause, in words for the log.
        reason: String,
    },
    /// An attempt failed, and another follows.
    Retrying {
        /// The cause, in words for the log.
        reason: String,
        /// Delay before the next attempt.
        after: Duration,
        /// Whether this reason is new in this outage.
        is_new: bool,
    },
    /// The protocol has stopped; no further attempt follows.
    Fatal {
        /// The cause with its remedy, in words for the log.
        reason: String,
    },
    /// The gateway's addresses, the relays and all valid grants.
    Initialized(GatewayInit),
    /// A command about one client, or about all that hold a resource.
    Client(ClientCommand),
    /// The set of relays changed.
    RelaysChanged {
        /// Relays that are no longer available.
        disconnected: Vec<RelayId>,
        /// Relays that are available, new or known.
        connected: Vec<Relay>,
    },
    /// The portal sent something unusable, to be logged.
    Anomaly(Anomaly),
}
