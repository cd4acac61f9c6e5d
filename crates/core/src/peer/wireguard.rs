//! The WireGuard engine, behind an interface so that it can be exchanged.
//!
//! Wraps boringtun's sans-IO tunnel, which as a responder sends nothing before its peer has proved
//! the session (WireGuard paper, 5.4.6), and the checks before a peer is known: MAC, rate limit
//! with cookies, and the initiator's public key. The engine reads the clock itself; this is the
//! only place where this crate cannot keep its contract, see ARCHITECTURE.md 16.

use crate::DropReason;
use crate::grant::PresharedKey;
use crate::ids::PublicKey;
use crate::packet::PacketBatch;
use crate::peer::index::PeerIndex;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use std::net::IpAddr;
use std::sync::Arc;
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};

/// The gateway's WireGuard key pair. The private half is zeroized on drop and never printed.
#[derive(Clone)]
pub struct GatewayKeys {
    private: StaticSecret,
    public: X25519Public,
}

impl GatewayKeys {
    /// The key pair of 32 random bytes.
    #[must_use]
    pub fn new(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        let public = X25519Public::from(&private);
        Self { private, public }
    }

    /// The public half, which the portal distributes to clients.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.public.to_bytes())
    }
}

/// The checks between the socket and the peers: which handshakes may start at all.
pub(crate) struct HandshakeGate {
    keys: GatewayKeys,
    limiter: RateLimiter,
}

/// Why a handshake message was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HandshakeRefusal {
    /// Under load: the sender must first prove that it receives at its address. Holds the reply.
    Cookie(Vec<u8>),
    /// Malformed, a wrong MAC, or not meant for this key.
    Drop(DropReason),
}

impl HandshakeGate {
    /// Lets `per_second` handshake messages per second pass before it demands cookies.
    pub(crate) fn new(keys: GatewayKeys, per_second: u64) -> Self {
        let limiter = RateLimiter::new(&keys.public, per_second);
        Self { keys, limiter }
    }

    /// Changes the number that may pass. The limiter has no setter, so a new one replaces it.
    pub(crate) fn limit(&mut self, per_second: u64) {
        self.limiter = RateLimiter::new(&self.keys.public, per_second);
    }

    /// Checks a handshake initiation and returns its sender.
    pub(crate) fn initiator(
        &self,
        from: IpAddr,
        datagram: &[u8],
    ) -> Result<PublicKey, HandshakeRefusal> {
        let Packet::HandshakeInit(initiation) = self.verify(from, datagram)? else {
            return Err(HandshakeRefusal::Drop(DropReason::WireguardRejected));
        };
        let half = parse_handshake_anon(&self.keys.private, &self.keys.public, &initiation)
            .map_err(|_| HandshakeRefusal::Drop(DropReason::WireguardRejected))?;
        Ok(PublicKey(half.peer_static_public))
    }

    /// Checks the MACs of a handshake response.
    pub(crate) fn response(&self, from: IpAddr, datagram: &[u8]) -> Result<(), HandshakeRefusal> {
        self.verify(from, datagram).map(|_| ())
    }

    /// Renews the allowance; to be called once a second.
    pub(crate) fn handle_second(&self) {
        self.limiter.reset_count();
    }

    fn verify<'a>(&self, from: IpAddr, datagram: &'a [u8]) -> Result<Packet<'a>, HandshakeRefusal> {
        let mut cookie = [0; COOKIE_REPLY_BYTES];
        match self
            .limiter
            .verify_packet(Some(from), datagram, &mut cookie)
        {
            Ok(packet) => Ok(packet),
            Err(TunnResult::WriteToNetwork(reply)) => Err(HandshakeRefusal::Cookie(reply.to_vec())),
            Err(
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => Err(HandshakeRefusal::Drop(DropReason::WireguardRejected)),
        }
    }
}

/// The WireGuard sessions of one peer.
pub(crate) struct WireguardTunnel {
    engine: Tunn,
    scratch: Vec<u8>,
    confirmed: bool,
}

/// The outcome of decapsulating a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An IP packet was appended to the batch.
    Packet,
    /// A keepalive: authentic, without a packet.
    Keepalive,
    /// A cookie. Any observer of our handshake message could have made it, so it proves nothing
    /// about the peer.
    Cookie,
    /// A handshake initiation was answered with this reply. The engine is younger than the keys, so
    /// the initiation may be a replay.
    Reply(Vec<u8>),
    /// The peer answered our own initiation: the session is established, and this keepalive proves
    /// it to the peer.
    Confirmed(Vec<u8>),
    /// The datagram was dropped.
    Dropped(DropReason),
}

