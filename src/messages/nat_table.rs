//! What a NatTableActor is told, beyond `InboundPackets` and `OutboundPackets`.

use crate::messages::connection::DomainStatusChanged;
use crate::messages::packets::OutboundPackets;
use actix::{Message, Recipient};
use postern_core::grant::{AnnouncedName, TunnelAddresses};
use postern_core::ids::{ClientId, ResourceId};
use postern_core::names::DomainName;
use postern_core::peer::PeerIndex;

/// Deliver packets for these tunnel addresses to `connection`.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct AttachClient {
    /// Whose.
    pub client: ClientId,
    /// Which of its connections, should it have had several.
    pub index: PeerIndex,
    /// Its tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Where its packets go.
    pub connection: Recipient<OutboundPackets>,
    /// Who tells it about its names.
    pub names: Recipient<DomainStatusChanged>,
}

/// Forget this client and everything kept for it, unless a later connection of it is attached.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct DetachClient {
    /// Whose.
    pub client: ClientId,
    /// As attached.
    pub index: PeerIndex,
}

/// These tunnel addresses are those of a client of another shard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RouteClient {
    /// Whose.
    pub client: ClientId,
    /// Its tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Where it lives.
    pub shard: u8,
}

/// This client is on no other shard any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct UnrouteClient(pub ClientId);

/// A client announced the proxy IPs it uses for a name, and was found entitled to.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AssignProxyIps {
    /// Who.
    pub client: ClientId,
    /// Through which resource.
    pub resource: ResourceId,
    /// As announced, to be echoed.
    pub announced: AnnouncedName,
    /// The same name, as it is looked up.
    pub name: DomainName,
    /// Whether the client waits for a DomainStatus inside the tunnel.
    pub in_tunnel: bool,
}

/// A client lost a resource: its names are nobody's unless another resource covers them.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ReleaseResource {
    /// Who.
    pub client: ClientId,
    /// What.
    pub resource: ResourceId,
}
