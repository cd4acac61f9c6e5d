//! Introduces a started actor to the actors that send to it. The SupervisorActor sends these after
//! each start of an actor, the first one included.

use super::dns::ResolveName;
use super::nat_table::{AttachClient, DetachClient, NameChanged};
use super::packets::{InboundPackets, OutboundDatagrams, OutboundPackets, StrayPackets};
use super::udp::{AttachPeer, DetachPeer};
use actix::{Message, Recipient};

recipients! {
    /// A NatTableActor, as a connection reaches it.
    pub struct NatTableInputs {
        packets: InboundPackets,
        attach: AttachClient,
        detach: DetachClient,
        names: NameChanged,
    }
}

recipients! {
    /// A UdpActor, as a connection reaches it.
    pub struct UdpInputs {
        datagrams: OutboundDatagrams,
        attach: AttachPeer,
        detach: DetachPeer,
    }
}

/// To each ConnectionActor: attach the client again, and announce again the names it uses.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseNatTable(pub NatTableInputs);

/// To each ConnectionActor of the shard: attach the peer again.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseUdp(pub UdpInputs);

/// To each ConnectionActor of the other shards: attach the peer again at shard 0, which receives
/// the datagrams that name no shard.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseFront(pub UdpInputs);

/// To the NatTableActor of a shard: send packets for clients of another shard there.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseSibling {
    pub shard: u8,
    pub strays: Recipient<StrayPackets>,
}

/// To each ConnectionActor: candidates may have been lost.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct PortalRestarted;

/// To each ConnectionActor and NatTableActor: lookups may have been lost.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseDns(pub Recipient<ResolveName>);

/// To the NatTableActor of a shard: send packets towards resources there.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseTun(pub Recipient<InboundPackets>);

/// To the TunActor of a shard: send packets from resources there.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct UseOutbound(pub Recipient<OutboundPackets>);
