//! Super-packets: cut like a sender's own segments, and passed to a queue and back.

use super::*;
use crate::packet::checksum::transport_checksum;
use crate::packet::samples::{Shape, any_addresses, packet};
use crate::packet::{IpPacket, PacketBatch};
use etherparse::SlicedPacket;
use proptest::prelude::*;

const TCP: Shape = Shape::Tcp { from: 1, to: 2 };
const UDP: Shape = Shape::Udp { from: 1, to: 2 };

fn any_protocol() -> impl Strategy<Value = Shape> {
    prop_oneof![Just(TCP), Just(UDP)]
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn segments_of(mut packet: Vec<u8>, segmentation: Segmentation) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    cut(&mut packet, segmentation, |segment| {
        segments.push(segment.to_vec());
    });
    segments
}

fn expect_sound(packet: &[u8]) {
    assert!(SlicedPacket::from_ip(packet).is_ok());
    let parsed = IpPacket::parse_unbounded(packet).expect("whole");
    let rest = transport_checksum(
        parsed.source(),
        parsed.destination(),
        parsed.protocol(),
        parsed.segment(),
    );
    assert_eq!(rest, 0);
    if parsed.is_v4() {
        assert_eq!(checksum::checksum(&packet[..20]), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// docs/lessons.md 30: every segment has valid checksums.
    #[test]
    fn segments_are_whole_packets_with_the_payload_in_order(
        (source, destination) in any_addresses(),
        shape in any_protocol(),
        bytes in 1usize..60_000,
        each in 1usize..2000,
    ) {
        let each = each.max(bytes / 500);
        let sent = payload(bytes);
        let whole = packet(source, destination, shape, &sent);
        let segmentation = Segmentation::of(&whole, each).expect("TCP or UDP");
        let segments = segments_of(whole.clone(), segmentation);
        prop_assert_eq!(segments.len(), segmentation.segments(whole.len()));
        let mut received = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            expect_sound(segment);
            let ip = segmentation.ip_header_bytes();
            if segmentation.is_tcp() {
                let first = u32_at(&whole, ip + TCP_SEQUENCE);
                prop_assert_eq!(
                    u32_at(segment, ip + TCP_SEQUENCE),
                    first.wrapping_add((number * each) as u32)
                );
            }
            if source.is_ipv4() {
                prop_assert_eq!(u16_at(segment, 4), u16_at(&whole, 4).wrapping_add(number as u16));
            }
            received.extend_from_slice(&segment[segmentation.header_bytes()..]);
        }
        prop_assert_eq!(received, sent);
        let mut again = whole;
        prop_assert_eq!(first(&mut again, segmentation), &segments[0][..]);
    }

    #[test]
    fn a_transmitted_header_is_received_unchanged(
        (source, destination) in any_addresses(),
        shape in any_protocol(),
        bytes in 1usize..40_000,
        each in 1usize..1200,
    ) {
        let mut whole = packet(source, destination, shape, &payload(bytes));
        let segmentation = Segmentation::of(&whole, each).expect("TCP or UDP");
        let expected = segments_of(whole.clone(), segmentation);
        let header = transmit(&mut whole, Some(segmentation));
        // The kernel completes a partial checksum over the range that the header names.
        let mut finished = whole.clone();
        let (start, offset) = (
            u16::from_ne_bytes([header[6], header[7]]),
            u16::from_ne_bytes([header[8], header[9]]),
        );
        complete_checksum(&mut finished, start.into(), offset.into()).expect("in range");
        expect_sound(&finished);
        prop_assert_eq!(receive(header, &mut whole), Ok(Some(segmentation)));
        prop_assert_eq!(segments_of(whole, segmentation), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        header in any::<[u8; VNET_HEADER_BYTES]>(),
        kind in prop_oneof![Just(GSO_NONE), Just(GSO_TCPV4), Just(GSO_TCPV6), Just(GSO_UDP_L4)],
        first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(PROTOCOL_TCP), Just(PROTOCOL_UDP), any::<u8>()],
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut header = header;
        header[1] = kind;
        if let [version, _, _, _, _, _, v6, _, _, v4, ..] = &mut bytes[..] {
            (*version, *v6, *v4) = (first, protocol, protocol);
        }
        if let Ok(Some(segmentation)) = receive(header, &mut bytes) {
            let total = bytes.len() - segmentation.header_bytes();
            let mut received = 0;
            cut(&mut bytes, segmentation, |segment| {
                received += segment.len() - segmentation.header_bytes();
            });
            prop_assert_eq!(received, total);
        }
        let mut batch = PacketBatch::default();
        for _ in 0..2 {
            batch.push_merging(bytes.len(), |room| {
                room.copy_from_slice(&bytes);
                Some(bytes.len())
            });
        }
    }
}

#[test]
fn fin_and_psh_are_on_the_last_segment_and_cwr_on_the_first() {
    let mut whole = packet([1; 4].into(), [2; 4].into(), TCP, &payload(2500));
    whole[20 + TCP_FLAGS] = TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR;
    let segmentation = Segmentation::of(&whole, 1000).expect("TCP");
    let flags: Vec<u8> = segments_of(whole, segmentation)
        .iter()
        .map(|segment| segment[20 + TCP_FLAGS])
        .collect();
    let expected = [TCP_ACK | TCP_CWR, TCP_ACK, TCP_ACK | TCP_PSH | TCP_FIN];
    assert_eq!(flags, expected);
}

#[test]
fn a_partial_checksum_of_a_single_packet_is_completed() {
    for shape in [TCP, UDP] {
        let sound = packet([1; 4].into(), [2; 4].into(), shape, b"payload");
        let segmentation = Segmentation::of(&sound, 1).expect("TCP or UDP");
        let offset = segmentation.protocol.checksum_offset();
        let mut partial = sound.clone();
        let pseudo = pseudo_header(&partial, segmentation).plus_len(partial.len() - 20);
        put_u16(&mut partial, 20 + offset, !pseudo.complement());
        let mut header = [0; VNET_HEADER_BYTES];
        header[0] = NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&20u16.to_ne_bytes());
        header[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
        assert_eq!(receive(header, &mut partial), Ok(None));
        assert_eq!(partial, sound);
    }
}

#[test]
fn a_super_packet_of_a_kind_that_was_not_requested_is_refused() {
    let mut whole = packet([1; 4].into(), [2; 4].into(), TCP, &payload(2500));
    let mut header = [0; VNET_HEADER_BYTES];
    // VIRTIO_NET_HDR_GSO_UDP: fragments.
    (header[1], header[4]) = (3, 100);
    assert_eq!(receive(header, &mut whole), Err(NotOffloaded));
}

#[test]
fn a_super_packet_with_extension_headers_is_cut_like_any_other() {
    let (source, destination) = ([1; 16].into(), [2; 16].into());
    let mut whole = packet(source, destination, TCP, &payload(2500));
    // Destination options that are padding (RFC 8200, 4.6).
    whole.splice(40..40, [PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0]);
    whole[6] = 60;
    let bytes = (whole.len() - IPV6_HEADER_BYTES) as u16;
    put_u16(&mut whole, 4, bytes);
    let mut header = [0; VNET_HEADER_BYTES];
    (header[0], header[1]) = (NEEDS_CHECKSUM, GSO_TCPV6);
    header[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
    header[6..8].copy_from_slice(&48_u16.to_ne_bytes());
    header[8..].copy_from_slice(&16_u16.to_ne_bytes());
    let segmentation = receive(header, &mut whole).expect("it fits");
    let segments = segments_of(whole, segmentation.expect("it stands for many"));
    assert_eq!(segments.len(), 3);
    segments.iter().for_each(|segment| expect_sound(segment));
}

#[test]
fn headers_longer_than_the_maximum_are_refused() {
    let (source, destination) = ([1; 16].into(), [2; 16].into());
    let mut whole = packet(source, destination, TCP, &payload(2500));
    let mut options = [0; 72];
    (options[0], options[1]) = (PROTOCOL_TCP, 8);
    whole.splice(40..40, options);
    whole[6] = 60;
    assert_eq!(Segmentation::of(&whole, 1000), None);
}
