//! What is known of a name, for people who ask why something does not work.

use super::Domains;
use super::{ClientSlot, MappingId};
use crate::names::{AddressFamily, DomainName, NameFailure};
use crate::replies::{Refusal, ReplyFacts};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A name of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFacts {
    /// Which.
    pub name: DomainName,
    /// Under which addresses the client speaks to it, by family.
    pub proxy_ips: [Vec<IpAddr>; 2],
    /// What is known, by family.
    pub families: [FamilyFacts; 2],
    /// For how long the DNS has been asked, if it is being asked.
    pub asking: Option<Duration>,
    /// Packets that wait for an address.
    pub held_packets: usize,
}

/// One family of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyFacts {
    /// In the order in which proxy IPs lead to them.
    pub addresses: Vec<AddressFacts>,
    /// How long ago the DNS named them last.
    pub resolved: Option<Duration>,
    /// Why the last lookup found nothing, and for how long that has been so.
    pub failure: Option<(NameFailure, Duration)>,
    /// When the DNS is asked again at the earliest, if somebody uses the name.
    pub next_try: Option<Duration>,
    /// What went out and came back.
    pub replies: ReplyFacts,
    /// Who answered last.
    pub heard_from: Option<IpAddr>,
}

/// A real address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFacts {
    /// Which.
    pub ip: IpAddr,
    /// For how long others are preferred.
    pub shunned_for: Option<Duration>,
    /// Whether it did not answer what was sent to it lately.
    pub owes_answer: bool,
}

impl Domains {
    /// What is known of a client's name. Changes nothing.
    #[must_use]
    pub fn explain(&self, id: MappingId, now: Instant) -> Option<MappingFacts> {
        Some(self.table.get(id)?.explain(now.max(self.now)))
    }

    /// The mapping of a client's name.
    #[must_use]
    pub fn find_name(&self, client: ClientSlot, name: &DomainName) -> Option<MappingId> {
        self.table.by_name(client, name)
    }

    /// How many names a client has, and how many it may have.
    #[must_use]
    pub fn names_of(&self, client: ClientSlot) -> (usize, usize) {
        let limit = self.shared.config.mappings_per_client;
        (self.table.count_of_client(client), limit)
    }

    /// Somebody refused a packet to `real`, for people who ask; what follows from it for the name
    /// is told by the other calls.
    pub fn note_refusal(&mut self, id: MappingId, real: IpAddr, refused: Refusal, now: Instant) {
        let now = self.clock(now);
        if let Some(mapping) = self.table.get_mut(id) {
            let family = mapping.family(AddressFamily::of(real));
            family.note_refusal(refused, now);
        }
    }
}
