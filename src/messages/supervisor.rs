//! Messages to the SupervisorActor, beyond the portal's commands (see `connection`).

use actix::Message;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::health::{PortalState, ResolverState};
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

/// Something that a restarted connection must know.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionChanged {
    pub client: ClientId,
    pub instance: InstanceId,
    /// Number of `OpenConnection` and `AllowAccess` that the connection had handled by then.
    pub opened: u64,
    pub fact: ConnectionFact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionFact {
    /// The client uses a name that the policy allows.
    NameAnnounced(RecordedName),
    /// Datagrams to the client take this path.
    PathInUse(Path),
    /// The client cannot be reached any more.
    TransportLost,
    /// A WireGuard session exists, and packets flow.
    SessionEstablished,
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

/// The portal sent `init`: addresses, relays and the list of grants that are still valid.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct GatewayInitialized(pub GatewayInit);

#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RelaysChanged {
    pub disconnected: Vec<RelayId>,
    pub connected: Vec<Relay>,
}

/// The portal refuses this gateway for good: token invalid, join refused, told to disconnect.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PortalRefused {
    /// Reason and remedy, for people.
    pub reason: String,
}

/// Several attempts to give the tunnel interface its addresses and routes failed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InterfaceFailed {
    /// Reason and remedy, for people.
    pub reason: String,
}

/// A connection has nothing left to serve.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ConnectionClosed {
    pub client: ClientId,
    pub instance: InstanceId,
    /// Number of `OpenConnection` and `AllowAccess` that the connection had handled by then. If
    /// more have been sent to it, it must not be stopped.
    pub opened: u64,
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

/// This gateway joined the portal or lost it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PortalStateChanged(pub PortalState);

/// The tunnel interface has its addresses and routes.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct InterfaceConfigured;

/// Name servers answer, or none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ResolverStateChanged(pub ResolverState);
