//! The facts about a name that a diagnosis reads.

use super::Domains;
use super::{ClientSlot, MappingId};
use crate::names::{AddressFamily, DomainName, NameFailure};
use crate::replies::{Refusal, ReplyFacts};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The state of a client's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFacts {
    /// The name, as it is looked up.
    pub name: DomainName,
    /// The proxy IPs of the name, by family.
    pub proxy_ips: [Vec<IpAddr>; 2],
    /// The state of each family.
    pub families: [FamilyFacts; 2],
    /// How long the current lookup has run, if there is one.
    pub asking: Option<Duration>,
    /// Number of packets that wait for an address.
    pub held_packets: usize,
}

/// One family of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyFacts {
    /// The real addresses, in the order of the proxy IPs.
    pub addresses: Vec<AddressFacts>,
    /// Time since the DNS last named them.
    pub resolved: Option<Duration>,
    /// Why the last lookup found nothing, and for how long lookups have failed.
    pub failure: Option<(NameFailure, Duration)>,
    /// Time until the next lookup at the earliest, if the name is in use.
    pub next_try: Option<Duration>,
    /// Packets to the addresses and replies from them.
    pub replies: ReplyFacts,
    /// The address that answered last.
    pub heard_from: Option<IpAddr>,
}

/// The state of a real address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFacts {
    /// The real address that this is about.
    pub ip: IpAddr,
    /// How long other addresses are still preferred.
    pub shunned_for: Option<Duration>,
    /// Whether it did not answer recent packets.
    pub owes_answer: bool,
}

impl Domains {
    /// The facts about a mapping. Changes nothing.
    #[must_use]
    pub fn explain(&self, id: MappingId, now: Instant) -> Option<MappingFacts> {
        Some(self.table.get(id)?.explain(now.max(self.now)))
    }

    /// The mapping of a client's name.
    #[must_use]
    pub fn find_name(&self, client: ClientSlot, name: &DomainName) -> Option<MappingId> {
        self.table.by_name(client, name)
    }

    /// Number of names of a client, and the limit.
    #[must_use]
    pub fn names_of(&self, client: ClientSlot) -> (usize, usize) {
        let limit = self.shared.config.mappings_per_client;
        (self.table.count_of_client(client), limit)
    }

    /// Records a refusal of a packet to `real` for a diagnosis. Healing does not depend on it: the
    /// other calls report what matters for that.
    pub fn note_refusal(&mut self, id: MappingId, real: IpAddr, refused: Refusal, now: Instant) {
        let now = self.clock(now);
        if let Some(mapping) = self.table.get_mut(id) {
            let family = mapping.family(AddressFamily::of(real));
            family.note_refusal(refused, now);
        }
    }
}
