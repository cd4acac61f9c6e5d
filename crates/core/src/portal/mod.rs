//! The portal protocol: connect, join, heartbeat, reconnect, and the translation of messages.
//!
//! A state machine without sockets. It requests connections and writes, and receives the events of
//! the socket. It stops for only three reasons, which no retry can remedy: a 401, a refused join,
//! an expired token. After any other failure the data plane continues and the portal is tried again
//! (docs/lessons.md 24). Source: docs/protocol.md 1 and docs/protocol.md 2.
//!
//! ```text
//!            handle_timeout                handle_connected          join reply
//! Waiting ──── Connect ────▶ Connecting ────── join ────▶ Joining ────────────▶ joined
//!    ▲                           │                           │                     │
//!    └── backoff, Retry-After ───┴──── error, close, silence, late answer ─────────┘
//! ```
//!
//! Deviations from the reference gateway: one that has never joined does not stop after 15 s, since
//! booting without a network is normal (docs/lessons.md 21); the generation is determined by trying
//! (404).

mod anomaly;
mod config;
mod connect;
mod credentials;
mod event;
mod outbox;
mod retry_after;
mod session;
mod translate;
pub mod wire;

#[cfg(test)]
mod tests;

pub use anomaly::{Anomaly, AnomalyKind};
pub use config::{
    Generation, GenerationChoice, PortalConfig, PortalConfigError, PortalLimits, PortalUrl, Token,
};
pub use connect::{COMPATIBLE_VERSION, ConnectRequest, Headers, UpgradeFailure};
pub use credentials::IceSecret;
pub use event::PortalEvent;

use crate::backoff::Backoff;
use crate::command::ClientCommand;
use crate::ids::{ClientId, UnixTime};
use anomaly::AnomalyFilter;
use connect::UpgradeVerdict;
use outbox::{Acknowledgement, LimitReached, Outbox, Outgoing};
use session::{Reply, Session};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use translate::TranslateError;

/// The gateway's side of the portal protocol.
#[derive(Debug)]
pub struct PortalProtocol {
    config: PortalConfig,
    now: Instant,
    phase: Phase,
    generation: Generation,
    backoff: Backoff,
    outage: Outage,
    outbox: Outbox,
    anomalies: AnomalyFilter,
    events: VecDeque<PortalEvent>,
}

#[derive(Debug)]
enum Phase {
    /// No socket before this time.
    Waiting { until: Instant },
    /// The shell is opening a socket; this is the time limit.
    Connecting { deadline: Instant },
    /// The socket is open, joined or not.
    Online(Session),
    /// Refused, or stopped by the owner.
    Stopped,
}

/// The present period without the portal.
#[derive(Debug)]
struct Outage {
    /// Its start; without meaning while joined.
    since: Instant,
    ever_joined: bool,
    /// Whether `Joined` was emitted without a later `Left`.
    announced: bool,
    reasons: BTreeSet<String>,
}

/// Whether the portal itself answered before the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// No answer: no network, no name, no port, or a timeout.
    Unreachable,
    /// It answered, possibly with the delay before the next attempt.
    Answered(Option<Duration>),
}

impl PortalProtocol {
    /// A protocol that connects immediately: call `handle_timeout`.
    #[must_use]
    pub fn new(config: PortalConfig, seed: [u8; 32], now: Instant) -> Self {
        Self {
            now,
            phase: Phase::Waiting { until: now },
            generation: config.generation.first(),
            backoff: Backoff::new(config.backoff, seed),
            outage: Outage {
                since: now,
                ever_joined: false,
                announced: false,
                reasons: BTreeSet::new(),
            },
            outbox: Outbox::new(config.limits),
            anomalies: AnomalyFilter::default(),
            events: VecDeque::new(),
            config,
        }
    }

    /// The websocket is open; `generation` is that of the request.
    pub fn handle_connected(&mut self, generation: Generation, now: Instant) {
        self.advance(now);
        if !matches!(self.phase, Phase::Connecting { .. }) {
            self.events.push_back(PortalEvent::Disconnect);
            return;
        }
        self.generation = generation;
        self.outbox.reset(generation);
        let join = self.outbox.write(&Outgoing::Join);
        self.phase = Phase::Online(Session::new(join, self.now));
    }

