//! One peer: ICE and WireGuard composed. Datagrams in, IP packets out, and the reverse.
//!
//! Packets for the peer go to the path that ICE nominated last. Before the first nomination, and
//! while the nominated path is silent but the client is heard on another, they go to the path of
//! its last authentic WireGuard message (the client accepts them from anywhere, docs/protocol.md
//! 8.1). Packets for a peer that is not connected are dropped, not queued (docs/protocol.md 5.3),
//! except that a resumed peer holds a few until its session is established.

use crate::DropReason;
use crate::grant::TransportKeys;
use crate::packet::{DatagramBatch, DropCounts, Ecn, PacketBatch, Path, ip};
use crate::peer::demux::Kind;
use crate::peer::gatherer::LocalAddresses;
use crate::peer::ice::{CheckPace, IceEvent, IceTransport};
use crate::peer::index::PeerIndex;
use crate::peer::outbox::Outbox;
use crate::peer::resumption::{HeardAction, KeyConfirmation, Resumption};
use crate::peer::statistics::{HandshakeCounts, PathKind};
use crate::peer::wireguard::{GatewayKeys, Opened, WireguardTunnel, sealed_len};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The inputs from which a [`Peer`] is built.
pub struct PeerConfig {
    /// The gateway's WireGuard key pair.
    pub keys: GatewayKeys,
    /// Receiver index, unique while the peer exists.
    pub index: PeerIndex,
    /// The client's keys and ICE credentials, from the portal.
    pub transport: TransportKeys,
}

/// Events that the owner of a [`Peer`] must handle.
#[derive(Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Signal these candidates to the client, best first.
    CandidatesGathered(Vec<String>),
    /// ICE nominated a first or another path.
    PathNominated(Path),
    /// Packets for the client use this path from now on. Reported at most once a second, with the
    /// latest path; intermediate ones are not reported.
    PathInUse(Path),
    /// A WireGuard session exists and the client has used it or has answered our initiation;
    /// reported again after a session has expired.
    SessionEstablished,
    /// No path to the client is left, or none was ever found.
    Failed,
}

/// The state of a [`Peer`], for diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Time since the peer was created.
    pub age: Duration,
    /// Whether any address of the client is known.
    pub has_candidates: bool,
    /// Whether ICE has nominated a path.
    pub is_nominated: bool,
    /// The path on which datagrams to the client go.
    pub path: Option<Path>,
    /// Age of the established WireGuard session, if there is one.
    pub session: Option<Duration>,
    /// Time since the client's last authentic message.
    pub heard: Option<Duration>,
}

/// See the module's documentation.
pub struct Peer {
    ice: IceTransport,
    wireguard: WireguardTunnel,
    outbox: Outbox,
    events: VecDeque<PeerEvent>,
    nominated: Option<Path>,
    /// When the client was last heard on the nominated path.
    nominated_heard: Instant,
    /// When the client last checked the nominated path.
    client_checked: Option<Instant>,
    last_authentic: Option<Path>,
    /// When the last authentic WireGuard message arrived.
    authentic_heard: Option<Instant>,
    /// The path that was last reported.
    path_in_use: Option<Path>,
    /// Until when no other path is reported.
    path_reported_until: Option<Instant>,
    /// When to report another path.
    path_due: Option<Instant>,
    established: bool,
    began_at: Instant,
    established_at: Option<Instant>,
    resumption: Option<Resumption>,
    /// Whether it replaced a former peer: its client may never nominate a path again.
    is_resumed: bool,
    /// `None` once the client has used the session that it answered.
    confirmation: Option<KeyConfirmation>,
    /// Held packets that were dropped, not yet counted.
    held_dropped: usize,
    handshakes: HandshakeCounts,
    idle_at: Option<Instant>,
    next_second: Instant,
    /// When to fail unless a candidate of the client is known.
    candidates_due: Option<Instant>,
    /// When to fail unless ICE recovers.
    recovery_due: Option<Instant>,
}

