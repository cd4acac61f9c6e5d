//! Messages to a NatTableActor, beyond its packets.

use super::dns::ResolveName;
use super::packets::{InboundPackets, OutboundPackets, StrayPackets};
use super::updates::ConnectionUpdate;
use actix::{Message, Recipient};
use postern_core::grant::{AnnouncedName, TunnelAddresses};
use postern_core::ids::{ClientId, ResourceId};
use postern_core::names::DomainName;
use postern_core::peer::PeerIndex;

recipients! {
    /// A NatTableActor, as a connection reaches it.
    pub struct NatTableInputs {
        packets: InboundPackets,
        commands: NatTableCommand,
    }
}

/// From a connection, or from the SupervisorActor in the name of one that has ended.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum NatTableCommand {
    Attach(AttachClient),
    /// Forget this client and its state, unless a later connection of it is attached.
    Detach {
        client: ClientId,
        /// The index in its `Attach`.
        index: PeerIndex,
    },
    Assign(AssignProxyIps),
    /// A client lost a resource: its names are unmapped unless another resource covers them.
    Release {
        client: ClientId,
        resource: ResourceId,
    },
}

/// Deliver packets for these tunnel addresses to `connection`. Names of resources that are not
/// listed are unmapped.
#[derive(Clone)]
pub struct AttachClient {
    pub client: ClientId,
    /// Distinguishes successive connections of the client.
    pub index: PeerIndex,
    pub tunnel: TunnelAddresses,
    /// The resources that the client may reach.
    pub resources: Vec<ResourceId>,
    pub connection: Recipient<OutboundPackets>,
    /// Receives the status of the client's names.
    pub names: Recipient<ConnectionUpdate>,
}

/// A client announced its proxy IPs for a name; the policy allows it.
#[derive(Debug, Clone)]
pub struct AssignProxyIps {
    pub client: ClientId,
    /// The resource that covers the name.
    pub resource: ResourceId,
    /// The announcement, to be echoed unchanged.
    pub announced: AnnouncedName,
    /// The announced name in the form that is looked up.
    pub name: DomainName,
    /// Whether the client waits for a DomainStatus inside the tunnel.
    pub in_tunnel: bool,
}

/// From the SupervisorActor.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum NatTableSetup {
    Route(RouteClient),
    /// This client is on no other shard any more.
    Unroute(ClientId),
    /// Send packets towards resources there.
    UseTun(Recipient<InboundPackets>),
    /// Send packets for clients of another shard there.
    UseSibling {
        shard: u8,
        strays: Recipient<StrayPackets>,
    },
    /// A DnsActor was started: lookups may have been lost.
    UseDns(Recipient<ResolveName>),
}

/// These tunnel addresses belong to a client of another shard.
#[derive(Debug, Clone, Copy)]
pub struct RouteClient {
    pub client: ClientId,
    pub tunnel: TunnelAddresses,
    pub shard: u8,
}
