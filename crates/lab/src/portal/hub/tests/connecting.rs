//! From the upgrade to `init`: admission, and the life of a channel.

use super::*;

#[test]
fn requests_without_a_good_token_are_refused_before_the_upgrade() {
    let lab = Lab::new();
    let refused = |upgrade: Upgrade<'_>| {
        let refusal = lab.hub.authorize_upgrade(&upgrade).expect_err("refused");
        (refusal.status, refusal.code)
    };
    let good = Upgrade {
        path: "/gateway/v2/websocket",
        query: "public_key=AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI%3D",
        authorization: Some("Bearer gw-token"),
        user_agent: "",
        remote_ip: REMOTE_IP,
    };
    lab.hub.authorize_upgrade(&good).expect("admitted");
    let authorization = None;
    assert_eq!(
        refused(Upgrade {
            authorization,
            ..good
        }),
        (401, "missing_token")
    );
    let authorization = Some("gw-token");
    assert_eq!(
        refused(Upgrade {
            authorization,
            ..good
        }),
        (401, "missing_token")
    );
    let authorization = Some("Bearer alice-token");
    assert_eq!(
        refused(Upgrade {
            authorization,
            ..good
        }),
        (401, "invalid_token")
    );
    for query in ["", "public_key=AgIC", "public_key=%"] {
        assert_eq!(
            refused(Upgrade { query, ..good }),
            (400, "invalid_connect_params")
        );
    }
    let path = "/gateway/v3/websocket";
    assert_eq!(refused(Upgrade { path, ..good }), (404, "not_found"));
}

#[test]
fn the_token_may_come_in_the_query_and_the_header_wins() {
    let lab = Lab::new();
    let query = "token=gw-token&public_key=AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI%3D";
    let upgrade = Upgrade {
        path: "/gateway/websocket",
        query,
        authorization: None,
        user_agent: "",
        remote_ip: REMOTE_IP,
    };
    let admission = lab.hub.authorize_upgrade(&upgrade).expect("admitted");
    assert_eq!(admission.generation, Generation::V1);
    let authorization = Some("Bearer wrong");
    let refused = lab.hub.authorize_upgrade(&Upgrade {
        authorization,
        ..upgrade
    });
    assert_eq!(refused.expect_err("refused").code, "invalid_token");
}