impl WireguardTunnel {
    /// A tunnel without a session.
    pub(crate) fn new(
        keys: &GatewayKeys,
        peer: PublicKey,
        preshared: &PresharedKey,
        index: PeerIndex,
    ) -> Self {
        // The gate has already limited the rate; the engine's own limiter must not do it again.
        let unlimited = Arc::new(RateLimiter::new(&keys.public, u64::MAX));
        let engine = Tunn::new(
            keys.private.clone(),
            X25519Public::from(peer.0),
            Some(*preshared.0),
            None,
            index.to_bits(),
            Some(unlimited),
        );
        Self {
            engine,
            scratch: vec![0; SCRATCH_BYTES],
            confirmed: false,
        }
    }

    /// Decrypts a data message to the end of `batch`, merged with the packet that it continues, or
    /// answers a handshake message.
    pub(crate) fn open(&mut self, datagram: &[u8], batch: &mut PacketBatch) -> Opened {
        if datagram.first() != Some(&MESSAGE_DATA) {
            return self.open_handshake(datagram);
        }
        let mut outcome = Opened::Keepalive;
        let engine = &mut self.engine;
        batch.push_merging(datagram.len(), |slot| {
            match engine.decapsulate(None, datagram, slot) {
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    outcome = Opened::Packet;
                    Some(packet.len())
                }
                TunnResult::Err(error) => {
                    outcome = Opened::Dropped(drop_reason(&error));
                    None
                }
                TunnResult::Done | TunnResult::WriteToNetwork(_) => None,
            }
        });
        self.confirmed |= !matches!(outcome, Opened::Dropped(_));
        outcome
    }

    fn open_handshake(&mut self, datagram: &[u8]) -> Opened {
        // The engine reads an empty datagram as a request to send queued packets.
        let Some(kind) = datagram.first() else {
            return Opened::Dropped(DropReason::WireguardRejected);
        };
        let is_response = *kind == MESSAGE_RESPONSE;
        match self.engine.decapsulate(None, datagram, &mut self.scratch) {
            TunnResult::WriteToNetwork(keepalive) if is_response => {
                self.confirmed = true;
                Opened::Confirmed(keepalive.to_vec())
            }
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply.to_vec()),
            TunnResult::Err(error) => Opened::Dropped(drop_reason(&error)),
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Opened::Cookie,
        }
    }

    /// A new handshake initiation, also while another is pending; the engine still accepts the
    /// response to the previous one. Each carries a wall-clock timestamp (TAI64N), so after a step
    /// back of that clock the peer takes them for replays until the clock has caught up.
    pub(crate) fn initiate(&mut self) -> Option<Vec<u8>> {
        let forced = true;
        match self
            .engine
            .format_handshake_initiation(&mut self.scratch, forced)
        {
            TunnResult::WriteToNetwork(initiation) => Some(initiation.to_vec()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Whether packets can be sealed: a session exists, and its peer has used it or has answered
    /// our initiation.
    pub(crate) fn is_established(&self) -> bool {
        self.confirmed && self.engine.time_since_last_handshake().is_some()
    }

    /// Encrypts `packet` into `slot`, which must be [`sealed_len`] bytes; returns the length. To be
    /// called only while [`Self::is_established`], otherwise the engine queues the packet.
    pub(crate) fn seal(&mut self, packet: &[u8], slot: &mut [u8]) -> Option<usize> {
        match self.engine.encapsulate(packet, slot) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// An empty data message. To be called only while [`Self::is_established`].
    pub(crate) fn keepalive(&mut self) -> Option<Vec<u8>> {
        let mut slot = vec![0; SCRATCH_BYTES];
        let bytes = self.seal(&[], &mut slot)?;
        slot.truncate(bytes);
        Some(slot)
    }

    /// Drives the protocol's timers; to be called about once a second while the peer is active.
    /// Returns a keepalive or a handshake message to send.
    pub(crate) fn handle_second(&mut self) -> Option<Vec<u8>> {
        match self.engine.update_timers(&mut self.scratch) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.to_vec()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }
}

/// The length of the datagram that carries an inner packet of `inner_bytes`, which is not padded
/// (docs/protocol.md 3.7).
pub(crate) fn sealed_len(inner_bytes: usize) -> usize {
    inner_bytes + DATA_OVERHEAD_BYTES
}

fn drop_reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => {
            DropReason::WireguardReplayed
        }
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongIndex
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag
        | WireGuardError::InvalidPacket
        | WireGuardError::NoCurrentSession
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => DropReason::WireguardRejected,
    }
}

/// First byte of a handshake response.
const MESSAGE_RESPONSE: u8 = 2;
/// First byte of a transport data message.
pub(crate) const MESSAGE_DATA: u8 = 4;
/// Length of a handshake initiation in bytes.
pub(crate) const HANDSHAKE_INIT_BYTES: usize = 148;
/// Length of a handshake response in bytes.
pub(crate) const HANDSHAKE_RESPONSE_BYTES: usize = 92;
/// Length of a cookie reply in bytes.
pub(crate) const COOKIE_REPLY_BYTES: usize = 64;
/// Header (16 bytes) and tag (16 bytes) of a data message.
pub(crate) const DATA_OVERHEAD_BYTES: usize = 32;
/// Enough for any handshake message and for a keepalive.
const SCRATCH_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::{TestClient, ipv4_packet};
    use proptest::prelude::*;

    #[test]
    fn a_responder_is_silent_until_its_peer_has_used_the_session() {
        let mut client = TestClient::new();
        let mut tunnel = client.gateway_tunnel();
        let mut batch = PacketBatch::default();

        let Opened::Reply(response) = tunnel.open(&client.initiation(), &mut batch) else {
            panic!("the initiation was not answered");
        };
        assert_eq!(response.len(), HANDSHAKE_RESPONSE_BYTES);
        assert!(!tunnel.is_established());

        let keepalive = client.handle_response(&response);
        assert_eq!(tunnel.open(&keepalive, &mut batch), Opened::Keepalive);
        assert!(tunnel.is_established());
        assert!(batch.is_empty());
    }

    #[test]
    fn packets_pass_in_both_directions_with_a_preshared_key() {
        let mut client = TestClient::new();
        let mut tunnel = client.gateway_tunnel();
        client.establish(&mut tunnel);
        let packet = ipv4_packet([100, 64, 1, 2], [10, 20, 0, 100], b"hello");

        let mut batch = PacketBatch::default();
        assert_eq!(
            tunnel.open(&client.seal(&packet), &mut batch),
            Opened::Packet
        );
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&packet[..]]);

        let mut slot = vec![0; sealed_len(packet.len())];
        let sealed = tunnel.seal(&packet, &mut slot).expect("established");
        assert_eq!(sealed, packet.len() + DATA_OVERHEAD_BYTES);
        assert_eq!(client.open(&slot[..sealed]), packet);
    }

    #[test]
    fn a_wrong_preshared_key_establishes_nothing() {
        let mut client = TestClient::new();
        let mut tunnel = client.gateway_tunnel_with_psk([9; 32]);
        let mut batch = PacketBatch::default();
        let Opened::Reply(response) = tunnel.open(&client.initiation(), &mut batch) else {
            panic!("the initiation does not prove the preshared key yet, so it is answered");
        };
        assert!(!client.accepts_response(&response));
        assert!(!tunnel.is_established());
    }

    #[test]
    fn an_empty_datagram_is_rejected() {
        let mut client = TestClient::new();
        let mut tunnel = client.gateway_tunnel();
        client.establish(&mut tunnel);
        let opened = tunnel.open(&[], &mut PacketBatch::default());
        assert_eq!(opened, Opened::Dropped(DropReason::WireguardRejected));
    }

    #[test]
    fn a_replayed_datagram_is_dropped() {
        let mut client = TestClient::new();
        let mut tunnel = client.gateway_tunnel();
        client.establish(&mut tunnel);
        let datagram = client.seal(&ipv4_packet([100, 64, 1, 2], [10, 20, 0, 1], b"once"));
        let mut batch = PacketBatch::default();
        assert_eq!(tunnel.open(&datagram, &mut batch), Opened::Packet);
        assert_eq!(
            tunnel.open(&datagram, &mut batch),
            Opened::Dropped(DropReason::WireguardReplayed)
        );
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn the_gate_identifies_the_initiator() {
        let mut client = TestClient::new();
        let gate = HandshakeGate::new(client.gateway_keys(), 100);
        let from = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            gate.initiator(from, &client.initiation()),
            Ok(client.public_key())
        );
    }

    #[test]
    fn under_load_the_gate_demands_a_cookie_and_then_accepts_its_owner() {
        let mut client = TestClient::new();
        let gate = HandshakeGate::new(client.gateway_keys(), 2);
        let from = IpAddr::from([127, 0, 0, 1]);
        let refusal = (0..10).find_map(|_| gate.initiator(from, &client.initiation()).err());
        let Some(HandshakeRefusal::Cookie(cookie)) = refusal else {
            panic!("ten handshakes passed a limit of two: {refusal:?}");
        };
        assert_eq!(cookie.len(), COOKIE_REPLY_BYTES);

        client.handle_cookie(&cookie);
        let initiation = client.initiation();
        assert_eq!(gate.initiator(from, &initiation), Ok(client.public_key()));
        // The cookie proves one address only.
        let elsewhere = IpAddr::from([127, 0, 0, 2]);
        assert!(gate.initiator(elsewhere, &initiation).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic_and_never_pass(
            kind in 0u8..6,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let client = TestClient::new();
            let mut tunnel = client.gateway_tunnel();
            if let [first, b, c, d, ..] = &mut bytes[..] {
                (*first, *b, *c, *d) = (kind, 0, 0, 0);
            }
            let mut batch = PacketBatch::default();
            let opened = tunnel.open(&bytes, &mut batch);
            prop_assert!(batch.is_empty());
            prop_assert!(matches!(opened, Opened::Dropped(_)));
            let gate = HandshakeGate::new(client.gateway_keys(), u64::MAX);
            prop_assert!(gate.initiator(IpAddr::from([127, 0, 0, 1]), &bytes).is_err());
        }
    }
}