impl Peer {
    /// A peer that waits for the client's connectivity checks.
    #[must_use]
    pub fn new(config: &PeerConfig, now: Instant) -> Self {
        let keys = &config.transport;
        Self {
            ice: IceTransport::new(&keys.local_ice, &keys.remote_ice),
            wireguard: WireguardTunnel::new(
                &config.keys,
                keys.client_public_key,
                &keys.preshared_key,
                config.index,
            ),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            nominated: None,
            nominated_heard: now,
            client_checked: None,
            last_authentic: None,
            authentic_heard: None,
            path_in_use: None,
            path_reported_until: None,
            path_due: None,
            established: false,
            began_at: now,
            established_at: None,
            resumption: None,
            is_resumed: false,
            confirmation: None,
            held_dropped: 0,
            handshakes: HandshakeCounts::default(),
            idle_at: Some(now + IDLE_AFTER),
            next_second: now + SECOND,
            candidates_due: Some(now + CANDIDATE_TIMEOUT),
            recovery_due: None,
        }
    }

    /// A peer that replaces a former one with datagrams on `path`: it initiates a handshake there
    /// immediately, without waiting for ICE, and repeats it until a session is established. ICE
    /// starts with the same credentials. The client need not nominate a path again, so the peer may
    /// use the path of its last authentic message indefinitely.
    #[must_use]
    pub fn resume(config: &PeerConfig, path: Path, now: Instant) -> Self {
        let mut peer = Self {
            last_authentic: Some(path),
            path_in_use: Some(path),
            resumption: Some(Resumption::new(path, now)),
            is_resumed: true,
            ..Self::new(config, now)
        };
        peer.initiate_if_due(now);
        peer
    }

    /// Sets the gateway's addresses; signals those that are new.
    pub fn handle_local_addresses(&mut self, addresses: &LocalAddresses, now: Instant) {
        let added = self.ice.add_local_addresses(addresses);
        if !added.is_empty() {
            self.events.push_back(PeerEvent::CandidatesGathered(added));
        }
        self.drive_ice(now);
    }

    /// The client received a further grant: signals all candidates again and leaves the idle mode.
    pub fn handle_upsert(&mut self, now: Instant) {
        self.signal_again();
        self.note_traffic(now);
        self.drive_ice(now);
    }

    /// The portal's actor may have lost signalled candidates in its restart: signals them again if
    /// ICE still depends on them.
    pub fn handle_portal_restarted(&mut self) {
        if self.nominated.is_none() {
            self.signal_again();
        }
    }

    fn signal_again(&mut self) {
        let candidates = self.ice.local_candidates();
        if !candidates.is_empty() {
            self.events
                .push_back(PeerEvent::CandidatesGathered(candidates));
        }
    }

