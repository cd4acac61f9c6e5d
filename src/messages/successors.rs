//! The successor of an actor that died, told to those who speak to it. All are sent by the
//! SupervisorActor, after the start of each actor, the first one included.

use super::dns::ResolveName;
use super::nat_table::{AssignProxyIps, AttachClient, DetachClient, ReleaseResource};
use super::packets::{InboundPackets, OutboundDatagrams, OutboundPackets, StrayPackets};
use super::udp::{AttachPeer, DetachPeer};
use actix::{Message, Recipient};

/// What a connection says to a NatTableActor.
#[derive(Clone)]
pub struct NatTableInputs {
    /// Packets towards resources.
    pub packets: Recipient<InboundPackets>,
    /// Routes for packets from resources.
    pub attach: Recipient<AttachClient>,
    /// And their end.
    pub detach: Recipient<DetachClient>,
    /// Proxy IPs of names.
    pub assign: Recipient<AssignProxyIps>,
    /// And their end.
    pub release: Recipient<ReleaseResource>,
}

/// What a connection says to a UdpActor.
#[derive(Clone)]
pub struct UdpInputs {
    /// Datagrams to the client.
    pub datagrams: Recipient<OutboundDatagrams>,
    /// How the client's datagrams are found.
    pub attach: Recipient<AttachPeer>,
    /// And no longer.
    pub detach: Recipient<DetachPeer>,
}

/// To each ConnectionActor: attach the client again, and say again which names it uses.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseNatTable(pub NatTableInputs);

/// To each ConnectionActor of the shard: attach the peer again.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseUdp(pub UdpInputs);

/// To each ConnectionActor of the other shards: shard 0, which gets what names no shard, has new
/// sockets; attach the peer there again.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseFront(pub UdpInputs);

/// To the NatTableActor of a shard: where packets for the clients of another go.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseSibling {
    /// Which other.
    pub shard: u8,
    /// Its NatTableActor.
    pub strays: Recipient<StrayPackets>,
}

/// To each ConnectionActor: candidates may have got lost.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct PortalRestarted;

/// To each ConnectionActor and NatTableActor: lookups may have got lost.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseDns(pub Recipient<ResolveName>);

/// To the NatTableActor of a shard: where packets towards resources go.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseTun(pub Recipient<InboundPackets>);

/// To the TunActor of a shard: where packets from resources go.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseOutbound(pub Recipient<OutboundPackets>);
