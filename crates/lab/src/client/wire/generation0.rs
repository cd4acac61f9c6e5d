//! The JSON of generation 0 on the client's channel: questions that are answered by replies.
//!
//! Shares no type with the gateway or the lab portal, like the rest of this client's JSON. Source:
//! docs/protocol.md 11.1.

use super::super::names::Domain;
use super::{GatewayId, IceCredentials, Key, ResourceId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// What we bring to a connection. Of our own making in this generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// For WireGuard.
    pub preshared_key: Key,
    /// Ours.
    pub ice: IceCredentials,
}

/// What we ask the portal. Each is answered by a reply to it, with one exception: a resource that
/// is no name, over a connection that there is, is granted without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which gateway is to serve this resource?
    Prepare {
        /// Which.
        resource: ResourceId,
        /// Gateways we have already, in order of preference.
        connected: Vec<GatewayId>,
    },
    /// Have it set up a connection.
    Request {
        /// For what.
        resource: ResourceId,
        /// Whom.
        gateway: GatewayId,
        /// Ours.
        offer: Offer,
        /// `None` for a network.
        domain: Option<Domain>,
    },
    /// Have it grant more over the connection that there is.
    Reuse {
        /// What.
        resource: ResourceId,
        /// Whom.
        gateway: GatewayId,
        /// `None` for a network.
        domain: Option<Domain>,
    },
}

/// What the portal answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ask this one.
    Prepared(GatewayId),
    /// The connection is there to be found by ICE.
    Connected {
        /// The gateway's WireGuard key.
        gateway_public_key: Key,
        /// The gateway's.
        ice: IceCredentials,
    },
    /// The name is known now.
    Accepted,
}

#[derive(Deserialize)]
struct Prepared {
    gateway_id: GatewayId,
}

#[derive(Deserialize)]
struct Connected {
    gateway_public_key: Key,
    gateway_payload: GatewayPayload,
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
    /// What it is about.
    #[must_use]
    pub fn resource(&self) -> ResourceId {
        match self {
            Self::Prepare { resource, .. }
            | Self::Request { resource, .. }
            | Self::Reuse { resource, .. } => *resource,
        }
    }

    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare_connection",
            Self::Request { .. } => "request_connection",
            Self::Reuse { .. } => "reuse_connection",
        }
    }

    pub(super) fn payload(&self) -> Value {
        match self {
            Self::Prepare {
                resource,
                connected,
            } => json!({"resource_id": resource, "connected_gateway_ids": connected}),
            Self::Request {
                resource,
                gateway,
                offer,
                domain,
            } => json!({
                "resource_id": resource,
                "gateway_id": gateway,
                "client_preshared_key": STANDARD.encode(offer.preshared_key.0),
                "client_payload": {
                    "ice_parameters": {
                        "username": offer.ice.username,
                        "password": offer.ice.password,
                    },
                    "domain": domain,
                },
            }),
            Self::Reuse {
                resource,
                gateway,
                domain,
            } => json!({"resource_id": resource, "gateway_id": gateway, "payload": domain}),
        }
    }

    /// Reads the response to it.
    ///
    /// # Errors
    /// The response is not of the shape that answers such a question.
    pub fn answer(&self, response: Value) -> Result<Answer, serde_json::Error> {
        if let Self::Prepare { .. } = self {
            let prepared: Prepared = serde_json::from_value(response)?;
            return Ok(Answer::Prepared(prepared.gateway_id));
        }
        let Connected {
            gateway_public_key,
            gateway_payload,
        } = serde_json::from_value(response)?;
        Ok(match gateway_payload {
            GatewayPayload::ConnectionAccepted { ice_parameters } => Answer::Connected {
                gateway_public_key,
                ice: ice_parameters,
            },
            GatewayPayload::ResourceAccepted { .. } => Answer::Accepted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Generation, Outgoing};
    use super::*;
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
        Question::Request {
            resource: resource(),
            gateway: gateway(),
            offer: Offer {
                preshared_key: Key([1; 32]),
                ice: IceCredentials {
                    username: "eokn".into(),
                    password: "5enp7ct6775ebzonvunxjy".into(),
                },
            },
            domain,
        }
    }

    fn written(question: Question) -> Value {
        let frame = Outgoing::Ask(question).write(Generation::V0, 4);
        serde_json::from_str(&frame).expect("JSON")
    }

    #[test]
    fn questions_are_written_to_the_letter() {
        let prepare = Question::Prepare {
            resource: resource(),
            connected: vec![gateway()],
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
            resource: resource(),
            gateway: gateway(),
            domain: None,
        };
        assert_eq!(
            written(reuse),
            json!({"topic": "client", "event": "reuse_connection", "ref": 4, "payload":
                {"gateway_id": gateway(), "resource_id": resource(), "payload": null}})
        );
    }

    #[test]
    fn answers_are_read_by_what_was_asked() {
        let prepare = Question::Prepare {
            resource: resource(),
            connected: Vec::new(),
        };
        let prepared = json!({"resource_id": resource(), "gateway_id": gateway(),
            "gateway_group_id": gateway(), "gateway_remote_ip": "192.0.2.1"});
        let answer = prepare.answer(prepared).expect("an answer");
        assert_eq!(answer, Answer::Prepared(gateway()));

        let reply = |payload: Value| {
            json!({"resource_id": resource(), "persistent_keepalive": 25,
                "gateway_public_key": KEY, "gateway_payload": payload})
        };
        let accepted = json!({"ConnectionAccepted":
            {"ice_parameters": {"username": "u", "password": "p"}, "domain_response": null}});
        let answer = request(None).answer(reply(accepted)).expect("an answer");
        let ice = IceCredentials {
            username: "u".into(),
            password: "p".into(),
        };
        let gateway_public_key = Key([1; 32]);
        assert_eq!(
            answer,
            Answer::Connected {
                gateway_public_key,
                ice
            }
        );
        let accepted = json!({"ResourceAccepted":
            {"domain_response": {"domain": "app.corp.example", "address": []}}});
        let answer = request(None).answer(reply(accepted)).expect("an answer");
        assert_eq!(answer, Answer::Accepted);
        assert!(request(None).answer(reply(json!({"Other": {}}))).is_err());
        assert!(request(None).answer(json!({})).is_err());
    }
}
