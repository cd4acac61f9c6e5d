//! A gateway's cores with one client, connected as by its actors, and the client's engine.

use boringtun::noise::{Tunn, TunnResult};
use etherparse::PacketBuilder;
use postern_core::UnixTime;
use postern_core::connection::{Connection, ConnectionConfig, ConnectionEvent};
use postern_core::grant::{
    AnnouncedName, AuthorizationRequest, ClientProfile, IceCredentials, PresharedKey, ReplyKind,
    Resource, ResourceKind, TunnelAddresses,
};
use postern_core::ids::{ClientId, PublicKey, ResourceId};
use postern_core::names::{AddressFamily, NameAnswer, ResolvedAddresses};
use postern_core::nat_table::{NatTable, NatTableConfig};
use postern_core::packet::offload::{self, VNET_HEADER_BYTES};
use postern_core::packet::{DatagramBatch, Ecn, PacketBatch, Path, Segmentation};
use postern_core::peer::{GatewayKeys, PeerIndexPool};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use uuid::Uuid;
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};
use zeroize::Zeroizing;

const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
const RESOURCE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 100);
const PROXY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
const NAME: &str = "app.example.com";
/// The number of segments in one GRO read or one TSO super-packet that fits one GSO write.
pub(crate) const SEGMENTS: usize = 49;
/// The payload of a full TCP segment over IPv4 with the tunnel's MTU.
pub(crate) const TCP_PAYLOAD: usize = 1240;

/// The kind of traffic, and how the resource is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Full segments of one TCP flow, to an address.
    TcpByAddress,
    /// Full segments of one TCP flow, to a name.
    TcpByName,
    /// Datagrams of 64 bytes of one UDP flow, to a name.
    SmallUdpByName,
}

impl Load {
    /// All loads, in this order.
    pub(crate) const ALL: [Self; 3] = [Self::TcpByAddress, Self::TcpByName, Self::SmallUdpByName];

    fn is_by_name(self) -> bool {
        self != Self::TcpByAddress
    }

    fn payload_bytes(self) -> usize {
        match self {
            Self::TcpByAddress | Self::TcpByName => TCP_PAYLOAD,
            Self::SmallUdpByName => 64,
        }
    }
}

/// See the module's documentation.
pub(crate) struct Scene {
    load: Load,
    connection: Connection,
    nat: NatTable,
    client: Tunn,
    path: Path,
    now: Instant,
    sequence: u32,
}

impl Scene {
    /// A client with a session and with an answered flow.
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    pub(crate) fn new(load: Load) -> Self {
        let now = Instant::now();
        let (private, gateway) = (StaticSecret::from([1; 32]), GatewayKeys::new([2; 32]));
        let public = PublicKey(X25519Public::from(&private).to_bytes());
        let gateway_public = X25519Public::from(gateway.public().0);
        let mut connection = Connection::new(ConnectionConfig {
            keys: gateway,
            index: PeerIndexPool::new([0; 32]).allocate(0).expect("room"),
            client: tunnel(CLIENT, 0x102),
            gateway: Some(tunnel(Ipv4Addr::new(100, 64, 0, 1), 1)),
            max_resources: 8,
        });
        connection.handle_authorization(request(load, public), UnixTime(1_790_000_000), now);
        let mut scene = Self {
            load,
            connection,
            nat: NatTable::new(NatTableConfig::default(), [7; 32], now),
            client: Tunn::new(private, gateway_public, Some([3; 32]), None, 77, None),
            path: Path::direct(
                ([192, 0, 2, 10], 52_625).into(),
                ([198, 51, 100, 5], 4000).into(),
            ),
            now,
            sequence: 1,
        };
        scene.shake_hands();
        scene.assign();
        let first = scene.sealed(1);
        assert_eq!(scene.inbound(&first), 1);
        let answer = scene.super_packet(1);
        assert_eq!(scene.outbound(answer), 1);
        scene
    }

    fn shake_hands(&mut self) {
        let mut buffer = vec![0; 256];
        let initiation = self.client.format_handshake_initiation(&mut buffer, false);
        let response = self.exchange(bytes_of(initiation));
        let keepalive = self.client.decapsulate(None, &response, &mut buffer);
        let keepalive = bytes_of(keepalive);
        self.connection
            .handle_datagrams(&DatagramBatch::of(self.path, keepalive), self.now);
        assert!(self.connection.has_session());
    }

    fn exchange(&mut self, datagram: Vec<u8>) -> Vec<u8> {
        self.connection
            .handle_datagrams(&DatagramBatch::of(self.path, datagram), self.now);
        let reply = self.connection.poll_transmit().expect("an answer");
        reply.bytes().to_vec()
    }

    /// The messages that actors would pass on.
    fn assign(&mut self) {
        let client = ClientId(Uuid::from_u128(1));
        self.nat.attach(client, tunnel(CLIENT, 0x102));
        while let Some(event) = self.connection.poll_event() {
            if let ConnectionEvent::NameChanged(meaning) = event {
                self.nat.handle_name(client, &meaning, self.now);
                let name = meaning.name;
                let addresses = ResolvedAddresses {
                    ips: vec![RESOURCE.into()],
                    ttl: Duration::from_secs(60),
                };
                let answer = NameAnswer {
                    name,
                    family: AddressFamily::V4,
                    outcome: Ok(addresses),
                    from_cache: false,
                };
                self.nat.handle_answer(&answer, self.now);
            }
        }
    }

