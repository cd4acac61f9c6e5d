//! One peer: ICE and WireGuard composed. Datagrams in, IP packets out, and the reverse.
//!
//! Packets for a peer that is not connected are dropped, not queued (docs/protocol.md 5.3), except
//! that a resumed peer holds a few until its session is established. `paths` selects the path.

use crate::DropReason;
use crate::grant::TransportKeys;
use crate::packet::{DatagramBatch, DropCounts, Ecn, PacketBatch, Path, ip};
use crate::peer::demux::Kind;
use crate::peer::gatherer::LocalAddresses;
use crate::peer::ice::{CheckPace, IceEvent, IceTransport};
use crate::peer::index::PeerIndex;
use crate::peer::outbox::Outbox;
use crate::peer::paths::{NOMINATED_SILENCE, Paths, Report};
use crate::peer::resumption::{HeardAction, KeyConfirmation, Resumption};
use crate::peer::statistics::{HandshakeCounts, PathKind};
use crate::peer::wireguard::{GatewayKeys, Opened, WireguardTunnel, sealed_len};
use crate::timers::Timers;
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
    phase: Phase,
    paths: Paths,
    timers: Timers<Timer>,
    /// When WireGuard's timers may run again.
    next_second: Instant,
    began_at: Instant,
    /// Whether it replaced a former peer: its client may never nominate a path again.
    is_resumed: bool,
    counts: Counts,
}

/// What there is of a session.
enum Phase {
    /// None, or an expired one. The client initiates the next.
    Waiting,
    /// The former peer's session is lost, and the client may not know it: this side initiates.
    Resuming(Resumption),
    /// The client has used the session, or has answered our initiation.
    Established {
        since: Instant,
        /// Repeats the proof of a session that the client answered, until the client uses it.
        confirmation: Option<KeyConfirmation>,
    },
}

/// The timers of a peer, beside those of ICE and of the phase.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// When to bring WireGuard's timers up to date although no message came.
    Seconds,
    /// When to check paths less often, because no packets have flowed for a while. Off while idle.
    Idle,
    /// When to report another path.
    Report,
    /// When to fail unless a candidate of the client is known.
    Candidates,
    /// When to fail unless ICE recovers.
    Recovery,
}

/// What is counted, until the owner takes it.
#[derive(Default)]
struct Counts {
    handshakes: HandshakeCounts,
    /// Held packets that were dropped.
    held_dropped: usize,
}

impl Phase {
    /// When its next action is due.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Waiting => None,
            Self::Resuming(resumption) => Some(resumption.deadline()),
            Self::Established { confirmation, .. } => confirmation.as_ref()?.deadline(),
        }
    }

    fn resumption(&mut self) -> Option<&mut Resumption> {
        match self {
            Self::Resuming(resumption) => Some(resumption),
            Self::Waiting | Self::Established { .. } => None,
        }
    }

    /// The confirmation of an established session; `None` without a session.
    fn confirmation(&mut self) -> Option<&mut Option<KeyConfirmation>> {
        match self {
            Self::Established { confirmation, .. } => Some(confirmation),
            Self::Waiting | Self::Resuming(_) => None,
        }
    }
}

impl Peer {
    /// A peer that waits for the client's connectivity checks.
    #[must_use]
    pub fn new(config: &PeerConfig, now: Instant) -> Self {
        Self::begin(config, None, now)
    }

