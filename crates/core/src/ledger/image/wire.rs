//! The layout of the saved state, field by field. Borrows from the ledger and from the bytes, so
//! that no copy of a secret remains.
//!
//! postcard writes fields in their order and without names, so what a record began with stays as it
//! is. A later field goes into the record's `more`, with a tag of its own ([`Fields`]): programs
//! that do not know the tag skip it, and its absence means its default. Version 1 is the same
//! layout without any `more` (`M` is `()`, which takes no bytes), so one description reads both.

use super::super::record::{ClientRecord, ResolvedName};
use super::{ImageError, Ledger, LedgerLimits, SavedState};
use crate::authorizations::{Announcer, Authorizations, Grant, ProxiedName};
use crate::grant::{
    AnnouncedName, Filter, IceCredentials, PresharedKey, Resource, ResourceKind, TransportKeys,
    TunnelAddresses,
};
use crate::ids::{ClientId, PublicKey, RelayId, ResourceId, UnixTime};
use crate::names::{AddressFamily, DomainName};
use crate::nat_table::flows::{FlowProtocol, PinnedFlow};
use crate::packet::Path;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The fields that a record has beyond those of version 1.
///
/// A secret must be lent: a value that is encoded for this leaves a copy behind.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Fields<'a>(#[serde(borrow)] Vec<Field<'a>>);

#[derive(Serialize, Deserialize)]
struct Field<'a> {
    tag: u16,
    #[serde(borrow)]
    value: Cow<'a, [u8]>,
}

/// What a record's `more` can be asked: [`Fields`], or `()` in version 1.
pub(super) trait More {
    /// The value of the field with this tag, if the record has one.
    fn get(&self, tag: u16) -> Option<&[u8]>;
}

impl More for () {
    fn get(&self, _: u16) -> Option<&[u8]> {
        None
    }
}

impl More for Fields<'_> {
    fn get(&self, tag: u16) -> Option<&[u8]> {
        let mut fields = self.0.iter();
        let field = fields.find(|field| field.tag == tag);
        field.map(|field| &*field.value)
    }
}

/// Tag in a path's `more`: the 16 bytes of the id of the relay that the path goes through.
const PATH_VIA: u16 = 1;

#[derive(Serialize, Deserialize)]
struct WireTunnel {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

#[derive(Serialize, Deserialize)]
pub(super) struct State<'a, M> {
    saved_at: UnixTime,
    gateway_key: &'a [u8],
    ice_secret: &'a [u8],
    udp_port: u16,
    taken_over_at: Option<UnixTime>,
    gateway: Option<WireTunnel>,
    #[serde(borrow)]
    clients: Vec<WireClient<'a, M>>,
    #[serde(borrow)]
    known: Vec<WireKnown<'a, M>>,
    more: M,
}

#[derive(Serialize, Deserialize)]
struct WireClient<'a, M> {
    id: ClientId,
    tunnel: WireTunnel,
    #[serde(borrow)]
    transport: Option<WireTransport<'a, M>>,
    #[serde(borrow)]
    grants: Vec<WireGrant<'a, M>>,
    #[serde(borrow)]
    names: Vec<WireName<'a, M>>,
    #[serde(borrow)]
    candidates: Vec<&'a str>,
    path: Option<WirePath<M>>,
    #[serde(borrow)]
    pins: Vec<WirePin<'a, M>>,
    more: M,
}

#[derive(Serialize, Deserialize)]
struct WirePin<'a, M> {
    protocol: WireProtocol,
    port: u16,
    proxy: IpAddr,
    name: &'a str,
    outside_port: u16,
    real: IpAddr,
    more: M,
}

#[derive(Serialize, Deserialize)]
enum WireProtocol {
    Tcp,
    Udp,
    Echo,
}

#[derive(Serialize, Deserialize)]
struct WireTransport<'a, M> {
    public_key: &'a [u8],
    preshared_key: &'a [u8],
    #[serde(borrow)]
    local_ice: WireIce<'a>,
    #[serde(borrow)]
    remote_ice: WireIce<'a>,
    more: M,
}

#[derive(Serialize, Deserialize)]
struct WireIce<'a> {
    ufrag: &'a str,
    password: &'a str,
}

#[derive(Serialize, Deserialize)]
struct WireGrant<'a, M> {
    id: ResourceId,
    name: &'a str,
    #[serde(borrow)]
    kind: WireKind<'a>,
    filters: Vec<WireFilter>,
    expires_at: Option<UnixTime>,
    more: M,
}

#[derive(Serialize, Deserialize)]
enum WireKind<'a> {
    Cidr(IpAddr, u8),
    Dns(&'a str),
    Internet,
}

#[derive(Serialize, Deserialize)]
enum WireFilter {
    Tcp(u16, u16),
    Udp(u16, u16),
    Icmp,
}