    /// Adds candidates of the client. Returns how many did not parse.
    pub fn add_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let ice = &mut self.ice;
        let unparsable = candidates
            .iter()
            .filter(|line| !ice.add_remote_candidate(line))
            .count();
        self.note_traffic(now);
        self.drive_ice(now);
        unparsable
    }

    /// Removes candidates that the client withdrew. Returns how many did not parse.
    pub fn remove_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let ice = &mut self.ice;
        let unparsable = candidates
            .iter()
            .filter(|line| !ice.remove_remote_candidate(line))
            .count();
        self.drive_ice(now);
        unparsable
    }

    /// Handles datagrams that the demultiplexer assigned to this peer; returns the IP packets in
    /// them.
    pub fn handle_datagrams(
        &mut self,
        datagrams: &DatagramBatch,
        drops: &mut DropCounts,
        now: Instant,
    ) -> PacketBatch {
        self.run_seconds(now);
        let mut packets = PacketBatch::with_capacity(datagrams.bytes().len());
        let mut stun = false;
        let mut heard = false;
        for datagram in datagrams.segments() {
            let kind = Kind::of(datagram);
            if kind.is_stun() {
                stun = true;
                if self.ice.handle_stun(datagrams.path, datagram, now) {
                    heard = true;
                    if kind == Kind::StunRequest && self.nominated == Some(datagrams.path) {
                        self.client_checked = Some(now);
                    }
                    self.initiate_where_heard(datagrams.path, now);
                } else {
                    drops.count(DropReason::StunRejected);
                }
                continue;
            }
            match self.wireguard.open(datagram, &mut packets) {
                Opened::Packet | Opened::Keepalive => {
                    self.note_authentic(datagrams.path, now);
                    self.confirmation = None;
                }
                // While the engine knows no newer initiation, this one could be a replay: the reply
                // goes to its source, and the path stays. The message with which the client starts
                // to use the session moves the path.
                Opened::Reply(reply) => {
                    self.handshakes.answered += 1;
                    self.outbox.push(datagrams.path, Ecn::NotEct, &reply);
                    continue;
                }
                Opened::Cookie => continue,
                Opened::Confirmed(keepalive) => {
                    self.handshakes.confirmed += 1;
                    self.note_authentic(datagrams.path, now);
                    self.transmit(&keepalive, now);
                    self.confirmation = Some(KeyConfirmation::new(now));
                }
                Opened::Dropped(reason) => {
                    let is_handshake = Kind::of(datagram).is_handshake();
                    self.handshakes.rejected += u64::from(is_handshake);
                    self.confirm_if(|confirmation| confirmation.take_requested(now), now);
                    drops.count(reason);
                    continue;
                }
            }
            heard = true;
        }
        if heard && self.nominated == Some(datagrams.path) {
            self.nominated_heard = now;
        }
        if !packets.is_empty() {
            self.note_traffic(now);
        }
        self.note_session(now);
        if stun {
            self.drive_ice(now);
        }
        self.note_path(now);
        packets
    }

    /// Seals IP packets for the client.
    pub fn send(&mut self, mut packets: PacketBatch, drops: &mut DropCounts, now: Instant) {
        self.run_seconds(now);
        if self.seal(&mut packets, now) {
            return;
        }
        let resumption = &mut self.resumption;
        packets.for_each_mut(|mut packet| {
            packet.cut(|segment| {
                let is_held = (resumption.as_mut()).is_some_and(|it| it.hold(segment, now));
                drops.count_many(DropReason::NotConnected, usize::from(!is_held));
            });
        });
    }

    /// As [`Self::send`], but never holds packets: for those that are useless later.
    pub fn send_if_connected(
        &mut self,
        mut packets: PacketBatch,
        drops: &mut DropCounts,
        now: Instant,
    ) {
        self.run_seconds(now);
        if !self.seal(&mut packets, now) {
            drops.count_many(DropReason::NotConnected, packets.segments());
        }
    }

    /// Returns whether the client is connected; if so, the packets are consumed: each segment of a
    /// super-packet is cut and sealed directly into the buffer of a GSO write.
    fn seal(&mut self, packets: &mut PacketBatch, now: Instant) -> bool {
        let path = self.path(now).filter(|_| self.wireguard.is_established());
        let Some(path) = path else {
            return false;
        };
        self.note_traffic(now);
        self.note_path(now);
        let (wireguard, outbox) = (&mut self.wireguard, &mut self.outbox);
        packets.for_each_mut(|mut packet| {
            // The inner mark is copied to the outer header (RFC 6040, 4.1).
            let ecn = ip::ecn(packet.bytes).unwrap_or_default();
            packet.cut(|segment| {
                let slot_bytes = sealed_len(segment.len());
                outbox.push_with(path, ecn, slot_bytes, |slot| wireguard.seal(segment, slot));
            });
        });
        true
    }

    /// The path of the last packet for the client.
    #[must_use]
    pub fn path_in_use(&self) -> Option<Path> {
        self.path_in_use
    }

    /// Whether a WireGuard session is established.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.wireguard.is_established()
    }

    /// When the last authentic WireGuard message arrived.
    #[must_use]
    pub fn authentic_heard(&self) -> Option<Instant> {
        self.authentic_heard
    }

    /// Drives ICE, WireGuard's timers and the idle mode.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run_seconds(now);
        if self.idle_at.is_some_and(|at| at <= now) {
            self.idle_at = None;
            self.pace_checks(now);
        }
        self.initiate_if_due(now);
        self.confirm_if(|confirmation| confirmation.take_due(now), now);
        if self.has_failed(now) {
            self.nominated = None;
            self.events.push_back(PeerEvent::Failed);
        }
        self.drive_ice(now);
        self.note_path(now);
    }

    /// Whether ICE has failed finally. While the client is heard, the decision is postponed.
    fn has_failed(&mut self, now: Instant) -> bool {
        let no_candidates = self.candidates_due.take_if(|at| *at <= now).is_some()
            && !self.ice.has_remote_candidates();
        let not_recovered = self.recovery_due.take_if(|at| *at <= now).is_some();
        let heard_counts_for = match self.is_resumed && self.wireguard.is_established() {
            true => RESUMED_SILENCE,
            false => NOMINATED_SILENCE,
        };
        let heard_until = self.authentic_heard.map(|at| at + heard_counts_for);
        let heard_until = heard_until.filter(|until| *until > now);
        if let Some(until) = heard_until {
            self.candidates_due = no_candidates.then_some(until).or(self.candidates_due);
            self.recovery_due = not_recovered.then_some(until).or(self.recovery_due);
        }
        (no_candidates || not_recovered) && heard_until.is_none()
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        // Without a session there is nothing to keep alive: the next message brings the timers up
        // to date.
        let is_at_work = self.established || self.resumption.is_some();
        // An idle peer has no work every second; ten thousand idle clients would cause useless
        // wake-ups.
        let wireguard = match self.idle_at {
            Some(_) => self.next_second,
            None => self.next_second + QUIET_PAUSE,
        };
        let wireguard = is_at_work.then_some(wireguard);
        [
            self.resumption.as_ref().map(Resumption::deadline),
            self.confirmation
                .as_ref()
                .and_then(KeyConfirmation::deadline),
            self.ice.poll_timeout(),
            wireguard,
            self.idle_at,
            self.path_due,
            self.candidates_due,
            self.recovery_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next batch to send.
    pub fn poll_transmit(&mut self) -> Option<DatagramBatch> {
        self.ice.poll_transmit().or_else(|| self.outbox.pop())
    }

    /// The next event for the owner.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// How many held packets were dropped since the last call.
    pub fn take_held_dropped(&mut self) -> usize {
        std::mem::take(&mut self.held_dropped)
    }

    /// The client's handshake messages since the last call, by outcome.
    pub fn take_handshakes(&mut self) -> HandshakeCounts {
        std::mem::take(&mut self.handshakes)
    }

    /// The kind of the client's candidate on the nominated path.
    #[must_use]
    pub fn path_kind(&self) -> Option<PathKind> {
        self.ice.kind_of(self.nominated?.remote)
    }

    /// The state of the transport, for diagnosis.
    #[must_use]
    pub fn explain(&self, now: Instant) -> PeerFacts {
        let ago = |at: Instant| now.saturating_duration_since(at);
        PeerFacts {
            age: ago(self.began_at),
            has_candidates: self.ice.has_remote_candidates(),
            is_nominated: self.nominated.is_some(),
            path: self.path(now),
            session: self.established_at.filter(|_| self.established).map(ago),
            heard: self.authentic_heard.map(ago),
        }
    }

    fn path(&self, now: Instant) -> Option<Path> {
        let silence = now.saturating_duration_since(self.nominated_heard);
        match (self.nominated, self.last_authentic) {
            (Some(_), Some(alive)) if silence > NOMINATED_SILENCE => Some(alive),
            (nominated, alive) => nominated.or(alive),
        }
    }

    fn transmit(&mut self, datagram: &[u8], now: Instant) {
        if let Some(path) = self.path(now) {
            self.outbox.push(path, Ecn::NotEct, datagram);
        }
    }

    /// WireGuard's timers count seconds; after a silence they are brought up to date before
    /// anything else.
    fn run_seconds(&mut self, now: Instant) {
        if now < self.next_second {
            return;
        }
        self.next_second = now + SECOND;
        self.pace_checks(now);
        if let Some(datagram) = self.wireguard.handle_second() {
            self.transmit(&datagram, now);
        }
        self.note_session(now);
    }

    fn note_traffic(&mut self, now: Instant) {
        let was_idle = self.idle_at.replace(now + IDLE_AFTER).is_none();
        if was_idle {
            self.pace_checks(now);
        }
    }

    fn pace_checks(&mut self, now: Instant) {
        let is_checked = self
            .client_checked
            .is_some_and(|at| now.saturating_duration_since(at) < CLIENT_CHECKS_WITHIN);
        self.ice.set_pace(match (self.idle_at, is_checked) {
            (Some(_), _) => CheckPace::Active,
            (None, false) => CheckPace::Idle,
            (None, true) => CheckPace::Answering,
        });
    }

    fn note_session(&mut self, now: Instant) {
        let was_established =
            std::mem::replace(&mut self.established, self.wireguard.is_established());
        if self.established && !was_established {
            self.established_at = Some(now);
            self.events.push_back(PeerEvent::SessionEstablished);
        }
        if self.established
            && let Some(mut resumption) = self.resumption.take()
        {
            self.held_dropped += resumption.drop_overdue(now);
            self.seal(&mut resumption.into_held(), now);
        }
    }

    /// Repeats the message that confirms the new session, which may have been lost.
    fn confirm_if(&mut self, is_due: impl FnOnce(&mut KeyConfirmation) -> bool, now: Instant) {
        if self.confirmation.as_mut().is_some_and(is_due)
            && self.wireguard.is_established()
            && let Some(keepalive) = self.wireguard.keepalive()
        {
            self.transmit(&keepalive, now);
        }
    }

    fn note_authentic(&mut self, path: Path, now: Instant) {
        self.last_authentic = Some(path);
        self.authentic_heard = Some(now);
    }

    fn note_path(&mut self, now: Instant) {
        let path = self.path(now);
        self.path_due =
            (self.path_reported_until).filter(|until| path != self.path_in_use && *until > now);
        if path != self.path_in_use && self.path_due.is_none() {
            self.path_in_use = path;
            self.path_reported_until = Some(now + SECOND);
            self.events.extend(path.map(PeerEvent::PathInUse));
        }
    }

    /// Initiates a handshake with a client that does not yet know that its sessions are lost.
    fn initiate_if_due(&mut self, now: Instant) {
        let Some(resumption) = &mut self.resumption else {
            return;
        };
        self.held_dropped += resumption.drop_overdue(now);
        if resumption.is_over(now) {
            self.held_dropped += resumption.held();
            self.resumption = None;
        } else if resumption.is_due(now) {
            self.initiate(now);
        }
    }

    fn initiate_where_heard(&mut self, path: Path, now: Instant) {
        let heard = self.resumption.as_mut();
        match heard.map(|resumption| resumption.handle_heard(path, now)) {
            Some(HeardAction::Initiate) => self.initiate(now),
            Some(HeardAction::Resend(initiation)) => {
                self.outbox.push(path, Ecn::NotEct, &initiation)
            }
            Some(HeardAction::None) | None => {}
        }
    }

    fn initiate(&mut self, now: Instant) {
        let (Some(resumption), Some(initiation)) =
            (self.resumption.as_mut(), self.wireguard.initiate())
        else {
            return;
        };
        for path in resumption.note_initiation(&initiation, now) {
            self.outbox.push(path, Ecn::NotEct, &initiation);
        }
    }

    fn drive_ice(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        while let Some(event) = self.ice.poll_event() {
            match event {
                IceEvent::Nominated(path) => {
                    self.recovery_due = None;
                    self.nominated_heard = now;
                    if self.nominated.replace(path) != Some(path) {
                        self.events.push_back(PeerEvent::PathNominated(path));
                    }
                }
                IceEvent::Connected => self.recovery_due = None,
                // Without a nomination, ICE reports no other sign of recovery.
                IceEvent::Checking if self.nominated.is_none() => self.recovery_due = None,
                IceEvent::Checking => {}
                IceEvent::Disconnected => self.recovery_due = Some(now + DISCONNECT_GRACE),
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// The interval of an idle client's checks. Our rekeying is due at 120 s and has until 180 s
/// (WireGuard paper, 6.1), which is time for two attempts.
const QUIET_PAUSE: Duration = Duration::from_secs(24);
/// A client checks its path at least every 25 s (docs/protocol.md 3.3.1), and a check may be late.
const CLIENT_CHECKS_WITHIN: Duration = Duration::from_secs(30);
/// From docs/protocol.md 3.3.1, like the two below.
const IDLE_AFTER: Duration = Duration::from_secs(20);
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);
/// Longer than the gap between a client's checks on a path that it uses (1.5 s while active), with
/// a margin for two lost checks; far shorter than the time after which ICE alone would notice.
const NOMINATED_SILENCE: Duration = Duration::from_secs(5);
/// A resumed client has a session but, for ICE, perhaps no usable candidate; it may have nothing to
/// send between two of its keepalives (25 s), and one of them may get lost.
const RESUMED_SILENCE: Duration = Duration::from_secs(60);
