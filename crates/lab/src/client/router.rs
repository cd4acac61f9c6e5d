//! Finds the resource of a packet and the gateway that serves it, and requests access.
//!
//! A core without IO: receives packets, grants and changes, and returns actions. It drops outbound
//! packets that are not from the client's own tunnel addresses, and inbound packets that are from
//! neither the gateway itself nor a resource granted through it. It does not enforce filters: they
//! only select one of several overlapping resources, and the gateway does the rest. [`Names`] holds
//! the state of DNS resources. Source: docs/protocol.md 2.4, 2.5, 5.1 and 5.9.

use super::addresses::{PROXY_IPV4, PROXY_IPV6};
use super::names::Names;
use super::packet::{DropReason, Flow, Service};
use super::vocabulary::{Domain, GatewayId, ResourceId, TunnelAddresses};
use super::wire::{Filter, Resource, ResourceKind};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The action for a packet from an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundAction {
    /// Send the packet through this gateway.
    Forward(GatewayId),
    /// The router holds the packet; request this resource from the portal now.
    RequestAccess(ResourceId),
    /// The router holds the packet, or lost it to a full queue: the portal has not answered, or the
    /// gateway has not confirmed the name.
    Held,
    Drop(DropReason),
}

/// The packets that a grant releases.
#[derive(Debug, PartialEq, Eq)]
pub struct ReleasedPackets {
    /// The packets held for the resource, oldest first.
    pub held: Vec<Vec<u8>>,
    /// Arrival of the first packet for the resource.
    pub first_packet_at: Instant,
}

/// The server for queries that only the site of a name can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteServer {
    /// The gateway with these tunnel addresses.
    At(TunnelAddresses),
    /// Unknown; request this resource from the portal now.
    RequestAccess(ResourceId),
    /// Unknown; the portal has not answered the request.
    Requested,
}

/// A request that the portal has not answered.
#[derive(Debug)]
struct Pending {
    /// Destination of the last packet, for a DNS resource.
    name: Option<Arc<str>>,
    first_packet_at: Instant,
    last_packet_at: Instant,
    requested_at: Instant,
    held: Vec<Vec<u8>>,
}

/// The routing state of the client.
#[derive(Debug, Default)]
pub struct Router {
    own: Option<TunnelAddresses>,
    resources: BTreeMap<ResourceId, Resource>,
    grants: BTreeMap<ResourceId, GatewayId>,
    gateways: BTreeMap<GatewayId, TunnelAddresses>,
    pending: BTreeMap<ResourceId, Pending>,
    /// The last gateway of each resource, connected or not.
    preferred: BTreeMap<ResourceId, GatewayId>,
    /// Queries and announcements go straight to the names.
    pub names: Names,
}

impl Router {
    /// Sets the client's tunnel addresses; before the first call every packet is foreign.
    pub fn set_own_addresses(&mut self, own: TunnelAddresses) {
        self.own = Some(own);
    }

    /// Takes the portal's whole list. Ends the grants of resources that are gone or have another
    /// network; returns the gateways that serve no resource now.
    pub fn replace_resources(&mut self, resources: Vec<Resource>) -> BTreeSet<GatewayId> {
        let kept: BTreeSet<ResourceId> = resources.iter().map(|resource| resource.id).collect();
        let known = self.resources.keys().copied();
        let gone: Vec<ResourceId> = known.filter(|id| !kept.contains(id)).collect();
        let idle = gone.into_iter().filter_map(|id| self.remove_resource(id));
        let mut idle: BTreeSet<GatewayId> = idle.collect();
        for resource in resources {
            idle.extend(self.upsert_resource(resource));
        }
        idle
    }

    /// Adds or changes one resource; returns the gateway that serves no resource because of it.
    pub fn upsert_resource(&mut self, resource: Resource) -> Option<GatewayId> {
        let known = self.resources.get(&resource.id);
        let idle = match known.is_some_and(|known| known.kind != resource.kind) {
            true => self.remove_resource(resource.id),
            false => None,
        };
        if let ResourceKind::Dns(pattern) = &resource.kind {
            self.names.set_resource(resource.id, pattern);
        }
        self.resources.insert(resource.id, resource);
        idle
    }

    /// Removes a resource; returns the gateway that serves no resource because of it.
    pub fn remove_resource(&mut self, resource: ResourceId) -> Option<GatewayId> {
        self.resources.remove(&resource);
        self.names.remove_resource(resource);
        self.pending.remove(&resource);
        self.preferred.remove(&resource);
        let gateway = self.grants.remove(&resource)?;
        if self.grants.values().any(|other| *other == gateway) {
            return None;
        }
        self.gateways.remove(&gateway);
        self.names.forget_gateway(gateway);
        Some(gateway)
    }

