//! Messages to a ConnectionActor, beyond its packets.

use super::dns::ResolveName;
use super::nat_table::NatTableInputs;
use super::udp::UdpInputs;
use actix::{Message, Recipient};
use postern_core::command::ClientCommand;
use postern_core::connection::ConnectionStats;

/// From the SupervisorActor.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum ConnectionCommand {
    /// The portal's word about this client, and the number of the last command in the ledger.
    Client(u64, ClientCommand),
    /// Grant the client at most this many resources; those it has stay.
    LimitResources(usize),
    /// A NatTableActor was started: attach the client again, and announce again the names it uses.
    UseNatTable(NatTableInputs),
    /// The shard's UdpActor was started: attach the peer again.
    UseUdp(UdpInputs),
    /// The UdpActor of shard 0, which receives the datagrams that name no shard, was started:
    /// attach the peer again. Not sent on shard 0.
    UseFront(UdpInputs),
    /// A DnsActor was started: lookups may have been lost.
    UseDns(Recipient<ResolveName>),
    /// A PortalActor was started: candidates may have been lost.
    PortalRestarted,
    /// Say goodbye to the client and forget everything. The answer comes when the goodbye is
    /// queued.
    Close,
    /// Detach the client, and end the actor.
    Stop,
}

/// Asks for the connection's present state.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ConnectionStats")]
pub struct DescribeConnection;
