//! The data path. These travel UdpActor → ConnectionActor → NatTableActor → TunActor and back.

use actix::Message;
use postern_core::packet::{DatagramBatch, PacketBatch};
use postern_core::peer::PeerIndex;

/// IP packets on their way from the tunnel to the resource.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct InboundPackets(pub PacketBatch);

/// IP packets on their way from the resource to the tunnel.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OutboundPackets(pub PacketBatch);

/// UDP payloads received for one connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct InboundDatagrams(pub DatagramBatch);

/// UDP payloads to be sent by one connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OutboundDatagrams {
    /// Who sends; answers to STUN requests find their way back by it.
    pub from: PeerIndex,
    /// What and where to.
    pub batch: DatagramBatch,
}
