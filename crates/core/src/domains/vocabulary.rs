//! Inputs and outputs of [`Domains`](super::Domains): plain values.

use super::{ClientSlot, MappingId};
use crate::ids::ResourceId;
use crate::names::{AddressFamily, DomainName};
use std::net::IpAddr;
use std::time::Duration;

/// The limits of [`Domains`](super::Domains).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainsConfig {
    /// Names of one client. At the limit, a name of the client that was unused for longer than a
    /// flow lasts is evicted; else the announcement is refused.
    pub mappings_per_client: usize,
    /// Names of all clients. At the limit, a name of any client that was unused for longer than a
    /// flow lasts is evicted, if a few draws find one; else new announcements are refused.
    pub mappings: usize,
    /// Held packets of one name. Further packets are dropped as
    /// [`HoldFull`](crate::DropReason::HoldFull).
    pub held_packets: usize,
    /// Bytes of held packets of one name.
    pub held_bytes: usize,
    /// Bytes of held packets of one client, so that no client takes the room of the others.
    pub held_bytes_of_client: usize,
    /// Bytes of held packets of all names.
    pub held_bytes_in_all: usize,
    /// How long a packet is held.
    pub hold_for: Duration,
    /// How long addresses stay in use after the DNS last named them, while lookups fail.
    pub last_known_good: Duration,
}

impl Default for DomainsConfig {
    fn default() -> Self {
        Self {
            mappings_per_client: 2048,
            mappings: 65_536,
            held_packets: 32,
            held_bytes: 64 << 10,
            held_bytes_of_client: 1 << 20,
            held_bytes_in_all: 16 << 20,
            hold_for: Duration::from_secs(2),
            last_known_good: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Why a name was refused. A refused name has no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// See [`DomainsConfig::mappings_per_client`].
    #[error("the client uses {0} names already, which is the limit")]
    ClientFull(usize),
    /// See [`DomainsConfig::mappings`].
    #[error("{0} names are in use already, which is the limit")]
    Full(usize),
}

/// Where a new or unconfirmed flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this address, while the epoch of the family stays the same.
    To {
        /// The real address of the proxy IP.
        real: IpAddr,
        /// The current [`Domains::epoch`](super::Domains::epoch).
        epoch: u32,
    },
    /// Not known yet: [`Domains::hold`](super::Domains::hold) the packet.
    Hold,
    /// Nowhere: answer with ICMP unreachable, never prohibited (docs/lessons.md 8).
    Unreachable,
}

/// The kind of a packet sent to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A TCP SYN, first or repeated, of an unconfirmed flow.
    Syn,
    /// Another packet of an unconfirmed flow.
    Unconfirmed,
    /// A packet of a confirmed flow.
    Confirmed,
}

/// What to do with a held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOutcome {
    /// Route it again, the name has an address.
    Released,
    /// Answer it with ICMP unreachable.
    Unreachable,
}

/// A packet that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPacket {
    /// The client that sent it.
    pub client: ClientSlot,
    /// The mapping of its destination when it arrived.
    pub mapping: MappingId,
    /// The packet, as given to [`Domains::hold`](super::Domains::hold).
    pub bytes: Vec<u8>,
    /// What to do with the packet.
    pub outcome: HeldOutcome,
}

/// An action for the owner of [`Domains`](super::Domains).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainsEvent {
    /// Look up both families of a name; answer each by
    /// [`Domains::handle_answer`](super::Domains::handle_answer).
    Resolve {
        /// The client whose quota applies.
        client: ClientSlot,
        /// The name to look up, in both families.
        name: DomainName,
        /// Whether to bypass the cache.
        refresh: bool,
    },
    /// Record the addresses of a name for the time after a rebuild. Sent once for all clients with
    /// the name.
    NameKnown {
        /// The name in the form that is looked up.
        name: DomainName,
        /// The family of all the addresses.
        family: AddressFamily,
        /// In the order of the proxy IPs, including shunned addresses. Empty if none is valid any
        /// more.
        ips: Vec<IpAddr>,
        /// Whether they differ from the last report; if not, the DNS has confirmed them.
        is_news: bool,
    },
    /// Send a DomainStatus inside the tunnel.
    Status {
        /// The client that gets the status.
        client: ClientSlot,
        /// The announced resource.
        resource: ResourceId,
        /// The announced spelling.
        domain: String,
        /// Whether the name works.
        active: bool,
    },
}
