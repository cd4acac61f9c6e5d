//! The portal's decisions, without sockets: connected devices, grants, and the outputs that each
//! message causes.
//!
//! Messages go in, [`Output`]s come out; the order of outputs is the order on the wire. The hub
//! bridges the generations: a gateway of generation 1 serves a client of generation 2 and the
//! reverse, because every session gets its own event names. A request of a client of generation 0
//! reaches the gateway in the events of that generation, whatever else the gateway speaks. The hub
//! refuses to guess: unknown events get an error reply, and a client gets a grant only after the
//! gateway has acknowledged it (generation 0 has one case without an acknowledgement).
//!
//! Limits: [`MAX_SESSIONS`] connections, [`MAX_PENDING`] unanswered grants (beyond that:
//! `offline`), [`MAX_ACK_TIMES`] measurements (the oldest go). Source: docs/protocol.md 0, 1.4,
//! 1.5, 1.6 and 2.

mod commands;
mod frames;
mod generation0;
mod grants;
mod reload;
mod upgrade;

pub use commands::{Command, CommandOutcome, ExternalClient, SetUpMeasurement, SetUpSignalling};
pub use grants::{Grant, SavedGrant, Ticket};
pub use upgrade::{Refusal, Upgrade, UserAgent};

use super::client_wire::CandidatesForGateways;
use super::config::Config;
use crate::clock::ClockReading;
use crate::secret::keyed;
use grants::Pending;
use postern_core::portal::wire::{BroadcastCandidates, Frame};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

/// Connections at the same time.
pub const MAX_SESSIONS: usize = 2048;
/// Grants that wait for a gateway's acknowledgement.
pub const MAX_PENDING: usize = 4096;
/// Measurements kept for the control socket.
pub const MAX_ACK_TIMES: usize = 10_000;
/// Gateways or clients that one candidate message may name. Firezone's programs name one.
const MAX_ADDRESSEES: usize = 64;

/// The number of a websocket connection. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// The client and the resource of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantKey {
    #[serde(rename = "client_id")]
    pub client: Uuid,
    #[serde(rename = "resource_id")]
    pub resource: Uuid,
}

/// The channel of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Gateway,
    Client,
}

impl Side {
    /// The channel's topic, also its first path segment.
    #[must_use]
    pub fn topic(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Client => "client",
        }
    }
}

/// The event names of a connection, chosen by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// `/gateway/websocket`, `/client/websocket`
    V1,
    /// `/gateway/v2/websocket`, `/client/v2/websocket`
    V2,
}

impl Generation {
    fn pick(self, v1: &'static str, v2: &'static str) -> &'static str {
        match self {
            Self::V1 => v1,
            Self::V2 => v2,
        }
    }
}

/// A task for the owner of the sockets.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Write a text frame to the peer.
    Send {
        peer: PeerId,
        text: String,
        /// When set: report the moment of writing with [`Hub::handle_sent`].
        grant: Option<String>,
    },
    /// Close the connection after everything sent so far. The hub has forgotten it already.
    Close { peer: PeerId, reason: &'static str },
    /// The result of a control command that waited for a gateway: microseconds from sending the
    /// request to receiving the acknowledgement, or the error.
    Settled {
        ticket: Ticket,
        result: Result<u64, String>,
    },
}

/// A connected device, or one whose upgrade was admitted.
#[derive(Clone, Debug)]
pub struct Session {
    side: Side,
    generation: Generation,
    device: Uuid,
    name: String,
    /// Base64 of 32 bytes, as sent.
    public_key: String,
    agent: UserAgent,
    remote_ip: IpAddr,
    joined: bool,
    /// Whether it has asked as clients of generation 0 do, which connect as generation 1 does.
    asks_in_generation_0: bool,
}

/// All state of the portal. See the module's documentation.
pub struct Hub {
    config: Config,
    seed: [u8; 32],
    entropy: [u8; 32],
    sessions: BTreeMap<PeerId, Session>,
    grants: BTreeMap<GrantKey, Grant>,
    /// Unacknowledged requests, by reference.
    pending: BTreeMap<String, Pending>,
    /// Times to acknowledgements, in microseconds.
    ack_times: VecDeque<u64>,
    outbox: VecDeque<Output>,
    /// Gateways that a tester wants refused.
    refused: BTreeSet<Uuid>,
    /// Makes connections, references and tickets unique.
    counter: u64,
    grants_changed: bool,
}

