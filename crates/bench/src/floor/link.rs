//! One client's link to its gateway, without sockets: path, handshakes, keepalives and names.
//!
//! Time and datagrams go in, datagrams come out. Sends checks straight to the gateway, which learns
//! the client as peer reflexive; without ICE it performs the handshake immediately, as plain
//! WireGuard does. Renews the session before 120 s have passed and keeps the previous one for
//! packets in flight. Ignores initiations of the gateway: the client soon begins another session
//! itself.

use super::checks::{CheckResult, Checks, IcePair};
use super::clock::Timestamp;
use super::noise::{COOKIE, Handshake, Identity, RESPONSE};
use super::session::{HEADER_BYTES, OVERHEAD_BYTES, Opener, Sealer};
use postern_lab::client::control::{self, Control};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Configuration of a link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    pub identity: Identity,
    /// Address of the gateway.
    pub gateway: SocketAddr,
    /// `None`: without ICE, the path counts as usable.
    pub ice: Option<IcePair>,
    /// Packets that announce names; each is repeated until it is answered.
    pub announcements: Vec<Vec<u8>>,
    pub pace: Pace,
    /// Upper 24 bits of our session indices; also the tie-breaker of ICE.
    pub number: u32,
}

/// Intervals of repeated actions.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Interval of checks on a working path.
    pub check: Duration,
    /// Interval between initiations without a response.
    pub handshake: Duration,
    /// Interval of keepalives; `None`: only the one that confirms a session to the gateway.
    pub keepalive: Option<Duration>,
}

impl Pace {
    /// Of a client under load: checks as a Firezone client, the handshake's timeout as WireGuard.
    pub const ACTIVE: Self = Self {
        check: Duration::from_millis(1500),
        handshake: Duration::from_secs(5),
        keepalive: Some(Duration::from_secs(10)),
    };
    /// Of an idle client (docs/protocol.md 3.3.1).
    pub const IDLE: Self = Self {
        check: Duration::from_secs(25),
        handshake: Duration::from_secs(5),
        keepalive: None,
    };
}

/// State of one client's path, handshakes and sessions.
pub struct Link {
    config: LinkConfig,
    checks: Option<Checks>,
    has_path: bool,
    handshake: Option<Handshake>,
    cookie: Option<[u8; 16]>,
    sessions: u8,
    sealer: Option<Sealer>,
    /// Our sessions, newest first.
    openers: Vec<Opener>,
    announcements_left: usize,
    next_check: Option<Instant>,
    next_handshake: Option<Instant>,
    next_keepalive: Option<Instant>,
    transmits: VecDeque<Vec<u8>>,
}

impl Link {
    /// Creates a link that begins at `now`.
    pub fn new(config: LinkConfig, now: Timestamp) -> Self {
        let tie_breaker = u64::from(config.number);
        let checks = config.ice.clone().map(|it| Checks::new(it, tie_breaker));
        let has_path = checks.is_none();
        Self {
            announcements_left: config.announcements.len(),
            next_check: (!has_path).then_some(now.instant),
            next_handshake: has_path.then_some(now.instant),
            next_keepalive: None,
            checks,
            has_path,
            handshake: None,
            cookie: None,
            sessions: 0,
            sealer: None,
            openers: Vec::new(),
            transmits: VecDeque::new(),
            config,
        }
    }

    /// Whether packets can be sent.
    pub fn is_up(&self) -> bool {
        self.sealer.is_some()
    }

    /// Whether packets can be sent and all names are answered.
    pub fn is_ready(&self) -> bool {
        self.is_up() && self.announcements_left == 0
    }

    /// Receiving halves of the sessions.
    pub fn openers(&self) -> &[Opener] {
        &self.openers
    }

    /// Destination of packets and the sending half of the session; `None` before the first session.
    pub fn sender(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        let gateway = self.config.gateway;
        self.sealer.as_mut().map(|sealer| (gateway, sealer))
    }

    /// Handles a datagram that is not a data message.
    pub fn handle_datagram(&mut self, bytes: &[u8], now: Timestamp) {
        match bytes.first() {
            Some(0..=1) if bytes.get(4..8) == Some(&STUN_COOKIE) => self.handle_stun(bytes, now),
            Some(&RESPONSE) => self.handle_response(bytes, now),
            Some(&COOKIE) => {
                let handshake = self.handshake.as_ref();
                let peer = &self.config.identity.peer;
                let cookie = handshake.and_then(|it| it.cookie(peer, bytes));
                self.cookie = cookie.or(self.cookie);
            }
            _ => {}
        }
    }

