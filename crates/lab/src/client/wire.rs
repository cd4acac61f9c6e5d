//! The JSON of the portal's client channel, as a client sees it.
//!
//! Here is what generations 1 and 2 say and what all say; [`generation0`] has the rest.
//!
//! Written from docs/protocol.md alone; shares no type with the gateway or the lab portal, so that
//! an error there is not mirrored here. Unknown members are ignored. It refuses what an unmodified
//! client refuses: references that are not integers, and resources with both `sites` and
//! `gateway_groups`. Source: docs/protocol.md 1.4, 1.5, 2.1, 2.4 and 2.5.

pub mod generation0;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use uuid::Uuid;

/// Which names the messages have, and which path the websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// `prepare_connection` and what follows it, on the path of V1.
    V0,
    /// `create_flow` and `flow_created`, on `/client/websocket`.
    V1,
    /// `request_authorization` and `authorization_created`, on `/client/v2/websocket`.
    V2,
}

/// A gateway, as the portal names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayId(pub Uuid);

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A resource, as the portal names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(pub Uuid);

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 32-byte key, base64 on the wire. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(serde::de::Error::custom)?;
        let bytes = <[u8; 32]>::try_from(bytes)
            .map_err(|_| serde::de::Error::custom("a key has 32 bytes"))?;
        Ok(Self(bytes))
    }
}

/// ICE user name fragment and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct IceCredentials {
    /// 4 characters.
    pub username: String,
    /// 22 characters.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({})", self.username)
    }
}

/// Our tunnel addresses. Resolvers come with DNS resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Without prefix.
    pub ipv4: Ipv4Addr,
    /// Without prefix.
    pub ipv6: Ipv6Addr,
}

/// One permitted protocol; an empty list permits everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Filter {
    /// TCP to these ports.
    Tcp(PortRange),
    /// UDP to these ports.
    Udp(PortRange),
    /// ICMP and ICMPv6.
    Icmp,
}

/// Both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct PortRange {
    /// Missing means 0.
    #[serde(default)]
    pub port_range_start: u16,
    /// Missing means 65535.
    #[serde(default = "last_port")]
    pub port_range_end: u16,
}

fn last_port() -> u16 {
    u16::MAX
}

/// A resource that we may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub id: ResourceId,
    /// For people.
    pub name: String,
    /// What it is.
    pub kind: ResourceKind,
    /// What the gateway will let through.
    pub filters: Vec<Filter>,
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A network or a host.
    Cidr(IpNet),
    /// A name or pattern.
    Dns(String),
    /// Everything that is not private.
    Internet,
    /// Something of which this client makes no use (device pools, later inventions).
    Other,
}

#[derive(Deserialize)]
struct RawResource {
    #[serde(rename = "type")]
    kind: String,
    id: ResourceId,
    #[serde(default)]
    name: String,
    #[serde(default)]
    address: Option<String>,
    /// A resource with both spellings is a duplicate field, which drops the resource.
    #[serde(default, alias = "gateway_groups")]
    sites: Option<Vec<Value>>,
    #[serde(default)]
    filters: Vec<Filter>,
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawResource::deserialize(deserializer)?;
        let missing = serde::de::Error::missing_field;
        let kind = match raw.kind.as_str() {
            "cidr" => {
                let address = raw.address.ok_or_else(|| missing("address"))?;
                ResourceKind::Cidr(address.parse().map_err(serde::de::Error::custom)?)
            }
            "dns" => ResourceKind::Dns(raw.address.ok_or_else(|| missing("address"))?),
            "internet" => ResourceKind::Internet,
            _ => ResourceKind::Other,
        };
        if kind != ResourceKind::Other && raw.sites.is_none() {
            return Err(missing("sites"));
        }
        Ok(Self {
            id: raw.id,
            name: raw.name,
            kind,
            filters: raw.filters,
        })
    }
}

/// A relay entry. We only need a STUN server, which both kinds are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Relay {
    /// Opaque.
    pub id: String,
    /// Where it answers.
    pub addr: SocketAddr,
}

/// What a join delivers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Init {
    /// Our addresses.
    pub interface: Interface,
    /// Everything that we may ask for; malformed ones are left out.
    #[serde(default, deserialize_with = "each_that_parses")]
    pub resources: Vec<Resource>,
    /// Servers for our server-reflexive addresses.
    #[serde(default, deserialize_with = "each_that_parses")]
    pub relays: Vec<Relay>,
}

