//! The hub against the recorded session, and rule by rule.

use super::*;
use crate::portal::derive::uuid_of;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

mod commanding;
mod connecting;
mod generation0;
mod recorded;
mod reloading;

const GATEWAY_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const CLIENT_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_KEY: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

const REMOTE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

const CONFIG: &str = r#"
listen = ["203.0.113.1:8081"]
[[relays]]
addr = ["203.0.113.1:3478", "[2001:db8::1]:3478"]
secret = "stamp-secret-1"
[[sites]]
name = "lab"
[[sites]]
name = "branch"
[[gateways]]
name = "gw"
token = "gw-token"
site = "lab"
ipv4 = "100.64.0.1"
ipv6 = "fd00:2021:1111::1"
[[gateways]]
name = "gw2"
token = "gw2-token"
site = "lab"
ipv4 = "100.64.0.2"
ipv6 = "fd00:2021:1111::2"
[[clients]]
name = "alice"
token = "alice-token"
ipv4 = "100.64.1.2"
ipv6 = "fd00:2021:1111::102"
[[clients]]
name = "bob"
token = "bob-token"
ipv4 = "100.64.1.3"
ipv6 = "fd00:2021:1111::103"
[[resources]]
name = "web"
type = "cidr"
address = "10.20.0.0/24"
site = "lab"
filters = ["tcp/80"]
[[resources]]
name = "corp"
type = "dns"
address = "*.corp.example"
site = "lab"
[[resources]]
name = "elsewhere"
type = "internet"
site = "branch"
[[policies]]
client = "*"
resource = "web"
expires_in = "1h"
[[policies]]
client = "alice"
resource = "corp"
[[policies]]
client = "alice"
resource = "elsewhere"
"#;

/// A hub, and a clock that tests move.
struct Lab {
    hub: Hub,
    now: ClockReading,
}

impl Lab {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: &str) -> Self {
        Self {
            hub: Hub::new(parse(config), [1; 32], [2; 32]),
            now: ClockReading {
                instant: ClockReading::now().instant,
                unix: 1_790_000_000,
            },
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix += time.as_secs();
        self.hub.handle_timeout(self.now);
    }

    fn connect(&mut self, path: &str, token: &str, public_key: &str) -> PeerId {
        let session = self.upgrade(path, token, public_key).expect("admitted");
        self.hub.handle_connected(session)
    }

    fn upgrade(&self, path: &str, token: &str, public_key: &str) -> Result<Session, Refusal> {
        let header = format!("Bearer {token}");
        let query = format!(
            "external_id=x&public_key={}",
            public_key.replace('=', "%3D")
        );
        self.hub.authorize_upgrade(&Upgrade {
            path,
            query: &query,
            authorization: Some(&header),
            user_agent: "Debian/12 gateway/1.6.1 (x86_64; 6.18.0)",
            remote_ip: REMOTE_IP,
        })
    }

    /// Connects and joins; consumes the reply and `init`.
    fn join(&mut self, path: &str, token: &str, public_key: &str) -> PeerId {
        let peer = self.connect(path, token, public_key);
        let topic = if path.starts_with("/gateway") {
            "gateway"
        } else {
            "client"
        };
        self.say(peer, topic, "phx_join", Value::Null);
        assert_eq!(self.events(), [(peer, "phx_reply"), (peer, "init")]);
        peer
    }

    fn gateway(&mut self) -> PeerId {
        self.join("/gateway/v2/websocket", "gw-token", GATEWAY_KEY)
    }

    fn alice(&mut self) -> PeerId {
        self.join("/client/v2/websocket", "alice-token", CLIENT_KEY)
    }

    fn say(&mut self, peer: PeerId, topic: &str, event: &str, payload: Value) {
        let frame = json!({"topic": topic, "event": event, "payload": payload, "ref": 7});
        self.hub.handle_text(peer, &frame.to_string(), self.now);
    }

    fn request(&mut self, client: PeerId, resource: &str) {
        let payload = json!({"resource_id": id("resource", resource), "connected_gateway_ids": []});
        self.say(client, "client", "request_authorization", payload);
    }

    fn acknowledge(&mut self, gateway: PeerId, request: &Value) {
        let payload = json!({"ref": request["ref"]});
        self.say(gateway, "gateway", "authorization_created", payload);
    }

    /// A grant from the request to the messages to both ends, which it consumes.
    fn grant(&mut self, client: PeerId, gateway: PeerId, resource: &str) {
        self.request(client, resource);
        let request = self.only(gateway, "create_authorization");
        self.acknowledge(gateway, &request);
        let events = self.events();
        assert_eq!(
            events,
            [(client, "authorization_created"), (gateway, "phx_reply")]
        );
    }

