//! The JSON of the portal's client channel, as a client sees it.
//!
//! Has the messages of generations 1 and 2 and those that all generations share; [`generation0`]
//! has the rest. Follows docs/protocol.md alone and shares no type with the gateway or the lab
//! portal, so that an error there does not recur here. Ignores unknown members. Refuses what an
//! unmodified client refuses: references that are not integers, and resources with both `sites`
//! and `gateway_groups`. Source: docs/protocol.md 1.4, 1.5, 2.1, 2.4 and 2.5.

pub mod generation0;

pub use super::vocabulary::{GatewayId, IceCredentials, Key, ResourceId, TunnelAddresses};

use anyhow::Context as _;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The generation decides the names of the messages and the path of the websocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// `prepare_connection` and its successors, on the path of V1.
    V0,
    /// `create_flow` and `flow_created`, on `/client/websocket`.
    V1,
    /// `request_authorization` and `authorization_created`, on `/client/v2/websocket`.
    #[default]
    V2,
}

/// One permitted protocol; an empty list permits everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
pub enum Filter {
    Tcp(PortRange),
    Udp(PortRange),
    /// ICMP and ICMPv6 of any type.
    Icmp,
}

/// Both ends are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct PortRange {
    #[serde(default)]
    pub port_range_start: u16,
    #[serde(default = "last_port")]
    pub port_range_end: u16,
}

fn last_port() -> u16 {
    u16::MAX
}

/// A resource that this client may request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawResource")]
pub struct Resource {
    pub id: ResourceId,
    pub kind: ResourceKind,
    /// The traffic that the gateway permits.
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Cidr(IpNet),
    /// A name or a pattern of names.
    Dns(String),
    /// A kind that this client does not use (Internet, device pools, later inventions).
    Other,
}

#[derive(Deserialize)]
struct RawResource {
    #[serde(rename = "type")]
    kind: String,
    id: ResourceId,
    address: Option<String>,
    /// A resource with both spellings is a duplicate field, which drops the resource.
    #[serde(alias = "gateway_groups")]
    sites: Option<Vec<Value>>,
    #[serde(default)]
    filters: Vec<Filter>,
}

impl TryFrom<RawResource> for Resource {
    type Error = String;

    fn try_from(raw: RawResource) -> Result<Self, String> {
        let address = raw.address.ok_or("missing field `address`");
        let kind = match raw.kind.as_str() {
            "cidr" => {
                let net = address?.parse();
                ResourceKind::Cidr(net.map_err(|error: ipnet::AddrParseError| error.to_string())?)
            }
            "dns" => ResourceKind::Dns(address?),
            _ => ResourceKind::Other,
        };
        if kind != ResourceKind::Other && raw.sites.is_none() {
            return Err("missing field `sites`".into());
        }
        Ok(Self {
            id: raw.id,
            kind,
            filters: raw.filters,
        })
    }
}

/// A relay entry. This client uses relays as STUN servers only, which both kinds are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Relay {
    pub id: String,
    pub addr: SocketAddr,
}

/// The first push after each join.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Init {
    pub interface: TunnelAddresses,
    /// All resources that this client may request, without malformed ones.
    #[serde(default, deserialize_with = "each_that_parses")]
    pub resources: Vec<Resource>,
    #[serde(default, deserialize_with = "each_that_parses")]
    pub relays: Vec<Relay>,
}

/// The portal grants a resource through a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorizationCreated {
    pub resource_id: ResourceId,
    pub gateway_id: GatewayId,
    /// The gateway's WireGuard key.
    pub gateway_public_key: Key,
    pub gateway_ipv4: Ipv4Addr,
    pub gateway_ipv6: Ipv6Addr,
    pub preshared_key: Key,
    pub client_ice_credentials: IceCredentials,
    pub gateway_ice_credentials: IceCredentials,
    /// Never true for a client that did not announce the capability.
    #[serde(default)]
    pub use_iceless: bool,
}

/// A gateway's candidates, new or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayCandidates {
    pub gateway_id: GatewayId,
    /// Strings that begin with `candidate:`.
    pub candidates: Vec<String>,
}

/// The portal refuses a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorizationFailed {
    pub resource_id: ResourceId,
    /// `offline`, `forbidden`, `not_found`, …
    pub reason: String,
}

/// Changes of the list of relays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RelaysPresence {
    #[serde(default)]
    pub disconnected_ids: Vec<String>,
    /// New relays and unchanged ones.
    #[serde(default, deserialize_with = "each_that_parses")]
    pub connected: Vec<Relay>,
}

/// A message that the portal sends unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    Init(Init),
    /// This client has new tunnel addresses.
    ConfigChanged(TunnelAddresses),
    AuthorizationCreated(Box<AuthorizationCreated>),
    AuthorizationFailed(AuthorizationFailed),
    Candidates(GatewayCandidates),
    CandidatesInvalidated(GatewayCandidates),
    ResourceUpserted(Resource),
    ResourceDeleted(ResourceId),
    RelaysPresence(RelaysPresence),
    /// The client must stop for good.
    Disconnect(String),
}

