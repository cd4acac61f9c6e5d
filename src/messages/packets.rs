//! The data path. These travel UdpActor → ConnectionActor → NatTableActor → TunActor and back,
//! inside a shard, but for what the kernel gave to another shard than its client's.

use crate::metrics::Presence;
use actix::Message;
use postern_core::packet::{DatagramBatch, PacketBatch};
use postern_core::peer::PeerIndex;

/// IP packets on their way from the tunnel to the resource.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct InboundPackets {
    /// What.
    pub batch: PacketBatch,
    waits: Option<Presence>,
}

/// IP packets on their way from the resource to the tunnel.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OutboundPackets {
    /// What.
    pub batch: PacketBatch,
    waits: Option<Presence>,
}

/// IP packets on their way from the resource to the tunnel that another shard has read, to be
/// passed to a client of this one or to nobody.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StrayPackets {
    /// What.
    pub batch: PacketBatch,
    waits: Option<Presence>,
}

/// UDP payloads received for one connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct InboundDatagrams {
    /// What and where from.
    pub batch: DatagramBatch,
    waits: Option<Presence>,
}

/// UDP payloads to be sent by one connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OutboundDatagrams {
    /// Who sends; answers to STUN requests find their way back by it.
    pub from: PeerIndex,
    /// What and where to.
    pub batch: DatagramBatch,
    waits: Option<Presence>,
}

/// A message of the data path: droppable, and countable when dropped.
pub trait Payload: Message<Result = ()> + Send + 'static {
    /// How many packets or datagrams it carries.
    fn packets(&self) -> usize;

    /// From now on it counts as waiting for its receiver, until it is dropped.
    fn wait(&mut self, presence: Presence);
}

/// What all payloads have in common.
macro_rules! payload {
    ($message:ident, $count:ident) => {
        impl Payload for $message {
            fn packets(&self) -> usize {
                self.batch.$count()
            }

            fn wait(&mut self, presence: Presence) {
                self.waits = Some(presence);
            }
        }
    };
}

payload!(InboundPackets, segments);
payload!(OutboundPackets, segments);
payload!(StrayPackets, segments);
payload!(InboundDatagrams, len);
payload!(OutboundDatagrams, len);

impl InboundPackets {
    /// These.
    #[must_use]
    pub fn new(batch: PacketBatch) -> Self {
        let waits = None;
        Self { batch, waits }
    }
}

impl OutboundPackets {
    /// These.
    #[must_use]
    pub fn new(batch: PacketBatch) -> Self {
        let waits = None;
        Self { batch, waits }
    }
}

impl StrayPackets {
    /// These.
    #[must_use]
    pub fn new(batch: PacketBatch) -> Self {
        let waits = None;
        Self { batch, waits }
    }
}

impl InboundDatagrams {
    /// These.
    #[must_use]
    pub fn new(batch: DatagramBatch) -> Self {
        let waits = None;
        Self { batch, waits }
    }
}

impl OutboundDatagrams {
    /// These, of this peer.
    #[must_use]
    pub fn new(from: PeerIndex, batch: DatagramBatch) -> Self {
        let waits = None;
        Self { from, batch, waits }
    }
}
