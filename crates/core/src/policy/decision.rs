//! The decision about each packet: docs/protocol.md 5.2 steps 1 and 3 – 9 (inbound), and
//! docs/protocol.md 5.3 steps 2, 4 and 5 (outbound), with the selection among resources of
//! docs/protocol.md 5.1.

use super::Policy;
use super::filter::{Flow, permits};
use crate::authorizations::ranges;
use crate::ids::ResourceId;
use crate::packet::icmp::IcmpReply;
use crate::packet::{DropReason, IpPacket, Transport};
use std::net::IpAddr;

/// The decision about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward the packet to its destination.
    Forward {
        /// Whether its destination is a proxy IP, to be translated by the NAT first. Always false
        /// outbound, where the NAT comes before the policy.
        translate: bool,
    },
    /// Drop the packet without an answer.
    Drop(DropReason),
    /// Drop the packet, and answer its sender if that is allowed
    /// ([`crate::packet::icmp::reply_to`]).
    Reject(DropReason, IcmpReply),
}

impl Policy {
    /// Decides about a packet from the tunnel (docs/protocol.md 5.2). The caller removes in-tunnel
    /// control messages first.
    #[must_use]
    pub fn inbound(&self, packet: &IpPacket<'_>) -> Verdict {
        let destination = packet.destination();
        if ranges::is_group(destination) {
            return Verdict::Drop(DropReason::Multicast);
        }
        if packet.transport() == Transport::IcmpError {
            return Verdict::Drop(DropReason::IcmpErrorFromClient);
        }
        if !self.config.client.contains(packet.source()) {
            return Verdict::Reject(DropReason::SourceMismatch, IcmpReply::Prohibited);
        }
        if self.is_gateway(destination) {
            return Verdict::Forward { translate: false };
        }
        if ranges::is_tunnel(destination) {
            return Verdict::Reject(DropReason::TunnelRange, IcmpReply::Prohibited);
        }
        let is_proxy = ranges::is_proxy(destination);
        let is_mapped = is_proxy && self.proxied.contains_key(&destination);
        match self.classify(destination, Flow::towards(packet.transport())) {
            Class::Permitted if is_proxy && !is_mapped => UNMAPPED,
            Class::Permitted => Verdict::Forward {
                translate: is_proxy,
            },
            // A proxy IP of a name that is not set up (yet): "prohibited" would make the client
            // request access that it has (docs/lessons.md 8). Without any DNS resource it should
            // request it.
            Class::Uncovered if is_proxy && self.derived.holds_dns => UNMAPPED,
            Class::Uncovered | Class::Filtered => {
                Verdict::Reject(DropReason::NotAuthorized, IcmpReply::Prohibited)
            }
            Class::NotInternet => {
                Verdict::Reject(DropReason::NotInternet, IcmpReply::NetworkUnreachable)
            }
        }
    }

    /// Decides about a packet towards the client, after the NAT (docs/protocol.md 5.3).
    #[must_use]
    pub fn outbound(&self, packet: &IpPacket<'_>) -> Verdict {
        let source = packet.source();
        if !self.config.client.contains(packet.destination()) {
            return Verdict::Drop(DropReason::UnknownClient);
        }
        if self.is_gateway(source) {
            return Verdict::Forward { translate: false };
        }
        if ranges::is_tunnel(source) {
            return Verdict::Drop(DropReason::TunnelRange);
        }
        // Any router on the path may have to report (docs/lessons.md 19).
        if packet.transport() == Transport::IcmpError {
            return Verdict::Forward { translate: false };
        }
        match self.classify(source, Flow::back(packet.transport())) {
            Class::Permitted => Verdict::Forward { translate: false },
            Class::Filtered | Class::Uncovered | Class::NotInternet => {
                Verdict::Drop(DropReason::ReturnNotAuthorized)
            }
        }
    }

    /// docs/protocol.md 5.2, step 7.
    fn classify(&self, ip: IpAddr, flow: Flow) -> Class {
        if self.derived.internet.is_some() && !ranges::is_proxy(ip) {
            // No other resource counts then, not even one that covers a private network.
            return match ranges::is_internet(ip) {
                true => Class::Permitted,
                false => Class::NotInternet,
            };
        }
        // A resource that permits the packet takes precedence over all others
        // (docs/protocol.md 5.1). The verdict does not depend on which one decides; `explain`
        // reports it.
        let grants = self.authorizations.grants();
        let filters = self.candidates(ip).filter_map(|(_, id)| grants.get(&id));
        let permitted = filters.map(|grant| permits(&grant.resource.filters, flow));
        match permitted.max() {
            Some(true) => Class::Permitted,
            Some(false) => Class::Filtered,
            None => Class::Uncovered,
        }
    }

    /// All resources with a network that contains `ip`, with the prefix length of that network.
    pub(super) fn candidates(&self, ip: IpAddr) -> impl Iterator<Item = (u8, ResourceId)> {
        let host_bits = if ip.is_ipv4() { 32 } else { 128 };
        let proxied = self.proxied.get(&ip);
        let owners = proxied.into_iter().flat_map(|it| it.resources.keys());
        owners
            .map(move |id| (host_bits, *id))
            .chain(self.derived.routes.covering(ip))
    }

    pub(super) fn is_gateway(&self, ip: IpAddr) -> bool {
        self.config
            .gateway
            .is_some_and(|gateway| gateway.contains(ip))
    }
}

/// The result of all resources for an address and a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Permitted,
    /// The filters of all covering resources forbid it.
    Filtered,
    /// No resource covers the address.
    Uncovered,
    /// The client holds an Internet resource, and the address is not public.
    NotInternet,
}

const UNMAPPED: Verdict = Verdict::Reject(DropReason::Unmapped, IcmpReply::NetworkUnreachable);
