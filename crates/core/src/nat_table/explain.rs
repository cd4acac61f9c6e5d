//! What the NAT answers to people who ask why something does not work.

use super::NatTable;
use super::flows::Binding;
use crate::DropReason;
use crate::domains::MappingFacts;
use crate::ids::ClientId;
use crate::packet::IpPacket;
use crate::replies::Refusal;
use crate::target::{Host, Target};
use std::time::{Duration, Instant};

/// What the NAT knows of a client and a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatFacts {
    /// Whether it knows the client.
    pub is_attached: bool,
    /// The name that was asked for, or that the address stands for.
    pub mapping: Option<MappingFacts>,
    /// Names of the client, and how many it may have.
    pub names: (usize, usize),
    /// Live flows of the client, and how many it may have.
    pub flows: (usize, u32),
    /// How long ago a flow of the client could not be made, and why.
    pub refused_flow: Option<(Duration, DropReason)>,
}

impl NatTable {
    /// What is known here of a client and a target. Changes nothing.
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

    /// A reset came back: whether it refused a handshake.
    pub(super) fn note_reset(&mut self, flow: &Binding, bytes: &[u8], now: Instant) {
        let refused = IpPacket::parse(bytes).ok();
        let refused = refused.and_then(|packet| Refusal::by_reset(&packet));
        if let Some(refused) = refused {
            let real = flow.outside.real;
            self.domains.note_refusal(flow.mapping, real, refused, now);
        }
    }
}
