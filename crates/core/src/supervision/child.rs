//! The actors that a supervisor starts, the threads that they run on, and their instances.

use crate::ids::ClientId;
use crate::peer::PeerIndex;
use std::fmt;
use std::time::Instant;

/// An actor that the supervisor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Child {
    /// Speaks with the portal.
    Portal,
    /// Asks the name servers for all shards.
    Dns,
    /// Translates the packets of a shard.
    NatTable(u8),
    /// Reads and writes the TUN queue of a shard.
    Tun(u8),
    /// Reads and writes the sockets of a shard.
    Udp(u8),
    /// Answers the operator.
    Admin,
    /// Serves one client, on the shard in the index.
    Connection(ClientId, PeerIndex),
}

impl Child {
    /// Names of the kinds of actors in logs and metrics, indexed by [`Self::kind`].
    pub const KINDS: [&str; 7] = [
        "portal",
        "dns",
        "nat_table",
        "tun",
        "udp",
        "connection",
        "admin",
    ];

    /// The position of its name in [`Self::KINDS`].
    #[must_use]
    pub fn kind(self) -> usize {
        match self {
            Self::Portal => 0,
            Self::Dns => 1,
            Self::NatTable(_) => 2,
            Self::Tun(_) => 3,
            Self::Udp(_) => 4,
            Self::Connection(..) => 5,
            Self::Admin => 6,
        }
    }

    /// The client that it serves; `None` for a child that all clients share.
    #[must_use]
    pub fn client(self) -> Option<ClientId> {
        match self {
            Self::Connection(client, _) => Some(client),
            Self::Portal | Self::Dns | Self::Admin => None,
            Self::NatTable(_) | Self::Tun(_) | Self::Udp(_) => None,
        }
    }

    /// The shard that it runs on, if it belongs to the data path.
    #[must_use]
    pub fn shard(self) -> Option<u8> {
        match self.place() {
            Place::Shard(shard) => Some(shard),
            Place::Control | Place::Admin => None,
        }
    }

    /// The thread that it runs on.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::Portal | Self::Dns => Place::Control,
            Self::Admin => Place::Admin,
            Self::NatTable(shard) | Self::Tun(shard) | Self::Udp(shard) => Place::Shard(shard),
            Self::Connection(_, index) => Place::Shard(index.shard()),
        }
    }
}

/// The kind alone, as log lines name it.
impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::KINDS[self.kind()])
    }
}

/// A thread other than the supervisor's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Portal and name lookups, which may block for a while.
    Control,
    /// The whole data path of some clients.
    Shard(u8),
    /// Answers the operator, even if another thread is stuck.
    Admin,
}

impl Place {
    /// Its shared children, in the order in which they are started.
    #[must_use]
    pub fn children(self) -> Vec<Child> {
        match self {
            Self::Control => vec![Child::Dns, Child::Portal],
            Self::Shard(it) => vec![Child::Tun(it), Child::NatTable(it), Child::Udp(it)],
            Self::Admin => vec![Child::Admin],
        }
    }
}

/// Distinguishes the successive instances of all actors. Never reused within a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// The end of an actor instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The actor that ended.
    pub child: Child,
    /// Its instance: a former one does not count.
    pub instance: InstanceId,
    /// Whether it panicked, and where.
    pub cause: DeathCause,
}

/// How an actor instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeathCause {
    /// Its handler panicked; the report says where.
    Panicked(PanicReport),
    /// It stopped by itself, or its thread dropped it.
    Stopped,
}

/// The panic that ended an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PanicReport {
    /// At most 300 characters.
    pub message: String,
    /// `file:line` of the panic.
    pub location: String,
}

/// The present instance of a child, as the supervisor knows it.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) state: InstanceState,
    /// When it or its predecessor died; cleared when the present instance has shown that it works.
    pub(super) died_at: Option<Instant>,
}

/// The supervisor's knowledge of an instance. Messages are sent only to running ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InstanceState {
    #[default]
    Running,
    /// Ended by the watchdog; its thread may not have dropped it yet.
    Hung,
    Dead,
}

impl Instance {
    pub(super) fn begin(&mut self, id: InstanceId) {
        (self.id, self.state) = (id, InstanceState::Running);
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == InstanceState::Running
    }

    /// Returns whether the watchdog had ended it.
    pub(super) fn end(&mut self, state: InstanceState, now: Instant) -> bool {
        self.died_at.get_or_insert(now);
        std::mem::replace(&mut self.state, state) == InstanceState::Hung
    }
}
