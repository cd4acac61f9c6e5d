//! The JSON of the client channel, as a portal writes and reads it.
//!
//! Members that clients insist on are never optional here. Key for key as in the recorded session;
//! source: docs/protocol.md 2.4 and 2.5.

use postern_core::portal::wire::generation0::{ClientPayload, Domain, GatewayResponse};
use postern_core::portal::wire::{Filter, IceCredentials, Relay};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The payload of `init` on the client channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientInit {
    /// Tunnel addresses and resolvers.
    pub interface: ClientInterface,
    /// All that the client may ask for.
    pub resources: Vec<ClientResource>,
    /// All relays.
    pub relays: Vec<Relay>,
    /// Only for access between clients: always empty here.
    pub authorizations: Vec<Value>,
    /// Generation 2 clients refuse an `init` without it.
    pub flow_logs: FlowLogs,
}

/// The client's interface; also the member of `config_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInterface {
    /// Inside 100.64.0.0/11.
    pub ipv4: Ipv4Addr,
    /// Inside fd00:2021:1111::/107.
    pub ipv6: Ipv6Addr,
    /// What clients before `upstream_do53` read.
    pub upstream_dns: Vec<UpstreamDns>,
    /// Resolvers for names that are no resource.
    pub upstream_do53: Vec<UpstreamDo53>,
    /// DNS over HTTPS: always empty here.
    pub upstream_doh: Vec<Value>,
    /// Appended to single-label names.
    pub search_domain: Option<String>,
}

/// A resolver as older clients read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamDns {
    /// Always `ip_port`.
    pub protocol: String,
    /// `ip:port`.
    pub address: String,
}

/// A resolver on port 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamDo53 {
    /// Its address.
    pub ip: IpAddr,
}

/// Where flow logs go: nowhere, interval 0 switches them off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLogs {
    /// A URL that must parse.
    pub api_url: String,
    /// 0 is off.
    pub upload_interval_secs: u64,
    /// 0 is the default of 1000.
    pub upload_batch_size: u64,
}

impl FlowLogs {
    /// Flow logs switched off. The URL is never called.
    #[must_use]
    pub fn off() -> Self {
        Self {
            api_url: "http://127.0.0.1:1".to_owned(),
            upload_interval_secs: 0,
            upload_batch_size: 0,
        }
    }
}

/// A site, by both of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteEntry {
    /// UUID.
    pub id: String,
    /// For people.
    pub name: String,
}

/// The sites of a resource, under the one key that the client knows: with both keys present a
/// client silently drops the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sites {
    /// Since January 2026.
    Sites(Vec<SiteEntry>),
    /// Before.
    GatewayGroups(Vec<SiteEntry>),
}

/// A resource as a client is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientResource {
    /// A network or a host.
    Cidr {
        /// UUID.
        id: String,
        /// For people.
        name: String,
        /// `network/prefix`.
        address: String,
        /// For people.
        address_description: Option<String>,
        /// Exactly one key.
        #[serde(flatten)]
        sites: Sites,
        /// Enforced by the client too.
        filters: Vec<Filter>,
    },
    /// A name or pattern.
    Dns {
        /// UUID.
        id: String,
        /// For people.
        name: String,
        /// Name or pattern.
        address: String,
        /// For people.
        address_description: Option<String>,
        /// Exactly one key.
        #[serde(flatten)]
        sites: Sites,
        /// Enforced by the client too.
        filters: Vec<Filter>,
        /// Always `dual` here.
        ip_stack: String,
    },
    /// Everything that is not private.
    Internet {
        /// UUID.
        id: String,
        /// For people.
        name: String,
        /// Exactly one key.
        #[serde(flatten)]
        sites: Sites,
        /// Always true here.
        can_be_disabled: bool,
    },
}

/// The id of a grant's site, under the key that the client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantSite {
    /// Since January 2026.
    SiteId(String),
    /// Before.
    GatewayGroupId(String),
}

/// The payload of `authorization_created` (generation 2) and `flow_created` (generation 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientGrant {
    /// What the client asked for.
    pub resource_id: String,
    /// Who serves it.
    pub gateway_id: String,
    /// Base64, 32 bytes.
    pub gateway_public_key: String,
    /// The gateway's own tunnel address.
    pub gateway_ipv4: Ipv4Addr,
    /// The gateway's own tunnel address.
    pub gateway_ipv6: Ipv6Addr,
    /// Exactly one key.
    #[serde(flatten)]
    pub site: GrantSite,
    /// Base64, 32 bytes.
    pub preshared_key: String,
    /// Local.
    pub client_ice_credentials: IceCredentials,
    /// Remote.
    pub gateway_ice_credentials: IceCredentials,
    /// Always false here.
    pub use_iceless: bool,
    /// Generation 2 clients refuse a grant without it; generation 1 never had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
}

