//! What [`Domains`](super::Domains) is told and what it answers.

use super::{ClientSlot, MappingId};
use super::{MAX_PROXY_IPS, MAX_RESOURCES};
use crate::ids::ResourceId;
use crate::names::{AddressFamily, DomainName};
use std::net::IpAddr;
use std::time::Duration;

/// The limits of [`Domains`](super::Domains).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainsConfig {
    /// Names that one client can have at once. When full, a name of the client that was not used
    /// for longer than any flow lives gives way; else the announcement is refused.
    pub mappings_per_client: usize,
    /// Names of all clients. When full, a name of anybody's that was not used for longer than any
    /// flow lives gives way, if a few tries find one; else announcements of new ones are refused.
    pub mappings: usize,
    /// Packets held for one name. When full, further ones are dropped as
    /// [`HoldFull`](crate::DropReason::HoldFull).
    pub held_packets: usize,
    /// Bytes held for one name.
    pub held_bytes: usize,
    /// Bytes held for all names of one client, so that none can take the room of the others.
    pub held_bytes_of_client: usize,
    /// Bytes held for all names.
    pub held_bytes_in_all: usize,
    /// How long a packet waits for the address of its name.
    pub hold_for: Duration,
    /// How long addresses are used after the DNS last named them, while it cannot be asked.
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

/// A client uses these proxy IPs for a name of a resource that was found to be its own.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// Who.
    pub client: ClientSlot,
    /// Through which resource.
    pub resource: ResourceId,
    /// As it is looked up.
    pub name: &'a DomainName,
    /// As announced, to be echoed.
    pub domain: &'a str,
    /// Of one family or of both, in any order. Families that are not named keep theirs.
    pub proxy_ips: &'a [IpAddr],
    /// Whether the client waits for a DomainStatus inside the tunnel.
    pub in_tunnel: bool,
}

/// Why an announcement was refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// docs/lessons.md 16.
    #[error("{0} is not in the ranges for proxy IPs")]
    NotAProxyIp(IpAddr),
    /// Nothing to translate from.
    #[error("no proxy IPs")]
    NoProxyIps,
    /// More than any client uses.
    #[error("more than {MAX_PROXY_IPS} proxy IPs for a name")]
    TooManyProxyIps,
    /// More resources of one client match the name than is sensible.
    #[error("more than {MAX_RESOURCES} resources for a name")]
    TooManyResources,
    /// See [`DomainsConfig::mappings_per_client`].
    #[error("the client uses {0} names already, which is the limit")]
    ClientFull(usize),
    /// See [`DomainsConfig::mappings`].
    #[error("{0} names are in use already, which is the limit")]
    Full(usize),
}

/// Where a flow that is new, or that nothing came back of, goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this address, until the epoch of the family is another one.
    To {
        /// The real address.
        real: IpAddr,
        /// As [`Domains::epoch`](super::Domains::epoch) says now.
        epoch: u32,
    },
    /// Nobody knows yet: [`Domains::hold`](super::Domains::hold) it.
    Hold,
    /// Nowhere: answer with ICMP unreachable, never prohibited (docs/lessons.md 8).
    Unreachable,
}

/// What kind of packet went to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A TCP SYN, first or repeated, of a flow that nothing came back of.
    Syn,
    /// Another packet of a flow that nothing came back of.
    Unconfirmed,
    /// A packet of a flow that something came back of.
    Confirmed,
}

/// What becomes of a held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldOutcome {
    /// Route it once more.
    Released,
    /// Answer it with ICMP unreachable.
    Unreachable,
}

/// A packet that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPacket {
    /// Whose.
    pub client: ClientSlot,
    /// The name that it was for when it came.
    pub mapping: MappingId,
    /// As given to [`Domains::hold`](super::Domains::hold).
    pub bytes: Vec<u8>,
    /// What becomes of it.
    pub outcome: HeldOutcome,
}

/// What the owner of [`Domains`](super::Domains) must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainsEvent {
    /// Look a name up, both families; each is to be answered by
    /// [`Domains::handle_answer`](super::Domains::handle_answer).
    Resolve {
        /// For whom: the quota is per client.
        client: ClientSlot,
        /// What.
        name: DomainName,
        /// Whether what a cache holds is not good enough.
        refresh: bool,
    },
    /// Record the addresses of a name, for the time after a rebuild. Once for all clients that
    /// have the name.
    NameKnown {
        /// As it is looked up.
        name: DomainName,
        /// Of these addresses.
        family: AddressFamily,
        /// In the order in which proxy IPs lead to them, those that are shunned for a moment
        /// included. Empty when they are no good any more.
        ips: Vec<IpAddr>,
        /// Whether they differ from those that were told before; if not, the DNS has confirmed
        /// them.
        is_news: bool,
    },
    /// Tell a client inside the tunnel.
    Status {
        /// Whom.
        client: ClientSlot,
        /// As announced.
        resource: ResourceId,
        /// As announced.
        domain: String,
        /// Whether the name is good.
        active: bool,
    },
}
