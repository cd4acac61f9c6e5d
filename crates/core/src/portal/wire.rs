//! The JSON of the portal's gateway channel, in both directions.
//!
//! Contains the messages of generations 1 and 2 and those common to all; [`generation0`] has the
//! rest.
//!
//! The only module that handles JSON. Both ends use these types (the gateway reads messages that
//! the lab portal writes) and share nothing else. Unknown members are ignored; members that the
//! gateway does not need are optional. Source: docs/protocol.md 1.4, 2.1 – 2.3.

pub mod generation0;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A payload not yet read as the type of its event. Other modules only pass it on.
pub(super) type Payload = Value;

/// The topic of a gateway's channel.
pub(super) const GATEWAY_TOPIC: &str = "gateway";

/// The topic of heartbeats.
pub(super) const HEARTBEAT_TOPIC: &str = "phoenix";

/// One text frame: Phoenix serializer V1, a JSON object (never an array).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// `gateway`, `client`, `relay`, or `phoenix` for heartbeats.
    pub topic: String,
    /// Name of the message type.
    pub event: String,
    /// Content; its type depends on the event.
    #[serde(default)]
    pub payload: Value,
    /// Counts the gateway's messages; echoed in replies; absent or null in pushes. Always written
    /// as an integer; a decimal string is accepted when read.
    #[serde(rename = "ref", default, deserialize_with = "lenient_ref")]
    pub reference: Option<u64>,
}

impl Frame {
    /// Reads one text frame.
    ///
    /// # Errors
    ///
    /// The error in words, without quoting the portal's text.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| without_quotes(&error))
    }
}

/// Writes one text frame, its members and those of the payload in the order of their declaration.
///
/// # Panics
///
/// Never with the payloads of this module: plain structs of texts, numbers and lists serialise.
pub fn write_frame(topic: &str, event: &str, payload: &impl Serialize, reference: u64) -> String {
    #[derive(Serialize)]
    struct Written<'a, P> {
        topic: &'a str,
        event: &'a str,
        payload: &'a P,
        #[serde(rename = "ref")]
        reference: u64,
    }
    let frame = Written {
        topic,
        event,
        payload,
        reference,
    };
    serde_json::to_string(&frame).expect("structs of texts, numbers and lists serialise")
}

/// The payloads that a gateway sends.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum OutgoingPayload {
    /// The JSON value `null`.
    Null,
    /// The empty object, `{}`.
    Empty {},
    /// The gateway's capabilities.
    Capabilities(Capabilities),
    /// An acknowledgement of generations 1 and 2.
    Created(AuthorizationCreated),
    /// An acknowledgement of generation 0.
    Ready(generation0::ConnectionReady),
    /// Local candidates, new or no longer valid.
    Candidates(BroadcastCandidates),
}

/// Reads a payload as the object that its event requires.
///
/// # Errors
///
/// The error in words, without quoting the portal's text.
pub(super) fn read_payload<T: DeserializeOwned>(payload: Value) -> Result<T, String> {
    serde_json::from_value(payload).map_err(|error| without_quotes(&error))
}

/// Reads the payload of `phx_reply`: `Ok(Ok(()))`, or `Ok(Err(reason))` for an error reply, with
/// the reason `other` if it contains no readable one.
///
/// # Errors
///
/// If the payload is not that of a reply.
pub(super) fn read_reply(payload: Value) -> Result<Result<(), String>, String> {
    let reply: Reply = read_payload(payload)?;
    match reply.status.as_str() {
        "ok" => Ok(Ok(())),
        "error" => {
            let reason = serde_json::from_value::<Reason>(reply.response);
            Ok(Err(
                reason.map_or_else(|_| "other".to_owned(), |said| said.reason)
            ))
        }
        _ => Err("its status is neither ok nor error".to_owned()),
    }
}

