//! Clients of generation 0, between gateways of either endpoint.

use super::*;

/// A client of 2024 with its portal and gateway.
struct Old {
    lab: Lab,
    alice: PeerId,
    gateway: PeerId,
}

impl Old {
    fn new() -> Self {
        let mut lab = Lab::new();
        let gateway = lab.gateway();
        let alice = lab.join("/client/websocket", "alice-token", CLIENT_KEY);
        Self {
            lab,
            alice,
            gateway,
        }
    }

    /// Says something, as message number 7.
    fn ask(&mut self, event: &str, payload: Value) {
        self.lab.say(self.alice, "client", event, payload);
    }

    /// The one reply to message number 7: status and response.
    fn replied(&mut self) -> (String, Value) {
        let mut said = self.lab.said();
        assert_eq!(said.len(), 1, "{said:?}");
        self.reply_in(said.remove(0))
    }

    fn reply_in(&self, (to, mut frame): (PeerId, Value)) -> (String, Value) {
        assert_eq!((to, &frame["event"]), (self.alice, &json!("phx_reply")));
        assert_eq!(
            (&frame["topic"], &frame["ref"]),
            (&json!("client"), &json!(7))
        );
        let status = frame["payload"]["status"]
            .as_str()
            .expect("text")
            .to_owned();
        (status, frame["payload"]["response"].take())
    }

    fn refused(&mut self, event: &str, payload: Value) -> String {
        self.ask(event, payload);
        let (status, response) = self.replied();
        assert_eq!(status, "error");
        response["reason"].as_str().expect("text").to_owned()
    }

    fn ready(&mut self, reference: &Value, response: Value) {
        let payload = json!({"ref": reference, "gateway_payload": response});
        self.lab
            .say(self.gateway, "gateway", "connection_ready", payload);
    }
}

fn prepare(resource: &str) -> Value {
    json!({"resource_id": id("resource", resource), "connected_gateway_ids": []})
}

fn request(resource: &str, domain: Value) -> Value {
    json!({
        "gateway_id": id("gateway", "gw"),
        "resource_id": id("resource", resource),
        "client_preshared_key": OTHER_KEY,
        "client_payload": {
            "ice_parameters": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
            "domain": domain,
        },
    })
}

fn reuse(resource: &str, domain: Value) -> Value {
    json!({
        "gateway_id": id("gateway", "gw"),
        "resource_id": id("resource", resource),
        "payload": domain,
    })
}

fn mapped() -> Value {
    json!({"name": "app.corp.example", "proxy_ips": ["100.96.0.1", "fd00:2021:1111:8000::"]})
}

fn accepted() -> Value {
    json!({"ConnectionAccepted": {
        "ice_parameters": {"username": "6m26", "password": "gj5f2zjrxg6cwvtrtqgfva"},
        "domain_response": {"domain": "app.corp.example", "address": []},
    }})
}

#[test]
fn a_gateway_is_named_before_it_is_asked() {
    let mut old = Old::new();
    old.ask("prepare_connection", prepare("web"));
    let (status, response) = old.replied();
    assert_eq!(status, "ok");
    assert_eq!(
        response,
        json!({
            "resource_id": id("resource", "web"),
            "gateway_id": id("gateway", "gw"),
            "site_id": id("site", "lab"),
            "gateway_remote_ip": REMOTE_IP,
        })
    );
}

#[test]
fn a_connection_is_given_when_the_gateway_is_ready_and_before_its_candidates() {
    let mut old = Old::new();
    old.ask("request_connection", request("corp", mapped()));
    let asked = old.lab.only(old.gateway, "request_connection");
    assert_eq!(asked["resource"]["address"], "*.corp.example");
    assert_eq!(asked["client"]["id"], json!(id("client", "alice")));
    let peer = &asked["client"]["peer"];
    assert_eq!(peer["public_key"], CLIENT_KEY);
    assert_eq!(peer["preshared_key"], OTHER_KEY);
    assert_eq!(peer["ipv4"], "100.64.1.2");
    assert_eq!(peer["persistent_keepalive"], 25);
    assert_eq!(asked["client"]["payload"]["domain"], mapped());
    assert_eq!(old.lab.list().len(), 1, "asked for");

    old.ready(&asked["ref"], accepted());
    let said = old.lab.said();
    let (status, response) = old.reply_in(said[0].clone());
    assert_eq!(status, "ok");
    assert_eq!(
        response,
        json!({
            "resource_id": id("resource", "corp"),
            "persistent_keepalive": 25,
            "gateway_public_key": GATEWAY_KEY,
            "gateway_payload": accepted(),
        })
    );
    assert_eq!(
        (said[1].0, &said[1].1["payload"]["status"]),
        (old.gateway, &json!("ok"))
    );
    assert_eq!(old.lab.list(), [("alice".into(), "corp".into())]);
}

