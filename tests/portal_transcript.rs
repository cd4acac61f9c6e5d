//! Feeds the portal's half of a recorded session to the protocol, which must answer as the recorded
//! gateway did: the same kinds, in order and, where the payloads can be equal, to the byte.
//!
//! The recording (`tests/data`) is of another implementation; only the capabilities differ.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use postern_core::command::ClientCommand;
use postern_core::ids::PublicKey;
use postern_core::portal::{
    Generation, GenerationChoice, IceSecret, PortalConfig, PortalEvent, PortalLimits,
    PortalProtocol, PortalUrl, Token,
};
use serde_json::Value;
use std::time::{Duration, Instant};

const RECORDING: &str = include_str!("data/recorded-session.jsonl");

/// Base64 `1xTNNNGfWu4AzRjrokdms80NjSxLL5wkAC/x7EhgC1k=`.
const RECORDED_KEY: [u8; 32] = [
    0xd7, 0x14, 0xcd, 0x34, 0xd1, 0x9f, 0x5a, 0xee, 0x00, 0xcd, 0x18, 0xeb, 0xa2, 0x47, 0x66, 0xb3,
    0xcd, 0x0d, 0x8d, 0x2c, 0x4b, 0x2f, 0x9c, 0x24, 0x00, 0x2f, 0xf1, 0xec, 0x48, 0x60, 0x0b, 0x59,
];

