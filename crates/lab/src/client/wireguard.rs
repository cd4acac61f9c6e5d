//! The WireGuard session with one gateway: `defguard_boringtun` as initiator, with a preshared key.
//!
//! A core without IO. It holds a few packets until the session is established, repeats a lost first
//! handshake sooner than WireGuard's 5 s, and reports a handshake that stays unanswered for too
//! long. The engine reads the clock itself; `now` serves the additions of this file. Source:
//! WireGuard paper, 5 and 6; docs/protocol.md 3.1 and 3.7.

use super::vocabulary::Key;
use defguard_boringtun::noise::{Tunn, TunnResult};
use defguard_boringtun::x25519::{PublicKey, StaticSecret};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The client's key pair: fresh for each process, never stored.
#[derive(Clone)]
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

impl Identity {
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }

    pub fn public_key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }
}

/// The outcome of [`Session::seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// This many bytes of the output are a datagram to send.
    Datagram(usize),
    /// The session holds the packet until it is established.
    Held,
    /// The queue is full, or the packet too long for the tunnel.
    Dropped,
}

/// The outcome of [`Session::open`].
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    Packet(&'a [u8]),
    /// A handshake message or a keepalive: nothing for applications.
    Nothing,
    /// From another sender, a repetition, or damaged.
    Invalid,
}

pub struct Session {
    tunn: Tunn,
    path_is_up: bool,
    held: VecDeque<Vec<u8>>,
    transmits: VecDeque<Vec<u8>>,
    scratch: Box<[u8; BUFFER_BYTES]>,
    /// Time of the first unanswered initiation.
    unanswered_since: Option<Instant>,
    last_initiation_at: Option<Instant>,
}

impl Session {
    /// A session that waits for its path. `index` must differ between sessions of this process; its
    /// lower 24 bits count.
    pub fn new(identity: &Identity, gateway: Key, preshared_key: Key, index: u32) -> Self {
        let tunn = Tunn::new(
            identity.secret.clone(),
            PublicKey::from(gateway.0),
            Some(preshared_key.0),
            None,
            index & 0x00ff_ffff,
            None,
        );
        Self {
            tunn,
            path_is_up: false,
            held: VecDeque::new(),
            transmits: VecDeque::new(),
            scratch: Box::new([0; BUFFER_BYTES]),
            unanswered_since: None,
            last_initiation_at: None,
        }
    }

    /// The path is up: initiates at once.
    pub fn handle_path_up(&mut self, now: Instant) {
        self.path_is_up = true;
        self.initiate(now);
    }

    /// The portal repeated the grant: initiates to verify that the gateway still knows this client,
    /// unless an initiation was recent.
    pub fn refresh(&mut self, now: Instant) {
        let is_recent = self
            .last_initiation_at
            .is_some_and(|at| now.saturating_duration_since(at) < REFRESH_AFTER);
        if self.path_is_up && !is_recent {
            self.initiate(now);
        }
    }

    /// Whether the session can seal packets now.
    pub fn is_established(&self) -> bool {
        self.path_is_up && self.tunn.time_since_last_handshake().is_some()
    }

    /// Encrypts `packet` into `out`, or holds it. `out` has at least [`BUFFER_BYTES`].
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Instant) -> Sealed {
        if packet.len() > MAX_PACKET_BYTES {
            return Sealed::Dropped;
        }
        if !self.is_established() {
            return self.hold(packet, now);
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(datagram) => Sealed::Datagram(datagram.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Sealed::Dropped,
        }
    }

    /// Decrypts `datagram` into `out`, which has at least [`BUFFER_BYTES`]. Answers and held
    /// packets come from [`Session::poll_transmit`].
    pub fn open<'a>(&mut self, datagram: &[u8], out: &'a mut [u8]) -> Opened<'a> {
        if datagram.is_empty() || datagram.len() > BUFFER_BYTES {
            return Opened::Invalid;
        }
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet)
            }
            TunnResult::WriteToNetwork(answer) => {
                self.transmits.push_back(answer.to_vec());
                Opened::Nothing
            }
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(_) => return Opened::Invalid,
        };
        // A cookie reply does not prove that the gateway knows this client; all else does.
        if datagram[0] != COOKIE_REPLY {
            self.unanswered_since = None;
        }
        if !self.held.is_empty() && self.is_established() {
            self.release_held();
        }
        opened
    }

    /// Sends keepalives, renews keys, repeats handshakes. The owner calls it about every 100 ms.
    pub fn handle_timeout(&mut self, now: Instant) {
        let result = self.tunn.update_timers(self.scratch.as_mut_slice());
        if let TunnResult::WriteToNetwork(datagram) = result {
            let datagram = datagram.to_vec();
            self.queue(datagram, now);
        }
        let is_overdue = self
            .last_initiation_at
            .is_some_and(|at| now.saturating_duration_since(at) >= FIRST_RETRY_AFTER);
        if self.path_is_up
            && is_overdue
            && self.unanswered_since.is_some()
            && !self.is_established()
        {
            self.initiate(now);
        }
    }

    /// The next datagram to send, apart from those of [`Session::seal`].
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// Whether a handshake has been unanswered for too long.
    pub fn is_dead(&self, now: Instant) -> bool {
        self.unanswered_since
            .is_some_and(|since| now.saturating_duration_since(since) >= HANDSHAKE_TIMEOUT)
    }

    fn hold(&mut self, packet: &[u8], now: Instant) -> Sealed {
        // An idle session expires; the next packet renews it.
        if self.path_is_up && self.unanswered_since.is_none() {
            self.initiate(now);
        }
        if self.held.len() >= HELD_PACKETS {
            return Sealed::Dropped;
        }
        self.held.push_back(packet.to_vec());
        Sealed::Held
    }

    fn release_held(&mut self) {
        for packet in std::mem::take(&mut self.held) {
            let result = self.tunn.encapsulate(&packet, self.scratch.as_mut_slice());
            if let TunnResult::WriteToNetwork(datagram) = result {
                self.transmits.push_back(datagram.to_vec());
            }
        }
    }

    fn initiate(&mut self, now: Instant) {
        let result = self
            .tunn
            .format_handshake_initiation(self.scratch.as_mut_slice(), true);
        if let TunnResult::WriteToNetwork(datagram) = result {
            let datagram = datagram.to_vec();
            self.queue(datagram, now);
        }
    }

    fn queue(&mut self, datagram: Vec<u8>, now: Instant) {
        if datagram.first() == Some(&INITIATION) {
            self.unanswered_since.get_or_insert(now);
            self.last_initiation_at = Some(now);
        }
        self.transmits.push_back(datagram);
    }
}

