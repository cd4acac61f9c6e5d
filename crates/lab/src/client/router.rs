//! Which resource a packet belongs to, which gateway serves it, and when to ask for access.
//!
//! A core without IO: it is told packets, grants and changes, and answers what to do. It refuses
//! packets that are not from our own tunnel addresses on the way out, and on the way in packets
//! from anywhere but the gateway itself and the resources granted through it. It does not enforce
//! filters: they decide only which of several overlapping resources is meant, and the gateway does
//! the rest. DNS resources join in as one more kind of route. Source: protocol page, sections 2.4,
//! 2.5, 5.1 and 5.9.

use super::packet::{Flow, Malformed, Service};
use super::wire::{Filter, GatewayId, Interface, Resource, ResourceId, ResourceKind};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What to do with a packet from an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it through this gateway.
    Forward(GatewayId),
    /// It is held; ask the portal for this resource now.
    Ask(ResourceId),
    /// It is held, or gives way to those that are; the portal was asked already.
    Held,
    /// Nothing can be done with it.
    Drop(DropReason),
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Not an IP packet.
    NotIp,
    /// A fragment.
    Fragment,
    /// Outbound: not from our tunnel address. Inbound: not from a resource of that gateway.
    ForeignSource,
    /// Not to our tunnel address.
    ForeignDestination,
    /// No resource contains the destination.
    NoResource,
}

/// What a grant sets free.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    /// The packets held for the resource, oldest first.
    pub held: Vec<Vec<u8>>,
    /// When the first packet asked for the resource.
    pub first_packet_at: Instant,
}

/// A request that the portal has not answered.
#[derive(Debug)]
struct Pending {
    first_packet_at: Instant,
    last_packet_at: Instant,
    asked_at: Instant,
    held: VecDeque<Vec<u8>>,
}

/// The state of all routes.
#[derive(Debug, Default)]
pub struct Router {
    own: Option<Interface>,
    resources: BTreeMap<ResourceId, Resource>,
    grants: BTreeMap<ResourceId, GatewayId>,
    gateways: BTreeMap<GatewayId, Interface>,
    pending: BTreeMap<ResourceId, Pending>,
    /// Who served a resource last, connected or not.
    preferred: BTreeMap<ResourceId, GatewayId>,
}

impl Router {
    /// Our tunnel addresses; until they are known every packet is foreign.
    pub fn set_own_addresses(&mut self, own: Interface) {
        self.own = Some(own);
    }

    /// Takes the portal's whole list. Grants of resources that are gone or have become another
    /// network end; answers the gateways that serve nothing any more.
    pub fn replace_resources(&mut self, resources: Vec<Resource>) -> Vec<GatewayId> {
        let kept: BTreeSet<ResourceId> = resources.iter().map(|resource| resource.id).collect();
        let gone: Vec<ResourceId> = self
            .resources
            .keys()
            .copied()
            .filter(|id| !kept.contains(id))
            .collect();
        let mut idle: BTreeSet<GatewayId> = BTreeSet::new();
        idle.extend(gone.into_iter().filter_map(|id| self.remove_resource(id)));
        for resource in resources {
            idle.extend(self.upsert_resource(resource));
        }
        idle.into_iter().collect()
    }

    /// Adds or changes one resource; answers the gateway that serves nothing any more because of
    /// it.
    pub fn upsert_resource(&mut self, resource: Resource) -> Option<GatewayId> {
        let same_network = self
            .resources
            .get(&resource.id)
            .is_none_or(|known| known.kind == resource.kind);
        let idle = if same_network {
            None
        } else {
            self.remove_resource(resource.id)
        };
        self.resources.insert(resource.id, resource);
        idle
    }

    /// Forgets a resource; answers the gateway that serves nothing any more.
    pub fn remove_resource(&mut self, resource: ResourceId) -> Option<GatewayId> {
        self.resources.remove(&resource);
        self.pending.remove(&resource);
        self.preferred.remove(&resource);
        let gateway = self.grants.remove(&resource)?;
        if self.grants.values().any(|other| *other == gateway) {
            return None;
        }
        self.gateways.remove(&gateway);
        Some(gateway)
    }

    /// Everything that must be routed into the tunnel.
    #[must_use]
    pub fn networks(&self) -> BTreeSet<IpNet> {
        self.resources.values().filter_map(network).collect()
    }

    /// Decides about a packet from an application, and holds it when its resource must be asked
    /// for.
    pub fn handle_outbound(&mut self, packet: &[u8], now: Instant) -> Route {
        let flow = match Flow::parse(packet) {
            Ok(flow) => flow,
            Err(malformed) => return Route::Drop(malformed.into()),
        };
        if !self.is_own(flow.source) {
            return Route::Drop(DropReason::ForeignSource);
        }
        if let Some(gateway) = self.gateway_at(flow.destination) {
            return Route::Forward(gateway);
        }
        let Some(resource) = self.resource_for(&flow) else {
            return Route::Drop(DropReason::NoResource);
        };
        match self.grants.get(&resource) {
            Some(gateway) => Route::Forward(*gateway),
            None => self.hold(resource, packet, now),
        }
    }

