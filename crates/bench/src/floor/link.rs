//! One client's link to its gateway, without sockets: path, handshakes, keepalives and names.
//!
//! Time and datagrams go in, datagrams come out. It sends checks straight to the gateway, which
//! learns it as peer reflexive; without ICE it shakes hands at once, as plain WireGuard does. It
//! re-handshakes before 120 s have passed and keeps the session before for what is under way.
//! Refuses initiations of the gateway: it begins another session itself soon enough.

use super::checks::{Checks, Heard, IcePair};
use super::clock::Moment;
use super::noise::{COOKIE, Handshake, Identity, RESPONSE};
use super::session::{HEADER_BYTES, OVERHEAD_BYTES, Opener, Sealer};
use postern_lab::client::control::{self, Control};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a link is made from.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Keys of both ends.
    pub identity: Identity,
    /// Where the gateway is.
    pub gateway: SocketAddr,
    /// `None`: no ICE, the path is taken for granted.
    pub ice: Option<IcePair>,
    /// Packets that announce names; repeated until each was answered.
    pub announcements: Vec<Vec<u8>>,
    /// How often what happens.
    pub pace: Pace,
    /// Upper 24 bits of what we call our sessions, and what decides about roles in ICE.
    pub number: u32,
}

/// How often what happens.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Checks of a path that works.
    pub check: Duration,
    /// Between an initiation and the next while there is no response.
    pub handshake: Duration,
    /// Keepalives; `None`: only the one by which the gateway knows that a session is used.
    pub keepalive: Option<Duration>,
}

impl Pace {
    /// Of a client under load: checks as a Firezone client, the handshake's timeout as WireGuard.
    pub const ACTIVE: Self = Self {
        check: Duration::from_millis(1500),
        handshake: Duration::from_secs(5),
        keepalive: Some(Duration::from_secs(10)),
    };
    /// Of an idle client (docs/protocol.md 3.3.1.
    pub const IDLE: Self = Self {
        check: Duration::from_secs(25),
        handshake: Duration::from_secs(5),
        keepalive: None,
    };
}

/// The link.
pub struct Link {
    config: LinkConfig,
    checks: Option<Checks>,
    has_path: bool,
    handshake: Option<Handshake>,
    cookie: Option<[u8; 16]>,
    sessions: u8,
    sealer: Option<Sealer>,
    /// Ours, newest first.
    openers: Vec<Opener>,
    announcements_left: usize,
    next_check: Option<Instant>,
    next_handshake: Option<Instant>,
    next_keepalive: Option<Instant>,
    transmits: VecDeque<Vec<u8>>,
}

impl Link {
    /// A link that begins at `now`.
    #[must_use]
    pub fn new(config: LinkConfig, now: Moment) -> Self {
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
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.sealer.is_some()
    }

    /// Whether all names were answered too.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_up() && self.announcements_left == 0
    }

    /// What opens data messages.
    #[must_use]
    pub fn openers(&self) -> &[Opener] {
        &self.openers
    }

    /// Where packets go, and what seals them; `None` before the first session.
    pub fn outlet(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        let gateway = self.config.gateway;
        self.sealer.as_mut().map(|sealer| (gateway, sealer))
    }

    /// Takes a datagram that is no data message.
    pub fn handle_datagram(&mut self, bytes: &[u8], now: Moment) {
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

    /// Takes a control packet out of the tunnel.
    pub fn handle_control_packet(&mut self, packet: &[u8]) {
        if let Some(Control::DomainStatus(_)) = control::parse(packet) {
            self.announcements_left = self.announcements_left.saturating_sub(1);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
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

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let all = [self.next_check, self.next_handshake, self.next_keepalive];
        all.into_iter().flatten().min()
    }

    /// The next datagram for the gateway.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let datagram = self.transmits.pop_front()?;
        Some((self.config.gateway, datagram))
    }

    fn handle_stun(&mut self, bytes: &[u8], now: Moment) {
        let Some(checks) = &self.checks else {
            return;
        };
        match checks.handle(bytes, self.config.gateway) {
            Heard::Asked(answer) => self.transmits.push_back(answer),
            Heard::Confirmed if !self.has_path => {
                self.has_path = true;
                self.next_check = Some(now.instant + self.config.pace.check);
                self.next_handshake = Some(now.instant);
                self.handle_timeout(now);
            }
            Heard::Confirmed | Heard::Nothing => {}
        }
    }

    fn initiate(&mut self, now: Moment) {
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

    fn handle_response(&mut self, bytes: &[u8], now: Moment) {
        let completed = self.handshake.as_mut().and_then(|it| it.complete(bytes));
        let Some((sealer, opener)) = completed else {
            return;
        };
        self.handshake = None;
        self.sealer = Some(sealer);
        self.openers.insert(0, opener);
        self.openers.truncate(SESSIONS_KEPT);
        self.next_handshake = Some(now.instant + REKEY_AFTER);
        // The responder may use the session once its initiator has (WireGuard paper, section 6.2).
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

/// RFC 8489, section 5.
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Until the path works.
const FIRST_CHECKS: Duration = Duration::from_millis(250);
/// As clients repeat themselves (docs/protocol.md 4.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);
/// WireGuard's is 120 s; earlier, so that no packet of the gateway's meets the end of a session.
const REKEY_AFTER: Duration = Duration::from_secs(110);
/// The present one and the one before.
const SESSIONS_KEPT: usize = 2;

#[cfg(test)]
mod tests;