#[test]
fn a_further_name_waits_for_the_gateway_and_a_network_does_not() {
    let mut old = Old::new();
    old.ask("reuse_connection", reuse("corp", mapped()));
    let asked = old.lab.only(old.gateway, "allow_access");
    assert_eq!(asked["client_id"], json!(id("client", "alice")));
    assert_eq!(asked["payload"], mapped());
    assert_eq!(asked["client_ipv4"], "100.64.1.2");
    let response = json!({"ResourceAccepted":
        {"domain_response": {"domain": "app.corp.example", "address": []}}});
    old.ready(&asked["ref"], response.clone());
    let said = old.lab.said();
    let (_, reply) = old.reply_in(said[0].clone());
    assert_eq!(reply["gateway_payload"], response);

    old.ask("reuse_connection", reuse("web", Value::Null));
    let asked = old.lab.only(old.gateway, "allow_access");
    assert_eq!(asked["payload"], Value::Null);
    assert_eq!(old.lab.list().len(), 2, "given at once, with no reply");
    old.ready(&asked["ref"], response);
    let (_, reply) = old.lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "invalid_ref");
}

#[test]
fn a_gateway_that_is_not_ready_in_time_is_offline() {
    let mut old = Old::new();
    old.ask("request_connection", request("web", Value::Null));
    old.lab.only(old.gateway, "request_connection");
    old.lab.pass(Duration::from_secs(15));
    let (status, response) = old.replied();
    assert_eq!(
        (status.as_str(), &response),
        ("error", &json!({"reason": "offline"}))
    );
    assert_eq!(old.lab.list(), []);
}

#[test]
fn each_generation_is_acknowledged_by_its_own_event() {
    let mut old = Old::new();
    old.ask("request_connection", request("web", Value::Null));
    let asked = old.lab.only(old.gateway, "request_connection");
    let gateway = old.gateway;
    old.lab.acknowledge(gateway, &asked);
    let (_, reply) = old.lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "invalid_ref");
    old.lab.say(
        gateway,
        "gateway",
        "connection_ready",
        json!({"ref": asked["ref"]}),
    );
    let (_, reply) = old.lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "invalid_payload");
    old.ready(&asked["ref"], accepted());
    assert_eq!(old.lab.events().len(), 2);
}

#[test]
fn refusals_are_error_replies_with_their_reasons() {
    let mut old = Old::new();
    let unknown = json!({"resource_id": id("resource", "nothing")});
    assert_eq!(old.refused("prepare_connection", unknown), "not_found");
    assert_eq!(
        old.refused("prepare_connection", prepare("elsewhere")),
        "offline"
    );
    assert_eq!(
        old.refused("request_connection", json!({})),
        "invalid_payload"
    );
    let mut elsewhere = request("web", Value::Null);
    elsewhere["gateway_id"] = json!(id("gateway", "gw2"));
    assert_eq!(old.refused("request_connection", elsewhere), "offline");
    let bob = old.lab.join("/client/websocket", "bob-token", OTHER_KEY);
    old.alice = bob;
    assert_eq!(
        old.refused("reuse_connection", reuse("corp", mapped())),
        "forbidden"
    );
}

#[test]
fn a_client_of_generation_2_cannot_ask_so_and_one_of_generation_0_is_listed() {
    let mut lab = Lab::new();
    let (_, alice) = (lab.gateway(), lab.alice());
    lab.say(alice, "client", "prepare_connection", prepare("web"));
    let (_, reply) = lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "unknown_message");

    let mut old = Old::new();
    old.ask("prepare_connection", prepare("web"));
    old.replied();
    let listed = old.lab.answer("peers");
    let peers = listed["peers"].as_array().expect("a list");
    let generation = |name| {
        let peer = peers.iter().find(|peer| peer["name"] == name);
        peer.expect("listed")["generation"].clone()
    };
    assert_eq!(generation("alice"), "v0");
    assert_eq!(generation("gw"), "v2");
    old.ask("request_connection", request("web", Value::Null));
    let asked = old.lab.only(old.gateway, "request_connection");
    old.ready(&asked["ref"], accepted());
    old.lab.said();
    let repeat = json!({"op": "repeat_authorization", "client": "alice", "resource": "web"});
    assert!(old.lab.command(repeat).is_err());
}
