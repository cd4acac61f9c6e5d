//! The portal's decisions, without sockets: who is connected, who was granted what, and what each
//! message leads to.
//!
//! Messages go in, [`Output`]s come out; the order of outputs is the order on the wire. The hub
//! bridges the generations: a gateway of generation 1 serves a client of generation 2 and the
//! reverse, because every session is spoken to in its own event names; what a client of generation
//! 0 asks, a gateway is asked in the same generation's events, whatever else it speaks. It refuses
//! to guess: unknown events get an error reply, and a grant exists for a client only after the
//! gateway has acknowledged it (generation 0 leaves one case in which it never does).
//!
//! Limits: [`MAX_SESSIONS`] connections, [`MAX_PENDING`] unanswered grants (beyond that:
//! `offline`), [`MAX_ACK_TIMES`] measurements (the oldest go). Source: docs/protocol.md 0,
//! 1.4 – 1.6, 2.

mod commands;
mod frames;
mod generation0;
mod grants;
mod reload;
mod upgrade;

pub use commands::{Command, Guest, Load, Outcome, SetUp};
pub use grants::{AckTime, GrantKey, SavedGrant, Ticket};
pub use upgrade::{Admission, Refusal, Upgrade, UserAgent};

use super::client_wire::{CandidatesForGateways, GatewayCandidates};
use super::clock::Moment;
use super::config::Config;
use super::derive;
use grants::{Grant, Pending};
use postern_core::portal::wire::{
    BroadcastCandidates, ClientCandidates, Frame, Reason, RelaysPresence, Reply,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// One websocket connection. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// Which channel a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `/gateway/…`
    Gateway,
    /// `/client/…`
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

/// Which event names a connection uses; chosen by its path.
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

/// What the owner of the sockets is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Write a text frame.
    Send {
        /// To whom.
        peer: PeerId,
        /// The whole frame.
        text: String,
        /// When set: report the moment of writing with [`Hub::handle_sent`].
        grant: Option<String>,
    },
    /// Close the connection after everything sent so far. The hub has forgotten it already.
    Close {
        /// Which.
        peer: PeerId,
        /// For people.
        reason: &'static str,
    },
    /// What a ticket of the control socket has come to.
    Settled {
        /// Which.
        ticket: Ticket,
        /// Microseconds from sending the request to receiving the acknowledgement, or what went
        /// wrong.
        result: Result<u64, String>,
    },
}

/// A connected device.
#[derive(Clone, Debug)]
struct Session {
    side: Side,
    generation: Generation,
    device: Uuid,
    name: String,
    public_key: String,
    agent: UserAgent,
    remote_ip: Option<IpAddr>,
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
    pending: BTreeMap<String, Pending>,
    ack_times: VecDeque<AckTime>,
    outbox: VecDeque<Output>,
    /// Gateways that a tester wants to be refused.
    refused: BTreeSet<Uuid>,
    /// Counts everything that must be unique: connections, references, tickets.
    counter: u64,
    grants_changed: bool,
}

impl Hub {
    /// `seed` decides all derived keys; whoever keeps it keeps them. `entropy` makes references
    /// unforeseeable and must be fresh for every hub, or a restarted one would repeat them.
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

    /// The next thing to do; drain after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// A connection whose upgrade was admitted is open. An older connection of the same device is
    /// closed.
    pub fn handle_connected(&mut self, admission: Admission) -> PeerId {
        let Admission {
            side,
            generation,
            device,
            name,
            public_key,
            agent,
            remote_ip,
        } = admission;
        let older = self.sessions.iter().find(|(_, it)| it.device == device);
        if let Some((&peer, session)) = older {
            info!(name = session.name, "replaced by a newer connection");
            self.drop_session(peer, "replaced by a newer connection");
        }
        if side == Side::Gateway {
            self.abandon_outdated(device, &public_key);
        }
        if side == Side::Gateway && agent.version.is_none() {
            warn!(
                name,
                user_agent = agent.text,
                "a real portal never chooses a gateway without gateway/<semver> in its User-Agent"
            );
        }
        info!(name, side = side.topic(), ?generation, "connected");
        let peer = PeerId(self.count());
        let session = Session {
            side,
            generation,
            device,
            name,
            public_key,
            agent,
            remote_ip,
            joined: false,
            asks_in_generation_0: false,
        };
        self.sessions.insert(peer, session);
        peer
    }

