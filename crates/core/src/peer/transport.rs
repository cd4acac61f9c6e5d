//! One peer: ICE and WireGuard composed. Datagrams in, IP packets out, and the reverse.
//!
//! Packets for the peer go to the path that ICE nominated last; until there is one, to the path
//! that the last authentic WireGuard message came from. Nothing is queued for a peer that is not
//! connected: IP may drop (protocol page, section 5.3).

use crate::DropReason;
use crate::grant::TransportKeys;
use crate::packet::{DatagramBatch, DropCounts, Ecn, PacketBatch, Path};
use crate::peer::demux::Kind;
use crate::peer::gatherer::LocalAddresses;
use crate::peer::ice::{IceEvent, IceTransport};
use crate::peer::index::PeerIndex;
use crate::peer::outbox::Outbox;
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
    /// Tell the client that these are gone.
    CandidatesInvalidated(Vec<String>),
    /// ICE settled on a path, or on another one.
    PathNominated(Path),
    /// A WireGuard session stands and the client has used it.
    SessionEstablished,
    /// No way to the client is left, or none was ever found.
    Failed,
}

/// See the module's documentation.
pub struct Peer {
    ice: IceTransport,
    wireguard: WireguardTunnel,
    outbox: Outbox,
    events: VecDeque<PeerEvent>,
    nominated: Option<Path>,
    last_authentic: Option<Path>,
    established: bool,
    idle_at: Option<Instant>,
    next_second: Instant,
    give_up_at: Option<Instant>,
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
            last_authentic: None,
            established: false,
            idle_at: Some(now + IDLE_AFTER),
            next_second: now + SECOND,
            give_up_at: Some(now + CANDIDATE_TIMEOUT),
        }
    }

    /// Our addresses, or their change.
    pub fn handle_local_addresses(&mut self, addresses: &LocalAddresses, now: Instant) {
        let (added, gone) = self.ice.set_local_addresses(addresses);
        if !added.is_empty() {
            self.events.push_back(PeerEvent::CandidatesGathered(added));
        }
        if !gone.is_empty() {
            self.events
                .push_back(PeerEvent::CandidatesInvalidated(gone));
        }
        self.after_ice(now);
    }

    /// The client was granted something again: signal everything once more, wake up.
    pub fn handle_upsert(&mut self, now: Instant) {
        let candidates = self.ice.local_candidates();
        if !candidates.is_empty() {
            self.events
                .push_back(PeerEvent::CandidatesGathered(candidates));
        }
        self.note_traffic(now);
        self.after_ice(now);
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
        for datagram in datagrams.segments() {
            if Kind::of(datagram).is_stun() {
                stun = true;
                if !self.ice.handle_stun(datagrams.path, datagram, now) {
                    drops.count(DropReason::StunRejected);
                }
                continue;
            }
            match self.wireguard.open(datagram, &mut packets) {
                Opened::Packet | Opened::Nothing => self.last_authentic = Some(datagrams.path),
                Opened::Reply(reply) => {
                    self.last_authentic = Some(datagrams.path);
                    self.transmit(&reply);
                }
                Opened::Dropped(reason) => drops.count(reason),
            }
        }
        if !packets.is_empty() {
            self.note_traffic(now);
        }
        self.note_session();
        if stun {
            self.after_ice(now);
        }
        packets
    }

    /// Seals IP packets for the client.
    pub fn send(&mut self, packets: &PacketBatch, drops: &mut DropCounts, now: Instant) {
        self.run_seconds(now);
        let path = self.path().filter(|_| self.wireguard.is_established());
        let Some(path) = path else {
            drops.count_many(DropReason::NotConnected, packets.len());
            return;
        };
        self.note_traffic(now);
        let wireguard = &mut self.wireguard;
        for packet in packets.iter() {
            let slot_bytes = sealed_len(packet.len());
            self.outbox
                .push_with(path, inner_ecn(packet), slot_bytes, |slot| {
                    wireguard.seal(packet, slot)
                });
        }
    }

    /// Drives ICE, WireGuard's timers and the idle mode.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run_seconds(now);
        if self.idle_at.is_some_and(|at| at <= now) {
            self.idle_at = None;
            self.ice.set_idle(true);
        }
        if self.give_up_at.is_some_and(|at| at <= now) {
            self.give_up_at = None;
            if self.nominated.is_some() || !self.ice.has_remote_candidates() {
                self.nominated = None;
                self.events.push_back(PeerEvent::Failed);
            }
        }
        self.after_ice(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let wireguard = self.last_authentic.map(|_| self.next_second);
        [
            self.ice.poll_timeout(),
            wireguard,
            self.idle_at,
            self.give_up_at,
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

    fn path(&self) -> Option<Path> {
        self.nominated.or(self.last_authentic)
    }

    fn transmit(&mut self, datagram: &[u8]) {
        if let Some(path) = self.path() {
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
        if let Some(datagram) = self.wireguard.handle_second() {
            self.transmit(&datagram);
        }
    }

    fn note_traffic(&mut self, now: Instant) {
        let was_idle = self.idle_at.replace(now + IDLE_AFTER).is_none();
        if was_idle {
            self.ice.set_idle(false);
        }
    }

    fn note_session(&mut self) {
        if !self.established && self.wireguard.is_established() {
            self.established = true;
            self.events.push_back(PeerEvent::SessionEstablished);
        }
    }

    fn after_ice(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        while let Some(event) = self.ice.poll_event() {
            match event {
                IceEvent::Nominated(path) => {
                    self.give_up_at = None;
                    if self.nominated.replace(path) != Some(path) {
                        self.events.push_back(PeerEvent::PathNominated(path));
                    }
                }
                IceEvent::Connected => self.give_up_at = None,
                IceEvent::Disconnected => {
                    if self.nominated.is_some() {
                        self.give_up_at = Some(now + DISCONNECT_GRACE);
                    }
                }
            }
        }
    }
}

/// The ECN field of an inner packet, which is copied to the outer one (RFC 6040, section 4.1).
fn inner_ecn(packet: &[u8]) -> Ecn {
    match packet {
        [first, tos, ..] if first >> 4 == 4 => Ecn::from_bits(*tos),
        [first, second, ..] if first >> 4 == 6 => Ecn::from_bits(second >> 4),
        _ => Ecn::NotEct,
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Protocol page, section 3.3.1, as the two below.
const IDLE_AFTER: Duration = Duration::from_secs(20);
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);