    /// The networks to route into the tunnel.
    pub fn networks(&self) -> BTreeSet<IpNet> {
        let mut networks: BTreeSet<IpNet> = self.resources.values().filter_map(network).collect();
        if self.names.has_resources() {
            networks.extend([IpNet::from(PROXY_IPV4), IpNet::from(PROXY_IPV6)]);
        }
        networks
    }

    /// Handles a query about `name` that only its site can answer. `None` when no resource has it.
    pub fn handle_site_question(&mut self, name: &str, now: Instant) -> Option<SiteServer> {
        let resources = self.names.resources_of(name);
        let granted = |id| self.gateways.get(self.grants.get(id)?);
        if let Some(addresses) = resources.iter().find_map(granted) {
            return Some(SiteServer::At(*addresses));
        }
        let resource = *resources.first()?;
        Some(match self.request(resource, Some(name.into()), None, now) {
            true => SiteServer::RequestAccess(resource),
            false => SiteServer::Requested,
        })
    }

    /// The name, with its proxy IPs, for a request of generation 0: the destination of the last
    /// packet to `resource`. `None` for a network.
    pub fn requested_domain(&self, resource: ResourceId) -> Option<Domain> {
        let name = self.pending.get(&resource)?.name.as_ref()?;
        self.names.domain(name)
    }

    /// Decides about a packet from an application, and holds it when its resource needs a request.
    pub fn handle_outbound(&mut self, packet: &[u8], now: Instant) -> OutboundAction {
        let flow = match Flow::parse(packet) {
            Ok(flow) => flow,
            Err(reason) => return OutboundAction::Drop(reason),
        };
        if !self.is_own(flow.source) {
            return OutboundAction::Drop(DropReason::ForeignSource);
        }
        if let Some(gateway) = self.gateway_at(flow.destination) {
            return OutboundAction::Forward(gateway);
        }
        let behind = self.names.behind(flow.destination);
        let name = behind.map(|(name, _)| Arc::clone(name));
        let resource = match behind {
            Some((_, resources)) => self.resource_of_name(resources, flow.service),
            None => self.resource_of_network(&flow),
        };
        let Some(resource) = resource else {
            return OutboundAction::Drop(DropReason::NoResource);
        };
        let Some(gateway) = self.grants.get(&resource).copied() else {
            return match self.request(resource, name, Some(packet), now) {
                true => OutboundAction::RequestAccess(resource),
                false => OutboundAction::Held,
            };
        };
        let route = (gateway, resource);
        let is_held =
            name.is_some_and(|name| self.names.hold_unconfirmed(&name, route, packet, now));
        match is_held {
            true => OutboundAction::Held,
            false => OutboundAction::Forward(gateway),
        }
    }

    /// Checks a packet from the tunnel; an error keeps it from applications.
    pub fn check_inbound(&self, gateway: GatewayId, packet: &[u8]) -> Result<(), DropReason> {
        let flow = Flow::parse(packet)?;
        if !self.is_own(flow.destination) {
            return Err(DropReason::ForeignDestination);
        }
        let addresses = self.gateways.get(&gateway);
        let is_gateway = addresses.is_some_and(|addresses| addresses.contains(flow.source));
        let is_from_resource = || {
            let mut granted = self.grants.iter().filter(|(_, by)| **by == gateway);
            let network = |id| self.resources.get(id).and_then(network);
            granted.any(|(id, _)| network(id).is_some_and(|net| net.contains(&flow.source)))
        };
        let is_from_name = || {
            let behind = self.names.behind(flow.source);
            behind.is_some_and(|(_, resources)| {
                let is_granted = |id| self.grants.get(id) == Some(&gateway);
                resources.iter().any(is_granted)
            })
        };
        if is_gateway || is_from_name() || is_from_resource() {
            return Ok(());
        }
        Err(DropReason::ForeignSource)
    }

    /// Connected gateways for a request, the last one of the resource first.
    pub fn connected_gateways(&self, resource: ResourceId) -> Vec<GatewayId> {
        let preferred = self.preferred.get(&resource);
        let mut gateways: Vec<GatewayId> = self.gateways.keys().copied().collect();
        gateways.sort_by_key(|id| Some(id) != preferred);
        gateways
    }