#[derive(Serialize, Deserialize)]
struct WireName<'a, M> {
    resource: ResourceId,
    domain: &'a str,
    proxy_ips: Vec<IpAddr>,
    in_tunnel: bool,
    more: M,
}

#[derive(Serialize, Deserialize)]
struct WireKnown<'a, M> {
    name: &'a str,
    is_v6: bool,
    ips: Vec<IpAddr>,
    resolved_at: UnixTime,
    more: M,
}

#[derive(Serialize, Deserialize)]
struct WirePath<M> {
    local: WireSocket,
    remote: WireSocket,
    more: M,
}

/// Includes the scope of a link-local address.
#[derive(Serialize, Deserialize)]
struct WireSocket {
    ip: IpAddr,
    port: u16,
    flow_info: u32,
    scope_id: u32,
}

impl<'a> From<&'a SavedState> for State<'a, Fields<'a>> {
    fn from(state: &'a SavedState) -> Self {
        let clients = state.ledger.clients();
        Self {
            saved_at: state.saved_at,
            gateway_key: &*state.gateway_key,
            ice_secret: &*state.ice_secret,
            udp_port: state.udp_port,
            taken_over_at: state.taken_over_at,
            gateway: state.ledger.gateway().map(tunnel_to_wire),
            clients: clients
                .map(|(id, record)| client_to_wire(id, record))
                .collect(),
            known: state.ledger.known_names().map(known_to_wire).collect(),
            more: Fields::default(),
        }
    }
}

impl State<'_, Fields<'_>> {
    pub(super) fn size(&self) -> usize {
        postcard::experimental::serialized_size(self).expect("plain values have a size")
    }

    /// `place` has exactly [`Self::size`] bytes.
    pub(super) fn write(&self, place: &mut [u8]) {
        postcard::to_slice(self, place).expect("the place has the size that was asked for");
    }
}

/// Reads a body of a version that [`super::open`] accepts.
pub(super) fn restore(
    version: u16,
    body: &[u8],
    limits: LedgerLimits,
) -> Result<SavedState, ImageError> {
    match version {
        WITHOUT_MORE => read::<()>(body)?.restore(limits),
        _ => read::<Fields>(body)?.restore(limits),
    }
}

fn read<'a, M: Deserialize<'a>>(body: &'a [u8]) -> Result<State<'a, M>, ImageError> {
    match postcard::take_from_bytes(body) {
        Ok((state, [])) => Ok(state),
        Ok(_) | Err(_) => Err(ImageError::Damaged),
    }
}

impl<M: More> State<'_, M> {
    fn restore(self, limits: LedgerLimits) -> Result<SavedState, ImageError> {
        let mut ledger = Ledger::new(limits);
        if let Some(gateway) = self.gateway {
            ledger.set_gateway(tunnel_from_wire(gateway));
        }
        for client in self.clients {
            ledger.restore(client.id, client.into_record(&limits)?);
        }
        for known in self.known {
            ledger.record_known(known.into_known()?);
        }
        Ok(SavedState {
            saved_at: self.saved_at,
            gateway_key: secret(self.gateway_key)?,
            ice_secret: secret(self.ice_secret)?,
            udp_port: self.udp_port,
            taken_over_at: self.taken_over_at,
            ledger,
        })
    }
}

// ---- To the wire

fn client_to_wire(id: ClientId, record: &ClientRecord) -> WireClient<'_, Fields<'_>> {
    let authorizations = &record.authorizations;
    let names = authorizations.names().values();
    WireClient {
        id,
        tunnel: tunnel_to_wire(record.tunnel),
        transport: record.transport.as_ref().map(transport_to_wire),
        grants: authorizations
            .grants()
            .values()
            .map(grant_to_wire)
            .collect(),
        names: names.flat_map(|name| name_to_wire(name)).collect(),
        candidates: record
            .remote_candidates
            .iter()
            .map(String::as_str)
            .collect(),
        path: record.path.as_ref().map(path_to_wire),
        pins: record.pins.iter().map(pin_to_wire).collect(),
        more: Fields::default(),
    }
}

fn pin_to_wire(flow: &PinnedFlow) -> WirePin<'_, Fields<'_>> {
    WirePin {
        protocol: match flow.protocol {
            FlowProtocol::Tcp => WireProtocol::Tcp,
            FlowProtocol::Udp => WireProtocol::Udp,
            FlowProtocol::Echo => WireProtocol::Echo,
        },
        port: flow.port,
        proxy: flow.proxy,
        name: flow.name.as_str(),
        outside_port: flow.outside_port,
        real: flow.real,
        more: Fields::default(),
    }
}

fn tunnel_to_wire(tunnel: TunnelAddresses) -> WireTunnel {
    let TunnelAddresses { ipv4, ipv6 } = tunnel;
    WireTunnel { ipv4, ipv6 }
}