    /// Handles a control packet from the tunnel.
    pub fn handle_control_packet(&mut self, packet: &[u8]) {
        if let Some(Control::DomainStatus(_)) = control::parse(packet) {
            self.announcements_left = self.announcements_left.saturating_sub(1);
        }
    }

    /// Performs all actions that are due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if is_due(self.next_check) {
            let check = self.checks.as_mut().and_then(Checks::check);
            self.transmits.extend(check);
            let wait = match self.has_path {
                true => self.config.pace.check,
                false => FIRST_CHECKS,
            };
            self.next_check = Some(now.instant + wait);
        }
        if is_due(self.next_handshake) {
            self.initiate(now);
        }
        if is_due(self.next_keepalive) {
            self.send(&[]);
            let left = self.announcements_left;
            let announcements = self.config.announcements.clone();
            for packet in announcements.iter().rev().take(left) {
                self.send(packet);
            }
            let keepalive = self.config.pace.keepalive;
            let wait = match left {
                0 => keepalive,
                _ => Some(keepalive.map_or(ANNOUNCE_AGAIN, |it| it.min(ANNOUNCE_AGAIN))),
            };
            self.next_keepalive = wait.map(|wait| now.instant + wait);
        }
    }

    /// Time of the next call of [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [self.next_check, self.next_handshake, self.next_keepalive];
        all.into_iter().flatten().min()
    }

    /// The next datagram for the gateway.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let datagram = self.transmits.pop_front()?;
        Some((self.config.gateway, datagram))
    }

    fn handle_stun(&mut self, bytes: &[u8], now: Timestamp) {
        let Some(checks) = &self.checks else {
            return;
        };
        match checks.handle(bytes, self.config.gateway) {
            CheckResult::Request(answer) => self.transmits.push_back(answer),
            CheckResult::Confirmed if !self.has_path => {
                self.has_path = true;
                self.next_check = Some(now.instant + self.config.pace.check);
                self.next_handshake = Some(now.instant);
                self.handle_timeout(now);
            }
            CheckResult::Confirmed | CheckResult::Nothing => {}
        }
    }

    fn initiate(&mut self, now: Timestamp) {
        self.next_handshake = Some(now.instant + self.config.pace.handshake);
        self.sessions = self.sessions.wrapping_add(1);
        let index = (self.config.number << 8) | u32::from(self.sessions);
        let (identity, cookie) = (&self.config.identity, self.cookie.as_ref());
        match Handshake::begin(identity, index, now.unix, cookie) {
            Ok((handshake, initiation)) => {
                self.handshake = Some(handshake);
                self.transmits.push_back(initiation);
            }
            Err(error) => tracing::warn!(%error, "no handshake"),
        }
    }

    fn handle_response(&mut self, bytes: &[u8], now: Timestamp) {
        let completed = self.handshake.as_mut().and_then(|it| it.complete(bytes));
        let Some((sealer, opener)) = completed else {
            return;
        };
        self.handshake = None;
        self.sealer = Some(sealer);
        self.openers.insert(0, opener);
        self.openers.truncate(SESSIONS_KEPT);
        self.next_handshake = Some(now.instant + REKEY_AFTER);
        // The responder may use the session only after its initiator has (WireGuard paper, 6.2).
        self.next_keepalive = Some(now.instant);
        self.handle_timeout(now);
    }

    fn send(&mut self, packet: &[u8]) {
        let Some(sealer) = &mut self.sealer else {
            return;
        };
        let mut message = vec![0; packet.len() + OVERHEAD_BYTES];
        message[HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
        sealer.seal(&mut message);
        self.transmits.push_back(message);
    }
}

/// Magic cookie of STUN (RFC 8489, section 5).
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Interval of checks until the path works.
const FIRST_CHECKS: Duration = Duration::from_millis(250);
/// Interval of announcements, as clients repeat them (docs/protocol.md 4).
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);
/// WireGuard's is 120 s; earlier, so that no packet of the gateway meets the end of a session.
const REKEY_AFTER: Duration = Duration::from_secs(110);
/// The current session and the previous one.
const SESSIONS_KEPT: usize = 2;

#[cfg(test)]
mod tests;
