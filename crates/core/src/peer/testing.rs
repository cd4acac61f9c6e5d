//! The remote end for tests: a WireGuard initiator with fixed keys, and a controlling ICE agent.

use crate::grant::PresharedKey;
use crate::ids::PublicKey;
use crate::packet::{DatagramBatch, PacketBatch, Path};
use crate::peer::demux::Kind;
use crate::peer::index::PeerIndexPool;
use crate::peer::wireguard::{GatewayKeys, HandshakeGate, HandshakeRefusal, WireguardTunnel};
use boringtun::noise::{Tunn, TunnResult};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};
use zeroize::Zeroizing;

const PSK: [u8; 32] = [3; 32];
const PRIVATE: [u8; 32] = [1; 32];

pub(crate) struct TestClient {
    engine: Tunn,
    public: PublicKey,
}

impl TestClient {
    pub(crate) fn new() -> Self {
        Self::with_private(PRIVATE)
    }

    pub(crate) fn with_private(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        let public = PublicKey(X25519Public::from(&private).to_bytes());
        let gateway = X25519Public::from(GatewayKeys::new([2; 32]).public().0);
        Self {
            engine: Tunn::new(private, gateway, Some(PSK), None, 77, None),
            public,
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn preshared_key(&self) -> PresharedKey {
        PresharedKey(Zeroizing::new(PSK))
    }

    pub(crate) fn gateway_keys(&self) -> GatewayKeys {
        GatewayKeys::new([2; 32])
    }

    pub(crate) fn gateway_tunnel(&self) -> WireguardTunnel {
        self.gateway_tunnel_with_psk(PSK)
    }

    pub(crate) fn gateway_tunnel_with_psk(&self, psk: [u8; 32]) -> WireguardTunnel {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let psk = PresharedKey(Zeroizing::new(psk));
        WireguardTunnel::new(&self.gateway_keys(), self.public, &psk, index)
    }

    pub(crate) fn initiation(&mut self) -> Vec<u8> {
        // Timestamps of two initiations must differ (TAI64N), or the second counts as a replay.
        let mut buffer = vec![0; 256];
        let result = self.engine.format_handshake_initiation(&mut buffer, true);
        let TunnResult::WriteToNetwork(datagram) = result else {
            panic!("no initiation: {result:?}");
        };
        datagram.to_vec()
    }

    pub(crate) fn handle_response(&mut self, response: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; 256];
        let result = self.engine.decapsulate(None, response, &mut buffer);
        let TunnResult::WriteToNetwork(keepalive) = result else {
            panic!("the response was refused: {result:?}");
        };
        keepalive.to_vec()
    }

    pub(crate) fn accepts_response(&mut self, response: &[u8]) -> bool {
        let mut buffer = vec![0; 256];
        let result = self.engine.decapsulate(None, response, &mut buffer);
        matches!(result, TunnResult::WriteToNetwork(_))
    }

    /// Answers a handshake initiation of the gateway.
    pub(crate) fn respond(&mut self, initiation: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 256];
        let result = self.engine.decapsulate(None, initiation, &mut buffer);
        let TunnResult::WriteToNetwork(response) = result else {
            return None;
        };
        Some(response.to_vec())
    }

    /// The answer of a client under load to an initiation of the gateway.
    pub(crate) fn cookie_for(&self, initiation: &[u8]) -> Vec<u8> {
        let gate = HandshakeGate::new(GatewayKeys::new(PRIVATE), 0);
        let refusal = gate.initiator([127, 0, 0, 1].into(), initiation);
        let Err(HandshakeRefusal::Cookie(cookie)) = refusal else {
            panic!("no cookie: {refusal:?}");
        };
        cookie
    }

    /// Accepts a datagram that carries no packet.
    pub(crate) fn handle_keepalive(&mut self, datagram: &[u8]) {
        let mut buffer = vec![0; 256];
        let result = self.engine.decapsulate(None, datagram, &mut buffer);
        assert!(matches!(result, TunnResult::Done), "{result:?}");
    }

    pub(crate) fn handle_cookie(&mut self, cookie: &[u8]) {
        let mut buffer = vec![0; 256];
        let result = self.engine.decapsulate(None, cookie, &mut buffer);
        assert!(matches!(result, TunnResult::Done), "{result:?}");
    }