/// One frame from the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to the client's message with this reference: its response, always an object, or
    /// the reason of an error.
    Reply {
        reference: u64,
        outcome: Result<Value, String>,
    },
    Push(Push),
    /// The portal closed the channel and expects the client to join again.
    Closed,
    /// A frame that this client does not use, with its name.
    Ignored(String),
}

#[derive(Deserialize)]
struct Frame {
    event: String,
    #[serde(default)]
    payload: Value,
    #[serde(rename = "ref")]
    reference: Option<u64>,
}

/// Reads one text frame.
///
/// # Errors
/// For text that is no Phoenix V1 frame, and for a known event with a payload of another shape.
pub fn read(text: &str) -> anyhow::Result<Incoming> {
    let frame: Frame = serde_json::from_str(text).context("not a frame")?;
    let event = frame.event.clone();
    read_frame(frame).with_context(|| format!("payload of {event}"))
}

fn read_frame(frame: Frame) -> serde_json::Result<Incoming> {
    let payload = frame.payload;
    Ok(Incoming::Push(match frame.event.as_str() {
        "phx_reply" => return read_reply(frame.reference, payload),
        "phx_close" => return Ok(Incoming::Closed),
        "init" => Push::Init(Init::deserialize(payload)?),
        "config_changed" => {
            Push::ConfigChanged(TunnelAddresses::deserialize(&payload["interface"])?)
        }
        "authorization_created" | "flow_created" => {
            Push::AuthorizationCreated(Box::deserialize(payload)?)
        }
        "authorization_creation_failed" | "flow_creation_failed" => {
            Push::AuthorizationFailed(AuthorizationFailed::deserialize(payload)?)
        }
        "ice_candidates" | "gateway_ice_candidates" => {
            Push::Candidates(GatewayCandidates::deserialize(payload)?)
        }
        "invalidate_ice_candidates" | "invalidate_gateway_ice_candidates" => {
            Push::CandidatesInvalidated(GatewayCandidates::deserialize(payload)?)
        }
        "resource_created_or_updated" => Push::ResourceUpserted(Resource::deserialize(payload)?),
        "resource_deleted" => Push::ResourceDeleted(ResourceId::deserialize(payload)?),
        "relays_presence" => Push::RelaysPresence(RelaysPresence::deserialize(payload)?),
        "disconnect" => Push::Disconnect(String::deserialize(&payload["reason"])?),
        _ => return Ok(Incoming::Ignored(frame.event)),
    }))
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    response: Value,
}

/// A reply without an integer reference answers no message. An `ok` must carry an object: real
/// clients ignore a `null` and time out.
fn read_reply(reference: Option<u64>, payload: Value) -> serde_json::Result<Incoming> {
    let reply = Reply::deserialize(payload)?;
    let Some(reference) = reference else {
        return Ok(Incoming::Ignored("phx_reply without a reference".into()));
    };
    let outcome = match reply.status.as_str() {
        "ok" if reply.response.is_object() => Ok(reply.response),
        "ok" => return Ok(Incoming::Ignored("phx_reply without a response".into())),
        status => Err(reply.response["reason"]
            .as_str()
            .unwrap_or(status)
            .to_owned()),
    };
    Ok(Incoming::Reply { reference, outcome })
}

/// A message to the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    Join,
    Heartbeat,
    /// Generation 2: this client speaks plain ICE only.
    Capabilities,
    RequestAuthorization {
        resource_id: ResourceId,
        /// Gateways with a connection, in order of preference.
        connected_gateway_ids: Vec<GatewayId>,
    },
    /// One step of a request in generation 0.
    Ask(generation0::Question),
    /// The client's new candidates for a gateway.
    NewCandidates {
        gateway_id: GatewayId,
        /// Strings that begin with `candidate:`.
        candidates: Vec<String>,
    },
}

impl Outgoing {
    /// Writes the frame with the client's running `reference`.
    pub fn write(&self, generation: Generation, reference: u64) -> String {
        let (event, payload) = match self {
            Self::Join => ("phx_join", Value::Null),
            Self::Heartbeat => ("heartbeat", json!({})),
            Self::Capabilities => ("set_snownet_capabilities", json!({"iceless": false})),
            Self::RequestAuthorization {
                resource_id,
                connected_gateway_ids,
            } => (
                match generation {
                    Generation::V0 | Generation::V1 => "create_flow",
                    Generation::V2 => "request_authorization",
                },
                json!({
                    "resource_id": resource_id,
                    "connected_gateway_ids": connected_gateway_ids,
                }),
            ),
            Self::Ask(question) => (question.event(), json!(question)),
            Self::NewCandidates {
                gateway_id,
                candidates,
            } => match generation {
                Generation::V0 => (
                    "broadcast_ice_candidates",
                    json!({"gateway_ids": [gateway_id], "candidates": candidates}),
                ),
                Generation::V1 | Generation::V2 => (
                    "new_gateway_ice_candidates",
                    json!({"gateway_id": gateway_id, "candidates": candidates}),
                ),
            },
        };
        let topic = match event {
            "heartbeat" => "phoenix",
            _ => "client",
        };
        json!({"topic": topic, "event": event, "payload": payload, "ref": reference}).to_string()
    }
}

/// Skips malformed elements instead of refusing the whole list.
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
