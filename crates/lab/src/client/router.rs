//! Which resource a packet belongs to, which gateway serves it, and when to ask for access.
//!
//! A core without IO: it is told packets, grants and changes, and answers what to do. It refuses
//! packets that are not from our own tunnel addresses on the way out, and on the way in packets
//! from anywhere but the gateway itself and the resources granted through it. It does not enforce
//! filters: they decide only which of several overlapping resources is meant, and the gateway does
//! the rest. What belongs to names is kept by [`Names`]; here they are one more kind of route.
//! Source: docs/protocol.md 2.4, 2.5, 5.1 and 5.9.

use super::control::DomainStatus;
use super::names::{
    Announcement, Answer, Domain, IPV4_RANGE, IPV6_RANGE, Listed, Names, Passage, Settled,
};
use super::packet::{Flow, Malformed, Service};
use super::wire::{Filter, GatewayId, Interface, Resource, ResourceId, ResourceKind};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to do with a packet from an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it through this gateway.
    Forward(GatewayId),
    /// It is held; ask the portal for this resource now.
    Ask(ResourceId),
    /// It is held, or gives way to those that are: the portal was asked already, or the gateway has
    /// yet to confirm the name.
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

/// Who answers questions about a name that only its site knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The gateway with these tunnel addresses.
    At(Interface),
    /// Nobody yet; ask the portal for this resource now.
    Ask(ResourceId),
    /// Nobody yet; the portal was asked already.
    Asked,
}

/// A request that the portal has not answered.
#[derive(Debug)]
struct Pending {
    /// The name that the last packet wanted to go to.
    name: Option<Arc<str>>,
    first_packet_at: Instant,
    last_packet_at: Instant,
    asked_at: Instant,
    held: VecDeque<Vec<u8>>,
}

