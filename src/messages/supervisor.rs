//! What the SupervisorActor is told, beyond the portal's commands (see `connection`).

use actix::Message;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::ids::{ClientId, RelayId};
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
    NatTable,
    /// The TunActor of a shard.
    Tun,
    /// The UdpActor of a shard.
    Udp,
    /// A ConnectionActor of a client.
    Connection(ClientId, PeerIndex),
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portal => "portal",
            Self::Dns => "dns",
            Self::NatTable => "nat_table",
            Self::Tun => "tun",
            Self::Udp => "udp",
            Self::Connection(..) => "connection",
        })
    }
}

/// An actor is gone, however that came about.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ChildDied {
    /// Which one.
    pub child: Child,
    /// Whether it unwound, as opposed to having stopped.
    pub panicked: bool,
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
    /// Which of its connections.
    pub index: PeerIndex,
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
}
