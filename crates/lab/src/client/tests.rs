//! The gateway of this folder's tests, on other stacks: an `is` agent in the controlled role and a
//! WireGuard responder on one UDP socket. It answers every inner UDP packet with its mirror image,
//! and every announced name with "active".

use super::clock::now;
use super::control;
use super::vocabulary::{IceCredentials, Key};
use super::wireguard::tests::Responder;
use super::wireguard::{BUFFER_BYTES, Identity};
use defguard_boringtun::noise::TunnResult;
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// The vectors of docs/protocol.md 10.
pub(super) const CLIENT_UFRAG: &str = "eokn";
pub(super) const GATEWAY_UFRAG: &str = "6m26";
pub(super) const CLIENT_PASSWORD: &str = "5enp7ct6775ebzonvunxjy";
pub(super) const GATEWAY_PASSWORD: &str = "gj5f2zjrxg6cwvtrtqgfva";
pub(super) const PSK: Key = Key([7; 32]);
const GATEWAY_SECRET: [u8; 32] = [2; 32];

pub(super) fn client_credentials() -> IceCredentials {
    IceCredentials {
        username: CLIENT_UFRAG.into(),
        password: CLIENT_PASSWORD.into(),
    }
}

pub(super) fn gateway_credentials() -> IceCredentials {
    IceCredentials {
        username: GATEWAY_UFRAG.into(),
        password: GATEWAY_PASSWORD.into(),
    }
}

pub(super) fn gateway_public_key() -> Key {
    Key(Identity::from_secret(GATEWAY_SECRET).public_key())
}

/// A test's command to its gateway.
pub(super) enum GatewayCommand {
    /// A candidate that the client signalled.
    Candidate(String),
    /// Send a goodbye to the client.
    Goodbye,
}

pub(super) struct TestGateway {
    agent: IceAgent,
    socket: UdpSocket,
    nominated: Option<SocketAddr>,
    wireguard: Responder,
    /// Receives each inner packet, beside its answer.
    heard: mpsc::UnboundedSender<Vec<u8>>,
}

/// A test's handle to a running gateway.
pub(super) struct GatewayHandle {
    pub(super) candidate: String,
    pub(super) addr: SocketAddr,
    pub(super) commands: mpsc::UnboundedSender<GatewayCommand>,
    /// Inner packets from the client.
    pub(super) heard: mpsc::UnboundedReceiver<Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for GatewayHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestGateway {
    /// Starts a gateway on `ip` for the client with this key.
    pub(super) async fn start(ip: &str, client: [u8; 32]) -> GatewayHandle {
        let socket = UdpSocket::bind((ip, 0)).await.expect("binds");
        let addr = socket.local_addr().expect("bound");
        let creds = |from: IceCredentials| IceCreds {
            ufrag: from.username,
            pass: from.password,
        };
        let mut agent = IceAgent::new(creds(gateway_credentials()));
        agent.set_controlling(false);
        agent.set_remote_credentials(creds(client_credentials()));
        agent.add_local_candidate(Candidate::host(addr, "udp").expect("valid"));
        let (commands, received) = mpsc::unbounded_channel();
        let (heard_sender, heard) = mpsc::unbounded_channel();
        let gateway = Self {
            agent,
            socket,
            nominated: None,
            wireguard: Responder::new(GATEWAY_SECRET, client, PSK.0),
            heard: heard_sender,
        };
        let (ip, port) = (addr.ip(), addr.port());
        GatewayHandle {
            candidate: format!(
                "candidate:1 1 udp 2130706175 {ip} {port} typ host ufrag {GATEWAY_UFRAG}"
            ),
            addr,
            commands,
            heard,
            task: tokio::spawn(gateway.run(received)),
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<GatewayCommand>) {
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            self.drain().await;
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (len, source) = received.expect("receives");
                    self.receive(&buffer[..len], source).await;
                }
                Some(command) = commands.recv() => match command {
                    GatewayCommand::Candidate(text) => {
                        let candidate = Candidate::from_sdp_string(&text);
                        self.agent.add_remote_candidate(candidate.expect("readable"));
                    }
                    GatewayCommand::Goodbye => self.send(&control::goodbye()).await,
                },
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }

    async fn drain(&mut self) {
        self.agent.handle_timeout(now());
        while let Some(transmit) = self.agent.poll_transmit() {
            let sending = self
                .socket
                .send_to(&transmit.contents, transmit.destination);
            let _ = sending.await;
        }
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { destination, .. } = event {
                self.nominated = Some(destination);
            }
        }
    }

    async fn receive(&mut self, datagram: &[u8], source: SocketAddr) {
        if let Ok(message) = StunMessage::parse(datagram) {
            let packet = StunPacket {
                proto: Protocol::Udp,
                source,
                destination: self.socket.local_addr().expect("bound"),
                message,
            };
            self.agent.handle_packet(now(), packet);
            return;
        }
        for answer in self.wireguard.handle(datagram) {
            // Like a real gateway before a nomination: answers to the source.
            let path = self.nominated.unwrap_or(source);
            self.socket.send_to(&answer, path).await.expect("sends");
        }
        for packet in std::mem::take(&mut self.wireguard.received) {
            if let Some(answer) = domain_status(&packet).or_else(|| mirror(&packet)) {
                self.send(&answer).await;
            }
            let _ = self.heard.send(packet);
        }
    }

    async fn send(&mut self, packet: &[u8]) {
        let mut out = [0; BUFFER_BYTES];
        if let TunnResult::WriteToNetwork(datagram) =
            self.wireguard.tunn.encapsulate(packet, &mut out)
        {
            let path = self.nominated.expect("packets follow a nomination");
            self.socket.send_to(datagram, path).await.expect("sends");
        }
    }
}

/// The answer to an AssignedIps, a second implementation of docs/protocol.md 4.
fn domain_status(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.get(6) != Some(&0xff) || packet.get(40) != Some(&0) {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(&packet[48..]).expect("JSON");
    let body = serde_json::json!({
        "status": "Active",
        "domain": body["domain"],
        "resource": body["resource"],
    });
    let body = body.to_string();
    let mut answer = packet[..48].to_vec();
    let payload = u16::try_from(8 + body.len()).expect("short");
    answer[4..6].copy_from_slice(&payload.to_be_bytes());
    answer[40] = 1;
    answer.extend(body.as_bytes());
    Some(answer)
}

/// Swaps addresses and ports of a UDP packet over IPv4 or IPv6, which keeps all checksums valid.
pub(super) fn mirror(packet: &[u8]) -> Option<Vec<u8>> {
    let mut mirrored = packet.to_vec();
    let (addresses, len, ports) = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&17) => (12, 4, 20),
        6 if packet.get(6) == Some(&17) => (8, 16, 40),
        _ => return None,
    };
    let (source, destination) = mirrored.get_mut(addresses..ports)?.split_at_mut(len);
    source.swap_with_slice(destination);
    let (source, destination) = mirrored.get_mut(ports..ports + 4)?.split_at_mut(2);
    source.swap_with_slice(destination);
    Some(mirrored)
}
