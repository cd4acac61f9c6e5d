//! The recorded session, replayed: the frames of the real gateway and client go in, and the frames
//! of the recorded portal must come out, in the same order and with the same values.

use super::*;

const RECORDING: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/data/recorded-session.jsonl"
));

/// The identities of the recording, so that derived values agree with the recorded ones.
const CONFIG: &str = r#"
listen = ["127.0.0.1:8081"]
account = "lab"
[[relays]]
id = "fd0a92e0-ca68-5756-b41a-db4215aa9c55"
addr = ["10.50.9.1:3478"]
secret = "3a64f135234fee2c6063c57d31a68ea73a428fefbcf2b74ee2160d0433c56bb2"
[[sites]]
name = "lab-site"
id = "8a81ad45-f2c1-5378-b0a4-377e8574fd11"
[[gateways]]
name = "lab-gw"
id = "1ce2a32f-d76d-5f7a-b9df-9378f352718d"
token = "gwtok"
site = "lab-site"
ipv4 = "100.64.0.1"
ipv6 = "fd00:2021:1111::1"
[[clients]]
name = "lab-client"
id = "c5d78165-98cd-5d58-9a91-f1aa50e98701"
token = "cltok"
ipv4 = "100.64.1.2"
ipv6 = "fd00:2021:1111::102"
[[resources]]
name = "lab-cidr"
id = "a9c07f0a-68ed-564a-973d-c8624ca2b19a"
type = "cidr"
address = "10.50.3.0/25"
site = "lab-site"
[[resources]]
name = "lab-dns"
id = "5b2d3a89-bf21-5895-9fc1-dfb9f71d9101"
type = "dns"
address = "*.lab.test"
site = "lab-site"
[[policies]]
client = "*"
resource = "lab-cidr"
expires_in = "24h"
[[policies]]
client = "*"
resource = "lab-dns"
expires_in = "24h"
"#;

/// Members that cannot agree: random or private to either portal, or derived from such; and the
/// system's name, which the recorded portal did not take from the User-Agent.
const VOLATILE: [&str; 6] = [
    "device_os_name",
    "ref",
    "preshared_key",
    "flow_logs_ingest_token",
    "expires_at",
    "subject",
];

/// The clock of the recorded portal: its grants for 24 h ended at 1795445371.
const RECORDED_AT: u64 = 1_795_445_371 - 24 * 3600;

struct Replay {
    lab: Lab,
    gateway: Option<PeerId>,
    client: Option<PeerId>,
    /// Recorded reference of a request → ours.
    references: BTreeMap<String, Value>,
    /// Our frames that are not yet matched with a recorded one.
    said: VecDeque<(PeerId, Value)>,
}

impl Replay {
    fn upgrade(&mut self, line: &Value) {
        let target = line["path"].as_str().expect("a path");
        let (path, query) = target.split_once('?').expect("a query");
        let header = |name: &str| line["headers"][name].as_str().expect("a header");
        let upgrade = Upgrade {
            path,
            query,
            authorization: Some(header("x-authorization")),
            user_agent: header("User-Agent"),
            remote_ip: REMOTE_IP,
        };
        let session = self.lab.hub.authorize_upgrade(&upgrade).expect("admitted");
        assert_eq!(
            session.device.to_string(),
            line["peer_id"].as_str().expect("an id")
        );
        let peer = self.lab.hub.handle_connected(session);
        match line["peer"].as_str() {
            Some("gateway") => self.gateway = Some(peer),
            _ => self.client = Some(peer),
        }
        self.collect();
    }

    fn inbound(&mut self, line: &Value) {
        let mut frame = line["msg"].clone();
        if let Some(reference) = frame["payload"].get_mut("ref") {
            let recorded = reference.as_str().expect("text").to_owned();
            *reference = self.references[&recorded].clone();
        }
        let peer = self.peer(line);
        let now = self.lab.now;
        self.lab.hub.handle_text(peer, &frame.to_string(), now);
        self.collect();
    }

    fn outbound(&mut self, line: &Value) {
        let peer = self.peer(line);
        let mut recorded = line["msg"].clone();
        let at = self.said.iter().position(|(to, _)| *to == peer);
        let at = at.unwrap_or_else(|| panic!("missing: {recorded}"));
        let (_, mut said) = self.said.remove(at).expect("found");
        if let Some(reference) = recorded["payload"].get("ref").and_then(Value::as_str) {
            let ours = said["payload"]["ref"].clone();
            self.references.insert(reference.to_owned(), ours);
        }
        sort_lists(&mut recorded["payload"]);
        sort_lists(&mut said["payload"]);
        assert_same_shape(&recorded, &said, "frame");
        erase(&mut recorded["payload"]);
        erase(&mut said["payload"]);
        assert_eq!(said, recorded);
    }

    fn peer(&self, line: &Value) -> PeerId {
        let peer = match line["peer"].as_str() {
            Some("gateway") => self.gateway,
            _ => self.client,
        };
        peer.expect("connected")
    }

    fn collect(&mut self) {
        let closes = |(_, frame): &(PeerId, Value)| frame["event"] != "CLOSE";
        self.said.extend(self.lab.said().into_iter().filter(closes));
    }
}

/// Same keys and same kinds of values, all the way down.
fn assert_same_shape(recorded: &Value, said: &Value, place: &str) {
    match (recorded, said) {
        (Value::Object(recorded), Value::Object(said)) => {
            let keys =
                |it: &serde_json::Map<String, Value>| it.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(said), keys(recorded), "keys of {place}");
            for (key, value) in recorded {
                assert_same_shape(value, &said[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(recorded), Value::Array(said)) => {
            for (recorded, said) in recorded.iter().zip(said) {
                assert_same_shape(recorded, said, &format!("{place}[]"));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(recorded),
            std::mem::discriminant(said),
            "kind of {place}: {recorded} or {said}"
        ),
    }
}

/// Neither list has a meaning in its order; the recorded portal kept that of its file.
fn sort_lists(payload: &mut Value) {
    for (list, key) in [("resources", "id"), ("authorizations", "resource_id")] {
        if let Some(list) = payload.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|it| it[key].to_string());
        }
    }
}

fn erase(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members.iter_mut() {
                // A relay's expiry is a constant of the protocol and must agree.
                let constant = key == "expires_at" && *value == json!(2_145_916_800_u64);
                if VOLATILE.contains(&key.as_str()) && !constant {
                    *value = Value::Null;
                } else {
                    erase(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(erase),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_recorded_session_comes_out_as_recorded() {
    let mut lab = Lab::with(CONFIG);
    lab.now.unix = RECORDED_AT;
    let mut replay = Replay {
        lab,
        gateway: None,
        client: None,
        references: BTreeMap::new(),
        said: VecDeque::new(),
    };
    let mut compared = 0;
    for line in RECORDING.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let event = line["msg"]["event"].as_str().unwrap_or_default();
        if line["peer"] == "relay" {
            continue;
        }
        match line["dir"].as_str().expect("a direction") {
            "http-upgrade" => replay.upgrade(&line),
            dir if dir.ends_with("->portal") => replay.inbound(&line),
            // Pushed by hand in the recording, without a change behind it: the grant stayed.
            _ if ["resource_updated", "reject_access"].contains(&event) => {}
            _ => {
                replay.outbound(&line);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 16);
    assert_eq!(replay.said, [], "nothing beyond the recording");
}
