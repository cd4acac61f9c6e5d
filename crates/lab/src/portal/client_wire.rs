//! The JSON of the client channel, as a portal writes and reads it.
//!
//! Members that clients insist on are never optional here. Key for key as in the recorded session;
//! source: docs/protocol.md 2.4, 2.5 and 11.1. Identifiers are UUIDs, keys are base64 of 32 bytes,
//! candidates are SDP attributes (`candidate:…`).

use postern_core::portal::wire::generation0::{ClientPayload, Domain, GatewayResponse};
use postern_core::portal::wire::{Filter, IceCredentials, Relay};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The payload of `init` on the client channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientInit {
    pub interface: ClientInterface,
    /// All resources that the client may ask for.
    pub resources: Vec<ClientResource>,
    pub relays: Vec<Relay>,
    /// Only for access between clients: always empty here.
    pub authorizations: Vec<Value>,
    /// Generation 2 clients refuse an `init` without it.
    pub flow_logs: FlowLogs,
}

/// The client's interface; also the member of `config_changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientInterface {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
    /// The list that clients before `upstream_do53` read.
    pub upstream_dns: Vec<UpstreamDns>,
    /// Resolvers for names outside all resources.
    pub upstream_do53: Vec<UpstreamDo53>,
    /// DNS over HTTPS: always empty here.
    pub upstream_doh: Vec<Value>,
    /// Appended to single-label names.
    pub search_domain: Option<String>,
}

/// A resolver as older clients read it: protocol `ip_port`, address `ip:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamDns {
    pub protocol: &'static str,
    pub address: String,
}

/// A resolver on port 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamDo53 {
    pub ip: IpAddr,
}

/// The destination of flow logs. Interval 0 switches them off; batch size 0 is the default of 1000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowLogs {
    /// A URL that must parse.
    pub api_url: &'static str,
    pub upload_interval_secs: u64,
    pub upload_batch_size: u64,
}

impl FlowLogs {
    /// Flow logs switched off. The URL is never called.
    pub const OFF: Self = Self {
        api_url: "http://127.0.0.1:1",
        upload_interval_secs: 0,
        upload_batch_size: 0,
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SiteEntry {
    pub id: String,
    pub name: String,
}

/// The sites of a resource, under the one key that the client knows (`gateway_groups` before
/// January 2026): with both keys present a client silently drops the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteList {
    Sites(Vec<SiteEntry>),
    GatewayGroups(Vec<SiteEntry>),
}

/// A resource in the form for clients. A client enforces the filters too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientResource {
    Cidr {
        id: String,
        name: String,
        address: String,
        address_description: Option<String>,
        #[serde(flatten)]
        sites: SiteList,
        filters: Vec<Filter>,
    },
    Dns {
        id: String,
        name: String,
        address: String,
        address_description: Option<String>,
        #[serde(flatten)]
        sites: SiteList,
        filters: Vec<Filter>,
        /// Always `dual` here.
        ip_stack: &'static str,
    },
    Internet {
        id: String,
        name: String,
        #[serde(flatten)]
        sites: SiteList,
        /// Always true here.
        can_be_disabled: bool,
    },
}

/// The id of a grant's site, under the key that the client knows (`gateway_group_id` before January
/// 2026).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteReference {
    SiteId(String),
    GatewayGroupId(String),
}

/// The payload of `authorization_created` (generation 2) and `flow_created` (generation 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientGrant {
    pub resource_id: String,
    pub gateway_id: String,
    pub gateway_public_key: String,
    /// The gateway's own tunnel addresses.
    pub gateway_ipv4: Ipv4Addr,
    pub gateway_ipv6: Ipv6Addr,
    #[serde(flatten)]
    pub site: SiteReference,
    pub preshared_key: String,
    pub client_ice_credentials: IceCredentials,
    pub gateway_ice_credentials: IceCredentials,
    /// Always false here.
    pub use_iceless: bool,
    /// Generation 2 clients refuse a grant without it; generation 1 never had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_logs_ingest_token: Option<String>,
}

/// The payload of `authorization_creation_failed` and `flow_creation_failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientRefusal {
    /// As the client wrote it.
    pub resource_id: String,
    /// `not_found`, `forbidden` or `offline`.
    pub reason: &'static str,
    /// Always empty here.
    pub violated_properties: Vec<Value>,
}

/// The payload of `request_authorization`, `create_flow` and (generation 0) `prepare_connection`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResourceRequest {
    pub resource_id: String,
    /// Ordered by the client's preference.
    #[serde(default)]
    pub connected_gateway_ids: Vec<String>,
}

/// The response to `prepare_connection`: the gateway to ask next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionPrepared {
    pub resource_id: String,
    pub gateway_id: String,
    #[serde(flatten)]
    pub site: SiteReference,
    /// The source address of the gateway's websocket.
    pub gateway_remote_ip: IpAddr,
}

/// The payload of `request_connection` (generation 0): this client sets up a transport.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RequestConnection {
    pub gateway_id: String,
    pub resource_id: String,
    /// Made by the client.
    pub client_preshared_key: String,
    /// Passed to the gateway.
    pub client_payload: ClientPayload,
}

/// The payload of `reuse_connection` (generation 0): this client has a transport already.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReuseConnection {
    pub resource_id: String,
    pub gateway_id: String,
    /// Passed to the gateway.
    #[serde(default)]
    pub payload: Option<Domain>,
}

/// The response to either, once the gateway has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionReply {
    pub resource_id: String,
    /// In seconds.
    pub persistent_keepalive: u64,
    pub gateway_public_key: String,
    /// As the gateway wrote it.
    pub gateway_payload: GatewayResponse,
}

/// Candidates for one gateway (`new_gateway_ice_candidates`) or, before headless 1.5.7, for several
/// (`broadcast_ice_candidates`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CandidatesForGateways {
    One {
        gateway_id: String,
        candidates: Vec<String>,
    },
    Several {
        gateway_ids: Vec<String>,
        candidates: Vec<String>,
    },
}

/// The payload of `ice_candidates` and `invalidate_ice_candidates` on the client channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayCandidates {
    pub gateway_id: String,
    pub candidates: Vec<String>,
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
        let new = serde_json::to_value(resource(SiteList::Sites(vec![]))).expect("serializes");
        assert_eq!(
            new,
            json!({"type":"internet","id":"i","name":"n","sites":[],"can_be_disabled":true})
        );
        let old = serde_json::to_value(resource(SiteList::GatewayGroups(vec![])));
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
