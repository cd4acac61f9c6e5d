//! Packets on their way to an actor that has died.

use super::in_virtual_time;
use super::probe::{Inbox, Probe, only};
use super::samples::gone;
use crate::link::{GuardedLink, Link};
use crate::messages::nat_table::NatTableCommand;
use crate::messages::packets::InboundPackets;
use crate::metrics::{Metrics, Receiver};
use actix::prelude::*;
use postern_core::DropReason;
use postern_core::packet::PacketBatch;

const KEPT: u8 = 64;

#[test]
fn buffers_batches_for_the_successor_in_order() {
    in_virtual_time(async {
        let metrics = Metrics::default();
        let shard = metrics.shard(0);
        let mut link = Link::nowhere(Receiver::Tun);
        for number in 0..KEPT + 6 {
            link.offer(packets(number), &shard);
        }
        // Two packets in each batch.
        assert_eq!(metrics.drops(), [(DropReason::MailboxFull, 12)]);

        let (successor, mut inbox) = successor(KEPT.into());
        link.lead_to(successor.clone().recipient(), &shard);
        assert_eq!(numbers(&mut inbox).await, (0..KEPT).collect::<Vec<_>>());
        link.offer(packets(200), &shard);
        assert_eq!(numbers(&mut inbox).await, [200]);

        // It dies as well.
        tell_to_stop(successor).await;
        link.offer(packets(201), &shard);
        link.offer(packets(202), &shard);
        let (successor, mut inbox) = self::successor(KEPT.into());
        link.lead_to(successor.recipient(), &shard);
        link.offer(packets(203), &shard);
        assert_eq!(numbers(&mut inbox).await, [201, 202, 203]);
        assert_eq!(metrics.drops(), [(DropReason::MailboxFull, 12)]);
    });
}

#[test]
fn counts_packets_that_do_not_fit_into_the_mailbox() {
    in_virtual_time(async {
        let metrics = Metrics::default();
        let shard = metrics.shard(0);
        let (successor, mut inbox) = successor(4);
        let mut link = Link::new(Receiver::Tun, successor.recipient());
        for number in 0..KEPT {
            link.offer(packets(number), &shard);
        }
        let delivered = numbers(&mut inbox).await;
        let lost = u64::from(KEPT) - delivered.len() as u64;
        assert_eq!(delivered[..4], [0, 1, 2, 3]);
        assert_eq!(metrics.drops(), [(DropReason::MailboxFull, 2 * lost)]);
        assert!(lost > 50, "{lost} batches");
        inbox.nothing().await;
    });
}

/// The NAT translates by what it was told last, so packets wait for nothing that it has missed.
#[test]
fn no_packet_passes_a_command_that_found_no_room() {
    in_virtual_time(async {
        let metrics = Metrics::default();
        let shard = metrics.shard(0);
        let (probe, mut inbox) = Probe::new();
        let mut context: Context<Probe> = Context::new();
        context.set_mailbox_capacity(1);
        let address = context.address();
        let mut link = GuardedLink::new(
            Receiver::NatTable,
            address.clone().recipient::<NatTableCommand>(),
            address.recipient::<InboundPackets>(),
        );
        let mut missed = 0;
        while !link.commands.is_waiting() {
            link.commands.tell(gone("a.example"));
            missed += 1;
            assert!(missed < 9, "the mailbox has a limit");
        }
        link.offer(packets(1), &shard);
        context.run(probe);
        inbox.drain().await;
        // There is room again, but the command is still missing.
        link.offer(packets(2), &shard);
        assert_eq!(metrics.drops(), [(DropReason::MailboxFull, 4)]);
        assert!(link.commands.take_overflow());
        link.commands.tell(gone("a.example"));
        link.offer(packets(3), &shard);
        let told = inbox.drain().await;
        let told: Vec<_> = told.iter().map(std::mem::discriminant).collect();
        assert_eq!(told.len(), 2, "the command, then the packets");
        assert_eq!(metrics.drops(), [(DropReason::MailboxFull, 4)]);
    });
}

/// Two packets that begin with this number.
fn packets(number: u8) -> InboundPackets {
    let mut batch = PacketBatch::of(&[number, 1]);
    batch.push(&[number, 2]);
    InboundPackets::new(batch)
}

fn successor(mailbox: usize) -> (Addr<Probe>, Inbox) {
    let (probe, inbox) = Probe::new();
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox);
    (context.run(probe), inbox)
}

async fn tell_to_stop(probe: Addr<Probe>) {
    let stop = probe.send(super::probe::Break::Stop);
    stop.await.expect("it runs");
    tokio::task::yield_now().await;
    assert!(!probe.connected());
}

async fn numbers(inbox: &mut Inbox) -> Vec<u8> {
    let told: Vec<InboundPackets> = only(inbox.drain().await);
    let first = |InboundPackets { batch, .. }: &InboundPackets| {
        let mut packets = batch.iter();
        packets.next().expect("two packets")[0]
    };
    told.iter().map(first).collect()
}
