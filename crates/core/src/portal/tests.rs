//! Dialogues with the state machine, in virtual time. The names follow docs/protocol.md 1.4 to 1.7,
//! and the tests of the reference implementation in docs/protocol.md 9.3.

mod anything;
mod generation0;
mod joining;
mod messages;
mod reconnecting;

use super::*;
use crate::testing::beginning;
use serde_json::{Value, json};
use uuid::Uuid;

const WALL: UnixTime = UnixTime(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
const CLIENT: ClientId = ClientId(Uuid::from_u128(1));

/// The protocol and its clock.
struct Dialogue {
    protocol: PortalProtocol,
    now: Instant,
}

impl Dialogue {
    fn with(config: PortalConfig) -> Self {
        let now = beginning();
        let protocol = PortalProtocol::new(config, [7; 32], now);
        Self { protocol, now }
    }

    fn new() -> Self {
        Self::with(test_config())
    }

    /// Joined in generation 2, with all output consumed.
    fn joined() -> Self {
        let mut dialogue = Self::new();
        dialogue.connect();
        dialogue.reply_ok(0);
        dialogue.drain();
        dialogue
    }

    /// Waits for the next attempt and opens the socket.
    fn connect(&mut self) -> ConnectRequest {
        let request = self.attempt();
        self.protocol.handle_connected(request.generation, self.now);
        request
    }

    /// Waits for the next attempt.
    fn attempt(&mut self) -> ConnectRequest {
        self.wake();
        self.next_connect().expect("an attempt is due")
    }

    /// The attempt in progress, if any.
    fn next_connect(&mut self) -> Option<ConnectRequest> {
        std::iter::from_fn(|| self.protocol.poll_event()).find_map(|event| {
            if let PortalEvent::Connect(request) = event {
                Some(request)
            } else {
                None
            }
        })
    }

    /// Jumps to the next deadline and returns the time to it.
    fn wake(&mut self) -> Duration {
        let at = self.protocol.poll_timeout().expect("something is due");
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.protocol.handle_timeout(self.now);
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.protocol.handle_timeout(self.now);
    }

    fn say(&mut self, frame: Value) {
        self.protocol.handle_text(&frame.to_string(), self.now);
    }

    fn push(&mut self, event: &str, payload: Value) {
        self.say(json!({"topic":"gateway","event":event,"payload":payload,"ref":null}));
    }

    fn reply_ok(&mut self, reference: u64) {
        let payload = json!({"status":"ok","response":{}});
        self.say(json!({"topic":"gateway","event":"phx_reply","payload":payload,"ref":reference}));
    }

    fn reply_error(&mut self, reference: u64, reason: &str) {
        let payload = json!({"status":"error","response":{"reason":reason}});
        self.say(json!({"topic":"gateway","event":"phx_reply","payload":payload,"ref":reference}));
    }

    fn fail(&mut self, status: u16) {
        let failure = UpgradeFailure {
            status,
            ..UpgradeFailure::default()
        };
        self.protocol
            .handle_upgrade_failed(&failure, self.now, WALL);
    }

    fn grant(&mut self, reply_ref: &str) {
        self.push(
            "create_authorization",
            json!({
                "ref": reply_ref,
                "client": {
                    "id": CLIENT, "ipv4": "100.64.0.5", "ipv6": "fd00:2021:1111::5",
                    "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                    "preshared_key": "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA=",
                },
                "resource": {"type": "internet", "id": Uuid::from_u128(2)},
                "client_ice_credentials": {"username": "eokn", "password": "5enp7ct6775ebzonvunxjy"},
                "gateway_ice_credentials": {"username": "6m26", "password": "gj5f2zjrxg6cwvtrtqgfva"},
            }),
        );
    }

    fn events(&mut self) -> Vec<PortalEvent> {
        std::iter::from_fn(|| self.protocol.poll_event()).collect()
    }

    /// Frames to write, parsed.
    fn frames(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.protocol.poll_transmit())
            .map(|text| serde_json::from_str(&text).expect("we write JSON"))
            .collect()
    }

    /// Event names and refs of the frames to write.
    fn written(&mut self) -> Vec<(String, u64)> {
        let name = |frame: &Value| frame["event"].as_str().unwrap().to_owned();
        let frames = self.frames();
        frames
            .iter()
            .map(|frame| (name(frame), frame["ref"].as_u64().unwrap()))
            .collect()
    }

    fn drain(&mut self) {
        self.events();
        self.frames();
    }

    /// The delay announced after a failure.
    fn retry(&mut self) -> Duration {
        let retrying = self.events().into_iter().find_map(|event| {
            if let PortalEvent::Retrying { after, .. } = event {
                Some(after)
            } else {
                None
            }
        });
        retrying.expect("another attempt is planned")
    }

    fn fatal(&mut self) -> Option<String> {
        self.events().into_iter().find_map(|event| {
            if let PortalEvent::Fatal { reason } = event {
                Some(reason)
            } else {
                None
            }
        })
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn is_anomaly(event: &PortalEvent, kind: AnomalyKind) -> bool {
    matches!(event, PortalEvent::Anomaly(anomaly) if anomaly.kind == kind)
}
