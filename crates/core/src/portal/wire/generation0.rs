//! The JSON of generation 0 on the gateway's channel, in both directions.
//!
//! Spoken by clients of 2024 and the portals that serve them, beside the messages that all
//! generations share. Source: docs/protocol.md 11.1.

use super::{IceCredentials, Resource};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The payload of `request_connection`, portal to gateway. Relays and the actor, which it also
/// carries, are not used: relays come with `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestConnection {
    /// Opaque; echoed in `connection_ready`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What.
    pub resource: Resource,
    /// Who.
    pub client: RequestingClient,
    /// UNIX seconds; absent or null never expires.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// The client in a request for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestingClient {
    /// UUID.
    pub id: String,
    /// What the portal knows of it.
    pub peer: RequestingPeer,
    /// What it says itself.
    pub payload: ClientPayload,
}

/// A client's WireGuard side. Its keepalive is not used: the client sends them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestingPeer {
    /// Base64, 32 bytes.
    pub public_key: String,
    /// Base64, 32 bytes; made by the client.
    pub preshared_key: String,
    /// Tunnel address.
    pub ipv4: Ipv4Addr,
    /// Tunnel address.
    pub ipv6: Ipv6Addr,
    /// Seconds.
    #[serde(default)]
    pub persistent_keepalive: Option<u64>,
}

impl fmt::Debug for RequestingPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RequestingPeer");
        shown.field("public_key", &self.public_key);
        shown.field("ipv4", &self.ipv4).field("ipv6", &self.ipv6);
        shown.finish_non_exhaustive()
    }
}

/// What a client tells a gateway through the portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPayload {
    /// The client's.
    pub ice_parameters: IceCredentials,
    /// The name that it wants to reach; null for anything but a DNS resource.
    #[serde(default)]
    pub domain: Option<Domain>,
}

/// A name, as a client announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Domain {
    /// Before 2024-06-24: the client has no addresses of its own for it.
    Name(String),
    /// Later: with the addresses under which the client will speak to it.
    Mapped {
        /// Without a trailing dot.
        name: String,
        /// Four of each family.
        proxy_ips: Vec<IpAddr>,
    },
}

/// The payload of `allow_access`, portal to gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowAccess {
    /// Opaque; echoed in `connection_ready`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// UUID.
    pub client_id: String,
    /// What.
    pub resource: Resource,
    /// UNIX seconds; absent or null never expires.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// The name that the client wants to reach.
    #[serde(default)]
    pub payload: Option<Domain>,
    /// Tunnel address, from August 2024 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ipv4: Option<Ipv4Addr>,
    /// Tunnel address, from August 2024 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ipv6: Option<Ipv6Addr>,
}

/// The payload of `connection_ready`, gateway to portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReady {
    /// As in the request.
    #[serde(rename = "ref")]
    pub reference: String,
    /// For the client.
    pub gateway_payload: GatewayResponse,
}

/// What a gateway tells a client through the portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayResponse {
    /// To `request_connection`.
    ConnectionAccepted {
        /// The gateway's.
        ice_parameters: IceCredentials,
        /// Null unless a name was announced.
        #[serde(default)]
        domain_response: Option<DomainResponse>,
    },
    /// To `allow_access` with a name.
    ResourceAccepted {
        /// About that name.
        domain_response: DomainResponse,
    },
}

/// What a gateway says about an announced name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainResponse {
    /// As announced.
    pub domain: String,
    /// Empty from this gateway: it answers first and resolves later (docs/lessons.md 1).
    pub address: Vec<IpAddr>,
}