/// Removes entries that cannot be read as `T` from the list `list`, so that one bad entry does not
/// cost the others, and returns their number. A list that is null counts as absent.
pub(super) fn drop_unreadable<T: DeserializeOwned>(payload: &mut Value, list: &str) -> usize {
    if payload.get(list).is_some_and(Value::is_null)
        && let Some(object) = payload.as_object_mut()
    {
        object.remove(list);
    }
    let Some(Value::Array(items)) = payload.get_mut(list) else {
        return 0;
    };
    let before = items.len();
    items.retain(|item| T::deserialize(item).is_ok());
    before - items.len()
}

/// The member `code` of a problem document (RFC 9457), if it is short and plain enough for a log.
pub(super) fn problem_code(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    let problem: Problem = serde_json::from_str(body.trim()).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (problem.code.len() <= 64 && problem.code.chars().all(plain)).then_some(problem.code)
}

/// A parser's error text without the values it quotes: those may be keys and passwords.
fn without_quotes(error: &serde_json::Error) -> String {
    let complaint = error.to_string();
    match (complaint.find('"'), complaint.rfind('"')) {
        (Some(start), Some(end)) if start < end => {
            format!("{}\"…{}", &complaint[..start], &complaint[end..])
        }
        (Some(start), _) => complaint[..start].to_owned(),
        (None, _) => complaint,
    }
}

fn lenient_ref<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(match value {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) => digits.parse().ok(),
        None | Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    })
}

/// The payload of `phx_reply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Outcome, `ok` or `error`.
    pub status: String,
    /// `{}` when ok; `{"reason": …}` on errors.
    #[serde(default)]
    pub response: Value,
}

/// The payload of `disconnect`, and of error responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `token_expired`, `unmatched topic`, `invalid_version`, `disabled`, …
    pub reason: String,
}

/// Tunnel addresses, without prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Inside 100.64.0.0/11.
    pub ipv4: Ipv4Addr,
    /// Inside fd00:2021:1111::/107.
    pub ipv6: Ipv6Addr,
}

/// A relay entry; one for each address family, with the same id.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Relay {
    /// STUN only. Firezone's programs ignore these.
    Stun {
        /// Opaque identifier of the relay.
        id: String,
        /// Socket address in the form `ip:port`.
        addr: String,
    },
    /// A STUN and TURN server.
    Turn {
        /// Opaque identifier of the relay.
        id: String,
        /// Socket address in the form `ip:3478`.
        addr: String,
        /// User name in the form `<expiry>:<salt>`.
        username: String,
        /// Long-term password (RFC 8489, 9.2).
        password: String,
        /// Expiry in seconds since 1970.
        expires_at: u64,
    },
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id, addr) = match self {
            Self::Stun { id, addr } => ("Stun", id, addr),
            Self::Turn { id, addr, .. } => ("Turn", id, addr),
        };
        let mut shown = f.debug_struct(kind);
        shown.field("id", id).field("addr", addr);
        shown.finish_non_exhaustive()
    }
}

/// ICE user name fragment and password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// User name fragment, 4 characters.
    pub username: String,
    /// Password, 22 characters.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IceCredentials");
        shown.field("username", &self.username);
        shown.finish_non_exhaustive()
    }
}

/// A permitted protocol; a missing start means 0, a missing end 65535.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Filter {
    /// TCP to a port in this range.
    Tcp(PortRange),
    /// UDP to a port in this range.
    Udp(PortRange),
    /// ICMP and ICMPv6 messages.
    Icmp,
}

/// A range of ports, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port; 0 if absent.
    #[serde(default)]
    pub port_range_start: u16,
    /// Last port; 65535 if absent.
    #[serde(default = "last_port")]
    pub port_range_end: u16,
}

fn last_port() -> u16 {
    u16::MAX
}

/// A resource in messages to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Resource {
    /// A network or a single host.
    Cidr {
        /// UUID of the resource.
        id: String,
        /// Network in the form `network/prefix`.
        address: String,
        /// Display name of the resource.
        #[serde(default)]
        name: String,
        /// Permitted protocols; empty permits everything.
        #[serde(default)]
        filters: Vec<Filter>,
    },
    /// A DNS name or a pattern of names.
    Dns {
        /// UUID of the resource.
        id: String,
        /// DNS name or pattern of names.
        address: String,
        /// Display name of the resource.
        #[serde(default)]
        name: String,
        /// Permitted protocols; empty permits everything.
        #[serde(default)]
        filters: Vec<Filter>,
    },
    /// All addresses that are not private.
    Internet {
        /// UUID of the resource.
        id: String,
    },
}