fn transport_to_wire(keys: &TransportKeys) -> WireTransport<'_, Fields<'_>> {
    WireTransport {
        public_key: &keys.client_public_key.0,
        preshared_key: &*keys.preshared_key.0,
        local_ice: ice_to_wire(&keys.local_ice),
        remote_ice: ice_to_wire(&keys.remote_ice),
        more: Fields::default(),
    }
}

fn ice_to_wire(ice: &IceCredentials) -> WireIce<'_> {
    WireIce {
        ufrag: &ice.ufrag,
        password: &ice.password,
    }
}

fn grant_to_wire(grant: &Grant) -> WireGrant<'_, Fields<'_>> {
    let resource = &grant.resource;
    let filter = |filter: &Filter| match filter {
        Filter::Tcp(ports) => WireFilter::Tcp(*ports.start(), *ports.end()),
        Filter::Udp(ports) => WireFilter::Udp(*ports.start(), *ports.end()),
        Filter::Icmp => WireFilter::Icmp,
    };
    WireGrant {
        id: resource.id,
        name: &resource.name,
        kind: match &resource.kind {
            ResourceKind::Cidr(network) => WireKind::Cidr(network.addr(), network.prefix_len()),
            ResourceKind::Dns(pattern) => WireKind::Dns(pattern),
            ResourceKind::Internet => WireKind::Internet,
        },
        filters: resource.filters.iter().map(filter).collect(),
        expires_at: grant.expires_at,
        more: Fields::default(),
    }
}

/// One entry for each resource.
fn name_to_wire(name: &ProxiedName) -> impl Iterator<Item = WireName<'_, Fields<'_>>> {
    name.resources.iter().map(|(resource, announced)| WireName {
        resource: *resource,
        domain: &announced.domain,
        proxy_ips: name.proxy_ips.clone(),
        in_tunnel: announced.by == Announcer::Client,
        more: Fields::default(),
    })
}

fn known_to_wire(known: &ResolvedName) -> WireKnown<'_, Fields<'_>> {
    WireKnown {
        name: known.name.as_str(),
        is_v6: known.family == AddressFamily::V6,
        ips: known.ips.clone(),
        resolved_at: known.resolved_at,
        more: Fields::default(),
    }
}

fn path_to_wire(path: &Path) -> WirePath<Fields<'_>> {
    let via = path.via.as_ref().map(|relay| Field {
        tag: PATH_VIA,
        value: Cow::Borrowed(relay.0.as_bytes()),
    });
    WirePath {
        local: socket_to_wire(path.local),
        remote: socket_to_wire(path.remote),
        more: Fields(via.into_iter().collect()),
    }
}

fn socket_to_wire(socket: SocketAddr) -> WireSocket {
    let (flow_info, scope_id) = match socket {
        SocketAddr::V4(_) => (0, 0),
        SocketAddr::V6(socket) => (socket.flowinfo(), socket.scope_id()),
    };
    WireSocket {
        ip: socket.ip(),
        port: socket.port(),
        flow_info,
        scope_id,
    }
}

// ---- From the wire

impl<M: More> WireClient<'_, M> {
    /// Applies the rules for grants and names, as to those of the portal and the client.
    fn into_record(self, limits: &LedgerLimits) -> Result<ClientRecord, ImageError> {
        let mut authorizations = Authorizations::default();
        for grant in self.grants {
            let Grant {
                resource,
                expires_at,
            } = grant.into_grant()?;
            let _ = authorizations.allow(resource, expires_at, limits.resources_per_client);
        }
        for name in self.names {
            let (resource, announced, by) = name.into_announcement();
            let _ = authorizations.assign(resource, &announced, by);
        }
        let transport = self.transport.map(WireTransport::into_keys);
        let path = self.path.map(WirePath::into_path);
        let pins = self.pins.into_iter().map(WirePin::into_pin);
        Ok(ClientRecord {
            tunnel: tunnel_from_wire(self.tunnel),
            transport: transport.transpose()?,
            authorizations,
            remote_candidates: self.candidates.into_iter().map(str::to_owned).collect(),
            path: path.transpose()?,
            pins: pins.collect::<Result<_, _>>()?,
        })
    }
}

fn tunnel_from_wire(tunnel: WireTunnel) -> TunnelAddresses {
    let WireTunnel { ipv4, ipv6 } = tunnel;
    TunnelAddresses { ipv4, ipv6 }
}

fn secret(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, ImageError> {
    let mut secret = Zeroizing::new([0; 32]);
    if bytes.len() != secret.len() {
        return Err(ImageError::Damaged);
    }
    secret.copy_from_slice(bytes);
    Ok(secret)
}

impl<M: More> WireTransport<'_, M> {
    fn into_keys(self) -> Result<TransportKeys, ImageError> {
        let public_key = self.public_key.try_into();
        Ok(TransportKeys {
            client_public_key: PublicKey(public_key.map_err(|_| ImageError::Damaged)?),
            preshared_key: PresharedKey(secret(self.preshared_key)?),
            local_ice: ice_from_wire(self.local_ice),
            remote_ice: ice_from_wire(self.remote_ice),
        })
    }
}