    fn begin(config: &PeerConfig, former: Option<Path>, now: Instant) -> Self {
        let keys = &config.transport;
        let mut timers = Timers::default();
        timers.set(Timer::Idle, now + IDLE_AFTER);
        timers.set(Timer::Candidates, now + CANDIDATE_TIMEOUT);
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
            phase: former.map_or(Phase::Waiting, |path| {
                Phase::Resuming(Resumption::new(path, now))
            }),
            paths: Paths::new(former, now),
            timers,
            next_second: now + SECOND,
            began_at: now,
            is_resumed: former.is_some(),
            counts: Counts::default(),
        }
    }

    /// A peer that replaces a former one with datagrams on `path`: it initiates a handshake there
    /// immediately, without waiting for ICE, and repeats it until a session is established. ICE
    /// starts with the same credentials. The client need not nominate a path again, so the peer may
    /// use the path of its last authentic message indefinitely.
    #[must_use]
    pub fn resume(config: &PeerConfig, path: Path, now: Instant) -> Self {
        let mut peer = Self::begin(config, Some(path), now);
        peer.arm_seconds();
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
        if self.paths.nominated().is_none() {
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
        let path = datagrams.path;
        let mut stun = false;
        let mut heard = false;
        let mut is_authentic = false;
        for datagram in datagrams.segments() {
            let kind = Kind::of(datagram);
            if kind.is_stun() {
                stun = true;
                if self.ice.handle_stun(path, datagram, now) {
                    heard = true;
                    if kind == Kind::StunRequest {
                        self.paths.note_checked(path, now);
                    }
                    self.initiate_where_heard(path, now);
                } else {
                    drops.count(DropReason::StunRejected);
                }
                continue;
            }
            match self.wireguard.open(datagram, &mut packets) {
                Opened::Packet | Opened::Keepalive => {
                    // Once for a batch: the others have the same path.
                    if !is_authentic {
                        is_authentic = true;
                        self.note_used(path, now);
                    }
                }
                // While the engine knows no newer initiation, this one could be a replay: the reply
                // goes to its source, and the path stays. The message with which the client starts
                // to use the session moves the path.
                Opened::Reply(reply) => {
                    self.counts.handshakes.answered += 1;
                    self.outbox.push(path, Ecn::NotEct, &reply);
                    continue;
                }
                Opened::Cookie => continue,
                Opened::Confirmed(keepalive) => {
                    is_authentic = false;
                    self.note_confirmed(path, &keepalive, now);
                }
                Opened::Dropped(reason) => {
                    self.counts.handshakes.rejected += u64::from(kind.is_handshake());
                    self.confirm_if(|confirmation| confirmation.take_requested(now), now);
                    drops.count(reason);
                    continue;
                }
            }
            heard = true;
        }
        if heard {
            self.paths.note_heard(path, now);
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
        let mut resumption = self.phase.resumption();
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
        let path = (self.paths.current(now)).filter(|_| self.wireguard.is_established());
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
        self.paths.in_use()
    }

    /// Whether a WireGuard session is established.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.wireguard.is_established()
    }

    /// When the last authentic WireGuard message arrived.
    #[must_use]
    pub fn authentic_heard(&self) -> Option<Instant> {
        self.paths.authentic_heard()
    }

    /// Drives ICE, WireGuard's timers and the idle mode.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run_seconds(now);
        if self.timers.take_expired(Timer::Idle, now) {
            self.pace(now);
        }
        self.initiate_if_due(now);
        self.confirm_if(|confirmation| confirmation.take_due(now), now);
        if self.has_failed(now) {
            self.paths.forget_nominated();
            self.events.push_back(PeerEvent::Failed);
        }
        self.drive_ice(now);
        self.note_path(now);
    }

    /// Whether ICE has failed finally. While the client is heard, the decision is postponed.
    fn has_failed(&mut self, now: Instant) -> bool {
        let no_candidates =
            self.timers.take_expired(Timer::Candidates, now) && !self.ice.has_remote_candidates();
        let not_recovered = self.timers.take_expired(Timer::Recovery, now);
        let heard_counts_for = match self.is_resumed && self.wireguard.is_established() {
            true => RESUMED_SILENCE,
            false => NOMINATED_SILENCE,
        };
        let heard_until = (self.paths.authentic_heard()).map(|at| at + heard_counts_for);
        let heard_until = heard_until.filter(|until| *until > now);
        if let Some(until) = heard_until {
            if no_candidates {
                self.timers.set(Timer::Candidates, until);
            }
            if not_recovered {
                self.timers.set(Timer::Recovery, until);
            }
        }
        (no_candidates || not_recovered) && heard_until.is_none()
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let own = self
            .timers
            .earliest()
            .into_iter()
            .chain(self.phase.deadline());
        own.chain(self.ice.poll_timeout()).min()
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
        std::mem::take(&mut self.counts.held_dropped)
    }

    /// The client's handshake messages since the last call, by outcome.
    pub fn take_handshakes(&mut self) -> HandshakeCounts {
        std::mem::take(&mut self.counts.handshakes)
    }

    /// The kind of the client's candidate on the nominated path.
    #[must_use]
    pub fn path_kind(&self) -> Option<PathKind> {
        self.ice.kind_of(self.paths.nominated()?.remote)
    }

    /// The state of the transport, for diagnosis.
    #[must_use]
    pub fn explain(&self, now: Instant) -> PeerFacts {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let session = match self.phase {
            Phase::Established { since, .. } => Some(ago(since)),
            Phase::Waiting | Phase::Resuming(_) => None,
        };
        PeerFacts {
            age: ago(self.began_at),
            has_candidates: self.ice.has_remote_candidates(),
            is_nominated: self.paths.nominated().is_some(),
            path: self.paths.current(now),
            session,
            heard: self.paths.authentic_heard().map(ago),
        }
    }

    fn transmit(&mut self, datagram: &[u8], now: Instant) {
        if let Some(path) = self.paths.current(now) {
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
        self.pace(now);
        if let Some(datagram) = self.wireguard.handle_second() {
            self.transmit(&datagram, now);
        }
        self.note_session(now);
    }

    fn note_traffic(&mut self, now: Instant) {
        let idle_at = self.timers.set(Timer::Idle, now + IDLE_AFTER);
        if idle_at.is_none() {
            self.pace(now);
        }
    }

    /// Sets how often the peer checks its paths and wakes up.
    fn pace(&mut self, now: Instant) {
        let is_idle = !self.timers.is_set(Timer::Idle);
        self.ice
            .set_pace(match (is_idle, self.paths.is_checked(now)) {
                (false, _) => CheckPace::Active,
                (true, false) => CheckPace::Idle,
                (true, true) => CheckPace::Answering,
            });
        self.arm_seconds();
    }

    fn arm_seconds(&mut self) {
        // An idle peer has no work every second; ten thousand idle clients would cause useless
        // wake-ups.
        let pause = match self.timers.is_set(Timer::Idle) {
            true => Duration::ZERO,
            false => QUIET_PAUSE,
        };
        match self.phase {
            // Without a session there is nothing to keep alive: the next message brings the timers
            // up to date.
            Phase::Waiting => self.timers.clear(Timer::Seconds),
            Phase::Resuming(_) | Phase::Established { .. } => {
                self.timers.set(Timer::Seconds, self.next_second + pause);
            }
        }
    }

    fn note_session(&mut self, now: Instant) {
        let is_established = self.wireguard.is_established();
        if is_established == matches!(self.phase, Phase::Established { .. }) {
            return;
        }
        if !is_established {
            self.enter(Phase::Waiting);
            return;
        }
        let before = self.enter(Phase::Established {
            since: now,
            confirmation: None,
        });
        self.events.push_back(PeerEvent::SessionEstablished);
        if let Phase::Resuming(mut resumption) = before {
            self.counts.held_dropped += resumption.drop_overdue(now);
            self.seal(&mut resumption.into_held(), now);
        }
    }

    /// Returns the former phase.
    fn enter(&mut self, phase: Phase) -> Phase {
        let before = std::mem::replace(&mut self.phase, phase);
        self.arm_seconds();
        before
    }

    /// The client used its session.
    fn note_used(&mut self, path: Path, now: Instant) {
        self.paths.note_authentic(path, now);
        self.phase.confirmation().map(Option::take);
    }

    /// The client answered our initiation, and `keepalive` proves the session to it.
    fn note_confirmed(&mut self, path: Path, keepalive: &[u8], now: Instant) {
        self.counts.handshakes.confirmed += 1;
        self.paths.note_authentic(path, now);
        self.transmit(keepalive, now);
        self.note_session(now);
        if let Some(confirmation) = self.phase.confirmation() {
            *confirmation = Some(KeyConfirmation::new(now));
        }
    }

    /// Repeats the message that confirms the new session, which may have been lost.
    fn confirm_if(&mut self, is_due: impl FnOnce(&mut KeyConfirmation) -> bool, now: Instant) {
        let confirmation = self.phase.confirmation().and_then(Option::as_mut);
        if confirmation.is_some_and(is_due)
            && self.wireguard.is_established()
            && let Some(keepalive) = self.wireguard.keepalive()
        {
            self.transmit(&keepalive, now);
        }
    }

    fn note_path(&mut self, now: Instant) {
        match self.paths.report(now) {
            Report::Later(at) => {
                self.timers.set(Timer::Report, at);
            }
            Report::Unchanged => self.timers.clear(Timer::Report),
            Report::Now(path) => {
                self.timers.clear(Timer::Report);
                self.events.extend(path.map(PeerEvent::PathInUse));
            }
        }
    }

    /// Initiates a handshake with a client that does not yet know that its sessions are lost.
    fn initiate_if_due(&mut self, now: Instant) {
        let Some(resumption) = self.phase.resumption() else {
            return;
        };
        self.counts.held_dropped += resumption.drop_overdue(now);
        if resumption.is_over(now) {
            self.counts.held_dropped += resumption.held();
            self.enter(Phase::Waiting);
        } else if resumption.is_due(now) {
            self.initiate(now);
        }
    }

    fn initiate_where_heard(&mut self, path: Path, now: Instant) {
        let heard = self.phase.resumption();
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
            (self.phase.resumption(), self.wireguard.initiate())
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
                    self.timers.clear(Timer::Recovery);
                    if self.paths.nominate(path, now) {
                        self.events.push_back(PeerEvent::PathNominated(path));
                    }
                }
                IceEvent::Connected => self.timers.clear(Timer::Recovery),
                // Without a nomination, ICE reports no other sign of recovery.
                IceEvent::Checking if self.paths.nominated().is_none() => {
                    self.timers.clear(Timer::Recovery);
                }
                IceEvent::Checking => {}
                IceEvent::Disconnected => {
                    self.timers.set(Timer::Recovery, now + DISCONNECT_GRACE);
                }
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// The interval of an idle client's checks. Our rekeying is due at 120 s and has until 180 s
/// (WireGuard paper, 6.1), which is time for two attempts.
const QUIET_PAUSE: Duration = Duration::from_secs(24);
/// From docs/protocol.md 3.3.1, like the two below.
const IDLE_AFTER: Duration = Duration::from_secs(20);
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);
/// A resumed client has a session but, for ICE, perhaps no usable candidate; it may have nothing to
/// send between two of its keepalives (25 s), and one of them may get lost.
const RESUMED_SILENCE: Duration = Duration::from_secs(60);
