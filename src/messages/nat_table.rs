//! Messages to a NatTableActor, beyond `InboundPackets` and `OutboundPackets`.

use crate::messages::connection::DomainStatusChanged;
use crate::messages::packets::OutboundPackets;
use actix::{Message, Recipient};
use postern_core::authorizations::NameMeaning;
use postern_core::grant::TunnelAddresses;
use postern_core::ids::ClientId;
use postern_core::peer::PeerIndex;

/// Deliver packets for these tunnel addresses to `connection`.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct AttachClient {
    pub client: ClientId,
    /// Distinguishes successive connections of the client.
    pub index: PeerIndex,
    pub tunnel: TunnelAddresses,
    pub connection: Recipient<OutboundPackets>,
    /// Receives the status of the client's names.
    pub names: Recipient<DomainStatusChanged>,
}

/// Forget this client and its state, unless a later connection of it is attached.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct DetachClient {
    pub client: ClientId,
    /// The index in its `AttachClient`.
    pub index: PeerIndex,
}

/// These tunnel addresses belong to a client of another shard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RouteClient {
    pub client: ClientId,
    pub tunnel: TunnelAddresses,
    pub shard: u8,
}

/// This client is on no other shard any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct UnrouteClient(pub ClientId);

/// A name of a client means something else from now on, or was announced again.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct NameChanged {
    pub client: ClientId,
    pub meaning: NameMeaning,
}
