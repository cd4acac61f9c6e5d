//! Generation 0 beside the others, on either endpoint: requests and their answers.

use super::*;

fn request(reply_ref: &str, domain: Value) -> Value {
    json!({
        "ref": reply_ref,
        "client": {
            "id": CLIENT,
            "peer": {
                "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5", "persistent_keepalive": 25,
                "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
            },
            "payload": {
                "ice_parameters": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                "domain": domain,
            },
        },
        "resource": {"type": "dns", "id": Uuid::from_u128(2), "address": "*.corp.example"},
    })
}

fn access(reply_ref: &str, domain: Value) -> Value {
    json!({
        "ref": reply_ref, "client_id": CLIENT, "payload": domain,
        "resource": {"type": "dns", "id": Uuid::from_u128(2), "address": "*.corp.example"},
    })
}

fn mapped(name: &str) -> Value {
    json!({"name": name, "proxy_ips": ["100.96.0.1", "fd00:2021:1111:8000::"]})
}

/// The single frame that was written.
fn answer(dialogue: &mut Dialogue) -> Value {
    let frames = dialogue.frames();
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames[0].clone()
}

fn gateway_ice(dialogue: &mut Dialogue) -> crate::grant::IceCredentials {
    let events = dialogue.events();
    let [PortalEvent::Client(ClientCommand::Authorize(request))] = &events[..] else {
        panic!("one request: {events:?}");
    };
    request.gateway_ice.clone()
}

#[test]
fn a_client_that_is_too_old_for_its_name_is_reported_once() {
    let mut dialogue = Dialogue::joined();
    for reply_ref in ["a", "b"] {
        let payload = request(reply_ref, json!("app.corp.example"));
        dialogue.push("request_connection", payload);
        dialogue.push(
            "request_connection",
            request("c", mapped("app.corp.example")),
        );
    }
    let events = dialogue.events();
    let is_report = |event: &&PortalEvent| is_anomaly(event, AnomalyKind::TooOldClient);
    assert_eq!(events.iter().filter(is_report).count(), 1);
    assert_eq!(events.len(), 5);
}

/// docs/lessons.md 1: the reply does not wait for DNS.
#[test]
fn a_connection_with_a_name_is_answered_without_addresses_and_before_candidates() {
    let mut dialogue = Dialogue::joined();
    let payload = request("r", mapped("app.corp.example"));
    dialogue.push("request_connection", payload);
    let ice = gateway_ice(&mut dialogue);
    assert!(dialogue.protocol.accept("r"));
    dialogue
        .protocol
        .add_candidates(CLIENT, vec!["candidate:1 1 udp 1 x".into()]);
    let frames = dialogue.frames();
    assert_eq!(
        frames[0],
        json!({"topic": "gateway", "event": "connection_ready", "ref": 2, "payload": {
            "ref": "r",
            "gateway_payload": {"ConnectionAccepted": {
                "ice_parameters": {"username": ice.ufrag, "password": *ice.password},
                "domain_response": {"domain": "app.corp.example", "address": []},
            }},
        }})
    );
    assert_eq!(frames[1]["event"], "broadcast_ice_candidates");
    assert!(!dialogue.protocol.accept("r"), "answered once");
}

#[test]
fn a_connection_without_a_name_has_no_domain_response() {
    let mut dialogue = Dialogue::joined();
    dialogue.push("request_connection", request("r", json!(null)));
    dialogue.protocol.accept("r");
    let accepted = &answer(&mut dialogue)["payload"]["gateway_payload"]["ConnectionAccepted"];
    assert_eq!(accepted["domain_response"], json!(null));
    assert_eq!(accepted.as_object().unwrap().len(), 2);
}

#[test]
fn a_repeated_request_gets_the_same_answer_even_over_a_later_socket() {
    let mut dialogue = Dialogue::joined();
    dialogue.push(
        "request_connection",
        request("1", json!("app.corp.example")),
    );
    dialogue.protocol.accept("1");
    let first = answer(&mut dialogue)["payload"]["gateway_payload"].clone();
    dialogue.protocol.handle_closed("reset", dialogue.now);
    dialogue.connect();
    dialogue.reply_ok(0);
    dialogue.drain();
    dialogue.push(
        "request_connection",
        request("2", json!("app.corp.example")),
    );
    dialogue.protocol.accept("2");
    let again = answer(&mut dialogue);
    assert_eq!(again["payload"]["ref"], "2");
    assert_eq!(again["payload"]["gateway_payload"], first);
}

#[test]
fn a_further_name_is_answered_and_an_access_without_a_name_is_not() {
    let mut dialogue = Dialogue::joined();
    dialogue.push("allow_access", access("named", mapped("b.corp.example")));
    dialogue.push("allow_access", access("bare", json!("c.corp.example")));
    dialogue.push("allow_access", access("nameless", json!(null)));
    assert!(matches!(
        dialogue.events()[..],
        [
            PortalEvent::Client(ClientCommand::Allow(_)),
            PortalEvent::Anomaly(_),
            PortalEvent::Client(ClientCommand::Allow(_)),
            PortalEvent::Client(ClientCommand::Allow(_))
        ]
    ));
    assert!(!dialogue.protocol.accept("nameless"));
    assert!(dialogue.protocol.accept("named"));
    assert_eq!(
        answer(&mut dialogue),
        json!({"topic": "gateway", "event": "connection_ready", "ref": 2, "payload": {
            "ref": "named",
            "gateway_payload": {"ResourceAccepted": {
                "domain_response": {"domain": "b.corp.example", "address": []},
            }},
        }})
    );
    assert!(dialogue.protocol.accept("bare"));
    let response = &answer(&mut dialogue)["payload"]["gateway_payload"]["ResourceAccepted"];
    assert_eq!(response["domain_response"]["domain"], "c.corp.example");
}

#[test]
fn generations_share_a_socket_of_either_endpoint() {
    for (generation, acknowledged) in [
        (Generation::V1, "flow_authorized"),
        (Generation::V2, "authorization_created"),
    ] {
        let mut dialogue = Dialogue::with(PortalConfig {
            generation: GenerationChoice::Only(generation),
            ..test_config()
        });
        dialogue.connect();
        dialogue.reply_ok(0);
        dialogue.drain();
        dialogue.push("request_connection", request("0", json!(null)));
        dialogue.grant("later");
        dialogue.protocol.accept("later");
        dialogue.protocol.accept("0");
        let names: Vec<_> = dialogue
            .written()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, [acknowledged, "connection_ready"]);
    }
}

#[test]
fn a_malformed_request_is_reported_and_never_answered() {
    let mut dialogue = Dialogue::joined();
    dialogue.push("request_connection", json!({"ref": "r"}));
    dialogue.push("allow_access", access("r", json!(7)));
    let events = dialogue.events();
    assert_eq!(events.len(), 2);
    assert!(
        events
            .iter()
            .all(|event| is_anomaly(event, AnomalyKind::WrongPayload))
    );
    assert!(!dialogue.protocol.accept("r"));
    assert_eq!(dialogue.written(), []);
}
