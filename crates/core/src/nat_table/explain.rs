//! The facts of the NAT that a diagnosis reads.

use super::NatTable;
use super::flows::Binding;
use crate::DropReason;
use crate::domains::MappingFacts;
use crate::ids::ClientId;
use crate::packet::IpPacket;
use crate::replies::Refusal;
use crate::target::{Host, Target};
use std::time::{Duration, Instant};

/// The state of the NAT for a client and a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatFacts {
    /// Whether the client is attached.
    pub is_attached: bool,
    /// The mapping of the target: of the name, or of the proxy IP.
    pub mapping: Option<MappingFacts>,
    /// Number of names of the client, and the limit.
    pub names: (usize, usize),
    /// Number of live flows of the client, and the limit.
    pub flows: (usize, u32),
    /// The last refusal of a new flow: time since, and reason.
    pub refused_flow: Option<(Duration, DropReason)>,
}

impl NatTable {
    /// The facts about a client and a target. Changes nothing.
    #[must_use]
    pub fn explain(&self, client: ClientId, target: &Target, now: Instant) -> NatFacts {
        let Some(slot) = self.clients.slot(client) else {
            return NatFacts::default();
        };
        let mapping = match &target.host {
            Host::Name(name) => self.domains.find_name(slot, name),
            Host::Ip(ip) => self.domains.find(slot, *ip),
        };
        let refused = self.refused_flows.get(&slot);
        NatFacts {
            is_attached: true,
            mapping: mapping.and_then(|id| self.domains.explain(id, now)),
            names: self.domains.names_of(slot),
            flows: (self.flows.len_of(slot), self.flows.limit_of_client()),
            refused_flow: refused.map(|(at, reason)| (now.saturating_duration_since(*at), *reason)),
        }
    }

    /// Records a reset from a resource if it refuses a handshake.
    pub(super) fn note_reset(&mut self, flow: &Binding, bytes: &[u8], now: Instant) {
        let refused = IpPacket::parse(bytes).ok();
        let refused = refused.and_then(|packet| Refusal::by_reset(&packet));
        if let Some(refused) = refused {
            let real = flow.outside.real;
            self.domains.note_refusal(flow.mapping, real, refused, now);
        }
    }
}
