//! Batches, and the equivalence of merged and original packets.

use super::*;
use crate::packet::checksum::{ChecksumUpdate, set_ecn};
use crate::packet::samples::{Shape, packet};
use crate::packet::{Ecn, offload};
use proptest::prelude::*;

#[test]
fn keeps_order_and_bytes() {
    let mut batch = PacketBatch::default();
    batch.push(b"one");
    batch.push_merging(10, |slot| {
        slot[..3].copy_from_slice(b"two");
        Some(3)
    });
    batch.push_merging(10, |_| None);
    batch.push(b"three");
    assert_eq!(
        batch.iter().collect::<Vec<_>>(),
        [b"one" as &[u8], b"two", b"three"]
    );
    assert_eq!(batch.total_bytes(), 11);
}

#[test]
fn a_writer_that_claims_too_much_adds_nothing() {
    let mut batch = PacketBatch::default();
    batch.push_merging(4, |_| Some(5));
    assert!(batch.is_empty());
}

#[test]
fn a_packet_that_contradicts_its_header_is_counted() {
    let mut batch = PacketBatch::with_capacity(100);
    let read = batch.push_offloaded(50, |room| {
        room[..30].fill(0);
        // `VIRTIO_NET_HDR_GSO_UDP`, which the gateway does not request.
        room[1] = 3;
        Ok::<_, ()>(30)
    });
    assert_eq!((read, batch.len(), batch.refused()), (Ok(()), 0, 1));
}

#[test]
fn packets_may_become_shorter_but_not_longer() {
    let mut batch = PacketBatch::default();
    for packet in [b"shorten" as &[u8], b"drop", b"claim"] {
        batch.push(packet);
    }
    batch.retain_resized(|packet| match &*packet.bytes {
        b"shorten" => Some(5),
        b"drop" => None,
        _ => Some(packet.bytes.len() + 1),
    });
    assert_eq!(batch.iter().collect::<Vec<_>>(), [b"short" as &[u8]]);
    assert_eq!(batch.total_bytes(), 5);
}

#[test]
fn retain_rewrites_and_drops() {
    let mut batch = PacketBatch::default();
    batch.push(b"keep");
    batch.push(b"drop");
    batch.retain_mut(|packet| {
        let keep = packet.bytes == b"keep";
        packet.bytes[0] = b'K';
        keep
    });
    assert_eq!(batch.iter().collect::<Vec<_>>(), [b"Keep" as &[u8]]);
}

#[test]
fn a_packet_read_from_a_queue_loses_its_header() {
    let mut batch = PacketBatch::with_capacity(100);
    let read = batch.push_offloaded(50, |room| {
        room[..10].fill(0);
        room[10..13].copy_from_slice(b"one");
        Ok::<_, ()>(13)
    });
    assert_eq!(read, Ok(()));
    assert_eq!(batch.push_offloaded(50, |_| Err("none")), Err("none"));
    assert_eq!(batch.push_offloaded(50, |_| Ok::<_, ()>(9)), Ok(()));
    assert_eq!(batch.iter().collect::<Vec<_>>(), [b"one"]);
}

fn merged(packets: &[Vec<u8>]) -> PacketBatch {
    let mut batch = PacketBatch::default();
    for packet in packets {
        batch.push_merging(packet.len() + 32, |room| {
            // The WireGuard engine writes beyond the packet's end.
            room.fill(0xee);
            room[..packet.len()].copy_from_slice(packet);
            Some(packet.len())
        });
    }
    batch
}

fn cut_again(mut batch: PacketBatch) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    batch.for_each_mut(|mut packet| packet.cut(|segment| packets.push(segment.to_vec())));
    packets
}

/// The segments of one TCP flow or the datagrams of one UDP flow.
fn flow(is_v4: bool, shape: Shape, payload: usize, each: usize) -> Vec<Vec<u8>> {
    let (from, to): (std::net::IpAddr, std::net::IpAddr) = match is_v4 {
        true => ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        false => ([1; 16].into(), [2; 16].into()),
    };
    let bytes: Vec<u8> = (0..payload).map(|n| n as u8).collect();
    let mut whole = packet(from, to, shape, &bytes);
    let segmentation = Segmentation::of(&whole, each).expect("TCP or UDP");
    if segmentation.is_tcp() {
        // Pure ACK, as on all but the first segment of a connection.
        let at = segmentation.ip_header_bytes() + 13;
        whole[at] = 0x10;
    }
    let mut segments = Vec::new();
    offload::cut(&mut whole, segmentation, |segment| {
        segments.push(segment.to_vec());
    });
    segments
}

const TCP: Shape = Shape::Tcp { from: 1, to: 2 };
const UDP: Shape = Shape::Udp { from: 1, to: 2 };

