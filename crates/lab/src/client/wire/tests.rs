//! Reads the frames of a recorded portal, and writes those of a recorded client.

use super::*;
use proptest::prelude::*;
use uuid::Uuid;

/// Frames that a portal pushed to an unmodified client: `init`, a grant, candidates.
const SESSION: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/data/recorded-session.jsonl"
));
/// Lines of the session, counted from 0.
const RECORDED: [usize; 3] = [12, 17, 20];

fn recorded(number: usize) -> String {
    let line = SESSION.lines().nth(RECORDED[number]).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    line["msg"].to_string()
}

fn pushed(text: &str) -> Push {
    let Incoming::Push(push) = read(text).expect("a frame") else {
        panic!("not a push: {text}");
    };
    push
}

fn uuid(text: &str) -> Uuid {
    text.parse().expect("a UUID")
}

fn push_of(event: &str, payload: &Value) -> Push {
    pushed(&json!({"topic": "client", "event": event, "payload": payload, "ref": null}).to_string())
}

#[test]
fn reads_the_recorded_init() {
    let Push::Init(init) = pushed(&recorded(0)) else {
        panic!("not an init");
    };
    assert_eq!(init.interface.ipv4, Ipv4Addr::new(100, 64, 1, 2));
    assert_eq!(init.interface.ipv6.to_string(), "fd00:2021:1111::102");
    let kinds: Vec<_> = init.resources.iter().map(|r| r.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            ResourceKind::Cidr("10.50.3.0/25".parse().expect("a network")),
            ResourceKind::Dns("*.lab.test".into())
        ]
    );
    assert_eq!(init.relays[0].addr.to_string(), "10.50.9.1:3478");
}

#[test]
fn reads_the_recorded_grant_under_both_names() {
    let later = pushed(&recorded(1));
    let earlier = pushed(&recorded(1).replace("authorization_created", "flow_created"));
    assert_eq!(later, earlier);
    let Push::AuthorizationCreated(grant) = later else {
        panic!("not a grant");
    };
    assert_eq!(
        grant.gateway_id.0,
        uuid("1ce2a32f-d76d-5f7a-b9df-9378f352718d")
    );
    assert_eq!(grant.gateway_public_key.0[..3], [0xd7, 0x14, 0xcd]);
    assert_eq!(grant.client_ice_credentials.username, "upii");
    assert_eq!(grant.gateway_ice_credentials.username, "abbi");
    assert!(!grant.use_iceless);
}

#[test]
fn reads_the_recorded_candidates_under_both_names() {
    let now = pushed(&recorded(2));
    let then = pushed(&recorded(2).replace("ice_candidates", "gateway_ice_candidates"));
    assert_eq!(now, then);
    let Push::Candidates(candidates) = now else {
        panic!("not candidates");
    };
    assert_eq!(candidates.candidates.len(), 2);
}

/// References, topics and payloads are those of the recorded client, apart from capabilities.
#[test]
fn writes_the_frames_of_the_recorded_client() {
    let resource_id = ResourceId(uuid("a9c07f0a-68ed-564a-973d-c8624ca2b19a"));
    let gateway_id = GatewayId(uuid("1ce2a32f-d76d-5f7a-b9df-9378f352718d"));
    let written = |message: Outgoing, reference| -> Value {
        serde_json::from_str(&message.write(Generation::V2, reference)).expect("JSON")
    };
    assert_eq!(
        written(Outgoing::Join, 0),
        json!({"topic": "client", "event": "phx_join", "payload": null, "ref": 0})
    );
    let frame = |event: &str, payload: Value, reference: u64| {
        let topic = "client";
        json!({"topic": topic, "event": event, "payload": payload, "ref": reference})
    };
    let event = "set_snownet_capabilities";
    assert_eq!(
        written(Outgoing::Capabilities, 1),
        frame(event, json!({"iceless": false}), 1)
    );
    let request = Outgoing::RequestAuthorization {
        resource_id,
        connected_gateway_ids: vec![gateway_id],
    };
    assert_eq!(
        written(request, 4),
        frame(
            "request_authorization",
            json!({
                "resource_id": "a9c07f0a-68ed-564a-973d-c8624ca2b19a",
                "connected_gateway_ids": ["1ce2a32f-d76d-5f7a-b9df-9378f352718d"],
            }),
            4
        )
    );
    let candidates = Outgoing::NewCandidates {
        gateway_id,
        candidates: vec!["candidate:1 1 udp 1 10.50.1.2 52625 typ host ufrag upii".into()],
    };
    assert_eq!(
        written(candidates, 3),
        frame(
            "new_gateway_ice_candidates",
            json!({
                "gateway_id": "1ce2a32f-d76d-5f7a-b9df-9378f352718d",
                "candidates": ["candidate:1 1 udp 1 10.50.1.2 52625 typ host ufrag upii"],
            }),
            3
        )
    );
    assert_eq!(
        written(Outgoing::Heartbeat, 2),
        json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": 2})
    );
}