impl Hub {
    /// All derived keys follow from `seed`. `entropy` makes references unpredictable and must be
    /// fresh for every hub, or a restarted one would repeat them.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], entropy: [u8; 32]) -> Self {
        Self {
            config,
            seed,
            entropy,
            sessions: BTreeMap::new(),
            grants: BTreeMap::new(),
            pending: BTreeMap::new(),
            ack_times: VecDeque::new(),
            outbox: VecDeque::new(),
            refused: BTreeSet::new(),
            counter: 0,
            grants_changed: false,
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The next output; drain after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// An admitted connection is open. Closes an older connection of the same device.
    pub fn handle_connected(&mut self, session: Session) -> PeerId {
        let device = session.device;
        let older = self.sessions.iter().find(|(_, it)| it.device == device);
        if let Some((&peer, session)) = older {
            info!(name = session.name, "replaced by a newer connection");
            self.drop_session(peer, "replaced by a newer connection");
        }
        if session.side == Side::Gateway {
            self.abandon_outdated(device, &session.public_key);
        }
        let Session {
            side,
            generation,
            name,
            agent,
            ..
        } = &session;
        if *side == Side::Gateway && agent.version.is_none() {
            warn!(
                name,
                user_agent = agent.text,
                "a real portal never chooses a gateway without gateway/<semver> in its User-Agent"
            );
        }
        info!(name, side = side.topic(), ?generation, "connected");
        let peer = PeerId(self.count());
        self.sessions.insert(peer, session);
        peer
    }

    /// A connection is gone. Grants and unanswered requests stay: the device may come back.
    pub fn handle_disconnected(&mut self, peer: PeerId) {
        if let Some(Session { name, side, .. }) = self.sessions.remove(&peer) {
            info!(name, side = side.topic(), "disconnected");
        }
    }

    /// A text frame has arrived. `now` is the moment it was read from the socket.
    pub fn handle_text(&mut self, peer: PeerId, text: &str, now: ClockReading) {
        let Some(session) = self.sessions.get(&peer).cloned() else {
            return;
        };
        let frame: Frame = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                debug!(name = session.name, %error, "unreadable frame ignored");
                return;
            }
        };
        let received = ReceivedFrame {
            peer,
            session: &session,
            frame: &frame,
            now,
        };
        match self.handle_frame(&received) {
            Ok(Some(response)) => self.reply(peer, &frame, "ok", response),
            Ok(None) => {}
            Err(reason) => {
                debug!(name = session.name, event = frame.event, reason, "refused");
                let reason = json!({ "reason": reason });
                self.reply(peer, &frame, "error", reason);
            }
        }
    }

    fn handle_frame(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let ReceivedFrame {
            peer,
            session,
            frame,
            now,
        } = *received;
        match (frame.topic.as_str(), frame.event.as_str()) {
            ("phoenix", "heartbeat") => return Ok(Some(json!({}))),
            ("phoenix", _) => return Err("unknown_message"),
            (topic, _) if topic != session.side.topic() => return Err("unmatched topic"),
            (_, "phx_join") => {
                self.set_joined(peer, true);
                self.reply(peer, frame, "ok", json!({}));
                self.push_init(peer, now);
                return Ok(None);
            }
            _ if !session.joined => return Err("unmatched topic"),
            _ => {}
        }
        match (session.side, frame.event.as_str()) {
            (_, "phx_leave") => {
                self.set_joined(peer, false);
                self.reply(peer, frame, "ok", json!({}));
                self.push(peer, "phx_close", json!({}));
                Ok(None)
            }
            // The lab never offers ICE-less paths, so it ignores which devices support them.
            (_, "set_snownet_capabilities") => Ok(None),
            (_, "no_relays") => {
                self.push_relays(peer, &[]);
                Ok(None)
            }
            (Side::Gateway, event) => self.handle_gateway_event(event, received),
            (Side::Client, event) => self.handle_client_event(event, received),
        }
    }

    fn handle_gateway_event(&mut self, event: &str, received: &ReceivedFrame<'_>) -> FrameResult {
        let generation = received.session.generation;
        match event {
            _ if event == generation.pick("flow_authorized", "authorization_created") => {
                self.handle_ack(received)
            }
            // On either endpoint: the event tells its generation by itself.
            "connection_ready" => self.handle_ready(received),
            "broadcast_ice_candidates" => self.forward_to_clients(received, "ice_candidates"),
            "broadcast_invalidated_ice_candidates" => {
                self.forward_to_clients(received, "invalidate_ice_candidates")
            }
            _ => Err("unknown_message"),
        }
    }

    fn handle_client_event(&mut self, event: &str, received: &ReceivedFrame<'_>) -> FrameResult {
        let generation = received.session.generation;
        match event {
            _ if event == generation.pick("create_flow", "request_authorization") => {
                self.handle_request(received)
            }
            "prepare_connection" | "request_connection" | "reuse_connection"
                if generation == Generation::V1 =>
            {
                self.handle_generation_0(event, received)
            }
            // Both names on both generations: they changed with headless 1.5.7, in the middle of
            // generation 1 (docs/protocol.md 2.5).
            "new_gateway_ice_candidates" | "broadcast_ice_candidates" => {
                self.forward_to_gateways(received, "ice_candidates")
            }
            "invalidate_gateway_ice_candidates" | "broadcast_invalidated_ice_candidates" => {
                self.forward_to_gateways(received, "invalidate_ice_candidates")
            }
            _ => Err("unknown_message"),
        }
    }

    fn forward_to_clients(&mut self, received: &ReceivedFrame<'_>, event: &str) -> FrameResult {
        let message: BroadcastCandidates = received.payload()?;
        let gateway = received.session.device;
        let payload = json!({ "gateway_id": gateway, "candidates": message.candidates });
        self.forward(Side::Client, &message.client_ids, event, &payload);
        Ok(None)
    }

    fn forward_to_gateways(&mut self, received: &ReceivedFrame<'_>, event: &str) -> FrameResult {
        let (gateway_ids, candidates) = match received.payload::<CandidatesForGateways>()? {
            CandidatesForGateways::One {
                gateway_id,
                candidates,
            } => (vec![gateway_id], candidates),
            CandidatesForGateways::Several {
                gateway_ids,
                candidates,
            } => (gateway_ids, candidates),
        };
        let client = received.session.device;
        let payload = json!({ "client_id": client, "candidates": candidates });
        self.forward(Side::Gateway, &gateway_ids, event, &payload);
        Ok(None)
    }

    fn forward(&mut self, to: Side, ids: &[String], event: &str, payload: &Value) {
        for id in ids.iter().take(MAX_ADDRESSEES) {
            let device = id.parse().ok();
            match device.and_then(|device| self.joined_device(to, device)) {
                Some(peer) => self.push(peer, event, payload.clone()),
                None => debug!(device = id, "candidates for a device that is not connected"),
            }
        }
    }

    fn set_joined(&mut self, peer: PeerId, joined: bool) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.joined = joined;
            info!(name = session.name, joined, "channel");
        }
    }

    fn joined_device(&self, side: Side, device: Uuid) -> Option<PeerId> {
        let mut sessions = self.sessions.iter();
        let found = sessions.find(|(_, it)| it.device == device && it.side == side && it.joined);
        found.map(|(peer, _)| *peer)
    }

    fn joined_peers(&self, side: Side) -> Vec<(PeerId, Session)> {
        let joined = |(_, it): &(&PeerId, &Session)| it.side == side && it.joined;
        let own = |(peer, it): (&PeerId, &Session)| (*peer, it.clone());
        self.sessions.iter().filter(joined).map(own).collect()
    }

    /// Closes the connection and forgets it.
    fn drop_session(&mut self, peer: PeerId, reason: &'static str) {
        if self.sessions.remove(&peer).is_some() {
            self.outbox.push_back(Output::Close { peer, reason });
        }
    }

    fn push_relays(&mut self, peer: PeerId, disconnected_ids: &[Uuid]) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let connected = frames::relays(&self.config.relays, &session.public_key);
        let payload = json!({ "disconnected_ids": disconnected_ids, "connected": connected });
        self.push(peer, "relays_presence", payload);
    }

    /// Queues a message that is no reply.
    fn push(&mut self, peer: PeerId, event: &str, payload: Value) {
        self.push_grant(peer, event, payload, None);
    }

    fn push_grant(&mut self, peer: PeerId, event: &str, payload: Value, grant: Option<String>) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let frame = Frame {
            topic: session.side.topic().to_owned(),
            event: event.to_owned(),
            payload,
            reference: None,
        };
        self.send(peer, &frame, grant);
    }

    fn reply(&mut self, peer: PeerId, to: &Frame, status: &str, response: Value) {
        let frame = Frame {
            topic: to.topic.clone(),
            event: "phx_reply".to_owned(),
            payload: json!({ "status": status, "response": response }),
            reference: to.reference,
        };
        self.send(peer, &frame, None);
    }

    fn send(&mut self, peer: PeerId, frame: &Frame, grant: Option<String>) {
        let text = serde_json::to_string(frame).expect("frames serialize");
        self.outbox.push_back(Output::Send { peer, text, grant });
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// 32 unpredictable bytes; never repeated.
    fn unforeseeable(&mut self) -> [u8; 32] {
        let label = format!("opaque:{}", self.count());
        keyed(&self.entropy, &label)
    }
}

/// The response for an `ok` reply, `None` for no reply (the recorded portal leaves most events
/// without one), or the reason for an `error` reply.
type FrameResult = Result<Option<Value>, &'static str>;

/// A frame, its sender, and when it was read from the socket.
struct ReceivedFrame<'a> {
    peer: PeerId,
    session: &'a Session,
    frame: &'a Frame,
    now: ClockReading,
}

impl ReceivedFrame<'_> {
    fn payload<T: DeserializeOwned>(&self) -> Result<T, &'static str> {
        serde_json::from_value(self.frame.payload.clone()).map_err(|_| "invalid_payload")
    }
}

#[cfg(test)]
mod tests;
