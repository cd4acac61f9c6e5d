//! The decision of the policy and its reasons, for a diagnosis and not for packets.
//!
//! Agrees with [`Policy::inbound`] about every packet from the client's own address that is no ICMP
//! error; a property test checks this.

use super::Policy;
use super::filter::{Flow, permits};
use crate::authorizations::{pattern, ranges};
use crate::grant::{Filter, Resource, ResourceKind};
use crate::ids::ResourceId;
use crate::names::DomainName;
use crate::target::{Host, Service};
use std::net::IpAddr;

/// The decision about one service of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The gateway's own address: open to every client.
    Gateway,
    /// A multicast or broadcast address: closed to every client.
    Group,
    /// The address of a client or a gateway: closed to every client.
    TunnelRange,
    /// The client holds an Internet resource, which opens no private address and overrides all
    /// other resources.
    NotInternet {
        /// The Internet resource of the client.
        internet: Resource,
    },
    /// A proxy IP without a name of the client.
    NoName,
    /// No resource covers the host.
    Uncovered,
    /// These resources cover the host. The first one decides.
    Covered(Vec<ResourceDecision>),
}

/// The decision of a resource about one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceDecision {
    /// The resource that covers the host.
    pub resource: Resource,
    /// Whether its filters permit the service.
    pub is_permitted: bool,
}

/// The decision about a target, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision for each protocol.
    pub access: Vec<(Service, Access)>,
    /// The name: as given, or that of the proxy IP.
    pub name: Option<DomainName>,
    /// The client's proxy IPs for that name.
    pub proxy_ips: Vec<IpAddr>,
    /// Number of names that the client has announced.
    pub names: usize,
}

impl Access {
    /// Whether packets pass the policy.
    #[must_use]
    pub fn is_permitted(&self) -> bool {
        match self {
            Self::Gateway => true,
            Self::Covered(decisions) => decisions.first().is_some_and(|it| it.is_permitted),
            Self::Group
            | Self::TunnelRange
            | Self::NotInternet { .. }
            | Self::NoName
            | Self::Uncovered => false,
        }
    }
}

impl Policy {
    /// The decision about packets to a host, and the resources that decide.
    ///
    /// A name that the client has not announced is decided by the resources that cover it.
    #[must_use]
    pub fn explain(&self, host: &Host, service: Service) -> Explanation {
        let name = match host {
            Host::Name(name) => Some(name),
            Host::Ip(ip) => self.proxied_name(*ip),
        };
        let names = self.authorizations.names();
        let proxied = name.and_then(|name| names.get(name));
        let proxy_ips = proxied.map_or(Vec::new(), |it| it.proxy_ips.clone());
        let ip = match host {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => proxy_ips.first().copied(),
        };
        let access = |service| match (ip, name) {
            (Some(ip), _) => self.explain_ip(ip, service),
            (None, Some(name)) => self.explain_name(name, service),
            (None, None) => Access::Uncovered,
        };
        let by_protocol = service.by_protocol().into_iter();
        Explanation {
            access: by_protocol
                .map(|service| (service, access(service)))
                .collect(),
            name: name.cloned(),
            proxy_ips: proxy_ips.clone(),
            names: names.len(),
        }
    }

    /// The steps of [`Policy::inbound`].
    pub(super) fn explain_ip(&self, ip: IpAddr, service: Service) -> Access {
        if ranges::is_group(ip) {
            return Access::Group;
        }
        if self.is_gateway(ip) {
            return Access::Gateway;
        }
        if ranges::is_tunnel(ip) {
            return Access::TunnelRange;
        }
        let is_proxy = ranges::is_proxy(ip);
        let internet = self.derived.internet.filter(|_| !is_proxy);
        if let Some(internet) = internet.and_then(|id| self.authorizations.grants().get(&id)) {
            let resource = internet.resource.clone();
            return match ranges::is_internet(ip) {
                // Its filters do not apply.
                true => Access::Covered(vec![ResourceDecision {
                    resource,
                    is_permitted: true,
                }]),
                false => Access::NotInternet { internet: resource },
            };
        }
        let access = self.decide(self.candidates(ip), service);
        let is_nameless = is_proxy && !self.proxied.contains_key(&ip);
        let is_hoped_for = access == Access::Uncovered && self.derived.holds_dns;
        match is_nameless && (access.is_permitted() || is_hoped_for) {
            true => Access::NoName,
            false => access,
        }
    }

    fn explain_name(&self, name: &DomainName, service: Service) -> Access {
        let covering = self.resources().filter(|resource| match &resource.kind {
            ResourceKind::Dns(pattern) => pattern::covers(pattern, name),
            ResourceKind::Cidr(_) | ResourceKind::Internet => false,
        });
        self.decide(covering.map(|resource| (0, resource.id)), service)
    }

    /// In the order of docs/protocol.md 5.1: resources that permit it, then the longest prefix,
    /// then the greater id.
    fn decide(
        &self,
        candidates: impl Iterator<Item = (u8, ResourceId)>,
        service: Service,
    ) -> Access {
        let grants = self.authorizations.grants();
        let decided = candidates.filter_map(|(prefix_bits, id)| {
            let resource = &grants.get(&id)?.resource;
            Some((permits_service(&resource.filters, service), prefix_bits, id))
        });
        let mut decided: Vec<_> = decided.collect();
        decided.sort_unstable_by(|one, other| other.cmp(one));
        let decisions = decided.into_iter().filter_map(|(is_permitted, _, id)| {
            let resource = grants.get(&id)?.resource.clone();
            Some(ResourceDecision {
                resource,
                is_permitted,
            })
        });
        let decisions: Vec<_> = decisions.collect();
        match decisions.is_empty() {
            true => Access::Uncovered,
            false => Access::Covered(decisions),
        }
    }
}

/// Whether filters permit any packet of a service.
pub(crate) fn permits_service(filters: &[Filter], service: Service) -> bool {
    match service {
        // Every filter permits some packets, and no filter at all permits everything.
        Service::Any => true,
        Service::Port(port) => {
            permits(filters, Flow::Tcp(port)) || permits(filters, Flow::Udp(port))
        }
        Service::Tcp(port) => permits(filters, Flow::Tcp(port)),
        Service::Udp(port) => permits(filters, Flow::Udp(port)),
        Service::Icmp => permits(filters, Flow::Icmp),
    }
}