#[test]
fn without_takeover_a_second_gateway_is_refused_with_409() {
    let mut lab = Lab::with(&format!("takeover = false\n{CONFIG}"));
    let first = lab.gateway();
    let again = lab.upgrade("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    let refusal = again.expect_err("refused");
    assert_eq!(
        (refusal.status, refusal.code),
        (409, "gateway_already_connected")
    );
    assert!(
        refusal
            .body()
            .contains(r#""code":"gateway_already_connected""#)
    );
    lab.hub.handle_disconnected(first);
    lab.gateway();
}

#[test]
fn a_gateway_is_refused_for_as_long_as_a_tester_wants() {
    let mut lab = Lab::new();
    let first = lab.gateway();
    let refuse = |refuse: bool| json!({"op": "refuse_gateway", "gateway": "gw", "refuse": refuse});
    lab.command(refuse(true)).expect("done");
    assert_eq!(lab.events(), [], "the open connection stays");
    lab.hub.handle_disconnected(first);
    let again = lab.upgrade("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    assert_eq!(again.expect_err("refused").status, 409);
    lab.alice();
    lab.command(refuse(false)).expect("done");
    lab.gateway();
    let nobody = json!({"op": "refuse_gateway", "gateway": "nobody", "refuse": true});
    lab.command(nobody).expect_err("unknown");
}

#[test]
fn with_takeover_the_newer_connection_wins() {
    let mut lab = Lab::new();
    let first = lab.gateway();
    let second = lab.connect("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    assert_eq!(lab.events(), [(first, "CLOSE")]);
    lab.say(first, "gateway", "phx_join", Value::Null);
    assert_eq!(lab.events(), [], "the old connection is forgotten");
    lab.say(second, "gateway", "phx_join", Value::Null);
    assert_eq!(lab.events(), [(second, "phx_reply"), (second, "init")]);
}

#[test]
fn replies_echo_the_reference_and_carry_an_empty_object() {
    let mut lab = Lab::new();
    let gateway = lab.gateway();
    lab.say(gateway, "phoenix", "heartbeat", json!({}));
    let (_, reply) = lab.said().remove(0);
    let expected = json!({
        "topic": "phoenix", "event": "phx_reply", "ref": 7,
        "payload": {"status": "ok", "response": {}},
    });
    assert_eq!(reply, expected);
}

#[test]
fn refusals_name_the_reason_and_keep_the_connection() {
    let mut lab = Lab::new();
    let gateway = lab.connect("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    for (topic, event, payload, reason) in [
        ("gateway", "no_relays", json!({}), "unmatched topic"),
        ("client", "phx_join", Value::Null, "unmatched topic"),
        ("gateway", "phx_join", Value::Null, ""),
        (
            "gateway",
            "flow_authorized",
            json!({"ref": "x"}),
            "unknown_message",
        ),
        ("gateway", "connection_lost", json!({}), "unknown_message"),
        ("gateway", "connection_ready", json!({}), "invalid_payload"),
        (
            "gateway",
            "authorization_created",
            json!({"ref": "x"}),
            "invalid_ref",
        ),
        ("gateway", "authorization_created", json!([]), "invalid_ref"),
        (
            "gateway",
            "broadcast_ice_candidates",
            json!({"client_ids": 1}),
            "invalid_payload",
        ),
        ("phoenix", "phx_join", Value::Null, "unknown_message"),
    ] {
        lab.say(gateway, topic, event, payload);
        let (_, reply) = lab.said().remove(0);
        let expected = match reason {
            "" => json!({"status": "ok", "response": {}}),
            _ => json!({"status": "error", "response": {"reason": reason}}),
        };
        assert_eq!(reply["payload"], expected, "{event}");
    }
    lab.hub.handle_text(gateway, "{not json", lab.now);
    lab.hub.handle_text(gateway, "[1,2]", lab.now);
    assert_eq!(lab.events(), []);
}

#[test]
fn init_carries_relays_of_both_families_with_credentials_of_the_vector() {
    let mut lab = Lab::new();
    let gateway = lab.connect("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    lab.say(gateway, "gateway", "phx_join", Value::Null);
    let (_, init) = lab.said().remove(1);
    let relays = init["payload"]["relays"].as_array().expect("a list");
    assert_eq!(relays.len(), 2);
    assert_eq!(relays[0]["id"], relays[1]["id"]);
    assert_eq!(relays[1]["addr"], "[2001:db8::1]:3478");
    for relay in relays {
        assert_eq!(relay["type"], "turn");
        assert_eq!(
            relay["password"],
            "xY1uFP9jjjAXJTSQh5GXbvAPv6XCpor+AP95KXVcPpw"
        );
    }
    lab.say(gateway, "gateway", "no_relays", json!({}));
    let presence = lab.only(gateway, "relays_presence");
    assert_eq!(presence["disconnected_ids"], json!([]));
    assert_eq!(presence["connected"], init["payload"]["relays"]);
}

#[test]
fn a_resource_carries_exactly_one_of_sites_and_gateway_groups() {
    let config = parse(CONFIG);
    let id = uuid_of("resource", "elsewhere");
    let resource = |agent| {
        let agent = UserAgent::parse(agent);
        frames::client_resource(id, &config.resources[&id], &agent)
    };
    let sites = json!([{"id": uuid_of("site", "branch"), "name": "branch"}]);
    assert_eq!(
        resource("Linux/6.8 headless-client/1.5.12"),
        json!({"type": "internet", "id": id, "name": "elsewhere", "sites": sites,
               "can_be_disabled": true})
    );
    let old = resource("Linux/6.8 headless-client/1.5.5");
    assert_eq!(old["gateway_groups"], sites);
    assert_eq!(old.get("sites"), None);
}
