//! The data path. These travel UdpActor → ConnectionActor → NatTableActor → TunActor and back,
//! inside a shard; only what the kernel delivered to the wrong shard crosses over.

use super::presence::Presence;
use actix::Message;
use postern_core::packet::{DatagramBatch, PacketBatch};
use postern_core::peer::PeerIndex;

/// A message of the data path: droppable, and countable when dropped.
pub trait Payload: Message<Result = ()> + Send + 'static {
    /// Number of packets or datagrams in the message.
    fn packets(&self) -> usize;

    /// Counts as waiting for its receiver until it is dropped.
    fn wait(&mut self, presence: Presence);
}

macro_rules! payload {
    ($(#[$doc:meta])* $message:ident($batch:ty, $count:ident)) => {
        $(#[$doc])*
        #[derive(Debug, Message)]
        #[rtype(result = "()")]
        pub struct $message {
            pub batch: $batch,
            waits: Option<Presence>,
        }

        impl $message {
            pub fn new(batch: $batch) -> Self {
                let waits = None;
                Self { batch, waits }
            }
        }

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

payload! {
    /// IP packets on their way from the tunnel to the resource.
    InboundPackets(PacketBatch, segments)
}

payload! {
    /// IP packets on their way from the resource to the tunnel.
    OutboundPackets(PacketBatch, segments)
}

payload! {
    /// IP packets on their way from the resource to the tunnel that another shard has read. They
    /// are for a client of this shard, or are dropped.
    StrayPackets(PacketBatch, segments)
}

payload! {
    /// UDP payloads received for one connection.
    InboundDatagrams(DatagramBatch, len)
}

/// UDP payloads to be sent by one connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OutboundDatagrams {
    /// The sending peer; answers to STUN requests find their way back by it.
    pub from: PeerIndex,
    pub batch: DatagramBatch,
    waits: Option<Presence>,
}

impl OutboundDatagrams {
    pub fn new(from: PeerIndex, batch: DatagramBatch) -> Self {
        let waits = None;
        Self { from, batch, waits }
    }
}

impl Payload for OutboundDatagrams {
    fn packets(&self) -> usize {
        self.batch.len()
    }

    fn wait(&mut self, presence: Presence) {
        self.waits = Some(presence);
    }
}
