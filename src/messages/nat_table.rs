//! Messages to a NatTableActor, beyond its packets.

use super::dns::ResolveName;
use super::packets::{InboundPackets, OutboundPackets, StrayPackets};
use super::updates::ConnectionUpdate;
use actix::{Message, Recipient};
use postern_core::authorizations::NameMeaning;
use postern_core::grant::TunnelAddresses;
use postern_core::ids::ClientId;
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
    /// Names of a client mean something else from now on, or were announced again; in order.
    Names {
        client: ClientId,
        meanings: Vec<NameMeaning>,
    },
}

/// Deliver packets for these tunnel addresses to `connection`. Names that are not listed are gone.
#[derive(Clone)]
pub struct AttachClient {
    pub client: ClientId,
    /// Distinguishes successive connections of the client.
    pub index: PeerIndex,
    pub tunnel: TunnelAddresses,
    /// All names of the client, sorted; what they mean follows.
    pub known: Vec<DomainName>,
    pub connection: Recipient<OutboundPackets>,
    /// Receives the status of the client's names.
    pub names: Recipient<ConnectionUpdate>,
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