/// One of the grants in `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// UUID of the client, as text.
    pub client_id: String,
    /// UUID of the resource.
    pub resource_id: String,
    /// Expiry in seconds since 1970; absent or null never expires.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// The payload of `init` on the gateway channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// The gateway's tunnel addresses.
    pub interface: Interface,
    /// Values unused by gateways.
    #[serde(default)]
    pub config: Value,
    /// All available relays.
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// Display name of the account.
    #[serde(default)]
    pub account_slug: Option<String>,
    /// All valid grants of this gateway.
    #[serde(default)]
    pub authorizations: Vec<Authorization>,
    /// Required by Firezone's gateway from 1.6 on, unused here.
    #[serde(default)]
    pub flow_logs: Value,
}

/// The client in a grant. Device facts that the gateway does not use are omitted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedClient {
    /// UUID of the client, as text.
    pub id: String,
    /// WireGuard public key, base64 of 32 bytes.
    pub public_key: String,
    /// WireGuard preshared key, base64 of 32 bytes.
    pub preshared_key: String,
    /// IPv4 tunnel address of the client.
    pub ipv4: Ipv4Addr,
    /// IPv6 tunnel address of the client.
    pub ipv6: Ipv6Addr,
}

impl fmt::Debug for GrantedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GrantedClient");
        shown.field("id", &self.id);
        shown.field("public_key", &self.public_key);
        shown.field("ipv4", &self.ipv4).field("ipv6", &self.ipv6);
        shown.finish_non_exhaustive()
    }
}

/// The payload of `create_authorization` (generation 2) and `authorize_flow` (generation 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateAuthorization {
    /// Opaque reference, echoed in the acknowledgement.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The client that receives the grant.
    pub client: GrantedClient,
    /// The granted resource.
    pub resource: Resource,
    /// The client's ICE credentials.
    pub client_ice_credentials: IceCredentials,
    /// The gateway's ICE credentials.
    pub gateway_ice_credentials: IceCredentials,
    /// Expiry in seconds since 1970; absent or null never expires.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Never true for a gateway that did not announce the capability.
    #[serde(default)]
    pub use_iceless: bool,
    /// A JWT that the gateway does not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
    /// The person or service behind the client; not used.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub subject: Value,
}

/// The payload of `ice_candidates` and `invalidate_ice_candidates` on the gateway channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCandidates {
    /// UUID of the client, as text.
    pub client_id: String,
    /// Lines of the form `candidate:…`.
    pub candidates: Vec<String>,
}

/// The payload of `reject_access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectAccess {
    /// UUID of the client, as text.
    pub client_id: String,
    /// UUID of the resource.
    pub resource_id: String,
}

/// The payload of `relays_presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaysPresence {
    /// Ids of relays no longer available.
    #[serde(default)]
    pub disconnected_ids: Vec<String>,
    /// Relays that are available.
    #[serde(default)]
    pub connected: Vec<Relay>,
}

/// The payload of `authorization_created` / `flow_authorized`, gateway to portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCreated {
    /// The reference of the request.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// The payload of `broadcast_ice_candidates` and `broadcast_invalidated_ice_candidates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastCandidates {
    /// Client UUIDs; always exactly one from this gateway.
    pub client_ids: Vec<String>,
    /// Lines of the form `candidate:…`, highest priority first.
    pub candidates: Vec<String>,
}

