//! One peer: ICE and WireGuard composed. Datagrams in, IP packets out, and the reverse.
//!
//! Packets for the peer go to the path that ICE nominated last. Before there is one, and when that
//! one has fallen silent while the client is heard on another, they go to the path of its last
//! authentic WireGuard message (the client accepts them from anywhere, docs/protocol.md 8.1.
//! Nothing is queued for a peer that is not connected: IP may drop (section 5.3). Only one that
//! resumes a former peer's place keeps a few packets until its session stands.

use crate::DropReason;
use crate::grant::TransportKeys;
use crate::packet::{DatagramBatch, DropCounts, Ecn, PacketBatch, Path, ip};
use crate::peer::demux::Kind;
use crate::peer::gatherer::LocalAddresses;
use crate::peer::ice::{CheckPace, IceEvent, IceTransport};
use crate::peer::index::PeerIndex;
use crate::peer::outbox::Outbox;
use crate::peer::resumption::{Call, Proof, Resumption};
use crate::peer::statistics::{HandshakeCounts, PathKind};
use crate::peer::wireguard::{GatewayKeys, Opened, WireguardTunnel, sealed_len};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a [`Peer`] is made of.
pub struct PeerConfig {
    /// Ours.
    pub keys: GatewayKeys,
    /// Unique while the peer lives.
    pub index: PeerIndex,
    /// From the portal.
    pub transport: TransportKeys,
}

/// What the owner must know.
#[derive(Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Signal these candidates to the client, best first.
    CandidatesGathered(Vec<String>),
    /// ICE settled on a path, or on another one.
    PathNominated(Path),
    /// Packets for the client go this way from now on. At most one a second, the latest: those
    /// in between go unmentioned.
    PathInUse(Path),
    /// A WireGuard session stands and the client has used it, or has answered our initiation; said
    /// again after one has run out.
    SessionEstablished,
    /// No way to the client is left, or none was ever found.
    Failed,
}

/// How far a [`Peer`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// How long it has been trying.
    pub age: Duration,
    /// Whether any address of the client is known.
    pub has_candidates: bool,
    /// Whether ICE has settled on a path.
    pub is_nominated: bool,
    /// Where datagrams to the client go.
    pub path: Option<Path>,
    /// For how long a WireGuard session has stood, if one stands.
    pub session: Option<Duration>,
    /// How long ago an authentic message of the client came.
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
    /// When the last authentic WireGuard message came.
    authentic_heard: Option<Instant>,
    /// The path that was told last.
    path_in_use: Option<Path>,
    /// Until when no other is told.
    path_told_until: Option<Instant>,
    /// When to tell another.
    path_due: Option<Instant>,
    established: bool,
    began_at: Instant,
    established_at: Option<Instant>,
    resumption: Option<Resumption>,
    /// Whether it has taken a former peer's place: its client may never nominate a path again.
    is_resumed: bool,
    /// `None` once the client has used the session that it answered to.
    proof: Option<Proof>,
    /// Packets that waited in vain, to be counted.
    waited_in_vain: usize,
    handshakes: HandshakeCounts,
    idle_at: Option<Instant>,
    next_second: Instant,
    /// When to give up unless a candidate of the client is known.
    candidates_due: Option<Instant>,
    /// When to give up unless ICE recovers.
    recovery_due: Option<Instant>,
}