    /// The portal answered the upgrade with an HTTP response. `unix_now` is for a `Retry-After`
    /// date.
    pub fn handle_upgrade_failed(
        &mut self,
        failure: &UpgradeFailure,
        now: Instant,
        unix_now: UnixTime,
    ) {
        self.advance(now);
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        match connect::judge(failure, unix_now) {
            UpgradeVerdict::Refused { reason } => self.stop(reason),
            UpgradeVerdict::NotServed { reason } => self.try_older_generation(reason),
            UpgradeVerdict::Retry { reason, after } => {
                self.retry(reason, Failure::Answered(after));
            }
        }
    }

    /// The websocket could not be opened: no name, no route, refused, reset, TLS.
    pub fn handle_connect_error(&mut self, reason: &str, now: Instant) {
        self.advance(now);
        if matches!(self.phase, Phase::Connecting { .. }) {
            let reason = format!("cannot reach the portal: {reason}");
            self.retry(reason, Failure::Unreachable);
        }
    }

    /// A text frame was received.
    pub fn handle_text(&mut self, text: &str, now: Instant) {
        self.advance(now);
        if !matches!(self.phase, Phase::Online(_)) {
            return;
        }
        match wire::Frame::read(text) {
            Ok(frame) => self.handle_frame(frame),
            Err(what) => self.report(AnomalyKind::UnreadableFrame, "", what),
        }
    }

    /// A binary frame was received.
    pub fn handle_binary(&mut self, now: Instant) {
        self.advance(now);
        if matches!(self.phase, Phase::Online(_)) {
            self.report(AnomalyKind::BinaryFrame, "", String::new());
        }
    }

    /// The websocket was closed: a close frame, an error, the end of the stream.
    pub fn handle_closed(&mut self, reason: &str, now: Instant) {
        self.advance(now);
        if matches!(self.phase, Phase::Online(_)) {
            self.connection_lost(reason.to_owned());
        }
    }

    /// Performs the actions that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        match &mut self.phase {
            Phase::Waiting { until } if *until <= self.now => self.connect(),
            Phase::Connecting { deadline } if *deadline <= self.now => {
                self.events.push_back(PortalEvent::Disconnect);
                let reason = "the portal did not answer within 15 s".to_owned();
                self.retry(reason, Failure::Unreachable);
            }
            Phase::Online(session) if session.join_deadline().is_some_and(|at| at <= self.now) => {
                self.disconnect("the portal did not answer the join within 5 s");
            }
            Phase::Online(session) if session.next_heartbeat() <= self.now => self.send_heartbeat(),
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Online(_)
            | Phase::Stopped => {}
        }
        self.check_outage();
    }

    /// When to call `handle_timeout` next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Waiting { until } => *until,
            Phase::Connecting { deadline } => *deadline,
            Phase::Online(session) => match session.join_deadline() {
                Some(deadline) => deadline.min(session.next_heartbeat()),
                None => return Some(session.next_heartbeat()),
            },
            Phase::Stopped => return None,
        };
        Some(self.outage_deadline().map_or(own, |at| at.min(own)))
    }

    /// The next text frame to write.
    pub fn poll_transmit(&mut self) -> Option<String> {
        self.outbox.poll_frame()
    }

    /// The next event for the owner.
    pub fn poll_event(&mut self) -> Option<PortalEvent> {
        self.events.pop_front()
    }

    /// Acknowledges a grant. Returns false and drops it if the portal does not await it: the
    /// reference belongs to an earlier socket, or was already acknowledged.
    pub fn accept(&mut self, reply_ref: &str) -> bool {
        let Some(acknowledgement) = self.outbox.take_expected(reply_ref) else {
            return false;
        };
        self.send(Outgoing::Acknowledge(reply_ref.to_owned(), acknowledgement))
    }

    /// Signals new local candidates to a client: immediately, or after the next join.
    pub fn add_candidates(&mut self, client: ClientId, candidates: Vec<String>) {
        if self.is_joined() {
            self.outbox.broadcast(client, candidates);
        } else if let Err(LimitReached) = self.outbox.hold_added(client, candidates) {
            self.report(AnomalyKind::TooManyHeld, "", String::new());
        }
    }

    /// Signals that local candidates became invalid: immediately, or after the next join.
    pub fn remove_candidates(&mut self, client: ClientId, candidates: Vec<String>) {
        if self.is_joined() {
            self.outbox.invalidate(client, candidates);
        } else if let Err(LimitReached) = self.outbox.hold_removed(client, candidates) {
            self.report(AnomalyKind::TooManyHeld, "", String::new());
        }
    }

    /// Reports that no relay answers; the portal then sends its present relays.
    pub fn report_no_relays(&mut self) {
        if matches!(self.phase, Phase::Online(_)) {
            self.send(Outgoing::NoRelays);
        }
    }

    /// Leaves the portal permanently.
    pub fn leave(&mut self, now: Instant) {
        self.advance(now);
        self.close("told to leave");
        self.phase = Phase::Stopped;
    }

    /// Whether the portal has accepted the join.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        matches!(&self.phase, Phase::Online(session) if session.join_deadline().is_none())
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}

