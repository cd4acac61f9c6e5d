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

/// A message of the data path: droppable, and countable when dropped.
pub trait Payload: Message<Result = ()> + Send + 'static {
    /// How many packets or datagrams it carries.
    fn packets(&self) -> usize;
}

impl Payload for InboundPackets {
    fn packets(&self) -> usize {
        self.0.len()
    }
}

impl Payload for OutboundPackets {
    fn packets(&self) -> usize {
        self.0.len()
    }
}

impl Payload for InboundDatagrams {
    fn packets(&self) -> usize {
        self.0.len()
    }
}

impl Payload for OutboundDatagrams {
    fn packets(&self) -> usize {
        self.batch.len()
    }
}
