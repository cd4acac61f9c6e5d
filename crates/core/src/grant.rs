//! What the portal grants: the vocabulary shared by the portal protocol, the policy and the peers.
//!
//! Plain values without behaviour. Nothing here knows JSON; `portal/wire.rs` translates.

use crate::ids::{ClientId, PublicKey, RelayId, ResourceId, UnixTime};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// The pair of tunnel addresses that the portal assigns to a client or to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelAddresses {
    /// Inside 100.64.0.0/11.
    pub ipv4: Ipv4Addr,
    /// Inside fd00:2021:1111::/107.
    pub ipv6: Ipv6Addr,
}

impl TunnelAddresses {
    /// Whether `ip` is one of the two.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip == self.ipv4,
            IpAddr::V6(ip) => ip == self.ipv6,
        }
    }
}

/// ICE user name fragment and password (RFC 8445, section 5.3).
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

/// One permitted protocol of a resource. An empty list of filters permits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// TCP to these ports.
    Tcp(RangeInclusive<u16>),
    /// UDP to these ports.
    Udp(RangeInclusive<u16>),
    /// ICMP and ICMPv6.
    Icmp,
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A network; a single host is a /32 or /128.
    Cidr(IpNet),
    /// A name or a pattern of names (`*`, `?`, `**` on labels).
    Dns(String),
    /// Everything that is not private.
    Internet,
}

/// A resource as the gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The portal's name for it.
    pub id: ResourceId,
    /// For people; may be empty.
    pub name: String,
    /// What it is.
    pub kind: ResourceKind,
    /// What may reach it; empty means everything.
    pub filters: Vec<Filter>,
}

/// What the portal says about a client when it grants access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProfile {
    /// Stable name of the client.
    pub id: ClientId,
    /// Its WireGuard public key; changes when it roams.
    pub public_key: PublicKey,
    /// Shared by this pair of keys.
    pub preshared_key: PresharedKey,
    /// Its tunnel addresses.
    pub tunnel: TunnelAddresses,
}

/// Everything that decides whether an existing transport may be kept: equal keys, equal transport
/// (docs/protocol.md 3.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportKeys {
    /// The client's WireGuard public key.
    pub client_public_key: PublicKey,
    /// Shared by this pair of keys.
    pub preshared_key: PresharedKey,
    /// Ours.
    pub local_ice: IceCredentials,
    /// The client's.
    pub remote_ice: IceCredentials,
}

/// A grant of one resource to one client, to be acknowledged with `reply_ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Opaque; echoed in the acknowledgement.
    pub reply_ref: String,
    /// Who.
    pub client: ClientProfile,
    /// What.
    pub resource: Resource,
    /// The gateway's ICE credentials for this client.
    pub gateway_ice: IceCredentials,
    /// The client's ICE credentials.
    pub client_ice: IceCredentials,
    /// `None` never expires.
    pub expires_at: Option<UnixTime>,
    /// The name that the client wants to reach, where the portal already says so (generation 0).
    pub announced: Option<AnnouncedName>,
    /// What the acknowledgement has to say.
    pub reply: ReplyKind,
}

/// A name and the addresses under which a client will speak to it (docs/protocol.md 4 and
/// 11.1). As the client chose them: to be checked before use (docs/lessons.md 16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedName {
    /// As announced, echoed in answers.
    pub domain: String,
    /// 4 of one family or 4 of each, where the client says so.
    pub proxy_ips: Vec<IpAddr>,
}

/// A further grant to a client whose transport is set up by another message (generation 0,
/// `allow_access`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Opaque; echoed in the acknowledgement.
    pub reply_ref: String,
    /// Who.
    pub client: ClientId,
    /// Its tunnel addresses, where the portal says them: enough to grant before the client is known
    /// (docs/lessons.md 18).
    pub tunnel: Option<TunnelAddresses>,
    /// What.
    pub resource: Resource,
    /// `None` never expires.
    pub expires_at: Option<UnixTime>,
    /// The name that the client wants to reach; without one nobody waits for an acknowledgement.
    pub announced: Option<AnnouncedName>,
}

/// The shape of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// Generations 1 and 2: the ref alone.
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

/// One line of the list of grants that the portal sends on every (re)join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationEntry {
    /// Who.
    pub client: ClientId,
    /// What.
    pub resource: ResourceId,
    /// `None` never expires.
    pub expires_at: Option<UnixTime>,
}

/// A relay (STUN and TURN server), one entry for each address family.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// Entries of one relay share the id.
    pub id: RelayId,
    /// Where it answers; it answers from exactly this address.
    pub addr: SocketAddr,
    /// Long-term credentials (RFC 8489, section 9.2); `None` for a STUN-only server.
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
    /// `<expiry>:<salt>`.
    pub username: String,
    /// Derived by the portal from the relay's secret.
    pub password: Zeroizing<String>,
}

/// What a (re)join delivers, and every later change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayInit {
    /// The gateway's own tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// All relays known to the portal at this time.
    pub relays: Vec<Relay>,
    /// All grants that are still valid. Grants the gateway holds beyond these are revoked.
    pub authorizations: Vec<AuthorizationEntry>,
}