/// Handling of received messages.
impl PortalProtocol {
    fn handle_frame(&mut self, frame: wire::Frame) {
        match frame.event.as_str() {
            "phx_reply" => self.handle_reply(frame),
            "phx_close" => self.disconnect("the portal closed the channel"),
            "phx_error" => self.report(AnomalyKind::PortalError, &frame.topic, String::new()),
            "disconnect" => self.handle_disconnect(frame.payload),
            event => match translate::push(event, frame.payload, &self.config.ice_secret) {
                Ok(translated) => self.handle_push(event, translated),
                Err(TranslateError::UnknownEvent) => {
                    self.report(AnomalyKind::UnknownEvent, event, String::new());
                }
                Err(TranslateError::WrongPayload(what)) => {
                    self.report(AnomalyKind::WrongPayload, event, what);
                }
            },
        }
    }

    fn handle_push(&mut self, event: &str, translated: translate::Translated) {
        if translated.skipped > 0 {
            let detail = format!("{} lines left out", translated.skipped);
            self.report(AnomalyKind::PartlyUnreadable, event, detail);
        }
        if let Some((reply_ref, acknowledgement)) = acknowledgement_of(&translated.event) {
            self.outbox
                .expect_acknowledgement(reply_ref, acknowledgement);
        }
        if announces_bare_name(&translated.event) {
            let detail = "a client from before 2024-06-24 wants the addresses of a name; it is let \
                          in and cannot reach the name, update it";
            self.report(AnomalyKind::TooOldClient, event, detail.to_owned());
        }
        self.events.push_back(translated.event);
    }

    fn handle_reply(&mut self, frame: wire::Frame) {
        let error = match wire::read_reply(frame.payload) {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(what) => return self.report(AnomalyKind::WrongPayload, "phx_reply", what),
        };
        let Phase::Online(session) = &mut self.phase else {
            return;
        };
        match (session.take_reply(&frame.topic, frame.reference), error) {
            (Reply::Join, None) => self.joined(),
            (Reply::Join, Some(reason)) => self.stop(refused_join(&reason)),
            (Reply::Heartbeat, _) | (Reply::Message, None) => {}
            (Reply::Message, Some(reason)) if reason == "unmatched topic" => self.rejoin(),
            (Reply::Message, Some(reason)) => {
                self.report(AnomalyKind::ErrorReply, &reason, String::new());
            }
        }
    }

    /// Only an expired token is final; for other reasons the portal closes the socket itself if it
    /// has to.
    fn handle_disconnect(&mut self, payload: wire::Payload) {
        match wire::read_payload::<wire::Reason>(payload) {
            Ok(disconnect) if disconnect.reason == "token_expired" => self.stop(
                "the portal says that the token has expired or was deleted; create a new gateway \
                 token in the portal, put it where portal.token_file points, and restart"
                    .to_owned(),
            ),
            Ok(disconnect) => {
                self.report(
                    AnomalyKind::UnknownDisconnect,
                    &disconnect.reason,
                    String::new(),
                );
            }
            Err(what) => self.report(AnomalyKind::WrongPayload, "disconnect", what),
        }
    }

    fn joined(&mut self) {
        self.backoff.reset();
        self.outage.ever_joined = true;
        self.outage.reasons.clear();
        let generation = self.generation;
        if !std::mem::replace(&mut self.outage.announced, true) {
            self.events.push_back(PortalEvent::Joined { generation });
        }
        if generation == Generation::V2 {
            self.outbox.write(&Outgoing::Capabilities);
        }
        self.outbox.flush();
    }