#[test]
fn generation_1_requests_under_the_old_name() {
    let request = Outgoing::RequestAuthorization {
        resource_id: ResourceId(Uuid::nil()),
        connected_gateway_ids: Vec::new(),
    };
    let written: Value = serde_json::from_str(&request.write(Generation::V1, 2)).expect("JSON");
    assert_eq!(written["event"], "create_flow");
}

#[test]
fn a_reply_needs_an_integer_reference_and_an_object() {
    let reply = |reference: Value, response: Value| {
        let payload = json!({"status": "ok", "response": response});
        let frame = json!({"event": "phx_reply", "ref": reference, "payload": payload});
        read(&frame.to_string())
    };
    assert_eq!(
        reply(json!(0), json!({})).expect("a frame"),
        Incoming::Reply {
            reference: 0,
            outcome: Ok(json!({}))
        }
    );
    assert!(matches!(
        reply(json!(0), Value::Null),
        Ok(Incoming::Ignored(_))
    ));
    assert!(reply(json!("0"), json!({})).is_err());
}

#[test]
fn an_error_reply_carries_its_reason() {
    let payload = json!({"status": "error", "response": {"reason": "disabled"}});
    let text = json!({"event": "phx_reply", "ref": 0, "payload": payload}).to_string();
    assert_eq!(
        read(&text).expect("a frame"),
        Incoming::Reply {
            reference: 0,
            outcome: Err("disabled".into())
        }
    );
}

/// Unmodified clients accept either spelling and silently drop a resource with both.
#[test]
fn a_resource_has_sites_or_gateway_groups_but_not_both() {
    let resource = |extra: Value| {
        let mut resource = json!({"type": "cidr", "id": Uuid::nil(), "address": "10.0.0.0/8"});
        resource
            .as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        serde_json::from_value::<Resource>(resource)
    };
    assert!(resource(json!({"sites": []})).is_ok());
    assert!(resource(json!({"gateway_groups": []})).is_ok());
    assert!(resource(json!({"sites": [], "gateway_groups": []})).is_err());
    assert!(resource(json!({})).is_err());
}

#[test]
fn skips_a_malformed_resource_and_keeps_the_others() {
    let text = recorded(0).replace("10.50.3.0/25", "not a network");
    let Push::Init(init) = pushed(&text) else {
        panic!("not an init");
    };
    assert_eq!(init.resources.len(), 1);
}

#[test]
fn reads_changes_of_resources() {
    let id = "a9c07f0a-68ed-564a-973d-c8624ca2b19a";
    let upsert = push_of(
        "resource_created_or_updated",
        &json!({
            "type": "cidr", "id": id, "name": "x", "address": "2001:db8::/64", "sites": [],
            "filters": [{"protocol": "tcp", "port_range_start": 80}, {"protocol": "icmp"}],
        }),
    );
    let Push::ResourceUpserted(resource) = upsert else {
        panic!("not an upsert");
    };
    let from_80 = PortRange {
        port_range_start: 80,
        port_range_end: 65535,
    };
    assert_eq!(resource.filters, [Filter::Tcp(from_80), Filter::Icmp]);
    assert_eq!(
        push_of("resource_deleted", &json!(id)),
        Push::ResourceDeleted(ResourceId(uuid(id)))
    );
}

#[test]
fn reads_refusals_and_disconnects() {
    let id = "a9c07f0a-68ed-564a-973d-c8624ca2b19a";
    let failed = push_of(
        "authorization_creation_failed",
        &json!({"resource_id": id, "reason": "offline", "violated_properties": []}),
    );
    assert!(matches!(failed, Push::AuthorizationFailed(failed) if failed.reason == "offline"));
    assert_eq!(
        push_of("disconnect", &json!({"reason": "token_expired"})),
        Push::Disconnect("token_expired".into())
    );
}

#[test]
fn ignores_unknown_events() {
    let text = r#"{"topic":"client","event":"brand_new","payload":{"a":1},"ref":null}"#;
    assert_eq!(
        read(text).expect("a frame"),
        Incoming::Ignored("brand_new".into())
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_payloads_of_known_events_never_panic(
        event in prop::sample::select(vec!["init", "flow_created", "ice_candidates", "phx_reply",
            "resource_created_or_updated", "resource_deleted", "relays_presence", "disconnect"]),
        payload in prop::sample::select(vec!["null", "{}", "[]", "1", "\"x\"", "{\"interface\":{}}",
            "{\"reason\":5}", "{\"status\":\"ok\"}", "{\"type\":\"cidr\",\"id\":\"x\"}"]),
    ) {
        let _ = read(&format!(r#"{{"event":"{event}","payload":{payload},"ref":null}}"#));
    }
}