    /// All frames since the last call.
    fn said(&mut self) -> Vec<(PeerId, Value)> {
        let mut said = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { peer, text, .. } => {
                    said.push((peer, serde_json::from_str(&text).expect("JSON")));
                }
                Output::Close { peer, .. } => said.push((peer, json!({"event": "CLOSE"}))),
                Output::Settled { .. } => {}
            }
        }
        said
    }

    fn events(&mut self) -> Vec<(PeerId, &'static str)> {
        let said = self.said().into_iter();
        said.map(|(peer, frame)| {
            let event = frame["event"].as_str().expect("an event").to_owned();
            (peer, &*event.leak())
        })
        .collect()
    }

    /// The payload of the only frame since the last call.
    fn only(&mut self, peer: PeerId, event: &str) -> Value {
        let mut said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        let (to, mut frame) = said.pop().expect("one");
        assert_eq!((to, frame["event"].as_str()), (peer, Some(event)));
        assert_eq!(frame["ref"], Value::Null);
        frame["payload"].take()
    }

    fn command(&mut self, command: Value) -> Result<CommandOutcome, String> {
        let command = serde_json::from_value(command).expect("a command");
        self.hub.handle_command(command, self.now)
    }

    /// The answer to a command without arguments.
    fn answer(&mut self, op: &str) -> Value {
        self.command(json!({ "op": op })).expect("done").answer
    }

    fn list(&mut self) -> Vec<(String, String)> {
        let listed = self.answer("grants");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let grants = listed["grants"].as_array().expect("a list").iter();
        grants
            .map(|it| (text(&it["client"]), text(&it["resource"])))
            .collect()
    }
}

fn parse(config: &str) -> Config {
    Config::parse(config, Path::new(".")).expect("good")
}

fn id(kind: &str, name: &str) -> String {
    uuid_of(kind, name).to_string()
}

#[test]
fn a_grant_is_given_only_after_the_gateway_has_acknowledged_it() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    let request = lab.only(gateway, "create_authorization");
    assert_eq!(request["expires_at"], 1_790_003_600);
    lab.acknowledge(gateway, &request);
    let said = lab.said();
    let (to, grant) = &said[0];
    assert_eq!(
        (*to, grant["event"].as_str()),
        (alice, Some("authorization_created"))
    );
    for same in [
        "client_ice_credentials",
        "gateway_ice_credentials",
        "use_iceless",
    ] {
        assert_eq!(grant["payload"][same], request[same], "{same}");
    }
    assert_eq!(
        grant["payload"]["preshared_key"],
        request["client"]["preshared_key"]
    );
    assert_eq!(grant["payload"]["gateway_public_key"], GATEWAY_KEY);
    assert_eq!(said[1].1["payload"]["status"], "ok");
    lab.acknowledge(gateway, &request);
    let (_, again) = lab.said().remove(0);
    assert_eq!(again["payload"]["response"]["reason"], "invalid_ref");
}

#[test]
fn a_gateway_cannot_acknowledge_for_another() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    let other = lab.join("/gateway/v2/websocket", "gw2-token", OTHER_KEY);
    lab.request(alice, "web");
    let said = lab.said();
    let (asked, frame) = &said[0];
    let stranger = if *asked == gateway { other } else { gateway };
    lab.acknowledge(stranger, &frame["payload"]);
    let (_, reply) = lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "invalid_ref");
}

#[test]
fn every_session_is_spoken_to_in_its_own_generation() {
    let mut lab = Lab::new();
    let gateway = lab.join("/gateway/websocket", "gw-token", GATEWAY_KEY);
    let alice = lab.alice();
    lab.request(alice, "web");
    let request = lab.only(gateway, "authorize_flow");
    assert_eq!(request.get("flow_logs_ingest_token"), None);
    lab.say(
        gateway,
        "gateway",
        "flow_authorized",
        json!({"ref": request["ref"]}),
    );
    let said = lab.said();
    assert_eq!(said[0].1["event"], "authorization_created");
    assert!(said[0].1["payload"]["flow_logs_ingest_token"].is_string());

    let bob = lab.join("/client/websocket", "bob-token", OTHER_KEY);
    let payload = json!({"resource_id": id("resource", "web"), "connected_gateway_ids": []});
    lab.say(bob, "client", "create_flow", payload.clone());
    let request = lab.only(gateway, "authorize_flow");
    lab.say(
        gateway,
        "gateway",
        "flow_authorized",
        json!({"ref": request["ref"]}),
    );
    let said = lab.said();
    assert_eq!(
        (said[0].0, said[0].1["event"].as_str()),
        (bob, Some("flow_created"))
    );
    assert_eq!(said[0].1["payload"].get("flow_logs_ingest_token"), None);
    lab.say(bob, "client", "request_authorization", payload);
    let (_, reply) = lab.said().remove(0);
    assert_eq!(reply["payload"]["response"]["reason"], "unknown_message");
    let unknown = json!({"resource_id": "no-uuid"});
    lab.say(bob, "client", "create_flow", unknown);
    assert_eq!(lab.only(bob, "flow_creation_failed")["reason"], "not_found");
}