    /// A connection is gone. Grants and unanswered requests stay: the device may come back.
    pub fn handle_disconnected(&mut self, peer: PeerId) {
        if let Some(session) = self.sessions.remove(&peer) {
            info!(
                name = session.name,
                side = session.side.topic(),
                "disconnected"
            );
        }
    }

    /// A text frame has come. `now` is the moment it was read from the socket.
    pub fn handle_text(&mut self, peer: PeerId, text: &str, now: Moment) {
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
        let heard = Heard {
            peer,
            session: &session,
            frame: &frame,
            now,
        };
        let reply = self.handle_frame(&heard);
        match reply {
            Verdict::Ok => self.reply(peer, &frame, "ok", json!({})),
            Verdict::Answer(response) => self.reply(peer, &frame, "ok", response),
            Verdict::Error(reason) => {
                debug!(name = session.name, event = frame.event, reason, "refused");
                let reason = json!({ "reason": reason });
                self.reply(peer, &frame, "error", reason);
            }
            Verdict::Joined => {
                self.reply(peer, &frame, "ok", json!({}));
                self.push_init(peer, now);
            }
            Verdict::Left => {
                self.reply(peer, &frame, "ok", json!({}));
                self.push(peer, "phx_close", &json!({}));
            }
            Verdict::Silent => {}
        }
    }

    fn handle_frame(&mut self, heard: &Heard<'_>) -> Verdict {
        let Heard {
            peer,
            session,
            frame,
            ..
        } = *heard;
        if frame.topic == "phoenix" {
            return match frame.event.as_str() {
                "heartbeat" => Verdict::Ok,
                _ => Verdict::Error("unknown_message"),
            };
        }
        if frame.topic != session.side.topic() {
            return Verdict::Error("unmatched topic");
        }
        if frame.event == "phx_join" {
            self.set_joined(peer, true);
            return Verdict::Joined;
        }
        if !session.joined {
            return Verdict::Error("unmatched topic");
        }
        match (session.side, frame.event.as_str()) {
            (_, "phx_leave") => {
                self.set_joined(peer, false);
                Verdict::Left
            }
            // The lab never offers ICE-less paths, so it need not remember who could use them.
            (_, "set_snownet_capabilities") => Verdict::Silent,
            (_, "no_relays") => {
                self.push_relays(peer, Vec::new());
                Verdict::Silent
            }
            (Side::Gateway, event) => self.handle_gateway_event(event, heard),
            (Side::Client, event) => self.handle_client_event(event, heard),
        }
    }

    fn handle_gateway_event(&mut self, event: &str, heard: &Heard<'_>) -> Verdict {
        let acknowledgement = heard
            .session
            .generation
            .pick("flow_authorized", "authorization_created");
        match event {
            _ if event == acknowledgement => self.handle_ack(heard),
            // On either endpoint: the event says by itself which generation it is of.
            "connection_ready" => self.handle_ready(heard),
            "broadcast_ice_candidates" => self.forward_to_clients(heard, "ice_candidates"),
            "broadcast_invalidated_ice_candidates" => {
                self.forward_to_clients(heard, "invalidate_ice_candidates")
            }
            _ => Verdict::Error("unknown_message"),
        }
    }

    fn handle_client_event(&mut self, event: &str, heard: &Heard<'_>) -> Verdict {
        let request = heard
            .session
            .generation
            .pick("create_flow", "request_authorization");
        match event {
            _ if event == request => self.handle_request(heard),
            "prepare_connection" | "request_connection" | "reuse_connection"
                if heard.session.generation == Generation::V1 =>
            {
                self.handle_generation_0(event, heard)
            }
            // Both names on both generations: they changed with headless 1.5.7, in the middle of
            // generation 1 (docs/protocol.md 2.5.
            "new_gateway_ice_candidates" | "broadcast_ice_candidates" => {
                self.forward_to_gateways(heard, "ice_candidates")
            }
            "invalidate_gateway_ice_candidates" | "broadcast_invalidated_ice_candidates" => {
                self.forward_to_gateways(heard, "invalidate_ice_candidates")
            }
            _ => Verdict::Error("unknown_message"),
        }
    }