/// Size of buffers for packets and datagrams: the most that `webrtc-ice` reads.
pub const BUFFER_BYTES: usize = 8192;
/// Longest inner packet that fits into a buffer with WireGuard's overhead of 32 bytes.
const MAX_PACKET_BYTES: usize = BUFFER_BYTES - 32;
/// Packets held for a gateway until the session is established (docs/protocol.md 12.1).
const HELD_PACKETS: usize = 32;
/// A first initiation may arrive before the gateway has a path for its response; WireGuard alone
/// would wait 5 s.
const FIRST_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The limit on handshakes after a repeated grant (docs/protocol.md 3.4).
const REFRESH_AFTER: Duration = Duration::from_secs(20);
/// After a failing handshake of this length the gateway counts as gone, as in Firezone's clients.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// The message types (WireGuard paper, 5.4).
const INITIATION: u8 = 1;
const COOKIE_REPLY: u8 = 3;

#[cfg(test)]
pub(super) mod tests {
    use super::super::clock::now;
    use super::super::packet::samples::udp;
    use super::*;
    use proptest::prelude::*;

    const PSK: [u8; 32] = [7; 32];

    fn buffer() -> Vec<u8> {
        vec![0; BUFFER_BYTES]
    }

    /// The gateway's side, a bare engine.
    pub(in super::super) struct Responder {
        pub(in super::super) tunn: Tunn,
        pub(in super::super) received: Vec<Vec<u8>>,
    }

    impl Responder {
        pub(in super::super) fn new(secret: [u8; 32], client: [u8; 32], psk: [u8; 32]) -> Self {
            let (secret, client) = (StaticSecret::from(secret), PublicKey::from(client));
            Self {
                tunn: Tunn::new(secret, client, Some(psk), None, 99, None),
                received: Vec::new(),
            }
        }