#[test]
fn refusals_have_their_reasons() {
    let mut lab = Lab::new();
    let bob = lab.join("/client/v2/websocket", "bob-token", OTHER_KEY);
    let mut reason = |resource: &str| {
        let payload = json!({"resource_id": resource, "connected_gateway_ids": []});
        lab.say(bob, "client", "request_authorization", payload);
        let refusal = lab.only(bob, "authorization_creation_failed");
        assert_eq!(refusal["resource_id"], resource);
        assert_eq!(refusal["violated_properties"], json!([]));
        refusal["reason"].as_str().expect("text").to_owned()
    };
    assert_eq!(reason(&id("resource", "nothing")), "not_found");
    assert_eq!(reason("nonsense"), "not_found");
    assert_eq!(reason(&id("resource", "corp")), "forbidden");
    assert_eq!(reason(&id("resource", "web")), "offline");
}

#[test]
fn a_gateway_of_another_site_is_not_chosen() {
    let mut lab = Lab::new();
    let (_, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "elsewhere");
    let refusal = lab.only(alice, "authorization_creation_failed");
    assert_eq!(refusal["reason"], "offline");
}

#[test]
fn a_gateway_that_has_not_joined_is_not_chosen() {
    let mut lab = Lab::new();
    lab.connect("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    let alice = lab.alice();
    lab.request(alice, "web");
    let refusal = lab.only(alice, "authorization_creation_failed");
    assert_eq!(refusal["reason"], "offline");
}

#[test]
fn the_clients_preferred_gateway_is_chosen() {
    let mut lab = Lab::new();
    let (first, alice) = (lab.gateway(), lab.alice());
    let second = lab.join("/gateway/v2/websocket", "gw2-token", OTHER_KEY);
    for (name, expected) in [("gw", first), ("gw2", second)] {
        let connected = [
            "11111111-1111-4111-8111-111111111111".to_owned(),
            id("gateway", name),
        ];
        let payload =
            json!({"resource_id": id("resource", "web"), "connected_gateway_ids": connected});
        lab.say(alice, "client", "request_authorization", payload);
        lab.only(expected, "create_authorization");
    }
}

#[test]
fn a_gateway_that_does_not_answer_is_offline_after_15_seconds() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    let request = lab.only(gateway, "create_authorization");
    assert_eq!(
        lab.hub.poll_timeout(),
        Some(lab.now.instant + Duration::from_secs(15))
    );
    lab.pass(Duration::from_millis(14_999));
    assert_eq!(lab.events(), []);
    lab.pass(Duration::from_millis(1));
    let refusal = lab.only(alice, "authorization_creation_failed");
    assert_eq!(refusal["reason"], "offline");
    assert_eq!(lab.hub.poll_timeout(), None);
    lab.acknowledge(gateway, &request);
    assert_eq!(
        lab.events(),
        [(gateway, "phx_reply")],
        "too late for the client"
    );
}

#[test]
fn a_restarted_gateway_fails_the_requests_of_its_former_process() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    lab.only(gateway, "create_authorization");
    lab.hub.handle_disconnected(gateway);
    lab.connect("/gateway/v2/websocket", "gw-token", OTHER_KEY);
    let refusal = lab.only(alice, "authorization_creation_failed");
    assert_eq!(refusal["reason"], "offline");
}

#[test]
fn a_gateway_that_lost_its_socket_may_acknowledge_on_the_next() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    let request = lab.only(gateway, "create_authorization");
    lab.hub.handle_disconnected(gateway);
    let gateway = lab.connect("/gateway/v2/websocket", "gw-token", GATEWAY_KEY);
    lab.say(gateway, "gateway", "phx_join", Value::Null);
    let (_, init) = lab.said().remove(1);
    let listed = init["payload"]["authorizations"]
        .as_array()
        .expect("a list");
    assert_eq!(listed.len(), 1, "a grant on its way must not be pruned");
    lab.acknowledge(gateway, &request);
    assert_eq!(
        lab.events(),
        [(alice, "authorization_created"), (gateway, "phx_reply")]
    );
}