    pub(crate) fn establish(&mut self, tunnel: &mut WireguardTunnel) {
        let mut batch = PacketBatch::default();
        let crate::peer::wireguard::Opened::Reply(response) =
            tunnel.open(&self.initiation(), &mut batch)
        else {
            panic!("no response");
        };
        let keepalive = self.handle_response(&response);
        tunnel.open(&keepalive, &mut batch);
        assert!(tunnel.is_established());
    }

    pub(crate) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; packet.len() + 160];
        let result = self.engine.encapsulate(packet, &mut buffer);
        let TunnResult::WriteToNetwork(datagram) = result else {
            panic!("not sealed: {result:?}");
        };
        datagram.to_vec()
    }

    pub(crate) fn open(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; datagram.len().max(256)];
        let result = self.engine.decapsulate(None, datagram, &mut buffer);
        let (TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _)) =
            result
        else {
            panic!("not opened: {result:?}");
        };
        packet.to_vec()
    }
}

/// A UDP packet with a correct header checksum.
pub(crate) fn ipv4_packet(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4(source, destination, 64).udp(4000, 5000);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut packet, payload)
        .expect("writing to memory");
    packet
}

/// A controlling ICE agent at one address, like that of a real client.
pub(crate) struct TestAgent {
    agent: IceAgent,
    addr: SocketAddr,
    ignores_responses: bool,
}

impl TestAgent {
    pub(crate) fn new(addr: &str) -> Self {
        let creds = |ufrag: &str, pass: &str| IceCreds {
            ufrag: ufrag.into(),
            pass: pass.into(),
        };
        let mut agent = IceAgent::new(creds("eokn", "5enp7ct6775ebzonvunxjy"));
        agent.set_remote_credentials(creds("6m26", "gj5f2zjrxg6cwvtrtqgfva"));
        agent.set_controlling(true);
        agent.set_timing_advance(Duration::ZERO);
        let addr: SocketAddr = addr.parse().expect("literal");
        agent.add_local_candidate(Candidate::host(addr, Protocol::Udp).expect("valid"));
        Self {
            agent,
            addr,
            ignores_responses: false,
        }
    }

    pub(crate) fn add_remote_candidate(&mut self, line: &str) {
        let candidate = Candidate::from_sdp_string(line).expect("a candidate of the gateway");
        self.agent.add_remote_candidate(candidate);
    }

    /// The path from here to `gateway`, as the gateway sees it.
    pub(crate) fn path_to(&self, gateway: SocketAddr) -> Path {
        Path::direct(gateway, self.addr)
    }

    /// What the agent sends at `now`.
    pub(crate) fn progress(&mut self, now: Instant) -> Vec<DatagramBatch> {
        self.agent.handle_timeout(now);
        std::iter::from_fn(|| self.agent.poll_transmit())
            .map(|sent| {
                let path = Path::direct(sent.destination, sent.source);
                DatagramBatch::of(path, sent.contents.into())
            })
            .collect()
    }

    /// From now on it ignores responses, so that it never nominates a path.
    pub(crate) fn ignore_responses(&mut self) {
        self.ignores_responses = true;
        self.agent.set_max_stun_retransmits(60);
    }

    /// From now on it checks at the interval of an idle client (docs/protocol.md 3.3.1).
    pub(crate) fn be_idle(&mut self) {
        self.agent.set_initial_stun_rto(Duration::from_secs(25));
        self.agent.set_max_stun_rto(Duration::from_secs(25));
    }

    pub(crate) fn handle(&mut self, batch: &DatagramBatch, now: Instant) {
        for datagram in batch.segments() {
            if self.ignores_responses && Kind::of(datagram) == Kind::StunResponse {
                continue;
            }
            let Ok(message) = StunMessage::parse(datagram) else {
                continue;
            };
            let packet = StunPacket {
                proto: Protocol::Udp,
                source: batch.path.local,
                destination: batch.path.remote,
                message,
            };
            self.agent.handle_packet(now, packet);
        }
    }

    pub(crate) fn nominated(&mut self) -> Option<SocketAddr> {
        std::iter::from_fn(|| self.agent.poll_event())
            .filter_map(|event| match event {
                IceAgentEvent::NominatedSend { destination, .. } => Some(destination),
                IceAgentEvent::IceRestart(_)
                | IceAgentEvent::IceConnectionStateChange(_)
                | IceAgentEvent::DiscoveredRecv { .. } => None,
            })
            .last()
    }
}