#[test]
fn answers_both_recorded_connections_as_recorded() {
    let connections = connections();
    assert_eq!(connections.len(), 2);
    let mut replay = Replay::new();
    for connection in &connections {
        let (mut sent, mut recorded) = (replay.run(connection), connection.sent.clone());
        assert_eq!(kinds(&sent), kinds(&recorded));
        // The one difference: the recorded gateway speaks the ICE-less protocol, ours does not.
        for frame in sent.iter_mut().chain(&mut recorded) {
            *frame = frame.replace(r#"{"iceless":true}"#, r#"{"iceless":false}"#);
        }
        assert_eq!(sent, recorded);
    }
}

#[test]
fn sends_the_recorded_upgrade() {
    let mut replay = Replay::new();
    let upgrade = &connections()[0].upgrade;
    let request = replay.connect();
    let path = upgrade["path"].as_str().unwrap();
    assert_eq!(request.url, format!("ws://10.50.2.1:8081{path}"));
    assert_eq!(request.headers.host, upgrade["headers"]["Host"]);
    assert_eq!(
        request.headers.authorization.as_str(),
        upgrade["headers"]["x-authorization"]
    );
    // The part from which the portal reads our version is equal; the operating system's name is
    // not.
    let version = |agent: &str| agent.split(' ').nth(1).map(str::to_owned);
    let recorded = upgrade["headers"]["User-Agent"].as_str().unwrap();
    assert_eq!(version(&request.headers.user_agent), version(recorded));
}

#[test]
fn understands_every_recorded_message() {
    let mut replay = Replay::new();
    for connection in &connections() {
        replay.run(connection);
    }
    let is_anomaly = |event: &&PortalEvent| matches!(event, PortalEvent::Anomaly(_));
    assert_eq!(replay.events.iter().find(is_anomaly), None);
    let count = |wanted: fn(&PortalEvent) -> bool| {
        replay.events.iter().filter(|event| wanted(event)).count()
    };
    assert_eq!(
        count(|event| matches!(event, PortalEvent::Initialized(_))),
        2
    );
    assert_eq!(
        count(|event| matches!(event, PortalEvent::Client(ClientCommand::Authorize(_)))),
        2
    );
    assert_eq!(
        count(|event| matches!(
            event,
            PortalEvent::Client(ClientCommand::AddCandidates { .. })
        )),
        2
    );
    assert_eq!(
        count(|event| matches!(event, PortalEvent::Client(ClientCommand::UpdateResource(_)))),
        1
    );
    assert_eq!(
        count(|event| matches!(event, PortalEvent::Client(ClientCommand::Revoke { .. }))),
        1
    );
}

/// One websocket of the recording.
struct Connection {
    upgrade: Value,
    received: Vec<String>,
    sent: Vec<String>,
}

fn connections() -> Vec<Connection> {
    let mut connections: Vec<Connection> = Vec::new();
    for line in RECORDING.lines() {
        let entry: Value = serde_json::from_str(line).expect("a recorded line");
        if entry["peer"] != "gateway" {
            continue;
        }
        let direction = entry["dir"].as_str().unwrap().to_owned();
        if direction == "http-upgrade" {
            connections.push(Connection {
                upgrade: entry,
                received: Vec::new(),
                sent: Vec::new(),
            });
            continue;
        }
        let connection = connections.last_mut().expect("an upgrade comes first");
        match direction.as_str() {
            "portal->gateway" => connection.received.push(frame_of(line)),
            "gateway->portal" => connection.sent.push(frame_of(line)),
            other => panic!("a direction {other} in the recording"),
        }
    }
    connections
}

/// The text of the recorded frame, members in order, without the recorder's spaces.
fn frame_of(line: &str) -> String {
    let (_, frame) = line.split_once(r#""msg": "#).expect("a message");
    let frame = frame.strip_suffix('}').expect("the end of the entry");
    let (mut in_text, mut escaped) = (false, false);
    let significant = |c: &char| {
        let keep = in_text || !c.is_whitespace();
        in_text ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        keep
    };
    frame.chars().filter(significant).collect()
}

fn kinds(frames: &[String]) -> Vec<(String, u64)> {
    let kind = |frame: &String| {
        let frame: Value = serde_json::from_str(frame).unwrap();
        let event = frame["event"].as_str().unwrap().to_owned();
        (event, frame["ref"].as_u64().unwrap())
    };
    frames.iter().map(kind).collect()
}

/// The protocol with an owner that grants all requests and offers the recorded candidates.
struct Replay {
    protocol: PortalProtocol,
    now: Instant,
    events: Vec<PortalEvent>,
}

impl Replay {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        let now = Instant::now();
        let config = PortalConfig {
            url: PortalUrl::parse("ws://10.50.2.1:8081").unwrap(),
            token: Token::new("gwtok").unwrap(),
            id: "gw-1".into(),
            name: "lab-gw".into(),
            public_key: PublicKey(RECORDED_KEY),
            ice_secret: IceSecret::new([5; 32]),
            generation: GenerationChoice::Only(Generation::V2),
            kernel: "6.18.0".into(),
            arch: "x86_64".into(),
            max_outage: Duration::from_secs(24 * 3_600),
            backoff: postern_core::backoff::BackoffConfig::default(),
            limits: PortalLimits::default(),
        };
        Self {
            protocol: PortalProtocol::new(config, [7; 32], now),
            now,
            events: Vec::new(),
        }
    }

    fn connect(&mut self) -> postern_core::portal::ConnectRequest {
        self.now = self.protocol.poll_timeout().expect("wants to connect");
        self.protocol.handle_timeout(self.now);
        loop {
            let event = self.protocol.poll_event().expect("an attempt");
            if let PortalEvent::Connect(request) = event {
                return request;
            }
        }
    }

    /// Replays one connection: the portal's frames go in, our frames come out.
    fn run(&mut self, connection: &Connection) -> Vec<String> {
        let request = self.connect();
        self.protocol.handle_connected(request.generation, self.now);
        let mut sent = Vec::new();
        for received in &connection.received {
            self.drain(&mut sent);
            self.protocol.handle_text(received, self.now);
        }
        self.drain(&mut sent);
        self.protocol
            .handle_closed("end of the recording", self.now);
        sent
    }

    fn drain(&mut self, sent: &mut Vec<String>) {
        while let Some(event) = self.protocol.poll_event() {
            if let PortalEvent::Client(ClientCommand::Authorize(request)) = &event {
                self.protocol.accept(&request.reply_ref);
                // Offered in the wrong order: the protocol sorts by priority.
                let candidates = [
                    "candidate:fffe3f02854b948871f718e5 1 udp 37748479 10.50.9.1 54569 typ relay raddr 0.0.0.0 rport 0 ufrag abbi",
                    "candidate:fffeff7eed95ef33ea97091a 1 udp 2130706175 10.50.2.2 52625 typ host ufrag abbi",
                ];
                let candidates = candidates.map(str::to_owned).to_vec();
                self.protocol.add_candidates(request.client.id, candidates);
            }
            self.events.push(event);
        }
        sent.extend(std::iter::from_fn(|| self.protocol.poll_transmit()));
    }
}