fn ice_from_wire(ice: WireIce<'_>) -> IceCredentials {
    IceCredentials {
        ufrag: ice.ufrag.to_owned(),
        password: Zeroizing::new(ice.password.to_owned()),
    }
}

impl<M: More> WireGrant<'_, M> {
    fn into_grant(self) -> Result<Grant, ImageError> {
        let filter = |filter| match filter {
            WireFilter::Tcp(first, last) => Filter::Tcp(first..=last),
            WireFilter::Udp(first, last) => Filter::Udp(first..=last),
            WireFilter::Icmp => Filter::Icmp,
        };
        let resource = Resource {
            id: self.id,
            name: self.name.to_owned(),
            kind: match self.kind {
                WireKind::Cidr(ip, prefix) => {
                    let network = IpNet::new(ip, prefix);
                    ResourceKind::Cidr(network.map_err(|_| ImageError::Damaged)?)
                }
                WireKind::Dns(pattern) => ResourceKind::Dns(pattern.to_owned()),
                WireKind::Internet => ResourceKind::Internet,
            },
            filters: self.filters.into_iter().map(filter).collect(),
        };
        Ok(Grant {
            resource,
            expires_at: self.expires_at,
        })
    }
}

impl<M: More> WirePin<'_, M> {
    fn into_pin(self) -> Result<PinnedFlow, ImageError> {
        let name = self.name.parse::<DomainName>();
        Ok(PinnedFlow {
            protocol: match self.protocol {
                WireProtocol::Tcp => FlowProtocol::Tcp,
                WireProtocol::Udp => FlowProtocol::Udp,
                WireProtocol::Echo => FlowProtocol::Echo,
            },
            port: self.port,
            proxy: self.proxy,
            name: name.map_err(|_| ImageError::Damaged)?,
            outside_port: self.outside_port,
            real: self.real,
        })
    }
}

impl<M: More> WireName<'_, M> {
    fn into_announcement(self) -> (ResourceId, AnnouncedName, Announcer) {
        let announced = AnnouncedName {
            domain: self.domain.to_owned(),
            proxy_ips: self.proxy_ips,
        };
        let by = match self.in_tunnel {
            true => Announcer::Client,
            false => Announcer::Portal,
        };
        (self.resource, announced, by)
    }
}

impl<M: More> WireKnown<'_, M> {
    fn into_known(self) -> Result<ResolvedName, ImageError> {
        let name = self.name.parse::<DomainName>();
        Ok(ResolvedName {
            name: name.map_err(|_| ImageError::Damaged)?,
            family: match self.is_v6 {
                true => AddressFamily::V6,
                false => AddressFamily::V4,
            },
            ips: self.ips,
            resolved_at: self.resolved_at,
        })
    }
}

impl<M: More> WirePath<M> {
    fn into_path(self) -> Result<Path, ImageError> {
        let via = self.more.get(PATH_VIA).map(Uuid::from_slice);
        let via = via.transpose().map_err(|_| ImageError::Damaged)?;
        Ok(Path {
            local: self.local.into_socket(),
            remote: self.remote.into_socket(),
            via: via.map(RelayId),
        })
    }
}

impl WireSocket {
    fn into_socket(self) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => (ip, self.port).into(),
            IpAddr::V6(ip) => {
                SocketAddrV6::new(ip, self.port, self.flow_info, self.scope_id).into()
            }
        }
    }
}

/// The version of the layout that has no [`Fields`].
const WITHOUT_MORE: u16 = 1;

/// A body of a later program of this version, with a field in every record that this one does not
/// know.
#[cfg(test)]
pub(super) fn with_unknown_fields(state: &SavedState) -> Vec<u8> {
    fn add(more: &mut Fields<'_>) {
        let value = Cow::Borrowed(&b"from a later program"[..]);
        more.0.insert(0, Field { tag: 999, value });
    }
    let mut state = State::from(state);
    add(&mut state.more);
    for client in &mut state.clients {
        add(&mut client.more);
        client.transport.iter_mut().for_each(|it| add(&mut it.more));
        client.grants.iter_mut().for_each(|it| add(&mut it.more));
        client.names.iter_mut().for_each(|it| add(&mut it.more));
        client.path.iter_mut().for_each(|it| add(&mut it.more));
        client.pins.iter_mut().for_each(|it| add(&mut it.more));
    }
    state.known.iter_mut().for_each(|it| add(&mut it.more));
    postcard::to_allocvec(&state).expect("plain values")
}
