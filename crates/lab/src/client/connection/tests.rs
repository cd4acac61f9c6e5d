//! One connection against the gateway of `testing`, on loopback: both ICE stacks, both WireGuards.

use super::super::ice::tests::loopback_settings;
use super::super::packet::samples::udp;
use super::super::testing::{
    Gateway, GatewayHandle, Order, PSK, client_credentials, gateway_credentials,
    gateway_public_key, mirror,
};
use super::super::tunnel::PacketSink;
use super::super::wire::{Interface, Resource, ResourceId, ResourceKind};
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

struct Client {
    connection: Connection,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
    inbox: mpsc::UnboundedReceiver<Vec<u8>>,
    scratch: Vec<u8>,
}

fn interface(ipv4: &str) -> Interface {
    Interface {
        ipv4: ipv4.parse().expect("an address"),
        ipv6: "fd00:2021:1111::1".parse().expect("an address"),
    }
}

/// Somebody who has just been granted 10.20.0.0/24.
fn shared(inbox: mpsc::UnboundedSender<Vec<u8>>) -> Arc<Shared> {
    let shared = Shared::new(Arc::new(Inbox(inbox)));
    {
        let mut router = shared.router();
        let id = ResourceId(Uuid::nil());
        router.set_own_addresses(interface(OWN));
        router.replace_resources(vec![Resource {
            id,
            name: String::new(),
            kind: ResourceKind::Cidr("10.20.0.0/24".parse().expect("a network")),
            filters: Vec::new(),
        }]);
        router.handle_outbound(&udp(OWN, WEB, 1), now());
        router.handle_granted(id, GATEWAY, interface("100.64.0.1"));
    }
    Arc::new(shared)
}

impl Client {
    fn open(psk: [u8; 32]) -> Self {
        let (inbox_sender, inbox) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let opening = Opening {
            gateway: GATEWAY,
            epoch: 1,
            keys: Keys {
                peer: PeerKeys {
                    public_key: gateway_public_key(),
                    preshared_key: psk,
                },
                local: client_credentials(),
                remote: gateway_credentials(),
            },
            ice: loopback_settings(),
        };
        let connection = Connection::open(opening, &identity(), shared(inbox_sender), sender);
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

    /// The next news but candidates, which go to the gateway as the portal would carry them.
    async fn news(&mut self, gateway: &GatewayHandle) -> News {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv());
            match event.await.expect("in time").expect("an event").news {
                News::Candidates(candidates) => {
                    for candidate in candidates {
                        let _ = gateway.orders.send(Order::Candidate(candidate));
                    }
                }
                news @ (News::PathNominated(..)
                | News::HandshakeCompleted
                | News::FirstPacket
                | News::Goodbye
                | News::DomainStatus(_)
                | News::Lost(_)) => return news,
            }
        }
    }

    async fn connect(&mut self, gateway: &GatewayHandle) {
        self.connection
            .add_candidates(vec!["candidate:nonsense".into(), gateway.candidate.clone()]);
        let nominated = self.news(gateway).await;
        assert!(matches!(nominated, News::PathNominated(_, remote) if remote == gateway.addr));
        assert!(matches!(self.news(gateway).await, News::HandshakeCompleted));
    }
}

fn identity() -> Identity {
    Identity::from_secret([1; 32])
}

async fn gateway() -> GatewayHandle {
    Gateway::start("127.0.0.1", identity().public_key()).await
}

/// Both ICE stacks, both WireGuards, and everything between: packets sent before there is a path
/// arrive in order, and their answers come back.
#[tokio::test]
async fn packets_sent_at_once_arrive_when_the_session_stands() {
    let (mut gateway, mut client) = (gateway().await, Client::open(PSK));
    let packets: Vec<_> = (1..=3).map(|port| udp(OWN, WEB, port)).collect();
    for packet in &packets {
        client.send(packet).await;
    }
    client.connect(&gateway).await;
    for packet in &packets {
        assert_eq!(gateway.heard.recv().await.as_ref(), Some(packet));
        assert_eq!(client.inbox.recv().await, mirror(packet));
    }
    assert!(matches!(client.news(&gateway).await, News::FirstPacket));
}

#[tokio::test]
async fn a_goodbye_of_the_gateway_ends_the_connection() {
    let (gateway, mut client) = (gateway().await, Client::open(PSK));
    client.connect(&gateway).await;
    gateway.orders.send(Order::Goodbye).expect("lives");
    assert!(matches!(client.news(&gateway).await, News::Goodbye));
    assert!(client.inbox.try_recv().is_err(), "not for applications");
}

#[tokio::test]
async fn leaving_says_goodbye() {
    let (mut gateway, mut client) = (gateway().await, Client::open(PSK));
    client.connect(&gateway).await;
    client.connection.leave().await;
    let packet = gateway.heard.recv().await.expect("a packet");
    assert_eq!(control::parse(&packet), Some(Control::Goodbye));
}

/// A gateway can send what it likes; applications get only what their resources sent.
#[tokio::test]
async fn packets_from_elsewhere_do_not_reach_applications() {
    let (mut gateway, mut client) = (gateway().await, Client::open(PSK));
    client.connect(&gateway).await;
    // Mirrored, it comes from outside the resource.
    client.send(&udp(OWN, "192.0.2.66", 1)).await;
    client.send(&udp(OWN, WEB, 2)).await;
    assert!(gateway.heard.recv().await.is_some());
    assert_eq!(client.inbox.recv().await, mirror(&udp(OWN, WEB, 2)));
}

#[tokio::test]
async fn dropping_the_handle_ends_the_task() {
    let (_gateway, client) = (gateway().await, Client::open(PSK));
    let Client {
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