    /// Decides about a packet out of the tunnel.
    ///
    /// # Errors
    /// Why it must not reach applications.
    pub fn check_inbound(&self, gateway: GatewayId, packet: &[u8]) -> Result<(), DropReason> {
        let flow = Flow::parse(packet)?;
        if !self.is_own(flow.destination) {
            return Err(DropReason::ForeignDestination);
        }
        let is_gateway = self
            .gateways
            .get(&gateway)
            .is_some_and(|addresses| has_address(addresses, flow.source));
        let from_resource = || {
            self.grants
                .iter()
                .filter(|(_, by)| **by == gateway)
                .filter_map(|(id, _)| self.resources.get(id).and_then(network))
                .any(|net| net.contains(&flow.source))
        };
        if is_gateway || from_resource() {
            Ok(())
        } else {
            Err(DropReason::ForeignSource)
        }
    }

    /// Gateways to name in a request: the one that served the resource last, then connected ones.
    #[must_use]
    pub fn connected_gateways(&self, resource: ResourceId) -> Vec<GatewayId> {
        let preferred = self.preferred.get(&resource).copied();
        let others = self
            .gateways
            .keys()
            .copied()
            .filter(|id| Some(*id) != preferred);
        preferred
            .filter(|id| self.gateways.contains_key(id))
            .into_iter()
            .chain(others)
            .collect()
    }

    /// The portal grants `resource` through `gateway`. `None` when nobody asked for it.
    pub fn handle_granted(
        &mut self,
        resource: ResourceId,
        gateway: GatewayId,
        addresses: Interface,
    ) -> Option<Granted> {
        let pending = self.pending.remove(&resource)?;
        self.grants.insert(resource, gateway);
        self.preferred.insert(resource, gateway);
        self.gateways.insert(gateway, addresses);
        Some(Granted {
            held: pending.held.into(),
            first_packet_at: pending.first_packet_at,
        })
    }

    /// The portal refuses `resource`: what was held is lost, and a later packet asks again, no
    /// sooner than 2 s after the last time.
    pub fn handle_refused(&mut self, resource: ResourceId) {
        if let Some(pending) = self.pending.get_mut(&resource) {
            pending.held.clear();
        }
    }

    /// The gateway is lost: its grants end, and the next packets ask again.
    pub fn forget_gateway(&mut self, gateway: GatewayId) {
        self.gateways.remove(&gateway);
        self.grants.retain(|_, by| *by != gateway);
    }

    /// When the packet came that the resource was last asked for.
    #[must_use]
    pub fn first_packet_at(&self, resource: ResourceId) -> Option<Instant> {
        self.pending
            .get(&resource)
            .map(|pending| pending.first_packet_at)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.is_some_and(|own| has_address(&own, ip))
    }

    fn gateway_at(&self, ip: IpAddr) -> Option<GatewayId> {
        self.gateways
            .iter()
            .find(|(_, addresses)| has_address(addresses, ip))
            .map(|(id, _)| *id)
    }

    /// Among overlapping resources: one whose filters permit the packet, then the longest prefix,
    /// then the greater id, as the gateway chooses.
    fn resource_for(&self, flow: &Flow) -> Option<ResourceId> {
        let candidates = self.resources.values().filter_map(|resource| {
            let net = network(resource).filter(|net| net.contains(&flow.destination))?;
            let permitted = permits(&resource.filters, flow.service);
            Some((permitted, net.prefix_len(), resource.id))
        });
        candidates.max().map(|(_, _, id)| id)
    }

    fn hold(&mut self, resource: ResourceId, packet: &[u8], now: Instant) -> Route {
        let stale = |pending: &Pending| {
            now.saturating_duration_since(pending.last_packet_at) > FORGET_REQUEST_AFTER
        };
        if self.pending.get(&resource).is_some_and(stale) {
            self.pending.remove(&resource);
        }
        let is_new = !self.pending.contains_key(&resource);
        let pending = self.pending.entry(resource).or_insert_with(|| Pending {
            first_packet_at: now,
            last_packet_at: now,
            asked_at: now,
            held: VecDeque::new(),
        });
        pending.last_packet_at = now;
        if pending.held.len() < HELD_PACKETS {
            pending.held.push_back(packet.to_vec());
        }
        if is_new || now.saturating_duration_since(pending.asked_at) >= ASK_AGAIN_AFTER {
            pending.asked_at = now;
            Route::Ask(resource)
        } else {
            Route::Held
        }
    }
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::NotIp => Self::NotIp,
            Malformed::Fragment => Self::Fragment,
        }
    }
}

fn network(resource: &Resource) -> Option<IpNet> {
    match &resource.kind {
        ResourceKind::Cidr(net) => Some(*net),
        ResourceKind::Dns(_) | ResourceKind::Internet | ResourceKind::Other => None,
    }
}

fn has_address(interface: &Interface, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip == interface.ipv4,
        IpAddr::V6(ip) => ip == interface.ipv6,
    }
}

fn permits(filters: &[Filter], service: Service) -> bool {
    filters.is_empty()
        || filters.iter().any(|filter| match (filter, service) {
            (Filter::Tcp(ports), Service::Tcp(port)) | (Filter::Udp(ports), Service::Udp(port)) => {
                (ports.port_range_start..=ports.port_range_end).contains(&port)
            }
            (Filter::Icmp, Service::Icmp) => true,
            _ => false,
        })
}

/// Packets held for one resource (protocol page: at most 32). A full queue drops the newest, so
/// that a handshake's first packets survive.
pub const HELD_PACKETS: usize = 32;
/// Shortest pause between two requests for the same resource.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A request whose application fell silent for so long is started afresh: its packets are stale.
const FORGET_REQUEST_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