#[test]
fn a_flow_is_merged_into_one_packet_and_cut_into_the_original_ones() {
    for (is_v4, shape) in [(true, TCP), (false, TCP), (true, UDP), (false, UDP)] {
        let packets = flow(is_v4, shape, 50_500, 1000);
        let batch = merged(&packets);
        assert_eq!((batch.len(), batch.segments()), (1, 51));
        let bytes: usize = packets.iter().map(Vec::len).sum();
        assert_eq!(batch.total_bytes(), bytes);
        let (whole, segmentation) = batch.segmented().next().expect("one");
        let parsed = IpPacket::parse_unbounded(whole).expect("whole");
        assert_eq!(
            parsed.segment().len(),
            whole.len() - parsed.transport_offset()
        );
        assert!(parse(whole, segmentation).is_ok());
        assert_eq!(cut_again(batch), packets);
    }
}

#[test]
fn a_super_packet_with_segments_beyond_the_mtu_is_refused() {
    let batch = merged(&flow(true, TCP, 5000, 1300));
    let (whole, segmentation) = batch.segmented().next().expect("one");
    assert!(segmentation.is_some());
    assert_eq!(parse(whole, segmentation), Err(DropReason::OversizedIp));
}

/// docs/lessons.md 30: a wrong checksum is not repaired on the way.
#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut packets = flow(true, TCP, 5000, 1000);
    packets[2][100] ^= 1;
    let batch = merged(&packets);
    assert_eq!(batch.len(), 3, "two, the broken one, two");
    assert_eq!(cut_again(batch), packets);
}

#[test]
fn a_pushed_segment_ends_the_packet_and_stays_pushed() {
    let mut packets = flow(false, TCP, 4000, 1000);
    let at = 40 + 13;
    let flags = |packet: &[u8]| u16::from_be_bytes([packet[at - 1], packet[at]]);
    let old = flags(&packets[1]);
    packets[1][at] |= 0x08;
    let update = ChecksumUpdate::default().replace_u16(old, flags(&packets[1]));
    let sum = u16::from_be_bytes([packets[1][at + 3], packets[1][at + 4]]);
    packets[1][at + 3..at + 5].copy_from_slice(&update.apply(sum).to_be_bytes());
    let batch = merged(&packets);
    assert_eq!(batch.len(), 2);
    assert_eq!(cut_again(batch), packets);
}

/// Changes to a packet on its way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Lost,
    Twice,
    Damaged(usize),
    Marked,
    Expired,
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        8 => Just(None),
        1 => Just(Some(Fault::Lost)),
        1 => Just(Some(Fault::Twice)),
        1 => any::<usize>().prop_map(|at| Some(Fault::Damaged(at))),
        1 => Just(Some(Fault::Marked)),
        1 => Just(Some(Fault::Expired)),
    ]
}

fn set_fragment_field(packet: &mut [u8], value: u16) {
    let old = u16::from_be_bytes([packet[6], packet[7]]);
    packet[6..8].copy_from_slice(&value.to_be_bytes());
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    let sum = ChecksumUpdate::default().replace_u16(old, value).apply(sum);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn forget_number(packet: &mut [u8]) {
    packet[4..6].fill(0);
    packet[10..12].fill(0);
}

proptest! {
    /// Merging and cutting restores any sequence of packets byte for byte, except the
    /// identification of IPv4 packets with "don't fragment".
    #[test]
    fn merging_is_undone_by_cutting(
        is_v4 in any::<bool>(),
        may_be_fragmented in any::<bool>(),
        runs in proptest::collection::vec(
            (any::<bool>(), 0u16..2, 1usize..6000, 1usize..1240), 1..6),
        faults in proptest::collection::vec(any_fault(), 1..40),
    ) {
        let mut faults = faults.into_iter().cycle();
        let mut packets = Vec::new();
        for (is_tcp, from, payload, each) in runs {
            let shape = match is_tcp {
                true => Shape::Tcp { from, to: 2 },
                false => Shape::Udp { from, to: 2 },
            };
            for mut packet in flow(is_v4, shape, payload, each.max(payload / 50)) {
                match faults.next().flatten() {
                    Some(Fault::Lost) => continue,
                    Some(Fault::Twice) => packets.push(packet.clone()),
                    Some(Fault::Damaged(at)) => {
                        let at = at % packet.len();
                        packet[at] ^= 0x40;
                    }
                    Some(Fault::Marked) => set_ecn(&mut packet, Ecn::Ce),
                    Some(Fault::Expired) => packet[if is_v4 { 8 } else { 7 }] ^= 1,
                    None => {}
                }
                packets.push(packet);
            }
        }
        if is_v4 && may_be_fragmented {
            packets.iter_mut().for_each(|packet| set_fragment_field(packet, 0));
        }
        let mut received = cut_again(merged(&packets));
        if is_v4 && !may_be_fragmented {
            received.iter_mut().for_each(|packet| forget_number(packet));
            packets.iter_mut().for_each(|packet| forget_number(packet));
        }
        prop_assert!(received == packets);
    }
}