    /// The portal has lost the join. Joining again on the same socket suffices, but not repeatedly:
    /// if the portal loses the join again at once, the socket is closed and the backoff applies.
    fn rejoin(&mut self) {
        let Phase::Online(session) = &mut self.phase else {
            return;
        };
        if session.join_deadline().is_some() {
            return; // The reply to an older message; the join is on its way.
        }
        if !session.may_rejoin(self.now) {
            return self.disconnect("the portal keeps forgetting that we joined");
        }
        let join = self.outbox.write(&Outgoing::Join);
        session.rejoin(join, self.now);
        self.outage.since = self.now;
        let detail = "joining again".to_owned();
        self.report(AnomalyKind::ErrorReply, "unmatched topic", detail);
    }

    fn send_heartbeat(&mut self) {
        let Phase::Online(session) = &mut self.phase else {
            return;
        };
        if session.is_dead() {
            // docs/lessons.md 28: a websocket that looks open can be dead.
            return self.disconnect("the portal does not answer heartbeats");
        }
        let reference = self.outbox.write(&Outgoing::Heartbeat);
        session.sent_heartbeat(reference, self.now);
    }
}

/// Connection management.
impl PortalProtocol {
    fn connect(&mut self) {
        let request = connect::request(&self.config, self.generation);
        self.events.push_back(PortalEvent::Connect(request));
        self.phase = Phase::Connecting {
            deadline: self.now + CONNECT_TIMEOUT,
        };
    }

    /// In auto mode a missing v2 endpoint leads to v1 immediately, as part of the same attempt.
    fn try_older_generation(&mut self, reason: String) {
        let auto = self.config.generation == GenerationChoice::Auto;
        if auto && self.generation == Generation::V2 {
            self.generation = Generation::V1;
            self.connect();
        } else {
            self.retry(reason, Failure::Answered(None));
        }
    }

    /// Ends an attempt and schedules the next one, which starts with the preferred generation.
    fn retry(&mut self, reason: String, failure: Failure) {
        self.generation = self.config.generation.first();
        self.outbox.reset(self.generation);
        let after = self.delay(failure);
        self.phase = Phase::Waiting {
            until: self.now + after,
        };
        let known = self.outage.reasons.len();
        if known < MAX_REASONS {
            self.outage.reasons.insert(reason.clone());
        }
        self.events.push_back(PortalEvent::Retrying {
            is_new: self.outage.reasons.len() > known,
            reason,
            after,
        });
        self.check_outage();
    }

    /// The reference gateway tries every second until it first joins, and stops after 15 s. This
    /// gateway does not stop, but asks a portal that answers and refuses less and less often.
    fn delay(&mut self, failure: Failure) -> Duration {
        let requested = match failure {
            Failure::Unreachable => None,
            Failure::Answered(requested) => requested,
        };
        let is_recent = self.now.saturating_duration_since(self.outage.since) < FIRST_JOIN_PERIOD;
        let eager = !self.outage.ever_joined && (is_recent || failure == Failure::Unreachable);
        match requested {
            None if eager => FIRST_JOIN_INTERVAL,
            requested => self.backoff.next_delay_unless(requested),
        }
    }

    /// The socket was closed by the remote side or the network.
    fn connection_lost(&mut self, reason: String) {
        self.announce_left(&reason);
        self.retry(reason, Failure::Answered(None));
    }

    /// The socket is open, but unusable.
    fn disconnect(&mut self, reason: &str) {
        self.events.push_back(PortalEvent::Disconnect);
        self.connection_lost(reason.to_owned());
    }

    fn announce_left(&mut self, reason: &str) {
        if std::mem::take(&mut self.outage.announced) {
            self.outage.since = self.now;
            let reason = reason.to_owned();
            self.events.push_back(PortalEvent::Left { reason });
        }
    }

    /// Closes an open or opening socket.
    fn close(&mut self, reason: &str) {
        self.announce_left(reason);
        if matches!(self.phase, Phase::Online(_) | Phase::Connecting { .. }) {
            self.events.push_back(PortalEvent::Disconnect);
        }
        self.outbox.reset(self.generation);
    }