/// docs/lessons.md 23: `init` lists every live grant, or the gateway revokes it.
#[test]
fn init_lists_the_live_grants_of_this_gateway_also_of_absent_clients() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.grant(alice, gateway, "web");
    lab.grant(alice, gateway, "corp");
    lab.hub.handle_disconnected(alice);
    let authorizations = |lab: &mut Lab, token: &str, key| {
        let peer = lab.connect("/gateway/v2/websocket", token, key);
        lab.said();
        lab.say(peer, "gateway", "phx_join", Value::Null);
        let (_, init) = lab.said().remove(1);
        init["payload"]["authorizations"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let listed = authorizations(&mut lab, "gw-token", GATEWAY_KEY);
    assert_eq!(listed.len(), 2);
    for grant in &listed {
        assert_eq!(grant["client_id"], json!(id("client", "alice")));
        assert!(grant["expires_at"].is_u64());
    }
    assert_eq!(
        authorizations(&mut lab, "gw2-token", OTHER_KEY),
        Vec::<Value>::new()
    );
    lab.pass(Duration::from_secs(3600));
    let listed = authorizations(&mut lab, "gw-token", GATEWAY_KEY);
    assert_eq!(listed.len(), 1, "the grant for an hour has expired");
}

#[test]
fn a_rekeyed_client_gets_new_keys_and_keeps_its_grants() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    let before = lab.only(gateway, "create_authorization");
    lab.acknowledge(gateway, &before);
    lab.said();
    let roamed = lab.connect("/client/v2/websocket", "alice-token", OTHER_KEY);
    assert_eq!(lab.events(), [(alice, "CLOSE")]);
    assert_eq!(lab.list().len(), 1);
    lab.say(roamed, "client", "phx_join", Value::Null);
    lab.said();
    lab.request(roamed, "web");
    let after = lab.only(gateway, "create_authorization");
    assert_eq!(after["client"]["id"], before["client"]["id"]);
    assert_eq!(after["client"]["public_key"], OTHER_KEY);
    assert_ne!(
        after["client"]["preshared_key"],
        before["client"]["preshared_key"]
    );
    assert_ne!(
        after["gateway_ice_credentials"],
        before["gateway_ice_credentials"]
    );
}

#[test]
fn a_repeated_request_carries_the_same_keys_and_another_reference() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.request(alice, "web");
    let mut first = lab.only(gateway, "create_authorization");
    lab.request(alice, "web");
    let mut second = lab.only(gateway, "create_authorization");
    assert_ne!(first["ref"].take(), second["ref"].take());
    first["flow_logs_ingest_token"].take();
    second["flow_logs_ingest_token"].take();
    assert_eq!(first, second);
}

#[test]
fn candidates_go_to_the_other_side_under_its_names() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    let candidates = json!(["candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host"]);
    let (gateway_id, client_id) = (id("gateway", "gw"), id("client", "alice"));
    for (said, heard) in [
        ("broadcast_ice_candidates", "ice_candidates"),
        (
            "broadcast_invalidated_ice_candidates",
            "invalidate_ice_candidates",
        ),
    ] {
        let payload = json!({"client_ids": [client_id, "x"], "candidates": candidates});
        lab.say(gateway, "gateway", said, payload);
        let expected = json!({"gateway_id": gateway_id, "candidates": candidates});
        assert_eq!(lab.only(alice, heard), expected);
        let payload = json!({"gateway_ids": [gateway_id], "candidates": candidates});
        lab.say(alice, "client", said, payload);
        let expected = json!({"client_id": client_id, "candidates": candidates});
        assert_eq!(lab.only(gateway, heard), expected);
    }
    for (said, heard) in [
        ("new_gateway_ice_candidates", "ice_candidates"),
        (
            "invalidate_gateway_ice_candidates",
            "invalidate_ice_candidates",
        ),
    ] {
        let payload = json!({"gateway_id": gateway_id, "candidates": candidates});
        lab.say(alice, "client", said, payload);
        lab.only(gateway, heard);
    }
}

#[test]
fn grants_survive_a_restart_of_the_portal() {
    let mut lab = Lab::new();
    let (gateway, alice) = (lab.gateway(), lab.alice());
    lab.grant(alice, gateway, "web");
    lab.grant(alice, gateway, "corp");
    assert!(lab.hub.take_grants_changed());
    let saved = lab.hub.saved_grants();

    let mut next = Lab::with(&CONFIG.replace(
        "client = \"alice\"\nresource = \"corp\"",
        "client = \"bob\"\nresource = \"corp\"",
    ));
    next.hub.restore(&saved, next.now);
    assert_eq!(next.list(), [("alice".to_owned(), "web".to_owned())]);
}

proptest::proptest! {
    /// No frame of a joined peer makes the hub panic or drop the other peers.
    #[test]
    fn arbitrary_frames_never_panic(text in ".{0,200}", event in "[a-z_]{0,40}") {
        let mut lab = Lab::new();
        let (gateway, alice) = (lab.gateway(), lab.alice());
        for peer in [gateway, alice] {
            lab.hub.handle_text(peer, &text, lab.now);
            for topic in ["gateway", "client", "phoenix"] {
                lab.say(peer, topic, &event, json!({"ref": text, "candidates": [text]}));
            }
        }
        lab.said();
        lab.grant(alice, gateway, "web");
    }
}
