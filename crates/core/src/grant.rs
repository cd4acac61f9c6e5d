//! Types for grants of the portal, shared by the portal protocol, the policy and the peers.
//!
//! Plain values without behaviour and without JSON; `portal/wire.rs` translates.

use crate::ids::{ClientId, PublicKey, RelayId, ResourceId, UnixTime};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// The pair of tunnel addresses that the portal assigns to a client or to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelAddresses {
    /// IPv4 address inside 100.64.0.0/11.
    pub ipv4: Ipv4Addr,
    /// IPv6 address inside fd00:2021:1111::/107.
    pub ipv6: Ipv6Addr,
}

impl TunnelAddresses {
    /// Whether `ip` is one of the two addresses.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip == self.ipv4,
            IpAddr::V6(ip) => ip == self.ipv6,
        }
    }
}

/// ICE user name fragment and password (RFC 8445, 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The user name fragment, 4 characters from a portal.
    pub ufrag: String,
    /// The password, 22 characters from a portal.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// A WireGuard preshared key, 32 bytes. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// One permitted protocol of a resource. A resource without filters permits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// TCP to a port in this range.
    Tcp(RangeInclusive<u16>),
    /// UDP to a port in this range.
    Udp(RangeInclusive<u16>),
    /// ICMP and ICMPv6 messages.
    Icmp,
}

/// The destinations that a resource covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A network; a single host is a /32 or /128.
    Cidr(IpNet),
    /// A name or a pattern of names (`*`, `?`, `**` on labels).
    Dns(String),
    /// All addresses that are not private or reserved.
    Internet,
}

/// A network destination that can be granted to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Identifier assigned by the portal.
    pub id: ResourceId,
    /// Display name; may be empty.
    pub name: String,
    /// The destinations that it covers.
    pub kind: ResourceKind,
    /// The permitted protocols and ports; empty permits everything.
    pub filters: Vec<Filter>,
}

/// A client as described by the portal in a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProfile {
    /// Identifier that stays the same when the client's keys change.
    pub id: ClientId,
    /// The client's WireGuard public key; changes when it roams.
    pub public_key: PublicKey,
    /// WireGuard preshared key for this client key and the gateway's.
    pub preshared_key: PresharedKey,
    /// The client's own tunnel addresses.
    pub tunnel: TunnelAddresses,
}

/// The values that identify a transport: while they are equal, the existing transport is kept
/// (docs/protocol.md 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportKeys {
    /// The client's WireGuard public key.
    pub client_public_key: PublicKey,
    /// WireGuard preshared key for this client key and the gateway's.
    pub preshared_key: PresharedKey,
    /// The gateway's ICE credentials for this client.
    pub local_ice: IceCredentials,
    /// The client's ICE credentials.
    pub remote_ice: IceCredentials,
}

/// A grant of one resource to one client, to be acknowledged with `reply_ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Opaque reference, echoed in the acknowledgement.
    pub reply_ref: String,
    /// The client that receives the grant.
    pub client: ClientProfile,
    /// The granted resource.
    pub resource: Resource,
    /// The gateway's ICE credentials for this client.
    pub gateway_ice: IceCredentials,
    /// The client's ICE credentials.
    pub client_ice: IceCredentials,
    /// End of the grant; `None` never expires.
    pub expires_at: Option<UnixTime>,
    /// The name that the client wants to reach, if the portal includes it (generation 0).
    pub announced: Option<AnnouncedName>,
    /// Shape of the acknowledgement.
    pub reply: ReplyKind,
}

/// A name and the proxy IPs that a client has assigned to it (docs/protocol.md 4 and 11.1). The
/// client chooses them: to be checked before use (docs/lessons.md 16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedName {
    /// The name as announced, echoed in answers.
    pub domain: String,
    /// 4 of one family or 4 of each, if the client lists them.
    pub proxy_ips: Vec<IpAddr>,
}

impl AnnouncedName {
    /// Whether a client can have sent this: a name that fits the DNS (with its final dot), and at
    /// most four addresses of each family.
    pub(crate) fn is_within_limits(domain: &str, proxy_ips: &[IpAddr]) -> bool {
        domain.len() <= 255 && proxy_ips.len() <= 8
    }
}

/// A further grant to a client; another message sets up its transport (generation 0,
/// `allow_access`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Opaque reference, echoed in the acknowledgement.
    pub reply_ref: String,
    /// The client that receives the grant.
    pub client: ClientId,
    /// The client's tunnel addresses, if the portal includes them: sufficient for a grant before
    /// the client is known (docs/lessons.md 18).
    pub tunnel: Option<TunnelAddresses>,
    /// The granted resource.
    pub resource: Resource,
    /// End of the grant; `None` never expires.
    pub expires_at: Option<UnixTime>,
    /// The name that the client wants to reach; without one no acknowledgement is expected.
    pub announced: Option<AnnouncedName>,
}

/// The content of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// Generations 1 and 2: only the reference.
    Granted,
    /// Generation 0: the gateway's own ICE credentials, and an empty list of addresses for the
    /// announced name, because names are resolved later.
    ConnectionReady,
}

impl AuthorizationRequest {
    /// The part of the request that identifies the transport.
    #[must_use]
    pub fn transport_keys(&self) -> TransportKeys {
        TransportKeys {
            client_public_key: self.client.public_key,
            preshared_key: self.client.preshared_key.clone(),
            local_ice: self.gateway_ice.clone(),
            remote_ice: self.client_ice.clone(),
        }
    }
}

/// One entry of the list of grants that the portal sends on every (re)join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationEntry {
    /// The client that holds the grant.
    pub client: ClientId,
    /// The granted resource.
    pub resource: ResourceId,
    /// End of the grant; `None` never expires.
    pub expires_at: Option<UnixTime>,
}

/// A relay (STUN and TURN server), one entry for each address family.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// Identifier of the relay; its entries share it.
    pub id: RelayId,
    /// The address of the server, from which it also answers.
    pub addr: SocketAddr,
    /// Long-term credentials (RFC 8489, 9.2); `None` for a STUN-only server.
    pub credentials: Option<RelayCredentials>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({} at {})", self.id.0, self.addr)
    }
}

/// TURN long-term credentials. The realm is fixed: `firezone`.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// User name in the form `<expiry>:<salt>`.
    pub username: String,
    /// Password that the portal derives from the relay's secret.
    pub password: Zeroizing<String>,
}

/// The state that the portal delivers on a (re)join and on every later change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayInit {
    /// The gateway's own tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// All relays known to the portal at this time.
    pub relays: Vec<Relay>,
    /// All valid grants. Grants that the gateway holds beyond these are revoked.
    pub authorizations: Vec<AuthorizationEntry>,
}
