//! How many batches wait for the actors of the data path.
//!
//! actix does not expose how full a mailbox is. Instead, each batch carries a [`Presence`] of its
//! receiver's mailbox. It ends when the batch is handled, or dropped with its receiver, so the
//! count is always right. The cost is two atomic operations per batch.

use super::counters::Counter;
use crate::messages::presence::{Headcount, Presence};

/// An actor that receives batches of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The connections of all clients of a shard, together.
    Connection,
    /// The NatTableActor of a shard.
    NatTable,
    /// The TunActor of a shard.
    Tun,
    /// The UdpActor of a shard.
    Udp,
}

impl Receiver {
    pub const ALL: [Self; 4] = [Self::Connection, Self::NatTable, Self::Tun, Self::Udp];

    /// Name of the kind of actor in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::NatTable => "nat_table",
            Self::Tun => "tun",
            Self::Udp => "udp",
        }
    }
}

#[derive(Debug, Default)]
pub struct Mailboxes([Mailbox; Receiver::ALL.len()]);

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Headcount,
    overflow: Counter,
}

impl Mailboxes {
    /// Counts a batch as waiting for `receiver` until the presence is dropped.
    pub fn enter(&self, receiver: Receiver) -> Presence {
        self.0[receiver as usize].waiting.enter()
    }

    /// Counts packets for which a mailbox had no room.
    pub fn count_overflow(&self, receiver: Receiver, packets: usize) {
        self.0[receiver as usize].overflow.add(packets as u64);
    }

    /// Number of batches that wait for `receiver`.
    pub fn depth(&self, receiver: Receiver) -> u64 {
        self.0[receiver as usize].waiting.get()
    }

    /// Number of packets for which the mailbox had no room.
    pub fn overflow(&self, receiver: Receiver) -> u64 {
        self.0[receiver as usize].overflow.get()
    }
}