    fn forward_to_clients(&mut self, heard: &Heard<'_>, event: &str) -> Verdict {
        let Some(BroadcastCandidates {
            client_ids,
            candidates,
        }) = read(heard.frame)
        else {
            return Verdict::Error("invalid_payload");
        };
        let payload = GatewayCandidates {
            gateway_id: heard.session.device.to_string(),
            candidates,
        };
        for id in client_ids.iter().take(MAX_ADDRESSEES) {
            match self.joined(Side::Client, id) {
                Some(peer) => self.push(peer, event, &payload),
                None => debug!(client = id, "candidates for a client that is not here"),
            }
        }
        Verdict::Silent
    }

    fn forward_to_gateways(&mut self, heard: &Heard<'_>, event: &str) -> Verdict {
        let (gateway_ids, candidates) = match read(heard.frame) {
            Some(CandidatesForGateways::One {
                gateway_id,
                candidates,
            }) => (vec![gateway_id], candidates),
            Some(CandidatesForGateways::Several {
                gateway_ids,
                candidates,
            }) => (gateway_ids, candidates),
            None => return Verdict::Error("invalid_payload"),
        };
        let payload = ClientCandidates {
            client_id: heard.session.device.to_string(),
            candidates,
        };
        for id in gateway_ids.iter().take(MAX_ADDRESSEES) {
            match self.joined(Side::Gateway, id) {
                Some(peer) => self.push(peer, event, &payload),
                None => debug!(gateway = id, "candidates for a gateway that is not here"),
            }
        }
        Verdict::Silent
    }

    fn set_joined(&mut self, peer: PeerId, joined: bool) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.joined = joined;
            info!(name = session.name, joined, "channel");
        }
    }

    /// The joined connection of the device with this id, as the id is written on the wire.
    fn joined(&self, side: Side, id: &str) -> Option<PeerId> {
        self.joined_device(side, id.parse().ok()?)
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

    /// Tells the owner to close the connection and forgets it.
    fn drop_session(&mut self, peer: PeerId, reason: &'static str) {
        if self.sessions.remove(&peer).is_some() {
            self.outbox.push_back(Output::Close { peer, reason });
        }
    }

    /// Tells the device why it has to go, then closes.
    fn expel(&mut self, peer: PeerId, reason: &str) {
        let payload = Reason {
            reason: reason.to_owned(),
        };
        self.push(peer, "disconnect", &payload);
        self.drop_session(peer, "expelled");
    }

    fn push_relays(&mut self, peer: PeerId, disconnected_ids: Vec<String>) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let payload = RelaysPresence {
            disconnected_ids,
            connected: frames::relays(&self.config.relays, &session.public_key),
        };
        self.push(peer, "relays_presence", &payload);
    }

    /// Queues a message of the portal's own accord.
    fn push(&mut self, peer: PeerId, event: &str, payload: &impl Serialize) {
        self.push_grant(peer, event, payload, None);
    }

    fn push_grant(
        &mut self,
        peer: PeerId,
        event: &str,
        payload: &impl Serialize,
        grant: Option<String>,
    ) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let frame = Frame {
            topic: session.side.topic().to_owned(),
            event: event.to_owned(),
            payload: value_of(payload),
            reference: None,
        };
        self.send(peer, &frame, grant);
    }

    fn reply(&mut self, peer: PeerId, to: &Frame, status: &str, response: Value) {
        let reply = Reply {
            status: status.to_owned(),
            response,
        };
        let frame = Frame {
            topic: to.topic.clone(),
            event: "phx_reply".to_owned(),
            payload: value_of(&reply),
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

    /// 32 bytes that nobody can foresee; never repeated.
    fn unforeseeable(&mut self) -> [u8; 32] {
        let label = format!("opaque:{}", self.count());
        derive::keyed(&self.entropy, &label)
    }
}

/// A frame and its circumstances.
struct Heard<'a> {
    peer: PeerId,
    session: &'a Session,
    frame: &'a Frame,
    /// When it was read from the socket.
    now: Moment,
}

/// What the sender of a frame is told.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// `ok`, `{}`.
    Ok,
    /// `ok` and this.
    Answer(Value),
    /// `error` with this reason.
    Error(&'static str),
    /// `ok`, then `init`.
    Joined,
    /// `ok`, then `phx_close`.
    Left,
    /// Nothing: the recorded portal leaves most events without a reply.
    Silent,
}

fn read<T: DeserializeOwned>(frame: &Frame) -> Option<T> {
    serde_json::from_value(frame.payload.clone()).ok()
}

fn value_of(payload: &impl Serialize) -> Value {
    serde_json::to_value(payload).expect("wire types serialize")
}

#[cfg(test)]
mod tests;
