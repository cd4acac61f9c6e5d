//! One connection against the gateway of `tests`, on loopback: both ICE stacks, both WireGuards.

use super::super::ice::tests::loopback_settings;
use super::super::packet::samples::udp;
use super::super::tests::{
    GatewayCommand, GatewayHandle, PSK, TestGateway, client_credentials, gateway_credentials,
    gateway_public_key, mirror,
};
use super::super::tunnel::PacketSink;
use super::super::vocabulary::{ResourceId, TunnelAddresses};
use super::super::wire::{Resource, ResourceKind};
use super::*;
use uuid::Uuid;

const GATEWAY: GatewayId = GatewayId(Uuid::nil());
const OWN: &str = "100.64.1.2";
const WEB: &str = "10.20.0.10";

struct Inbox(mpsc::UnboundedSender<Vec<u8>>);

impl PacketSink for Inbox {
    fn deliver(&self, packet: &[u8]) {
        let _ = self.0.send(packet.to_vec());
    }
}

struct TestClient {
    connection: Connection,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
    inbox: mpsc::UnboundedReceiver<Vec<u8>>,
    scratch: Vec<u8>,
}

fn addresses(ipv4: &str) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: ipv4.parse().expect("an address"),
        ipv6: "fd00:2021:1111::1".parse().expect("an address"),
    }
}

/// The data plane of a client with a grant for 10.20.0.0/24.
fn data_plane(inbox: mpsc::UnboundedSender<Vec<u8>>) -> Arc<DataPlane> {
    let data_plane = DataPlane::new(Arc::new(Inbox(inbox)));
    {
        let mut router = data_plane.router();
        let id = ResourceId(Uuid::nil());
        router.set_own_addresses(addresses(OWN));
        router.replace_resources(vec![Resource {
            id,
            kind: ResourceKind::Cidr("10.20.0.0/24".parse().expect("a network")),
            filters: Vec::new(),
        }]);
        router.handle_outbound(&udp(OWN, WEB, 1), now());
        router.handle_granted(id, GATEWAY, addresses("100.64.0.1"));
    }
    Arc::new(data_plane)
}

impl TestClient {
    fn open() -> Self {
        let (inbox_sender, inbox) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let opening = Opening {
            gateway: GATEWAY,
            epoch: 1,
            keys: Keys {
                public_key: gateway_public_key(),
                preshared_key: PSK,
                local_ice: client_credentials(),
                remote_ice: gateway_credentials(),
            },
            ice: loopback_settings(),
        };
        let connection = Connection::open(opening, &identity(), data_plane(inbox_sender), sender);
        Self {
            connection,
            events,
            inbox,
            scratch: vec![0; BUFFER_BYTES],
        }
    }

    async fn send(&mut self, packet: &[u8]) {
        self.connection.send(packet, &mut self.scratch).await;
    }

    /// The next event apart from candidates, which go to the gateway as through the portal.
    async fn event(&mut self, gateway: &GatewayHandle) -> EventKind {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv());
            match event.await.expect("in time").expect("an event").kind {
                EventKind::Candidates(candidates) => {
                    for candidate in candidates {
                        let _ = gateway.commands.send(GatewayCommand::Candidate(candidate));
                    }
                }
                kind @ (EventKind::PathNominated(..)
                | EventKind::HandshakeCompleted
                | EventKind::FirstPacket
                | EventKind::Goodbye
                | EventKind::DomainStatus(_)
                | EventKind::Lost(_)) => return kind,
            }
        }
    }

    async fn connect(&mut self, gateway: &GatewayHandle) {
        self.connection
            .add_candidates(vec!["candidate:nonsense".into(), gateway.candidate.clone()]);
        let nominated = self.event(gateway).await;
        assert!(matches!(nominated, EventKind::PathNominated(_, remote) if remote == gateway.addr));
        assert!(matches!(
            self.event(gateway).await,
            EventKind::HandshakeCompleted
        ));
    }
}

fn identity() -> Identity {
    Identity::from_secret([1; 32])
}

async fn gateway() -> GatewayHandle {
    TestGateway::start("127.0.0.1", identity().public_key()).await
}

/// Both ICE stacks and both WireGuards: packets sent before there is a path arrive in order, and
/// their answers return.
#[tokio::test]
async fn delivers_packets_that_precede_the_session_in_order() {
    let (mut gateway, mut client) = (gateway().await, TestClient::open());
    let packets: Vec<_> = (1..=3).map(|port| udp(OWN, WEB, port)).collect();
    for packet in &packets {
        client.send(packet).await;
    }
    client.connect(&gateway).await;
    for packet in &packets {
        assert_eq!(gateway.heard.recv().await.as_ref(), Some(packet));
        assert_eq!(client.inbox.recv().await, mirror(packet));
    }
    assert!(matches!(
        client.event(&gateway).await,
        EventKind::FirstPacket
    ));
}

#[tokio::test]
async fn ends_with_a_goodbye_of_the_gateway() {
    let (gateway, mut client) = (gateway().await, TestClient::open());
    client.connect(&gateway).await;
    gateway
        .commands
        .send(GatewayCommand::Goodbye)
        .expect("runs");
    assert!(matches!(client.event(&gateway).await, EventKind::Goodbye));
    assert!(client.inbox.try_recv().is_err(), "not for applications");
}

#[tokio::test]
async fn leaving_says_goodbye() {
    let (mut gateway, mut client) = (gateway().await, TestClient::open());
    client.connect(&gateway).await;
    client.connection.leave().await;
    let packet = gateway.heard.recv().await.expect("a packet");
    assert_eq!(control::parse(&packet), Some(Control::Goodbye));
}

/// A gateway can send any packet; only those of granted resources reach applications.
#[tokio::test]
async fn delivers_only_packets_from_granted_resources() {
    let (mut gateway, mut client) = (gateway().await, TestClient::open());
    client.connect(&gateway).await;
    // Its mirror image comes from outside the resource.
    client.send(&udp(OWN, "192.0.2.66", 1)).await;
    client.send(&udp(OWN, WEB, 2)).await;
    assert!(gateway.heard.recv().await.is_some());
    assert_eq!(client.inbox.recv().await, mirror(&udp(OWN, WEB, 2)));
}

#[tokio::test]
async fn dropping_the_handle_ends_the_task() {
    let (_gateway, client) = (gateway().await, TestClient::open());
    let TestClient {
        connection,
        mut events,
        inbox: _inbox,
        ..
    } = client;
    drop(connection);
    let ended = async { while events.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .expect("the task holds the last sender");
}
