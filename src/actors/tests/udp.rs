//! A UdpActor at real sockets on loopback.

use super::metrics::page;
use super::probe::{Inbox, Probe};
use super::seen::LocalAddressesChanged;
use super::tell_addr;
use super::{PATIENCE, in_virtual_time};
use crate::actors::udp::{UdpActor, UdpSpec};
use crate::messages::packets::InboundDatagrams;
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::udp::AttachPeer;
use crate::messages::udp::UdpCommand;
use crate::messages::updates::ConnectionUpdate;
use crate::metrics::Metrics;
use crate::shell::now;
use crate::sockets::{BufferSizes, SocketGroup, UdpPorts};
use crate::supervision::DeathNotice;
use actix::prelude::*;
use postern_core::ids::PublicKey;
use postern_core::peer::LocalAddresses;
use postern_core::peer::{
    AddressGatherer, Demux, DemuxConfig, GatewayKeys, GathererConfig, PeerIndex, PeerIndexPool,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

#[test]
fn counts_datagrams_in_both_directions() {
    in_virtual_time(async {
        let stun_server = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let stun_address = stun_server.local_addr().expect("bound");
        let sockets = SocketGroup::bind(0, BUFFERS, 1).expect("room");
        let port = sockets.port();
        let metrics = Arc::new(Metrics::default());
        let _actor = start(&sockets, 0, &metrics, vec![stun_address]);

        let mut request = [0; 1500];
        let (length, _) = stun_server.recv_from(&mut request).await.expect("asked");
        let number = |series: &str| page(&metrics).value(series);
        assert!(number("postern_udp_datagrams_total{direction=\"sent\"}") >= 1.0);
        assert!(number("postern_udp_bytes_total{direction=\"sent\"}") >= length as f64);
        assert_eq!(
            number("postern_udp_bytes_total{direction=\"received\"}"),
            0.0
        );

        for _ in 0..3 {
            let noise = stun_server.send_to(&[0xff; 10], ("127.0.0.1", port)).await;
            assert_eq!(noise.expect("sent"), 10);
        }
        let dropped = "postern_dropped_packets_total{reason=\"unknown_datagram\"}";
        let counted = async {
            while number(dropped) < 3.0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let counted = tokio::time::timeout(PATIENCE, counted).await;
        counted.expect("within two seconds");
        let received = |what| {
            number(&format!(
                "postern_udp_{what}_total{{direction=\"received\"}}"
            ))
        };
        assert_eq!((received("datagrams"), received("bytes")), (3.0, 30.0));
    });
}

#[test]
fn shard_0_hands_over_handshakes_and_data_arrive_directly() {
    in_virtual_time(async {
        let sockets = SocketGroup::bind(0, BUFFERS, 2).expect("room");
        let metrics = Arc::new(Metrics::new(2, now()));
        let mut indices = PeerIndexPool::new([0; 32]);
        let (probe, mut inbox) = Probe::start();
        let actors = [0, 1].map(|shard| start(&sockets, shard, &metrics, Vec::new()));
        let index = indices.allocate(1).expect("room");
        for (actor, _) in &actors {
            let attach = AttachPeer {
                index,
                public_key: PublicKey([1; 32]),
                stun_username: "6m26:eokn".into(),
                connection: probe.clone().recipient(),
                addresses: None,
            };
            tell_addr(actor, UdpCommand::Attach(attach));
        }
        let sender = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let handed_over = |what| {
            let series = format!("postern_handed_over_{what}_total{{kind=\"udp\"}}");
            page(&metrics).value(&series)
        };
        for (kind, handed_over_so_far) in [(DATA, 0.0), (COOKIE_REPLY, 1.0), (DATA, 1.0)] {
            let message = message(kind, index);
            let sent = sender.send_to(&message, ("127.0.0.1", sockets.port()));
            sent.await.expect("sent");
            let InboundDatagrams { batch, .. } = inbox.next().await;
            assert_eq!(batch.bytes(), message);
            assert_eq!(handed_over("packets"), handed_over_so_far);
            assert_eq!(handed_over("batches"), handed_over_so_far);
        }
        assert_eq!(metrics.drops(), []);
    });
}

/// UDP → connection: one that had no room gets our addresses once it has some.
#[test]
fn addresses_reach_a_connection_that_had_no_room() {
    in_virtual_time(async {
        let sockets = SocketGroup::bind(0, BUFFERS, 1).expect("room");
        let metrics = Arc::new(Metrics::default());
        let (udp, _inbox) = start(&sockets, 0, &metrics, Vec::new());
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let (probe, mut inbox) = Probe::new();
        let mut full = Context::<Probe>::new();
        full.set_mailbox_capacity(1);
        let addresses: Recipient<ConnectionUpdate> = full.address().recipient();
        let stale = || ConnectionUpdate::LocalAddresses(LocalAddresses::default());
        while addresses.try_send(stale()).is_ok() {}
        let attach = AttachPeer {
            index,
            public_key: PublicKey([1; 32]),
            stun_username: "6m26:eokn".into(),
            connection: full.address().recipient(),
            addresses: Some(addresses),
        };
        tell_addr(&udp, UdpCommand::Attach(attach));
        tokio::time::sleep(Duration::from_millis(100)).await;
        full.run(probe);
        let mut latest = LocalAddressesChanged(LocalAddresses::default());
        while latest.0.host.is_empty() {
            latest = inbox.next().await;
        }
        assert_eq!(latest.0.host[0].port(), sockets.port());
    });
}

/// The UdpActor of a shard, with its supervisor's inbox.
fn start(
    sockets: &SocketGroup,
    shard: u8,
    metrics: &Arc<Metrics>,
    stun_servers: Vec<SocketAddr>,
) -> (Addr<UdpActor>, Inbox) {
    let (supervisor, inbox) = Probe::start();
    let death = DeathNotice::new(Child::Udp(shard), InstanceId(1), supervisor.recipient());
    let gatherer = GathererConfig {
        port: sockets.port(),
        max_servers: 4,
    };
    let demux = DemuxConfig {
        keys: GatewayKeys::new([2; 32]),
        handshakes_per_second: 100,
        max_transactions: 16,
    };
    let bound = sockets.member(shard).expect("a descriptor");
    let actor = UdpActor::new(UdpSpec {
        shard,
        ports: UdpPorts::new(bound).expect("registered"),
        demux: Demux::new(demux, now()),
        gatherer: AddressGatherer::new(gatherer, [0; 32]),
        stun_servers,
        list_addresses: Arc::new(|| Some(vec![[127, 0, 0, 1].into()])),
        metrics: metrics.shard(shard.into()),
        death,
    });
    (actor.start(), inbox)
}

/// A WireGuard message to a peer.
fn message(kind: u8, to: PeerIndex) -> [u8; 64] {
    let mut message = [0; 64];
    message[0] = kind;
    message[4..8].copy_from_slice(&(to.to_bits() << 8).to_le_bytes());
    message
}

const DATA: u8 = 4;
const COOKIE_REPLY: u8 = 3;
const BUFFERS: BufferSizes = BufferSizes {
    receive_bytes: 1 << 20,
    send_bytes: 1 << 20,
};
