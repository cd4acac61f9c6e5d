//! What the data path tells a ConnectionActor about itself.

use actix::Message;
use postern_core::peer::{DomainStatus, LocalAddresses};

/// From the UdpActor and the NatTableActor to a connection.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum ConnectionUpdate {
    /// The addresses at which peers may reach this shard's sockets; from the UdpActor.
    LocalAddresses(LocalAddresses),
    /// Tell the client whether it may send to a name; from the NatTableActor.
    DomainStatus(DomainStatus),
}
