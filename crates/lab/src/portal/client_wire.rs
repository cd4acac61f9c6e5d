//! The JSON of the client channel that the portal reads, and the grant that programs of the lab
//! read from it. `hub/frames.rs` writes the rest.
//!
//! Source: docs/protocol.md 2.4, 2.5 and 11.1. Identifiers are UUIDs, keys are base64 of 32 bytes,
//! candidates are SDP attributes (`candidate:…`).

use postern_core::portal::wire::IceCredentials;
use postern_core::portal::wire::generation0::{ClientPayload, Domain};
use serde::Deserialize;

/// The part of `authorization_created` that a client needs for its transport.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClientGrant {
    pub resource_id: String,
    pub gateway_public_key: String,
    pub preshared_key: String,
    pub client_ice_credentials: IceCredentials,
    pub gateway_ice_credentials: IceCredentials,
}

/// The payload of `request_authorization`, `create_flow` and (generation 0) `prepare_connection`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ResourceRequest {
    pub(super) resource_id: String,
    /// Ordered by the client's preference.
    #[serde(default)]
    pub(super) connected_gateway_ids: Vec<String>,
}

/// The payload of `request_connection` (generation 0): this client sets up a transport.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct RequestConnection {
    pub(super) gateway_id: String,
    pub(super) resource_id: String,
    pub(super) client_preshared_key: String,
    /// Passed to the gateway.
    pub(super) client_payload: ClientPayload,
}

/// The payload of `reuse_connection` (generation 0): this client has a transport already.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ReuseConnection {
    pub(super) resource_id: String,
    pub(super) gateway_id: String,
    /// Passed to the gateway.
    #[serde(default)]
    pub(super) payload: Option<Domain>,
}

/// Candidates for one gateway (`new_gateway_ice_candidates`) or, before headless 1.5.7, for several
/// (`broadcast_ice_candidates`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum CandidatesForGateways {
    One {
        gateway_id: String,
        candidates: Vec<String>,
    },
    Several {
        gateway_ids: Vec<String>,
        candidates: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
