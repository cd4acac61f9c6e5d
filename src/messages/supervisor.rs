//! Messages to the SupervisorActor.

use actix::Message;
use postern_core::authorizations::Authorizations;
use postern_core::command::ClientCommand;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::health::ResolverState;
use postern_core::ids::{ClientId, RelayId};
use postern_core::ledger::ResolvedName;
use postern_core::nat_table::flows::PinnedFlow;
use postern_core::packet::Path;
use postern_core::peer::PeerIndex;
use std::fmt;

/// An actor that the supervisor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    Portal,
    Dns,
    // Of a shard.
    NatTable(u8),
    Tun(u8),
    Udp(u8),
    Admin,
    Connection(ClientId, PeerIndex),
}

impl Child {
    /// Names of the kinds of actors in logs and metrics, indexed by [`Self::kind`].
    pub const KINDS: [&str; 7] = [
        "portal",
        "dns",
        "nat_table",
        "tun",
        "udp",
        "connection",
        "admin",
    ];

    pub fn kind(self) -> usize {
        match self {
            Self::Portal => 0,
            Self::Dns => 1,
            Self::NatTable(_) => 2,
            Self::Tun(_) => 3,
            Self::Udp(_) => 4,
            Self::Connection(..) => 5,
            Self::Admin => 6,
        }
    }

    pub fn client(self) -> Option<ClientId> {
        match self {
            Self::Connection(client, _) => Some(client),
            Self::Portal
            | Self::Dns
            | Self::NatTable(_)
            | Self::Tun(_)
            | Self::Udp(_)
            | Self::Admin => None,
        }
    }

    pub fn shard(self) -> Option<u8> {
        match self {
            Self::NatTable(shard) | Self::Tun(shard) | Self::Udp(shard) => Some(shard),
            Self::Connection(_, index) => Some(index.shard()),
            Self::Portal | Self::Dns | Self::Admin => None,
        }
    }
}

/// The kind alone, as log lines name it.
impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::KINDS[self.kind()])
    }
}

/// Distinguishes the successive instances of all actors. Never reused within a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// An actor stopped, panicked or was dropped.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChildDied {
    pub child: Child,
    pub instance: InstanceId,
    pub cause: DeathCause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeathCause {
    Panicked(PanicReport),
    /// Stopped by itself, or dropped.
    Stopped,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PanicReport {
    /// At most 300 characters.
    pub message: String,
    /// `file:line` of the panic.
    pub location: String,
}

/// News of a connection.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionNews {
    pub client: ClientId,
    pub instance: InstanceId,
    /// Number of grants that the connection had handled by then.
    pub opened: u64,
    pub fact: ConnectionFact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionFact {
    /// The request with this ref is granted; for the portal, before any candidate.
    Accepted { reply_ref: String },
    /// New local candidates for the client, best first, as SDP strings; for the portal.
    CandidatesGathered(Vec<String>),
    /// What the client may reach, with the portal's commands up to this number.
    Authorizations(u64, Authorizations),
    /// Datagrams to the client take this path.
    PathInUse(Path),
    /// The client cannot be reached any more.
    TransportLost,
    /// A WireGuard session exists, and packets flow.
    SessionEstablished,
    /// Nothing is left to serve. If more grants have been sent to the connection than it had
    /// handled, it must not be stopped.
    Closed,
}

/// Something that a restarted NatTableActor must know.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum NatTableChanged {
    /// A name was resolved to these addresses.
    NameLearned(ResolvedName),
    /// All flows of the client that the mapping rule alone would not recreate.
    PinsChanged(ClientId, Vec<PinnedFlow>),
}

/// News of the portal, from the PortalActor.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "()")]
pub enum PortalNews {
    /// This gateway joined the portal.
    Joined,
    /// This gateway lost the portal.
    Left,
    /// The portal refuses this gateway for good: token invalid, join refused, told to disconnect.
    Refused {
        /// Reason and remedy, for people.
        reason: String,
    },
    /// The portal sent `init`: addresses, relays and the list of grants that are still valid.
    Initialized(GatewayInit),
    RelaysChanged {
        disconnected: Vec<RelayId>,
        connected: Vec<Relay>,
    },
    /// The portal's word about a client, or about all that hold a resource.
    Client(ClientCommand),
}

/// News of the parts that the gateway's health depends on.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum HealthNews {
    /// The tunnel interface has its addresses and routes.
    InterfaceConfigured,
    /// Several attempts to give the tunnel interface its addresses and routes failed.
    InterfaceFailed {
        /// Reason and remedy, for people.
        reason: String,
    },
    /// Name servers answer, or none does.
    Resolver(ResolverState),
}

/// Stop the gateway: goodbyes, flush, exit with this code.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    pub exit_code: i32,
    pub mode: ShutdownMode,
}

/// How a gateway leaves its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// A goodbye to each client, which then turns to another gateway.
    Goodbye,
    /// No goodbye: the next process takes the clients over. Without a state file to take them from,
    /// the same as `Goodbye`.
    HandOver,
}