    /// One read of the socket: a batch of one flow, sealed by the client.
    pub(crate) fn sealed(&mut self, segments: usize) -> DatagramBatch {
        let payload_bytes = self.load.payload_bytes();
        let to = match self.load.is_by_name() {
            true => PROXY,
            false => RESOURCE,
        };
        let mut whole = self.packet((CLIENT, 4000), (to, 5000), segments * payload_bytes);
        let segmentation = segmentation(&mut whole, payload_bytes);
        self.sequence = self
            .sequence
            .wrapping_add((segments * payload_bytes) as u32);
        let client = &mut self.client;
        let (mut datagrams, mut datagram_bytes) = (Vec::new(), 0);
        offload::cut(&mut whole, segmentation, |segment| {
            let mut buffer = vec![0; segment.len() + 160];
            let sealed = bytes_of(client.encapsulate(segment, &mut buffer));
            datagram_bytes = sealed.len();
            datagrams.extend(sealed);
        });
        DatagramBatch::new(self.path, Ecn::NotEct, datagram_bytes, datagrams)
    }

    /// One read of the TUN: a super-packet of one flow, from the resource.
    pub(crate) fn super_packet(&self, segments: usize) -> PacketBatch {
        let payload_bytes = self.load.payload_bytes();
        let mut whole = self.packet((RESOURCE, 5000), (CLIENT, 4000), segments * payload_bytes);
        let segmentation = segmentation(&mut whole, payload_bytes);
        let mut batch = PacketBatch::with_capacity(whole.len());
        batch.push_segmented(&whole, Some(segmentation));
        batch
    }

    fn packet(
        &self,
        (source, from): (Ipv4Addr, u16),
        (destination, to): (Ipv4Addr, u16),
        payload_bytes: usize,
    ) -> Vec<u8> {
        let ip = PacketBuilder::ipv4(source.octets(), destination.octets(), 64);
        let payload = vec![0x5a; payload_bytes];
        let mut packet = Vec::new();
        let written = match self.load {
            Load::TcpByAddress | Load::TcpByName => ip
                .tcp(from, to, self.sequence, 512)
                .ack(1)
                .write(&mut packet, &payload),
            Load::SmallUdpByName => ip.udp(from, to).write(&mut packet, &payload),
        };
        written.expect("fits");
        packet
    }

    /// From the socket to the TUN; returns the number of packets that arrived.
    #[inline(never)]
    pub(crate) fn inbound(&mut self, datagrams: &DatagramBatch) -> usize {
        let mut count = 0;
        self.connection.handle_datagrams(datagrams, self.now);
        while let Some(packets) = self.connection.poll_inbound() {
            self.nat.handle_inbound(packets, self.now);
        }
        while let Some(mut packets) = self.nat.poll_inbound() {
            packets.for_each_mut(|packet| {
                count += packet.segments();
                let header = offload::transmit(packet.bytes, packet.segmentation);
                std::hint::black_box(header);
            });
        }
        count
    }

    /// From the TUN to the socket; returns the number of datagrams that arrived.
    #[inline(never)]
    pub(crate) fn outbound(&mut self, packets: PacketBatch) -> usize {
        let mut count = 0;
        self.nat.handle_outbound(packets, self.now);
        while let Some((_, packets)) = self.nat.poll_outbound() {
            self.connection.handle_packets(packets, self.now);
        }
        while let Some(batch) = self.connection.poll_transmit() {
            count += std::hint::black_box(batch).len();
        }
        count
    }
}

fn segmentation(whole: &mut [u8], payload_bytes: usize) -> Segmentation {
    let kind = match whole[9] {
        6 => 1,
        _ => 5,
    };
    let mut header = [0; VNET_HEADER_BYTES];
    header[1] = kind;
    header[4..6].copy_from_slice(&(payload_bytes as u16).to_ne_bytes());
    offload::receive(header, whole)
        .expect("sound")
        .expect("a super-packet")
}

fn bytes_of(result: TunnResult<'_>) -> Vec<u8> {
    match result {
        TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => panic!("nothing to send: {result:?}"),
    }
}

fn tunnel(ipv4: Ipv4Addr, last: u16) -> TunnelAddresses {
    let ipv6 = [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, last].into();
    TunnelAddresses { ipv4, ipv6 }
}

fn request(load: Load, public_key: PublicKey) -> AuthorizationRequest {
    let ice = |ufrag: &str, password: &str| IceCredentials {
        ufrag: ufrag.into(),
        password: Zeroizing::new(password.into()),
    };
    let kind = match load.is_by_name() {
        true => ResourceKind::Dns(NAME.into()),
        false => ResourceKind::Cidr("10.20.0.0/24".parse().expect("a network")),
    };
    AuthorizationRequest {
        reply_ref: "ref".into(),
        client: ClientProfile {
            id: ClientId(Uuid::from_u128(1)),
            public_key,
            preshared_key: PresharedKey(Zeroizing::new([3; 32])),
            tunnel: tunnel(CLIENT, 0x102),
        },
        resource: Resource {
            id: ResourceId(Uuid::from_u128(2)),
            name: "resource".into(),
            kind,
            filters: Vec::new(),
        },
        gateway_ice: ice("6m26", "gj5f2zjrxg6cwvtrtqgfva"),
        client_ice: ice("eokn", "5enp7ct6775ebzonvunxjy"),
        expires_at: None,
        announced: load.is_by_name().then(|| AnnouncedName {
            domain: NAME.into(),
            proxy_ips: (0..4)
                .map(|n| Ipv4Addr::from_bits(PROXY.to_bits() + n).into())
                .collect(),
        }),
        reply: ReplyKind::Granted,
    }
}
