//! A NatTableActor between a connection and a TUN queue that are probes.

use crate::in_virtual_time;
use crate::probe::Probe;
use crate::samples::{client, tunnel};
use actix::prelude::*;
use postern::actors::nat_table::NatTableActor;
use postern::messages::nat_table::{AttachClient, DetachClient};
use postern::messages::packets::{InboundPackets, OutboundPackets};
use postern::messages::supervisor::{Child, ChildDied};
use postern::metrics::Metrics;
use postern::shell::{DeathNotice, tell_addr};
use postern_core::DropReason;
use postern_core::packet::PacketBatch;
use postern_core::peer::PeerIndexPool;
use std::net::Ipv4Addr;
use std::sync::Arc;

#[test]
fn answers_go_to_the_attached_connection_and_after_it_to_nobody() {
    in_virtual_time(async {
        let mut indices = PeerIndexPool::new([0; 32]);
        let mut allocate = || indices.allocate(0).expect("room");
        let (earlier, index) = (allocate(), allocate());
        let (tun, mut to_tun) = Probe::start();
        let (connection, mut to_connection) = Probe::start();
        let metrics = Arc::new(Metrics::default());
        let death = DeathNotice::new(Child::NatTable, tun.clone().recipient());
        let table = NatTableActor::new(tun.recipient(), Arc::clone(&metrics), death).start();
        let answers = || OutboundPackets(PacketBatch::of(&packet_to(tunnel(1).ipv4)));

        tell_addr(
            &table,
            AttachClient {
                client: client(1),
                index,
                tunnel: tunnel(1),
                connection: connection.recipient(),
            },
        );
        tell_addr(&table, answers());
        let OutboundPackets(delivered) = to_connection.next().await;
        let delivered: Vec<_> = delivered.iter().collect();
        assert_eq!(delivered, [packet_to(tunnel(1).ipv4)]);

        let detach = |index| DetachClient {
            client: client(1),
            index,
        };
        // News of an earlier connection of the client takes nothing from this one.
        tell_addr(&table, detach(earlier));
        tell_addr(&table, answers());
        to_connection.next::<OutboundPackets>().await;

        tell_addr(&table, detach(index));
        tell_addr(&table, answers());
        to_connection.nothing().await;
        assert_eq!(metrics.drops(), [(DropReason::UnknownClient, 1)]);

        let request = packet_to([10, 20, 0, 100].into());
        tell_addr(&table, InboundPackets(PacketBatch::of(&request)));
        let InboundPackets(forwarded) = to_tun.next().await;
        assert_eq!(forwarded.iter().collect::<Vec<_>>(), [request]);
        drop(table);
        to_tun.next::<ChildDied>().await;
    });
}

/// An IPv4 header and nothing else.
fn packet_to(destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[16..].copy_from_slice(&destination.octets());
    packet
}