/// The portal grants a resource through a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorizationCreated {
    /// What.
    pub resource_id: ResourceId,
    /// Through whom.
    pub gateway_id: GatewayId,
    /// Its WireGuard key.
    pub gateway_public_key: Key,
    /// Its tunnel address.
    pub gateway_ipv4: Ipv4Addr,
    /// Its tunnel address.
    pub gateway_ipv6: Ipv6Addr,
    /// Shared by us and it.
    pub preshared_key: Key,
    /// Ours.
    pub client_ice_credentials: IceCredentials,
    /// Its.
    pub gateway_ice_credentials: IceCredentials,
    /// Never true for a client that did not announce the capability.
    #[serde(default)]
    pub use_iceless: bool,
}

/// A gateway's candidates, new or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayCandidates {
    /// Whose.
    pub gateway_id: GatewayId,
    /// `candidate:…`.
    pub candidates: Vec<String>,
}

/// The portal refuses a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorizationFailed {
    /// What.
    pub resource_id: ResourceId,
    /// `offline`, `forbidden`, `not_found`, …
    pub reason: String,
}

/// Relays came or went.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RelaysPresence {
    /// Gone.
    #[serde(default)]
    pub disconnected_ids: Vec<String>,
    /// New or still there.
    #[serde(default, deserialize_with = "each_that_parses")]
    pub connected: Vec<Relay>,
}

/// What the portal tells us unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Everything, after each join.
    Init(Init),
    /// Our addresses changed.
    ConfigChanged(Interface),
    /// Granted.
    AuthorizationCreated(Box<AuthorizationCreated>),
    /// Refused.
    AuthorizationFailed(AuthorizationFailed),
    /// A gateway's new candidates.
    Candidates(GatewayCandidates),
    /// Candidates that a gateway withdrew.
    CandidatesInvalidated(GatewayCandidates),
    /// A resource is new or changed.
    ResourceUpserted(Resource),
    /// A resource is gone.
    ResourceDeleted(ResourceId),
    /// Relays came or went.
    RelaysPresence(RelaysPresence),
    /// We are to stop for good.
    Disconnect(String),
}

/// One frame from the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to our message with this reference; the reason when it is an error.
    Reply {
        /// Ours.
        reference: u64,
        /// The response, always an object. Error replies carry a reason.
        outcome: Result<Value, String>,
    },
    /// Told unasked.
    Push(Push),
    /// The channel closed; the portal wants us to come again.
    Closed,
    /// Something that is no concern of ours.
    Ignored(String),
}

