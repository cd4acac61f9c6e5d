//! The JSON of the portal's gateway channel, generations 1 and 2, in both directions.
//!
//! The only module that knows JSON. Both ends use these types (the gateway reads what the lab portal
//! writes), nothing else is shared between them. Unknown members are ignored; members that the
//! gateway can do without are optional. Source: protocol page, sections 1.4, 2.1 – 2.3.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};

/// One text frame: Phoenix serializer V1, a JSON object (never an array).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// `gateway`, `client`, `relay`, or `phoenix` for heartbeats.
    pub topic: String,
    /// What it is.
    pub event: String,
    /// Depends on the event.
    #[serde(default)]
    pub payload: Value,
    /// Counts the messages we send; echoed in replies; absent or null in pushes. Always written as an
    /// integer; a decimal string is tolerated when read.
    #[serde(rename = "ref", default, deserialize_with = "lenient_ref")]
    pub reference: Option<u64>,
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
    /// `ok` or `error`.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Relay {
    /// STUN only. Firezone's programs ignore these.
    Stun {
        /// Opaque.
        id: String,
        /// `ip:port`.
        addr: String,
    },
    /// STUN and TURN.
    Turn {
        /// Opaque.
        id: String,
        /// `ip:3478`.
        addr: String,
        /// `<expiry>:<salt>`.
        username: String,
        /// Long-term password.
        password: String,
        /// UNIX seconds.
        expires_at: u64,
    },
}

/// ICE credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// 4 characters.
    pub username: String,
    /// 22 characters.
    pub password: String,
}

/// A filter; a missing start means 0, a missing end 65535.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Filter {
    /// TCP to these ports.
    Tcp(PortRange),
    /// UDP to these ports.
    Udp(PortRange),
    /// ICMP.
    Icmp,
}

/// Both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    #[serde(default)]
    pub port_range_start: u16,
    /// Last port.
    #[serde(default = "last_port")]
    pub port_range_end: u16,
}

fn last_port() -> u16 {
    u16::MAX
}

/// A resource as a gateway is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Resource {
    /// A network or a host.
    Cidr {
        /// UUID.
        id: String,
        /// `network/prefix`.
        address: String,
        /// For people.
        #[serde(default)]
        name: String,
        /// Empty: everything.
        #[serde(default)]
        filters: Vec<Filter>,
    },
    /// A name or pattern.
    Dns {
        /// UUID.
        id: String,
        /// Name or pattern.
        address: String,
        /// For people.
        #[serde(default)]
        name: String,
        /// Empty: everything.
        #[serde(default)]
        filters: Vec<Filter>,
    },
    /// Everything that is not private.
    Internet {
        /// UUID.
        id: String,
    },
}

/// One grant in `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// UUID.
    pub client_id: String,
    /// UUID.
    pub resource_id: String,
    /// UNIX seconds; absent or null never expires.
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
    /// All relays.
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// For people.
    #[serde(default)]
    pub account_slug: Option<String>,
    /// All valid grants.
    #[serde(default)]
    pub authorizations: Vec<Authorization>,
    /// Required by Firezone's gateway from 1.6 on, unused here.
    #[serde(default)]
    pub flow_logs: Value,
}

/// The client in a grant. Device facts that the gateway does not use are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// UUID.
    pub id: String,
    /// Base64, 32 bytes.
    pub public_key: String,
    /// Base64, 32 bytes.
    pub preshared_key: String,
    /// Tunnel address.
    pub ipv4: Ipv4Addr,
    /// Tunnel address.
    pub ipv6: Ipv6Addr,
}

/// The payload of `create_authorization` (generation 2) and `authorize_flow` (generation 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateAuthorization {
    /// Opaque; echoed in the acknowledgement.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Who.
    pub client: Client,
    /// What.
    pub resource: Resource,
    /// Remote.
    pub client_ice_credentials: IceCredentials,
    /// Local.
    pub gateway_ice_credentials: IceCredentials,
    /// UNIX seconds; absent or null never expires.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// Never true for a gateway that did not announce the capability.
    #[serde(default)]
    pub use_iceless: bool,
    /// A JWT that the gateway does not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
    /// Who is behind the client; not used.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub subject: Value,
}

/// The payload of `ice_candidates` and `invalidate_ice_candidates` on the gateway channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCandidates {
    /// UUID.
    pub client_id: String,
    /// `candidate:…`.
    pub candidates: Vec<String>,
}

/// The payload of `reject_access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectAccess {
    /// UUID.
    pub client_id: String,
    /// UUID.
    pub resource_id: String,
}

/// The payload of `relays_presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaysPresence {
    /// Relay ids.
    #[serde(default)]
    pub disconnected_ids: Vec<String>,
    /// Entries.
    #[serde(default)]
    pub connected: Vec<Relay>,
}

/// The payload of `authorization_created` / `flow_authorized`, gateway to portal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCreated {
    /// As in the request.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// The payload of `broadcast_ice_candidates` and `broadcast_invalidated_ice_candidates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastCandidates {
    /// UUIDs; always exactly one from this gateway.
    pub client_ids: Vec<String>,
    /// `candidate:…`, highest priority first.
    pub candidates: Vec<String>,
}

/// The payload of `set_snownet_capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether the sender speaks the ICE-less path protocol.
    pub iceless: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_join_is_written_to_the_letter() {
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
    fn string_and_null_refs_are_tolerated() {
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
