//! Messages to the SupervisorActor.

use actix::Message;
use postern_core::command::ClientCommand;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::health::ResolverState;
use postern_core::ids::{ClientId, RelayId};
use postern_core::ledger::{FlowKey, RecordedName, ResolvedName};
use postern_core::nat_table::flows::PinnedFlow;
use postern_core::packet::Path;
pub use postern_core::supervision::{Child, DeathCause, InstanceId, PanicReport};

/// An actor stopped, panicked or was dropped.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChildDied {
    pub child: Child,
    pub instance: InstanceId,
    pub cause: DeathCause,
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
    /// The client uses a name that the policy allows.
    NameAnnounced(RecordedName),
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
    /// A flow that the mapping rule alone would not recreate.
    FlowPinned(ClientId, PinnedFlow),
    FlowUnpinned(ClientId, FlowKey),
}

impl NatTableChanged {
    /// The flow that the news is about.
    pub fn pin(&self) -> Option<(ClientId, FlowKey)> {
        match self {
            Self::NameLearned(_) => None,
            Self::FlowPinned(client, flow) => {
                Some((*client, (flow.protocol, flow.port, flow.proxy)))
            }
            Self::FlowUnpinned(client, key) => Some((*client, *key)),
        }
    }
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