/// The payload of `set_snownet_capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether the sender supports the ICE-less path protocol.
    pub iceless: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_join_has_the_exact_specified_form() {
        let frame = Frame {
            topic: "gateway".into(),
            event: "phx_join".into(),
            payload: Value::Null,
            reference: Some(0),
        };
        let written = serde_json::to_value(&frame).expect("serializable");
        assert_eq!(
            written,
            json!({"topic":"gateway","event":"phx_join","payload":null,"ref":0})
        );
    }

    #[test]
    fn frames_are_written_in_the_recorded_order_of_members() {
        let payload = BroadcastCandidates {
            client_ids: vec!["c".into()],
            candidates: vec!["candidate:1".into()],
        };
        assert_eq!(
            write_frame(GATEWAY_TOPIC, "broadcast_ice_candidates", &payload, 3),
            r#"{"topic":"gateway","event":"broadcast_ice_candidates","payload":{"client_ids":["c"],"candidates":["candidate:1"]},"ref":3}"#
        );
        assert_eq!(
            write_frame(HEARTBEAT_TOPIC, "heartbeat", &OutgoingPayload::Empty {}, 2),
            r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":2}"#
        );
    }

    #[test]
    fn secrets_are_never_printed() {
        let ice = json!({"username": "eokn", "password": "secret"});
        let client = json!({"id": "a", "public_key": "b", "preshared_key": "secret",
                            "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5"});
        let turn = json!({"type": "turn", "id": "a", "addr": "b", "username": "c",
                          "password": "secret", "expires_at": 1});
        let printed = [
            format!("{:?}", read_payload::<IceCredentials>(ice)),
            format!("{:?}", read_payload::<GrantedClient>(client.clone())),
            format!("{:?}", read_payload::<Relay>(turn)),
            format!("{:?}", read_payload::<generation0::RequestingPeer>(client)),
        ];
        for text in printed {
            assert!(
                text.starts_with("Ok(") && !text.contains("secret"),
                "{text}"
            );
        }
    }

    #[test]
    fn one_bad_entry_does_not_cost_the_others() {
        let mut payload =
            json!({"relays": [{"id":"a","type":"quic"}, {"id":"b","type":"stun","addr":"x"}]});
        assert_eq!(drop_unreadable::<Relay>(&mut payload, "relays"), 1);
        assert_eq!(payload["relays"].as_array().map(Vec::len), Some(1));
        let mut payload = json!({"relays": null});
        assert_eq!(drop_unreadable::<Relay>(&mut payload, "relays"), 0);
        assert_eq!(payload, json!({}));
        assert_eq!(drop_unreadable::<Relay>(&mut json!(7), "relays"), 0);
    }

    #[test]
    fn error_texts_do_not_quote_possible_secrets() {
        let payload = json!({"client_id": "c", "candidates": "top secret \" quoted"});
        let complaint = read_payload::<ClientCandidates>(payload).unwrap_err();
        assert!(complaint.contains("invalid type"), "{complaint}");
        assert!(!complaint.contains("secret") && !complaint.contains("quoted"));
    }

    #[test]
    fn a_problem_code_is_taken_only_if_short_and_plain() {
        let code = |body: &str| problem_code(body);
        assert_eq!(
            code(r#" {"type":"about:blank","status":401,"code":"invalid_token"} "#).as_deref(),
            Some("invalid_token")
        );
        for body in ["", "<html>", r#"{"code":7}"#, r#"{"code":"a\nb"}"#] {
            assert_eq!(code(body), None, "{body}");
        }
    }

    #[test]
    fn string_and_null_references_are_accepted() {
        let read = |text: &str| {
            serde_json::from_str::<Frame>(text)
                .expect("parses")
                .reference
        };
        assert_eq!(
            read(r#"{"topic":"a","event":"b","payload":{},"ref":"7"}"#),
            Some(7)
        );
        assert_eq!(
            read(r#"{"topic":"a","event":"b","payload":{},"ref":null}"#),
            None
        );
        assert_eq!(read(r#"{"topic":"a","event":"b"}"#), None);
    }

    #[test]
    fn a_filter_without_ports_means_all_ports() {
        let filter: Filter = serde_json::from_value(json!({"protocol":"tcp"})).expect("parses");
        let all = PortRange {
            port_range_start: 0,
            port_range_end: 65535,
        };
        assert_eq!(filter, Filter::Tcp(all));
    }
}