impl Peer {
    /// A peer that awaits the client's checks.
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
            path_told_until: None,
            path_due: None,
            established: false,
            began_at: now,
            established_at: None,
            resumption: None,
            is_resumed: false,
            proof: None,
            waited_in_vain: 0,
            handshakes: HandshakeCounts::default(),
            idle_at: Some(now + IDLE_AFTER),
            next_second: now + SECOND,
            candidates_due: Some(now + CANDIDATE_TIMEOUT),
            recovery_due: None,
        }
    }

    /// A peer in the place of a former one whose datagrams went along `path`: it calls the client
    /// there at once, without waiting for ICE, and again until a session stands. ICE starts from
    /// the same credentials, and as the client need not nominate again, the peer may live on the
    /// path of its last authentic message for ever.
    #[must_use]
    pub fn resume(config: &PeerConfig, path: Path, now: Instant) -> Self {
        let mut peer = Self {
            last_authentic: Some(path),
            path_in_use: Some(path),
            resumption: Some(Resumption::new(path, now)),
            is_resumed: true,
            ..Self::new(config, now)
        };
        peer.call_if_due(now);
        peer
    }

    /// Our addresses, or their change.
    pub fn handle_local_addresses(&mut self, addresses: &LocalAddresses, now: Instant) {
        let added = self.ice.add_local_addresses(addresses);
        if !added.is_empty() {
            self.events.push_back(PeerEvent::CandidatesGathered(added));
        }
        self.after_ice(now);
    }

    /// The client was granted something again: signal everything once more, wake up.
    pub fn handle_upsert(&mut self, now: Instant) {
        self.signal_again();
        self.note_traffic(now);
        self.after_ice(now);
    }

    /// What was signalled may have got lost with the portal's actor: if ICE still depends on it,
    /// signal it once more.
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

    /// Candidates of the client. Returns how many did not parse.
    pub fn add_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let ice = &mut self.ice;
        let odd = candidates
            .iter()
            .filter(|line| !ice.add_remote_candidate(line));
        let odd = odd.count();
        self.note_traffic(now);
        self.after_ice(now);
        odd
    }

    /// Candidates that the client withdrew. Returns how many did not parse.
    pub fn remove_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let ice = &mut self.ice;
        let odd = candidates
            .iter()
            .filter(|line| !ice.remove_remote_candidate(line));
        let odd = odd.count();
        self.after_ice(now);
        odd
    }

    /// Takes datagrams that the demultiplexer found to be this peer's; returns the IP packets in
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
                    self.call_where_heard(datagrams.path, now);
                } else {
                    drops.count(DropReason::StunRejected);
                }
                continue;
            }
            match self.wireguard.open(datagram, &mut packets) {
                Opened::Packet | Opened::Nothing => {
                    self.note_authentic(datagrams.path, now);
                    self.proof = None;
                }
                // An initiation could be an old one, sent again, as long as the engine knows none
                // that is newer: it is answered where it came from, and moves nothing. The message
                // by which the client takes to the session does.
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
                    self.proof = Some(Proof::new(now));
                }
                Opened::Dropped(reason) => {
                    let is_handshake = Kind::of(datagram).is_handshake();
                    self.handshakes.rejected += u64::from(is_handshake);
                    self.prove_if(|proof| proof.take_wanted(now), now);
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
            self.after_ice(now);
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

    /// As [`Self::send`], but for packets that are not worth waiting for.
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

    /// Returns whether the client is connected; if so, the packets are used up: each segment of a
    /// super-packet is cut and sealed straight into what one GSO write takes.
    fn seal(&mut self, packets: &mut PacketBatch, now: Instant) -> bool {
        let path = self.path(now).filter(|_| self.wireguard.is_established());
        let Some(path) = path else {
            return false;
        };
        self.note_traffic(now);
        self.note_path(now);
        let (wireguard, outbox) = (&mut self.wireguard, &mut self.outbox);
        packets.for_each_mut(|mut packet| {
            // The inner mark is copied to the outer header (RFC 6040, section 4.1).
            let ecn = ip::ecn(packet.bytes).unwrap_or_default();
            packet.cut(|segment| {
                let slot_bytes = sealed_len(segment.len());
                outbox.push_with(path, ecn, slot_bytes, |slot| wireguard.seal(segment, slot));
            });
        });
        true
    }

    /// Where packets for the client went last.
    #[must_use]
    pub fn path_in_use(&self) -> Option<Path> {
        self.path_in_use
    }

    /// Whether a WireGuard session stands.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.wireguard.is_established()
    }

    /// When the last authentic WireGuard message came.
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
        self.call_if_due(now);
        self.prove_if(|proof| proof.take_due(now), now);
        if self.is_given_up(now) {
            self.nominated = None;
            self.events.push_back(PeerEvent::Failed);
        }
        self.after_ice(now);
        self.note_path(now);
    }

    /// Whether ICE is at its end. As long as the client is heard, that proves nothing: the check is
    /// put off.
    fn is_given_up(&mut self, now: Instant) -> bool {
        let no_candidates = self.candidates_due.take_if(|at| *at <= now).is_some()
            && !self.ice.has_remote_candidates();
        let not_recovered = self.recovery_due.take_if(|at| *at <= now).is_some();
        let proves_for = match self.is_resumed && self.wireguard.is_established() {
            true => RESUMED_SILENCE,
            false => NOMINATED_SILENCE,
        };
        let heard_until = self.authentic_heard.map(|at| at + proves_for);
        let heard_until = heard_until.filter(|until| *until > now);
        if let Some(until) = heard_until {
            self.candidates_due = no_candidates.then_some(until).or(self.candidates_due);
            self.recovery_due = not_recovered.then_some(until).or(self.recovery_due);
        }
        (no_candidates || not_recovered) && heard_until.is_none()
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        // Without a session there is nothing to keep alive: a later message brings the timers up to
        // date.
        let is_at_work = self.established || self.resumption.is_some();
        // Where no packets go, nothing is due to the second; ten thousand clients would be woken
        // for nothing.
        let wireguard = match self.idle_at {
            Some(_) => self.next_second,
            None => self.next_second + QUIET_PAUSE,
        };
        let wireguard = is_at_work.then_some(wireguard);
        [
            self.resumption.as_ref().map(Resumption::deadline),
            self.proof.as_ref().and_then(Proof::deadline),
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

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// How many packets waited for a session in vain since the last call.
    pub fn take_waited_in_vain(&mut self) -> usize {
        std::mem::take(&mut self.waited_in_vain)
    }

    /// What became of the client's handshake messages since the last call.
    pub fn take_handshakes(&mut self) -> HandshakeCounts {
        std::mem::take(&mut self.handshakes)
    }

    /// How the client's end of the path that ICE settled on is known.
    #[must_use]
    pub fn path_kind(&self) -> Option<PathKind> {
        self.ice.kind_of(self.nominated?.remote)
    }

    /// How far the transport has come, for people who ask.
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

    /// WireGuard's timers are counted in seconds; after a silence they are brought up to date
    /// before anything else is done.
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
            self.waited_in_vain += resumption.drop_overdue(now);
            self.seal(&mut resumption.into_held(), now);
        }
    }

    /// The message by which the client would have taken to the new session may have got lost.
    fn prove_if(&mut self, is_due: impl FnOnce(&mut Proof) -> bool, now: Instant) {
        if self.proof.as_mut().is_some_and(is_due)
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
            (self.path_told_until).filter(|until| path != self.path_in_use && *until > now);
        if path != self.path_in_use && self.path_due.is_none() {
            self.path_in_use = path;
            self.path_told_until = Some(now + SECOND);
            self.events.extend(path.map(PeerEvent::PathInUse));
        }
    }

    /// Calls a client that does not know yet that its sessions are gone.
    fn call_if_due(&mut self, now: Instant) {
        let Some(resumption) = &mut self.resumption else {
            return;
        };
        self.waited_in_vain += resumption.drop_overdue(now);
        if resumption.is_over(now) {
            self.waited_in_vain += resumption.held();
            self.resumption = None;
        } else if resumption.is_due(now) {
            self.call(now);
        }
    }

    fn call_where_heard(&mut self, path: Path, now: Instant) {
        let heard = self.resumption.as_mut();
        match heard.map(|resumption| resumption.handle_heard(path, now)) {
            Some(Call::Anew) => self.call(now),
            Some(Call::Repeat(initiation)) => self.outbox.push(path, Ecn::NotEct, &initiation),
            Some(Call::Nothing) | None => {}
        }
    }

    fn call(&mut self, now: Instant) {
        let (Some(resumption), Some(initiation)) =
            (self.resumption.as_mut(), self.wireguard.initiate())
        else {
            return;
        };
        for path in resumption.note_initiation(&initiation, now) {
            self.outbox.push(path, Ecn::NotEct, &initiation);
        }
    }

    fn after_ice(&mut self, now: Instant) {
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
                // Without a nomination this is all the recovery that ICE can tell of.
                IceEvent::Checking if self.nominated.is_none() => self.recovery_due = None,
                IceEvent::Checking => {}
                IceEvent::Disconnected => self.recovery_due = Some(now + DISCONNECT_GRACE),
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// As often as an idle client's check comes. A rekeying of ours is due at 120 s and has until 180 s
/// (WireGuard white paper, section 6.1), which is time for two attempts.
const QUIET_PAUSE: Duration = Duration::from_secs(24);
/// A client checks its path every 25 s at the least (docs/protocol.md 3.3.1, and a check may
/// be late.
const CLIENT_CHECKS_WITHIN: Duration = Duration::from_secs(30);
/// docs/protocol.md 3.3.1, as the two below.
const IDLE_AFTER: Duration = Duration::from_secs(20);
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);
/// Longer than the gap between a client's checks on a path that it uses (1.5 s while active), by
/// enough for two of them to get lost; far shorter than the time after which ICE alone would
/// notice.
const NOMINATED_SILENCE: Duration = Duration::from_secs(5);
/// A client that was called back has a session but, for ICE, perhaps no usable candidate; it may
/// have nothing to say between two of its keepalives (25 s), of which one may get lost.
const RESUMED_SILENCE: Duration = Duration::from_secs(60);
