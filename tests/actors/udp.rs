//! A UdpActor at real sockets on loopback.

use crate::metrics::page;
use crate::probe::Probe;
use crate::{PATIENCE, in_virtual_time};
use actix::prelude::*;
use postern::actors::udp::{UdpActor, UdpSpec};
use postern::lifeline::DeathNotice;
use postern::messages::supervisor::{Child, LifeNumber};
use postern::metrics::Metrics;
use postern::shell::now;
use postern::sockets::{BufferSizes, SocketGroup, UdpPorts};
use postern_core::peer::{AddressGatherer, Demux, DemuxConfig, GatewayKeys, GathererConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

#[test]
fn what_comes_and_goes_at_the_sockets_is_counted() {
    in_virtual_time(async {
        let stun_server = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let stun_address = stun_server.local_addr().expect("bound");
        let buffers = BufferSizes {
            receive_bytes: 1 << 20,
            send_bytes: 1 << 20,
        };
        let sockets = SocketGroup::bind(0, buffers, 1).expect("room");
        let port = sockets.port();
        let metrics = Arc::new(Metrics::default());
        let (supervisor, _inbox) = Probe::start();
        let death = DeathNotice::new(Child::Udp(0), LifeNumber(1), supervisor.recipient());
        let gatherer = GathererConfig {
            port,
            max_servers: 4,
        };
        let demux = DemuxConfig {
            keys: GatewayKeys::new([2; 32]),
            handshakes_per_second: 100,
            max_transactions: 16,
        };
        let _actor = UdpActor::new(UdpSpec {
            shard: 0,
            ports: UdpPorts::new(sockets.member(0).expect("a descriptor")).expect("registered"),
            demux: Demux::new(demux, now()),
            gatherer: AddressGatherer::new(gatherer, [0; 32]),
            stun_servers: vec![stun_address],
            list_addresses: Arc::new(|| Some(vec![[127, 0, 0, 1].into()])),
            metrics: metrics.shard(0),
            death,
        })
        .start();

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