/// The payload of `authorization_creation_failed` and `flow_creation_failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRefusal {
    /// What the client asked for, as it wrote it.
    pub resource_id: String,
    /// `not_found`, `forbidden` or `offline`.
    pub reason: String,
    /// Always empty here.
    pub violated_properties: Vec<Value>,
}

/// The payload of `request_authorization` and `create_flow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAuthorization {
    /// UUID.
    pub resource_id: String,
    /// Ordered by the client's preference.
    #[serde(default)]
    pub connected_gateway_ids: Vec<String>,
}

/// The payload of `prepare_connection` (generation 0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareConnection {
    /// UUID.
    pub resource_id: String,
    /// Ordered by the client's preference.
    #[serde(default)]
    pub connected_gateway_ids: Vec<String>,
}

/// The response to it: whom to ask next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPrepared {
    /// As asked.
    pub resource_id: String,
    /// The gateway that is to serve it.
    pub gateway_id: String,
    /// Exactly one key.
    #[serde(flatten)]
    pub site: GrantSite,
    /// Where its websocket comes from.
    pub gateway_remote_ip: IpAddr,
}

/// The payload of `request_connection` (generation 0): this client sets up a transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestConnection {
    /// UUID.
    pub gateway_id: String,
    /// UUID.
    pub resource_id: String,
    /// Base64, 32 bytes; made by the client.
    pub client_preshared_key: String,
    /// For the gateway.
    pub client_payload: ClientPayload,
}

/// The payload of `reuse_connection` (generation 0): there is a transport already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseConnection {
    /// UUID.
    pub resource_id: String,
    /// UUID.
    pub gateway_id: String,
    /// For the gateway.
    #[serde(default)]
    pub payload: Option<Domain>,
}

/// The response to either, once the gateway has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReply {
    /// As asked.
    pub resource_id: String,
    /// Seconds.
    pub persistent_keepalive: u64,
    /// Base64, 32 bytes.
    pub gateway_public_key: String,
    /// As the gateway wrote it.
    pub gateway_payload: GatewayResponse,
}

/// Candidates for one gateway (`new_gateway_ice_candidates`) or, before headless 1.5.7, for several
/// (`broadcast_ice_candidates`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CandidatesForGateways {
    /// Today's form.
    One {
        /// UUID.
        gateway_id: String,
        /// `candidate:…`.
        candidates: Vec<String>,
    },
    /// The older form.
    Several {
        /// UUIDs.
        gateway_ids: Vec<String>,
        /// `candidate:…`.
        candidates: Vec<String>,
    },
}

/// The payload of `ice_candidates` and `invalidate_ice_candidates` on the client channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCandidates {
    /// UUID.
    pub gateway_id: String,
    /// `candidate:…`.
    pub candidates: Vec<String>,
}

/// The payload of `config_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanged {
    /// The interface as it is from this moment on.
    pub interface: ClientInterface,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_carries_exactly_one_of_sites_and_gateway_groups() {
        let resource = |sites| ClientResource::Internet {
            id: "i".to_owned(),
            name: "n".to_owned(),
            sites,
            can_be_disabled: true,
        };
        let new = serde_json::to_value(resource(Sites::Sites(vec![]))).expect("serializes");
        assert_eq!(
            new,
            json!({"type":"internet","id":"i","name":"n","sites":[],"can_be_disabled":true})
        );
        let old = serde_json::to_value(resource(Sites::GatewayGroups(vec![])));
        assert_eq!(old.expect("serializes")["gateway_groups"], json!([]));
    }

    #[test]
    fn both_forms_of_candidates_are_read() {
        let read = |value| serde_json::from_value::<CandidatesForGateways>(value);
        let one = read(json!({"gateway_id":"g","candidates":["candidate:1"]}));
        assert!(matches!(one, Ok(CandidatesForGateways::One { .. })));
        let several = read(json!({"gateway_ids":["g"],"candidates":[]}));
        assert!(matches!(several, Ok(CandidatesForGateways::Several { .. })));
        assert!(read(json!({"candidates":[]})).is_err());
    }
}
