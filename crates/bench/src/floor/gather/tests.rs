//! What is gathered is what would be cut apart again byte for byte.

use super::*;
use postern_core::packet::checksum::checksum;
use postern_core::packet::offload;
use proptest::prelude::*;

/// A super-packet and the header that the kernel would put before it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    is_v4: bool,
    is_tcp: bool,
    payload_bytes: usize,
    segment_payload_bytes: usize,
}

impl Sample {
    fn ip_bytes(self) -> usize {
        if self.is_v4 { IPV4_BYTES } else { IPV6_BYTES }
    }

    fn packet(self) -> Vec<u8> {
        let transport = if self.is_tcp { 32 } else { UDP_BYTES };
        let protocol = if self.is_tcp { TCP } else { UDP };
        let mut ip = vec![0; self.ip_bytes()];
        if self.is_v4 {
            (ip[0], ip[6], ip[8], ip[9]) = (0x45, 0x40, 64, protocol);
            ip[12..].copy_from_slice(&[10, 20, 0, 100, 100, 64, 1, 2]);
        } else {
            (ip[0], ip[6], ip[7], ip[8], ip[24], ip[39]) = (0x60, protocol, 64, 0xfd, 0xfd, 7);
        }
        let mut header = vec![0; transport];
        header[..4].copy_from_slice(&[0x14, 0x51, 0x9c, 0x40]);
        if self.is_tcp {
            header[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
            (header[12], header[13], header[14]) = (8 << 4, ACK | PSH, 200);
            header[20..].copy_from_slice(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        }
        let payload = (0..self.payload_bytes).map(|n| (n % 253) as u8);
        [ip, header, payload.collect()].concat()
    }

    /// The segments, each whole.
    fn segments(self) -> Vec<Vec<u8>> {
        let kind = match (self.is_tcp, self.is_v4) {
            (true, true) => GSO_TCPV4,
            (true, false) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        let [g0, g1] = (self.segment_payload_bytes as u16).to_ne_bytes();
        let header = [NEEDS_CHECKSUM, kind, 0, 0, g0, g1, 0, 0, 0, 0];
        cut(header, self.packet())
    }
}

fn cut(header: [u8; 10], mut packet: Vec<u8>) -> Vec<Vec<u8>> {
    let segmentation = offload::receive(header, &mut packet).expect("fits");
    let mut segments = Vec::new();
    match segmentation {
        Some(it) => offload::cut(&mut packet, it, |segment| segments.push(segment.to_vec())),
        None => segments.push(packet),
    }
    segments
}

/// Packets as they stand in a buffer of opened datagrams: with gaps between.
fn laid_out(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut buffer = Vec::new();
    let ranges = packets.iter().map(|packet| {
        buffer.extend([0xee; 16]);
        let start = buffer.len();
        buffer.extend(packet);
        let range = start..buffer.len();
        buffer.extend([0xee; 16]);
        range
    });
    let ranges = ranges.collect();
    (buffer, ranges)
}

/// How many of the packets are taken, one after the other.
fn taken(packets: &[Vec<u8>]) -> usize {
    let (buffer, ranges) = laid_out(packets);
    let mut gathered = Gathered::default();
    let mut ranges = ranges.into_iter();
    ranges
        .by_ref()
        .take_while(|it| gathered.take(&buffer, it.clone()))
        .count()
}

const TCP_SAMPLE: Sample = Sample {
    is_v4: true,
    is_tcp: true,
    payload_bytes: 4000,
    segment_payload_bytes: 1000,
};

fn changed(mut packets: Vec<Vec<u8>>, which: usize, at: usize, to: u8) -> Vec<Vec<u8>> {
    packets[which][at] = to;
    packets
}

#[test]
fn what_is_of_another_flow_or_out_of_order_is_not_gathered() {
    let tcp = TCP_SAMPLE.segments();
    assert_eq!(taken(&tcp), 4);
    for at in [1, 8, 9, 15, 19, 21, 23, 24, 27, 28, 34, 35, 50] {
        assert_eq!(taken(&changed(tcp.clone(), 1, at, 0xab)), 1, "byte {at}");
    }
    let gap = [tcp[0].clone(), tcp[2].clone()];
    assert_eq!(taken(&gap), 1);
}

#[test]
fn flags_end_a_super_packet_or_keep_a_segment_out() {
    let tcp = TCP_SAMPLE.segments();
    let flags = IPV4_BYTES + TCP_FLAGS;
    for (flag, first, second) in [
        (PSH, 1, 2),
        (FIN, 1, 2),
        (0x02, 1, 1),
        (0x04, 1, 1),
        (0x20, 1, 1),
    ] {
        assert_eq!(
            taken(&changed(tcp.clone(), 0, flags, ACK | flag)),
            first,
            "{flag}"
        );
        assert_eq!(
            taken(&changed(tcp.clone(), 1, flags, ACK | flag)),
            second,
            "{flag}"
        );
    }
}

#[test]
fn a_shorter_one_is_the_last_and_a_longer_one_is_not_taken() {
    let long = Sample {
        payload_bytes: 2000,
        ..TCP_SAMPLE
    }
    .segments();
    let short = Sample {
        payload_bytes: 1500,
        ..TCP_SAMPLE
    }
    .segments();
    assert_eq!(
        taken(&[short[0].clone(), short[1].clone(), long[1].clone()]),
        2
    );
    let mut longer = long[1].clone();
    longer.push(0);
    assert_eq!(taken(&[long[0].clone(), longer]), 1);
}

#[test]
fn datagrams_without_a_checksum_stay_alone() {
    let udp = Sample {
        is_tcp: false,
        ..TCP_SAMPLE
    }
    .segments();
    assert_eq!(taken(&udp), 4);
    let at = IPV4_BYTES + UDP_CHECKSUM;
    let without = |which| changed(changed(udp.clone(), which, at, 0), which, at + 1, 0);
    assert_eq!(taken(&without(0)), 1);
    assert_eq!(taken(&without(2)), 2);
}

#[test]
fn bare_acknowledgements_and_strange_packets_stay_alone() {
    let ack = Sample {
        payload_bytes: 0,
        ..TCP_SAMPLE
    }
    .packet();
    assert_eq!(taken(&[ack.clone(), ack]), 1);
    for strange in [vec![0x45; 20], vec![0x60; 41], vec![0; 60], vec![0x46; 60]] {
        assert_eq!(taken(&[strange.clone(), strange]), 1);
    }
}

#[test]
fn a_super_packet_ends_where_ip_ends() {
    let many = Sample {
        payload_bytes: 65_000,
        ..TCP_SAMPLE
    };
    let mut packets = many.segments();
    let mut beyond = Sample {
        payload_bytes: 1000,
        ..TCP_SAMPLE
    }
    .packet();
    let sequence = 0xffff_ff00_u32.wrapping_add(65_000);
    beyond[24..28].copy_from_slice(&sequence.to_be_bytes());
    packets[64][33] = ACK;
    packets.push(beyond);
    assert_eq!(taken(&packets), 65);
}

proptest! {
    #[test]
    fn what_is_gathered_is_cut_into_the_same_packets(
        is_v4: bool,
        is_tcp: bool,
        payload_bytes in 1_usize..60_000,
        segment_payload_bytes in 1000_usize..1240,
    ) {
        let sample = Sample { is_v4, is_tcp, payload_bytes, segment_payload_bytes };
        let packets = sample.segments();
        let (mut buffer, ranges) = laid_out(&packets);
        let mut gathered = Gathered::default();
        for range in ranges {
            prop_assert!(gathered.take(&buffer, range));
        }
        let header = gathered.complete(&mut buffer);
        let pieces = gathered.pieces().iter().map(|it| &buffer[it.clone()]);
        let whole = pieces.collect::<Vec<_>>().concat();
        if is_v4 {
            prop_assert_eq!(checksum(&whole[..IPV4_BYTES]), 0);
            prop_assert_eq!(usize::from(u16::from_be_bytes([whole[2], whole[3]])), whole.len());
        } else {
            let told = usize::from(u16::from_be_bytes([whole[4], whole[5]]));
            prop_assert_eq!(told + IPV6_BYTES, whole.len());
        }
        prop_assert_eq!(cut(header, whole), packets);
    }

    #[test]
    fn arbitrary_packets_are_taken_or_left(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 1..5),
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(TCP), Just(UDP), any::<u8>()],
    ) {
        let mut packets = packets;
        for packet in &mut packets {
            if let [version, _, _, _, _, _, next_header, _, _, next, ..] = &mut packet[..] {
                (*version, *next_header, *next) = (first, protocol, protocol);
            }
        }
        let (mut buffer, ranges) = laid_out(&packets);
        let mut gathered = Gathered::default();
        for range in ranges {
            if !gathered.take(&buffer, range.clone()) {
                gathered.complete(&mut buffer);
                gathered.clear();
                prop_assert!(gathered.take(&buffer, range));
            }
        }
    }
}