/// A resource that somebody wants to use.
struct Wanted<'a> {
    resource: ResourceId,
    /// For a DNS resource.
    name: Option<Arc<str>>,
    /// What to hold meanwhile.
    packet: Option<&'a [u8]>,
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
    names: Names,
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
        if let ResourceKind::Dns(pattern) = &resource.kind {
            self.names.set_resource(resource.id, pattern);
        }
        self.resources.insert(resource.id, resource);
        idle
    }

    /// Forgets a resource; answers the gateway that serves nothing any more.
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

    /// Everything that must be routed into the tunnel.
    #[must_use]
    pub fn networks(&self) -> BTreeSet<IpNet> {
        let mut networks: BTreeSet<IpNet> = self.resources.values().filter_map(network).collect();
        if self.names.has_resources() {
            networks.extend([IpNet::from(IPV4_RANGE), IpNet::from(IPV6_RANGE)]);
        }
        networks
    }

    /// An application asks for the addresses of `name`. `None` when no resource has it.
    pub fn handle_question(&mut self, name: &str, now: Instant) -> Option<Answer> {
        self.names.handle_question(name, now)
    }

    /// An application asks for something about `name` that only its site knows. `None` when no
    /// resource has it.
    pub fn handle_site_question(&mut self, name: &str, now: Instant) -> Option<Site> {
        let resources = self.names.resources_of(name);
        let granted = |id| self.gateways.get(self.grants.get(id)?);
        if let Some(addresses) = resources.iter().find_map(granted) {
            return Some(Site::At(*addresses));
        }
        let wanted = Wanted {
            resource: *resources.first()?,
            name: Some(name.into()),
            packet: None,
        };
        Some(match self.hold(wanted, now) {
            Route::Ask(resource) => Site::Ask(resource),
            Route::Forward(_) | Route::Held | Route::Drop(_) => Site::Asked,
        })
    }

    /// Whether `name` belongs to a resource.
    #[must_use]
    pub fn is_resource(&self, name: &str) -> bool {
        !self.names.resources_of(name).is_empty()
    }

    /// The name that a proxy IP stands for.
    #[must_use]
    pub fn name_behind(&self, proxy_ip: IpAddr) -> Option<Arc<str>> {
        self.names
            .behind(proxy_ip)
            .map(|(name, _)| Arc::clone(name))
    }

    /// What to announce to which gateway; to be drained after every call.
    pub fn poll_announcement(&mut self) -> Option<Announcement> {
        self.names.poll_announcement()
    }

    /// A gateway says what it makes of a name. `None` when it was not told of it.
    pub fn handle_domain_status(
        &mut self,
        gateway: GatewayId,
        status: &DomainStatus,
    ) -> Option<Settled> {
        self.names.handle_status(gateway, status)
    }

    /// The name, with its proxy IPs, of the packet that `resource` was last asked for: what a
    /// request of generation 0 carries. `None` for a resource that is a network.
    #[must_use]
    pub fn requested_domain(&self, resource: ResourceId) -> Option<Domain> {
        let name = self.pending.get(&resource)?.name.as_ref()?;
        self.names.domain(name)
    }

    /// The gateway knows `name` already, told by the portal (generation 0). To be called after
    /// [`Self::handle_granted`].
    pub fn assume_confirmed(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        name: &str,
        now: Instant,
    ) {
        self.names.assume_confirmed(name, (gateway, resource), now);
    }

    /// All names that were asked for.
    #[must_use]
    pub fn names(&self) -> Vec<Listed> {
        self.names.list()
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
        let name = self.name_behind(flow.destination);
        let resource = match &name {
            Some(_) => self.resource_behind(&flow),
            None => self.resource_for(&flow),
        };
        let Some(resource) = resource else {
            return Route::Drop(DropReason::NoResource);
        };
        let Some(gateway) = self.grants.get(&resource).copied() else {
            let wanted = Wanted {
                resource,
                name,
                packet: Some(packet),
            };
            return self.hold(wanted, now);
        };
        let passage = name.map_or(Passage::Pass, |name| {
            self.names
                .handle_packet(&name, (gateway, resource), packet, now)
        });
        match passage {
            Passage::Pass => Route::Forward(gateway),
            Passage::Held => Route::Held,
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
        let from_name = || {
            let behind = self.names.behind(flow.source);
            behind.is_some_and(|(_, resources)| {
                let by = |id| self.grants.get(id).copied();
                resources.iter().any(|id| by(id) == Some(gateway))
            })
        };
        if is_gateway || from_name() || from_resource() {
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

    /// The portal grants `resource` through `gateway`. `None` when nobody asked for it. What was
    /// held is to be handled as if it came now: names have yet to be announced.
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
        self.names.forget_resource(resource);
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
        self.names.forget_gateway(gateway);
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

    /// Among the resources of the name behind the destination: one whose filters permit the
    /// packet, then the narrowest, then the greater id.
    fn resource_behind(&self, flow: &Flow) -> Option<ResourceId> {
        let (_, resources) = self.names.behind(flow.destination)?;
        let is_permitted = |id: &&ResourceId| {
            let resource = self.resources.get(*id);
            resource.is_some_and(|resource| permits(&resource.filters, flow.service))
        };
        let permitted = resources.iter().find(is_permitted);
        permitted.or(resources.first()).copied()
    }

    fn hold(&mut self, wanted: Wanted<'_>, now: Instant) -> Route {
        let resource = wanted.resource;
        let stale = |pending: &Pending| {
            now.saturating_duration_since(pending.last_packet_at) > FORGET_REQUEST_AFTER
        };
        if self.pending.get(&resource).is_some_and(stale) {
            self.pending.remove(&resource);
        }
        let is_new = !self.pending.contains_key(&resource);
        let pending = self.pending.entry(resource).or_insert_with(|| Pending {
            name: None,
            first_packet_at: now,
            last_packet_at: now,
            asked_at: now,
            held: VecDeque::new(),
        });
        pending.name = wanted.name;
        pending.last_packet_at = now;
        if let Some(packet) = wanted.packet
            && pending.held.len() < HELD_PACKETS
        {
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

/// Packets held for one resource (docs/protocol.md: at most 32). A full queue drops the newest, so
/// that a handshake's first packets survive.
pub const HELD_PACKETS: usize = 32;
/// Shortest pause between two requests for the same resource.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A request whose application fell silent for so long is started afresh: its packets are stale.
const FORGET_REQUEST_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