    /// Handles the portal's grant of `resource` through `gateway`. `None` without a request. The
    /// caller handles the released packets like new ones: their names need an announcement.
    pub fn handle_granted(
        &mut self,
        resource: ResourceId,
        gateway: GatewayId,
        addresses: TunnelAddresses,
    ) -> Option<ReleasedPackets> {
        let pending = self.pending.remove(&resource)?;
        self.grants.insert(resource, gateway);
        self.preferred.insert(resource, gateway);
        self.gateways.insert(gateway, addresses);
        self.names.forget_resource(resource);
        Some(ReleasedPackets {
            held: pending.held,
            first_packet_at: pending.first_packet_at,
        })
    }

    /// Handles the portal's refusal of `resource`: drops the held packets. A later packet repeats
    /// the request, at the earliest 2 s after the last one.
    pub fn handle_refused(&mut self, resource: ResourceId) {
        if let Some(pending) = self.pending.get_mut(&resource) {
            pending.held.clear();
        }
    }

    /// Handles the loss of a gateway: ends its grants, so that the next packets request access.
    pub fn forget_gateway(&mut self, gateway: GatewayId) {
        self.gateways.remove(&gateway);
        self.grants.retain(|_, by| *by != gateway);
        self.names.forget_gateway(gateway);
    }

    /// Arrival of the first packet of the pending request.
    pub fn first_packet_at(&self, resource: ResourceId) -> Option<Instant> {
        Some(self.pending.get(&resource)?.first_packet_at)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.is_some_and(|own| own.contains(ip))
    }

    fn gateway_at(&self, ip: IpAddr) -> Option<GatewayId> {
        let mut gateways = self.gateways.iter();
        let (gateway, _) = gateways.find(|(_, addresses)| addresses.contains(ip))?;
        Some(*gateway)
    }

    /// Among overlapping resources: one whose filters permit the packet, then the longest prefix,
    /// then the greater id, as the gateway chooses.
    fn resource_of_network(&self, flow: &Flow) -> Option<ResourceId> {
        let candidates = self.resources.values().filter_map(|resource| {
            let net = network(resource).filter(|net| net.contains(&flow.destination))?;
            let permitted = permits(&resource.filters, flow.service);
            Some((permitted, net.prefix_len(), resource.id))
        });
        candidates.max().map(|(_, _, id)| id)
    }

    /// Among the resources of a name: one whose filters permit the packet, then the narrowest, then
    /// the greater id.
    fn resource_of_name(&self, resources: &[ResourceId], service: Service) -> Option<ResourceId> {
        let is_permitted = |id: &&ResourceId| {
            let resource = self.resources.get(*id);
            resource.is_some_and(|resource| permits(&resource.filters, service))
        };
        let permitted = resources.iter().find(is_permitted);
        permitted.or(resources.first()).copied()
    }

    /// Holds `packet` until the portal grants `resource`. `true` when the portal must be asked now.
    fn request(
        &mut self,
        resource: ResourceId,
        name: Option<Arc<str>>,
        packet: Option<&[u8]>,
        now: Instant,
    ) -> bool {
        let is_stale = |pending: &Pending| {
            now.saturating_duration_since(pending.last_packet_at) > FORGET_REQUEST_AFTER
        };
        if self.pending.get(&resource).is_some_and(is_stale) {
            self.pending.remove(&resource);
        }
        let is_new = !self.pending.contains_key(&resource);
        let pending = self.pending.entry(resource).or_insert_with(|| Pending {
            name: None,
            first_packet_at: now,
            last_packet_at: now,
            requested_at: now,
            held: Vec::new(),
        });
        pending.name = name;
        pending.last_packet_at = now;
        if let Some(packet) = packet
            && pending.held.len() < HELD_PACKETS
        {
            pending.held.push(packet.to_vec());
        }
        let elapsed = now.saturating_duration_since(pending.requested_at);
        let is_due = is_new || elapsed >= REQUEST_AGAIN_AFTER;
        if is_due {
            pending.requested_at = now;
        }
        is_due
    }
}

fn network(resource: &Resource) -> Option<IpNet> {
    match &resource.kind {
        ResourceKind::Cidr(net) => Some(*net),
        ResourceKind::Dns(_) | ResourceKind::Other => None,
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

/// Packets held for one resource (docs/protocol.md 12.1). A full queue drops the newest, so that a
/// handshake's first packets survive.
pub const HELD_PACKETS: usize = 32;
/// Shortest pause between two requests for the same resource.
const REQUEST_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// After this pause between two packets the held ones are stale, and a new request begins.
const FORGET_REQUEST_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