    /// Stops permanently, with a reason.
    fn stop(&mut self, reason: String) {
        self.close(&reason);
        self.phase = Phase::Stopped;
        self.events.push_back(PortalEvent::Fatal { reason });
    }

    /// Sets how long an outage may last, counted from the loss of the portal.
    pub fn tolerate_outage(&mut self, max_outage: Duration, now: Instant) {
        self.config.max_outage = max_outage;
        self.handle_timeout(now);
    }

    fn outage_deadline(&self) -> Option<Instant> {
        self.outage.since.checked_add(self.config.max_outage)
    }

    fn check_outage(&mut self) {
        let is_expired = self.outage_deadline().is_some_and(|at| at <= self.now);
        if is_expired && !self.is_joined() && !matches!(self.phase, Phase::Stopped) {
            self.stop(format!(
                "the portal has been away for {} s, which is portal.max_outage; look at portal.url \
                 and the network, then start again",
                self.config.max_outage.as_secs()
            ));
        }
    }

    /// Writes a message, or queues it until the join is answered. Returns false if the queue is
    /// full.
    fn send(&mut self, message: Outgoing) -> bool {
        if self.is_joined() {
            self.outbox.write(&message);
        } else if let Err(LimitReached) = self.outbox.queue(message) {
            self.report(AnomalyKind::QueueFull, "", String::new());
            return false;
        }
        true
    }

    fn report(&mut self, kind: AnomalyKind, about: &str, detail: String) {
        let anomaly = self.anomalies.report(kind, about, detail);
        self.events.extend(anomaly.map(PortalEvent::Anomaly));
    }
}

/// The acknowledgement that the portal awaits after this event, with its reference.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other events are not acknowledged, and added ones will not be"
)]
fn acknowledgement_of(event: &PortalEvent) -> Option<(&str, Acknowledgement)> {
    match event {
        PortalEvent::Client(ClientCommand::Authorize(request)) => {
            Some((&request.reply_ref, Acknowledgement::of_grant(request)))
        }
        PortalEvent::Client(ClientCommand::Allow(request)) => {
            let acknowledgement = Acknowledgement::of_access(request)?;
            Some((&request.reply_ref, acknowledgement))
        }
        _ => None,
    }
}

/// Whether a client announced a name without proxy IPs.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other events announce names, and added ones will not"
)]
fn announces_bare_name(event: &PortalEvent) -> bool {
    let announced = match event {
        PortalEvent::Client(ClientCommand::Authorize(request)) => request.announced.as_ref(),
        PortalEvent::Client(ClientCommand::Allow(request)) => request.announced.as_ref(),
        _ => None,
    };
    announced.is_some_and(|name| name.proxy_ips.is_empty())
}

/// The error text for a join that was answered with an error.
fn refused_join(reason: &str) -> String {
    let shown: String = reason
        .chars()
        .take(64)
        .flat_map(char::escape_default)
        .collect();
    let remedy = match reason {
        "invalid_version" => "the portal does not work with gateways of our version; update one",
        "disabled" => "enable this gateway, or its site or account, in the portal",
        _ => "look into the portal's log, then start again",
    };
    format!("the portal refused the join ({shown}); {remedy}")
}

/// For TCP, TLS and upgrade together (docs/protocol.md 1.6).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Delay between attempts before the first join (docs/protocol.md 1.7).
const FIRST_JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Period in which a portal that answers is tried every second (docs/protocol.md 1.7).
const FIRST_JOIN_PERIOD: Duration = Duration::from_secs(15);

/// Distinct reasons reported per outage; more than there are kinds of failure.
const MAX_REASONS: usize = 16;

/// A configuration for tests of this module and its children.
#[cfg(test)]
fn test_config() -> PortalConfig {
    PortalConfig {
        url: PortalUrl::parse("ws://192.0.2.1:8081").unwrap(),
        token: Token::new("secret-token").unwrap(),
        id: "gw-1".into(),
        name: "lab-gw".into(),
        public_key: crate::ids::PublicKey([2; 32]),
        ice_secret: IceSecret::new([5; 32]),
        generation: GenerationChoice::Auto,
        kernel: "6.18.0".into(),
        arch: "x86_64".into(),
        max_outage: Duration::from_secs(24 * 3_600),
        backoff: crate::backoff::BackoffConfig::default(),
        limits: PortalLimits::default(),
    }
}
