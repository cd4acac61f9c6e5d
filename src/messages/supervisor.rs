//! What the SupervisorActor is told, beyond the portal's commands (see `connection`).

use crate::config::changes::Step;
use crate::reload::{LiveSettings, ReloadReport};
use crate::supervision::PanicReport;
use actix::Message;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::health::{PortalState, ResolverState};
use postern_core::ids::{ClientId, RelayId};
use postern_core::ledger::{FlowKey, RecordedName, ResolvedName};
use postern_core::nat_table::flows::PinnedFlow;
use postern_core::packet::Path;
use postern_core::peer::PeerIndex;
use std::fmt;

/// Which child a death notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// The one PortalActor.
    Portal,
    /// The one DnsActor.
    Dns,
    /// The NatTableActor of a shard.
    NatTable(u8),
    /// The TunActor of a shard.
    Tun(u8),
    /// The UdpActor of a shard.
    Udp(u8),
    /// The one AdminActor.
    Admin,
    /// A ConnectionActor of a client.
    Connection(ClientId, PeerIndex),
}

impl Child {
    /// What log lines and metrics call the kinds of actors, by [`Self::kind`].
    pub const KINDS: [&str; 7] = [
        "portal",
        "dns",
        "nat_table",
        "tun",
        "udp",
        "connection",
        "admin",
    ];

    /// The place in [`Self::KINDS`].
    #[must_use]
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

    /// The client that a connection serves.
    #[must_use]
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

    /// The shard that it works on.
    #[must_use]
    pub fn shard(self) -> Option<u8> {
        match self {
            Self::NatTable(shard) | Self::Tun(shard) | Self::Udp(shard) => Some(shard),
            Self::Connection(_, index) => Some(index.shard()),
            Self::Portal | Self::Dns | Self::Admin => None,
        }
    }
}

/// The kind alone, as log lines call it.
impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::KINDS[self.kind()])
    }
}

/// Counts the actors that were started: no two lives of a child have the same number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// An actor is gone, however that came about.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChildDied {
    /// Which one.
    pub child: Child,
    /// Which of its lives is over.
    pub instance: InstanceId,
    /// How.
    pub cause: DeathCause,
}

/// How an actor came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeathCause {
    /// It unwound.
    Panicked(PanicReport),
    /// It stopped, or was dropped.
    Stopped,
}

/// What a connection has learned and its successor must know.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionChanged {
    /// Whose.
    pub client: ClientId,
    /// In which instance.
    pub instance: InstanceId,
    /// How many `OpenConnection` and `AllowAccess` it had seen by then.
    pub opened: u64,
    /// What.
    pub fact: ConnectionFact,
}

/// See [`ConnectionChanged`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionFact {
    /// The client uses a name that it is entitled to.
    NameAnnounced(RecordedName),
    /// Datagrams to the client go this way.
    PathInUse(Path),
    /// The client cannot be reached any more.
    TransportLost,
    /// A WireGuard session stands, and packets flow.
    SessionEstablished,
}

/// What a NAT has learned and its successor must know.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum NatTableChanged {
    /// What the addresses of a name are.
    NameLearned(ResolvedName),
    /// A flow that could not be made anew by the rule.
    FlowPinned(ClientId, PinnedFlow),
    /// And no longer.
    FlowUnpinned(ClientId, FlowKey),
}

/// The portal sent `init`: addresses, relays and the list of grants that are still valid.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct GatewayInitialized(pub GatewayInit);

/// Relays came or went.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RelaysChanged {
    /// Gone.
    pub disconnected: Vec<RelayId>,
    /// New or still there.
    pub connected: Vec<Relay>,
}

/// The portal refuses us for good: token invalid, join refused, told to disconnect.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PortalRefused {
    /// In words, with the remedy.
    pub reason: String,
}

/// The tunnel interface cannot be given its addresses or routes, although it was tried several
/// times.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InterfaceFailed {
    /// In words, with the remedy.
    pub reason: String,
}

/// A connection has nothing left to serve.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ConnectionClosed {
    /// Whose.
    pub client: ClientId,
    /// In which instance.
    pub instance: InstanceId,
    /// How many `OpenConnection` and `AllowAccess` it had seen by then: if more are on their way,
    /// it must not be stopped.
    pub opened: u64,
}

/// Stop the gateway: goodbyes, flush, exit with this code.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// The process exit code.
    pub exit_code: i32,
    /// How the clients are left.
    pub mode: ShutdownMode,
}

/// How a gateway leaves its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// They are told, and turn to another gateway.
    Goodbye,
    /// They are not told: the next process takes them over. Without a state file that it could
    /// take them from, it is a goodbye.
    HandOver,
}

/// The portal let this gateway in, or is away.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PortalStateChanged(pub PortalState);

/// The tunnel interface has its addresses and routes.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct InterfaceConfigured;

/// Name servers answer, or none does any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ResolverStateChanged(pub ResolverState);

/// The configuration is being read again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReloadBegan;

/// Run with these settings from now on, and see to it that the others do.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseSettings {
    /// All that can change.
    pub settings: Box<LiveSettings>,
    /// Whom it concerns.
    pub steps: Vec<Step>,
}

/// The configuration was read again; what can be taken over was sent before.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ConfigurationReloaded(pub ReloadReport);