        /// Handles a datagram; returns the datagrams to send, with those that waited for a session.
        pub(in super::super) fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
            let (mut out, mut answers) = (buffer(), Vec::new());
            let mut datagram = datagram;
            loop {
                match self.tunn.decapsulate(None, datagram, &mut out) {
                    TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                    TunnResult::WriteToTunnelV4(packet, _)
                    | TunnResult::WriteToTunnelV6(packet, _) => {
                        self.received.push(packet.to_vec());
                        return answers;
                    }
                    TunnResult::Done | TunnResult::Err(_) => return answers,
                }
                datagram = &[];
            }
        }
    }

    fn pair(psk_of_gateway: [u8; 32]) -> (Session, Responder) {
        let (client, gateway) = (
            Identity::from_secret([1; 32]),
            Identity::from_secret([2; 32]),
        );
        let gateway = Key(gateway.public_key());
        let responder = Responder::new([2; 32], client.public_key(), psk_of_gateway);
        (Session::new(&client, gateway, Key(PSK), 1), responder)
    }

    /// Carries datagrams in both directions until both sides are silent.
    fn exchange(session: &mut Session, responder: &mut Responder) {
        let mut out = buffer();
        while let Some(datagram) = session.poll_transmit() {
            for answer in responder.handle(&datagram) {
                session.open(&answer, &mut out);
            }
        }
    }

    #[test]
    fn establishes_a_session_and_sends_held_packets_in_order() {
        let (mut session, mut responder) = pair(PSK);
        let packets: Vec<Vec<u8>> = (0..40)
            .map(|port| udp("100.64.1.2", "10.0.0.1", port))
            .collect();
        let mut out = buffer();
        for (number, packet) in packets.iter().enumerate() {
            let expected = if number < HELD_PACKETS {
                Sealed::Held
            } else {
                Sealed::Dropped
            };
            assert_eq!(session.seal(packet, &mut out, now()), expected);
        }
        assert!(session.poll_transmit().is_none(), "silent without a path");
        session.handle_path_up(now());
        exchange(&mut session, &mut responder);
        assert!(session.is_established());
        assert_eq!(responder.received, packets[..HELD_PACKETS]);
    }

    #[test]
    fn carries_packets_both_ways() {
        let (mut session, mut responder) = pair(PSK);
        session.handle_path_up(now());
        exchange(&mut session, &mut responder);
        let (request, answer) = (
            udp("100.64.1.2", "10.0.0.1", 53),
            udp("10.0.0.1", "100.64.1.2", 5353),
        );
        let mut out = buffer();
        let Sealed::Datagram(len) = session.seal(&request, &mut out, now()) else {
            panic!("not sealed");
        };
        responder.handle(&out[..len]);
        assert_eq!(responder.received, [request]);
        let mut sealed = buffer();
        let TunnResult::WriteToNetwork(datagram) = responder.tunn.encapsulate(&answer, &mut sealed)
        else {
            panic!("not sealed");
        };
        assert_eq!(session.open(datagram, &mut out), Opened::Packet(&answer));
        assert_eq!(
            session.open(datagram, &mut out),
            Opened::Invalid,
            "a repetition"
        );
    }

    #[test]
    fn a_wrong_preshared_key_never_establishes_and_dies_after_20_seconds() {
        let (mut session, mut responder) = pair([8; 32]);
        let start = now();
        session.handle_path_up(start);
        exchange(&mut session, &mut responder);
        assert!(!session.is_established());
        assert!(!session.is_dead(start + Duration::from_secs(19)));
        assert!(session.is_dead(start + Duration::from_secs(20)));
    }

    #[test]
    fn repeats_a_lost_first_initiation_after_a_second() {
        let (mut session, mut responder) = pair(PSK);
        let start = now();
        session.handle_path_up(start);
        assert!(session.poll_transmit().is_some(), "and lost");
        session.handle_timeout(start + Duration::from_millis(900));
        assert!(session.poll_transmit().is_none());
        session.handle_timeout(start + Duration::from_millis(1000));
        exchange(&mut session, &mut responder);
        assert!(session.is_established());
    }

    #[test]
    fn a_repeated_grant_renews_the_session_at_most_every_20_seconds() {
        let (mut session, mut responder) = pair(PSK);
        let start = now();
        session.handle_path_up(start);
        exchange(&mut session, &mut responder);
        session.refresh(start + Duration::from_secs(19));
        assert!(session.poll_transmit().is_none());
        session.refresh(start + Duration::from_secs(20));
        let renewal = session.poll_transmit().expect("an initiation");
        assert_eq!(renewal[0], INITIATION);
        assert!(session.is_established(), "the old session continues");
    }

    /// A gateway initiates a handshake after it rebuilt its connection.
    #[test]
    fn answers_an_initiation_of_the_gateway() {
        let (mut session, mut responder) = pair(PSK);
        session.handle_path_up(now());
        exchange(&mut session, &mut responder);
        let client = Identity::from_secret([1; 32]);
        let mut rebuilt = Responder::new([2; 32], client.public_key(), PSK);
        let (mut out, mut inner) = (buffer(), buffer());
        let TunnResult::WriteToNetwork(initiation) =
            rebuilt.tunn.format_handshake_initiation(&mut out, true)
        else {
            panic!("no initiation");
        };
        assert_eq!(session.open(initiation, &mut inner), Opened::Nothing);
        let response = session.poll_transmit().expect("a response");
        for keepalive in rebuilt.handle(&response) {
            session.open(&keepalive, &mut inner);
        }
        let packet = udp("100.64.1.2", "10.0.0.1", 53);
        let Sealed::Datagram(len) = session.seal(&packet, &mut inner, now()) else {
            panic!("not sealed");
        };
        rebuilt.handle(&inner[..len]);
        assert_eq!(rebuilt.received, [packet]);
    }

    #[test]
    fn drops_oversized_packets() {
        let (mut session, mut responder) = pair(PSK);
        session.handle_path_up(now());
        exchange(&mut session, &mut responder);
        let mut out = buffer();
        assert_eq!(
            session.seal(&vec![0x45; 9000], &mut out, now()),
            Sealed::Dropped
        );
        assert_eq!(session.open(&vec![4; 9000], &mut out), Opened::Invalid);
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(
            kind in 0u8..6,
            mut datagram in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (mut session, mut responder) = pair(PSK);
            session.handle_path_up(now());
            exchange(&mut session, &mut responder);
            let mut out = buffer();
            session.open(&datagram, &mut out);
            if datagram.len() >= 4 {
                datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
                session.open(&datagram, &mut out);
            }
        }
    }
}
