//! The JSON of generation 0 on the client's channel: questions to the portal and their replies.
//!
//! Shares no type with the gateway or the lab portal, like the rest of this client's JSON. Source:
//! docs/protocol.md 11.1.

use super::{GatewayId, IceCredentials, Key, ResourceId};
use crate::client::vocabulary::Domain;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A question to the portal, serialized as its payload. The portal replies to each, with one
/// exception: it grants a network over an existing connection without a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Question {
    /// Which gateway serves this resource?
    Prepare {
        resource_id: ResourceId,
        /// Gateways with a connection, in order of preference.
        connected_gateway_ids: Vec<GatewayId>,
    },
    /// Let the gateway set up a connection for this resource.
    Request {
        resource_id: ResourceId,
        gateway_id: GatewayId,
        client_preshared_key: Key,
        client_payload: ClientPayload,
    },
    /// Let the gateway grant this resource over the existing connection.
    Reuse {
        resource_id: ResourceId,
        gateway_id: GatewayId,
        /// `None` for a network.
        payload: Option<Domain>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientPayload {
    pub ice_parameters: IceCredentials,
    /// `None` for a network.
    pub domain: Option<Domain>,
}

/// The portal's answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This gateway serves the resource.
    Prepared(GatewayId),
    /// The gateway expects the client's ICE checks.
    Connected {
        gateway_public_key: Key,
        ice_parameters: IceCredentials,
    },
    /// The gateway knows the name now.
    Accepted,
}

#[derive(Deserialize)]
enum GatewayPayload {
    ConnectionAccepted {
        ice_parameters: IceCredentials,
    },
    ResourceAccepted {
        #[serde(rename = "domain_response")]
        _domain: Value,
    },
}

impl Question {
    pub fn resource_id(&self) -> ResourceId {
        match self {
            Self::Prepare { resource_id, .. }
            | Self::Request { resource_id, .. }
            | Self::Reuse { resource_id, .. } => *resource_id,
        }
    }

    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare_connection",
            Self::Request { .. } => "request_connection",
            Self::Reuse { .. } => "reuse_connection",
        }
    }

    /// Reads the portal's response to this question.
    pub fn answer(&self, response: &Value) -> Result<Answer, serde_json::Error> {
        if let Self::Prepare { .. } = self {
            let gateway_id = GatewayId::deserialize(&response["gateway_id"])?;
            return Ok(Answer::Prepared(gateway_id));
        }
        let gateway_public_key = Key::deserialize(&response["gateway_public_key"])?;
        Ok(
            match GatewayPayload::deserialize(&response["gateway_payload"])? {
                GatewayPayload::ConnectionAccepted { ice_parameters } => Answer::Connected {
                    gateway_public_key,
                    ice_parameters,
                },
                GatewayPayload::ResourceAccepted { .. } => Answer::Accepted,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Generation, Outgoing};
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn resource() -> ResourceId {
        ResourceId(Uuid::from_u128(3))
    }

    fn gateway() -> GatewayId {
        GatewayId(Uuid::from_u128(2))
    }

    fn domain() -> Domain {
        Domain {
            name: "app.corp.example".into(),
            proxy_ips: vec!["100.96.0.1".parse().expect("an address")],
        }
    }

    fn request(domain: Option<Domain>) -> Question {
        let ice_parameters = IceCredentials {
            username: "eokn".into(),
            password: "5enp7ct6775ebzonvunxjy".into(),
        };
        Question::Request {
            resource_id: resource(),
            gateway_id: gateway(),
            client_preshared_key: Key([1; 32]),
            client_payload: ClientPayload {
                ice_parameters,
                domain,
            },
        }
    }

    fn written(question: Question) -> Value {
        let frame = Outgoing::Ask(question).write(Generation::V0, 4);
        serde_json::from_str(&frame).expect("JSON")
    }

    #[test]
    fn writes_questions_as_the_protocol_has_them() {
        let prepare = Question::Prepare {
            resource_id: resource(),
            connected_gateway_ids: vec![gateway()],
        };
        assert_eq!(
            written(prepare),
            json!({"topic": "client", "event": "prepare_connection", "ref": 4, "payload":
                {"resource_id": resource(), "connected_gateway_ids": [gateway()]}})
        );
        assert_eq!(
            written(request(Some(domain()))),
            json!({"topic": "client", "event": "request_connection", "ref": 4, "payload": {
                "gateway_id": gateway(), "resource_id": resource(),
                "client_preshared_key": KEY,
                "client_payload": {
                    "ice_parameters": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                    "domain": {"name": "app.corp.example", "proxy_ips": ["100.96.0.1"]},
                },
            }})
        );
        let payload = &written(request(None))["payload"]["client_payload"];
        assert_eq!(payload.get("domain"), Some(&Value::Null));
        let reuse = Question::Reuse {
            resource_id: resource(),
            gateway_id: gateway(),
            payload: None,
        };
        assert_eq!(
            written(reuse),
            json!({"topic": "client", "event": "reuse_connection", "ref": 4, "payload":
                {"gateway_id": gateway(), "resource_id": resource(), "payload": null}})
        );
    }

    #[test]
    fn reads_an_answer_by_its_question() {
        let prepare = Question::Prepare {
            resource_id: resource(),
            connected_gateway_ids: Vec::new(),
        };
        let prepared = json!({"resource_id": resource(), "gateway_id": gateway(),
            "gateway_group_id": gateway(), "gateway_remote_ip": "192.0.2.1"});
        let answer = prepare.answer(&prepared).expect("an answer");
        assert_eq!(answer, Answer::Prepared(gateway()));

        let reply = |payload: Value| {
            json!({"resource_id": resource(), "persistent_keepalive": 25,
                "gateway_public_key": KEY, "gateway_payload": payload})
        };
        let accepted = json!({"ConnectionAccepted":
            {"ice_parameters": {"username": "u", "password": "p"}, "domain_response": null}});
        let answer = request(None).answer(&reply(accepted)).expect("an answer");
        let ice_parameters = IceCredentials {
            username: "u".into(),
            password: "p".into(),
        };
        let gateway_public_key = Key([1; 32]);
        assert_eq!(
            answer,
            Answer::Connected {
                gateway_public_key,
                ice_parameters
            }
        );
        let accepted = json!({"ResourceAccepted":
            {"domain_response": {"domain": "app.corp.example", "address": []}}});
        let answer = request(None).answer(&reply(accepted)).expect("an answer");
        assert_eq!(answer, Answer::Accepted);
        assert!(request(None).answer(&reply(json!({"Other": {}}))).is_err());
        assert!(request(None).answer(&json!({})).is_err());
    }
}
