//! What waits for the actors of the data path.
//!
//! actix does not tell how full a mailbox is. Each batch carries a [`Presence`] of its receiver's
//! mailbox instead: it ends when the batch was handled, and when it was dropped because its
//! receiver died, so that the count is never off. It costs two atomic operations a batch.

use super::counters::{Counter, Headcount, Presence};

/// Who is sent batches of packets.
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
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Connection, Self::NatTable, Self::Tun, Self::Udp];

    /// As log lines name the kind of actor.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::NatTable => "nat_table",
            Self::Tun => "tun",
            Self::Udp => "udp",
        }
    }
}

/// Of one shard.
#[derive(Debug, Default)]
pub struct Mailboxes([Mailbox; Receiver::ALL.len()]);

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Headcount,
    overflow: Counter,
}

impl Mailboxes {
    /// A batch is on its way to `receiver`, until the presence is dropped.
    #[must_use]
    pub fn enter(&self, receiver: Receiver) -> Presence {
        self.0[receiver as usize].waiting.enter()
    }

    /// So many packets did not fit.
    pub fn count_overflow(&self, receiver: Receiver, packets: usize) {
        self.0[receiver as usize].overflow.add(packets as u64);
    }

    /// How many batches wait for `receiver`.
    #[must_use]
    pub fn depth(&self, receiver: Receiver) -> u64 {
        self.0[receiver as usize].waiting.get()
    }

    /// How many packets did not fit so far.
    #[must_use]
    pub fn overflow(&self, receiver: Receiver) -> u64 {
        self.0[receiver as usize].overflow.get()
    }
}