/// A frame that cannot be understood. The connection is kept.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not a Phoenix V1 frame.
    #[error("not a frame: {0}")]
    Frame(#[source] serde_json::Error),
    /// A known event with a payload of another shape.
    #[error("payload of {event}: {error}")]
    Payload {
        /// Which.
        event: String,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Frame {
    event: String,
    #[serde(default)]
    payload: Value,
    #[serde(default, rename = "ref")]
    reference: Option<u64>,
}

/// Reads one text frame.
///
/// # Errors
/// [`WireError`] when it is no frame or a known event is malformed.
pub fn read(text: &str) -> Result<Incoming, WireError> {
    let frame: Frame = serde_json::from_str(text).map_err(WireError::Frame)?;
    let Frame { event, payload, .. } = frame;
    let push = match event.as_str() {
        "phx_reply" => return read_reply(frame.reference, payload),
        "phx_close" => return Ok(Incoming::Closed),
        "init" => Push::Init(body(&event, payload)?),
        "config_changed" => {
            let changed: ConfigChanged = body(&event, payload)?;
            Push::ConfigChanged(changed.interface)
        }
        "authorization_created" | "flow_created" => {
            Push::AuthorizationCreated(body(&event, payload)?)
        }
        "authorization_creation_failed" | "flow_creation_failed" => {
            Push::AuthorizationFailed(body(&event, payload)?)
        }
        "ice_candidates" | "gateway_ice_candidates" => Push::Candidates(body(&event, payload)?),
        "invalidate_ice_candidates" | "invalidate_gateway_ice_candidates" => {
            Push::CandidatesInvalidated(body(&event, payload)?)
        }
        "resource_created_or_updated" => Push::ResourceUpserted(body(&event, payload)?),
        "resource_deleted" => Push::ResourceDeleted(body(&event, payload)?),
        "relays_presence" => Push::RelaysPresence(body(&event, payload)?),
        "disconnect" => {
            let disconnect: Reason = body(&event, payload)?;
            Push::Disconnect(disconnect.reason)
        }
        _ => return Ok(Incoming::Ignored(event)),
    };
    Ok(Incoming::Push(push))
}

fn body<T: for<'de> Deserialize<'de>>(event: &str, payload: Value) -> Result<T, WireError> {
    serde_json::from_value(payload).map_err(|error| WireError::Payload {
        event: event.to_owned(),
        error,
    })
}

#[derive(Deserialize)]
struct ConfigChanged {
    interface: Interface,
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    response: Value,
}

/// A reply without our integer reference answers nothing. An `ok` must carry an object: real
/// clients swallow a `null` and time out.
fn read_reply(reference: Option<u64>, payload: Value) -> Result<Incoming, WireError> {
    let reply: Reply = body("phx_reply", payload)?;
    let Some(reference) = reference else {
        return Ok(Incoming::Ignored("phx_reply without a reference".into()));
    };
    let outcome = match reply.status.as_str() {
        "ok" if reply.response.is_object() => Ok(reply.response),
        "ok" => return Ok(Incoming::Ignored("phx_reply without a response".into())),
        status => Err(reply
            .response
            .get("reason")
            .and_then(Value::as_str)
            .unwrap_or(status)
            .to_owned()),
    };
    Ok(Incoming::Reply { reference, outcome })
}

/// What we tell the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Enter the channel.
    Join,
    /// We are alive.
    Heartbeat,
    /// We speak plain ICE only. Generation 2.
    Capabilities,
    /// We want a resource.
    RequestAuthorization {
        /// Which.
        resource_id: ResourceId,
        /// Gateways we have already, in order of preference.
        connected_gateway_ids: Vec<GatewayId>,
    },
    /// We want a resource, step by step. Generation 0.
    Ask(generation0::Question),
    /// Our new candidates for a gateway.
    NewCandidates {
        /// For whom.
        gateway_id: GatewayId,
        /// `candidate:…`.
        candidates: Vec<String>,
    },
}

impl Outgoing {
    /// Writes the frame with our running `reference`.
    #[must_use]
    pub fn write(&self, generation: Generation, reference: u64) -> String {
        let (topic, event, payload) = match self {
            Self::Join => ("client", "phx_join", Value::Null),
            Self::Heartbeat => ("phoenix", "heartbeat", json!({})),
            Self::Capabilities => (
                "client",
                "set_snownet_capabilities",
                json!({"iceless": false}),
            ),
            Self::RequestAuthorization {
                resource_id,
                connected_gateway_ids,
            } => (
                "client",
                match generation {
                    Generation::V0 | Generation::V1 => "create_flow",
                    Generation::V2 => "request_authorization",
                },
                json!({
                    "resource_id": resource_id,
                    "connected_gateway_ids": connected_gateway_ids,
                }),
            ),
            Self::Ask(question) => ("client", question.event(), question.payload()),
            Self::NewCandidates {
                gateway_id,
                candidates,
            } if generation == Generation::V0 => (
                "client",
                "broadcast_ice_candidates",
                json!({"gateway_ids": [gateway_id], "candidates": candidates}),
            ),
            Self::NewCandidates {
                gateway_id,
                candidates,
            } => (
                "client",
                "new_gateway_ice_candidates",
                json!({"gateway_id": gateway_id, "candidates": candidates}),
            ),
        };
        json!({"topic": topic, "event": event, "payload": payload, "ref": reference}).to_string()
    }
}

/// One bad element must not cost the whole list.
fn each_that_parses<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: for<'any> Deserialize<'any>,
{
    let values = Vec::<Value>::deserialize(deserializer)?;
    let parsed = values.into_iter().filter_map(|value| {
        T::deserialize(value)
            .inspect_err(|error| tracing::warn!(%error, "skipping a malformed list element"))
            .ok()
    });
    Ok(parsed.collect())
}

#[cfg(test)]
mod tests;
