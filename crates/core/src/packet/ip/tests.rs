//! The parser against an independent one, on valid, cut and arbitrary packets.

use super::*;
use crate::packet::samples::{
    Shape, any_addresses, any_shape, packet, packet_behind, packet_between,
};
use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader,
    Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetSlice, SlicedPacket, TransportSlice,
};
use proptest::prelude::*;

const TCP: Shape = Shape::Tcp { from: 1, to: 2 };

fn v4() -> Vec<u8> {
    packet_between("100.64.0.5", "10.20.0.100", TCP)
}

fn v6() -> Vec<u8> {
    packet_between("fd00:2021:1111::5", "2001:db8::100", TCP)
}

fn v4_with_options(options: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header::new(
        0,
        64,
        etherparse::ip_number::TCP,
        [100, 64, 0, 5],
        [10, 0, 0, 1],
    )
    .expect("fits");
    header.options = options.try_into().expect("a multiple of four bytes");
    packet_behind(IpHeaders::Ipv4(header, Ipv4Extensions::default()), TCP, b"")
}

fn v6_with_extensions(extensions: Ipv6Extensions) -> Vec<u8> {
    let header = Ipv6Header {
        source: [0xfd; 16],
        destination: [0x20; 16],
        hop_limit: 64,
        ..Ipv6Header::default()
    };
    packet_behind(IpHeaders::Ipv6(header, extensions), TCP, b"payload")
}

fn extension(payload: &[u8]) -> Ipv6RawExtHeader {
    Ipv6RawExtHeader::new_raw(etherparse::ip_number::TCP, payload).expect("6 + 8n bytes")
}

#[test]
fn every_cut_and_every_surplus_byte_is_refused() {
    for whole in [v4(), v6()] {
        assert!(IpPacket::parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(
                IpPacket::parse(&whole[..length]),
                Err(DropReason::MalformedIp)
            );
        }
        for surplus in 1..=31 {
            let mut longer = whole.clone();
            longer.resize(whole.len() + surplus, 0);
            assert_eq!(IpPacket::parse(&longer), Err(DropReason::MalformedIp));
        }
    }
    let zeros = IpPacket::parse(&[0; 64]);
    assert_eq!(zeros, Err(DropReason::MalformedIp));
}

#[test]
fn packets_beyond_the_mtu_parse_only_unbounded() {
    let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let fits = packet(source, destination, TCP, &[0; 1280 - 40]);
    let too_long = packet(source, destination, TCP, &[0; 1281 - 40]);
    assert!(IpPacket::parse(&fits).is_ok());
    assert_eq!(IpPacket::parse(&too_long), Err(DropReason::OversizedIp));
    assert!(IpPacket::parse_unbounded(&too_long).is_ok());
    let largest = packet(source, destination, TCP, &[0; 65535 - 40]);
    assert!(IpPacket::parse_unbounded(&largest).is_ok());
    let (source, destination) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8::2".parse().unwrap(),
    );
    let beyond = packet(source, destination, TCP, &[0; 65535 - 20]);
    assert_eq!(
        IpPacket::parse_unbounded(&beyond),
        Err(DropReason::OversizedIp)
    );
}

#[test]
fn ipv4_fragments_are_refused_and_dont_fragment_is_not() {
    for (flags, expected) in [
        ([0x40, 0x00], None),
        ([0x20, 0x00], Some(DropReason::Fragment)),
        ([0x00, 0x01], Some(DropReason::Fragment)),
        ([0x1f, 0xff], Some(DropReason::Fragment)),
    ] {
        let mut bytes = v4();
        bytes[6..8].copy_from_slice(&flags);
        assert_eq!(IpPacket::parse(&bytes).err(), expected, "{flags:02x?}");
    }
}

#[test]
fn ipv6_fragment_headers_are_refused_at_any_position() {
    let mut extensions = Ipv6Extensions {
        fragment: Some(Ipv6FragmentHeader::new(
            etherparse::ip_number::TCP,
            IpFragOffset::ZERO,
            false,
            0,
        )),
        ..Ipv6Extensions::default()
    };
    let atomic = v6_with_extensions(extensions.clone());
    assert_eq!(IpPacket::parse(&atomic), Err(DropReason::Fragment));
    extensions.hop_by_hop_options = Some(extension(&[1, 4, 0, 0, 0, 0]));
    let behind_another = v6_with_extensions(extensions);
    assert_eq!(IpPacket::parse(&behind_another), Err(DropReason::Fragment));
}

#[test]
fn the_transport_is_found_behind_ipv4_options() {
    let record_route = [7, 7, 4, 0, 0, 0, 0, 1];
    let bytes = v4_with_options(&record_route);
    let packet = IpPacket::parse(&bytes).expect("valid");
    assert_eq!(packet.transport_offset(), 28);
    assert_eq!(
        packet.transport(),
        Transport::Tcp {
            source_port: 1,
            destination_port: 2
        }
    );
}

#[test]
fn source_routes_and_malformed_options_are_refused() {
    let loose = [1, 131, 7, 4, 192, 0, 2, 1];
    let strict = [137, 7, 4, 192, 0, 2, 1, 0];
    let overrunning = [7, 9, 4, 0, 0, 0, 0, 0];
    let endless = [7, 0, 131, 7, 4, 0, 0, 0];
    for options in [loose, strict, overrunning, endless] {
        let bytes = v4_with_options(&options);
        assert_eq!(
            IpPacket::parse(&bytes),
            Err(DropReason::MalformedIp),
            "{options:?}"
        );
    }
    let after_the_end = [0, 131, 7, 4, 0, 0, 0, 0];
    assert!(IpPacket::parse(&v4_with_options(&after_the_end)).is_ok());
}

#[test]
fn the_transport_is_found_behind_ipv6_extension_headers() {
    let bytes = v6_with_extensions(Ipv6Extensions {
        hop_by_hop_options: Some(extension(&[1, 4, 0, 0, 0, 0])),
        destination_options: Some(extension(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        routing: Some(Ipv6RoutingExtensions {
            // Type 4, no segments left: this is its last destination.
            routing: extension(&[4, 0, 0, 0, 0, 0]),
            final_destination_options: None,
        }),
        ..Ipv6Extensions::default()
    });
    let packet = IpPacket::parse(&bytes).expect("valid");
    assert_eq!(packet.transport_offset(), 40 + 8 + 16 + 8);
    assert_eq!(packet.protocol(), PROTOCOL_TCP);
    assert_eq!(
        packet.transport(),
        Transport::Tcp {
            source_port: 1,
            destination_port: 2
        }
    );
}

#[test]
fn a_routing_header_with_segments_left_is_refused() {
    let bytes = v6_with_extensions(Ipv6Extensions {
        routing: Some(Ipv6RoutingExtensions {
            routing: extension(&[0, 1, 0, 0, 0, 0]),
            final_destination_options: None,
        }),
        ..Ipv6Extensions::default()
    });
    assert_eq!(IpPacket::parse(&bytes), Err(DropReason::MalformedIp));
}

/// `count` extension headers of kind `header`, each of 8 bytes, then no next header.
fn chain(header: u8, count: usize) -> Vec<u8> {
    let mut bytes = v6()[..40].to_vec();
    bytes[4..6].copy_from_slice(&u16::try_from(count * 8).expect("small").to_be_bytes());
    bytes[6] = header;
    for place in 1..=count {
        let next = if place == count { 59 } else { header };
        bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    bytes
}

#[test]
fn the_walk_over_extension_headers_is_bounded() {
    let eight = chain(EXTENSION_DESTINATION, 8);
    let packet = IpPacket::parse(&eight).map(|packet| packet.transport());
    assert_eq!(packet, Ok(Transport::Other(59)));
    let nine = chain(EXTENSION_DESTINATION, 9);
    assert_eq!(IpPacket::parse(&nine), Err(DropReason::MalformedIp));
    assert!(IpPacket::parse(&chain(EXTENSION_HOP_BY_HOP, 1)).is_ok());
    let twice = chain(EXTENSION_HOP_BY_HOP, 2);
    assert_eq!(IpPacket::parse(&twice), Err(DropReason::MalformedIp));
}

#[test]
fn an_extension_header_that_overruns_is_refused() {
    let mut bytes = chain(EXTENSION_DESTINATION, 2);
    bytes[48 + 1] = 1;
    assert_eq!(IpPacket::parse(&bytes), Err(DropReason::MalformedIp));
}

#[test]
fn truncated_transport_headers_are_refused() {
    let shortest = [
        (Shape::Tcp { from: 1, to: 2 }, 20),
        (Shape::Udp { from: 1, to: 2 }, 8),
        (Shape::EchoRequest(1), 8),
        (Shape::IcmpError, 8),
    ];
    for (shape, header_bytes) in shortest {
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let whole = packet_between(source, destination, shape);
            let header = IpPacket::parse(&whole).expect("valid").transport_offset();
            let mut cut = whole[..header + header_bytes - 1].to_vec();
            declare_length(&mut cut);
            assert_eq!(
                IpPacket::parse(&cut),
                Err(DropReason::MalformedTransport),
                "{shape:?}"
            );
        }
    }
}

fn declare_length(bytes: &mut [u8]) {
    let length = u16::try_from(bytes.len()).expect("small");
    if bytes[0] >> 4 == 4 {
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    } else {
        bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
}

#[test]
fn lengths_inside_transport_headers_must_fit() {
    let mut tcp = v4();
    for (data_offset, expected) in [(4, false), (5, true), (6, true), (7, false)] {
        tcp[20 + 12] = data_offset << 4;
        // The segment is a header of 20 bytes and a payload of 7.
        assert_eq!(IpPacket::parse(&tcp).is_ok(), expected, "{data_offset}");
    }
    let mut udp = packet_between("192.0.2.1", "192.0.2.2", Shape::Udp { from: 1, to: 2 });
    for (length, expected) in [(7, false), (8, true), (15, true), (16, false)] {
        udp[20 + 5] = length;
        assert_eq!(IpPacket::parse(&udp).is_ok(), expected, "{length}");
    }
}

#[test]
fn icmp_of_the_other_version_is_not_icmp() {
    let mut bytes = packet_between("192.0.2.1", "192.0.2.2", Shape::EchoRequest(1));
    bytes[9] = PROTOCOL_ICMPV6;
    let transport = IpPacket::parse(&bytes).expect("valid").transport();
    assert_eq!(transport, Transport::Other(PROTOCOL_ICMPV6));
}

#[test]
fn icmp_types_map_to_echo_error_or_other() {
    let kind_of = |base: &[u8], offset: usize, kind: u8| {
        let mut bytes = base.to_vec();
        bytes[offset] = kind;
        IpPacket::parse(&bytes).expect("valid").transport()
    };
    let v4 = packet_between("192.0.2.1", "192.0.2.2", Shape::EchoRequest(9));
    let v6 = packet_between("2001:db8::1", "2001:db8::2", Shape::EchoRequest(9));
    let echo = |request| Transport::IcmpEcho {
        identifier: 9,
        request,
    };
    for kind in 0..=u8::MAX {
        let expected_v4 = match kind {
            8 => echo(true),
            0 => echo(false),
            3 | 4 | 5 | 11 | 12 => Transport::IcmpError,
            _ => Transport::IcmpOther,
        };
        assert_eq!(kind_of(&v4, 20, kind), expected_v4, "type {kind}");
        let expected_v6 = match kind {
            128 => echo(true),
            129 => echo(false),
            0..=127 | 137 => Transport::IcmpError,
            _ => Transport::IcmpOther,
        };
        assert_eq!(kind_of(&v6, 40, kind), expected_v6, "type {kind}");
    }
}

#[test]
fn the_goodbye_test_vector_parses() {
    // docs/protocol.md 10: 6000 0000 0008 ff 00, 32 × 00, 02, 7 × 00.
    let mut bytes = vec![0x60, 0, 0, 0, 0, 8, 0xff, 0];
    bytes.extend([0; 32]);
    bytes.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    let packet = IpPacket::parse(&bytes).expect("valid");
    assert_eq!(packet.transport(), Transport::Other(255));
    assert_eq!(packet.source(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    assert_eq!(packet.segment(), &bytes[40..]);
}

fn any_ip_headers() -> impl Strategy<Value = IpHeaders> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), 0usize..=10).prop_map(|(from, to, words)| {
        let mut header =
            Ipv4Header::new(0, 64, etherparse::ip_number::TCP, from, to).expect("fits");
        header.options = vec![OPTION_NOP; words * 4]
            .as_slice()
            .try_into()
            .expect("40 at most");
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    });
    let options = || {
        proptest::option::of((0usize..4).prop_map(|eights| {
            let mut padding = vec![0; 6 + eights * 8];
            padding[0] = 1;
            padding[1] = u8::try_from(4 + eights * 8).expect("small");
            extension(&padding)
        }))
    };
    let v6 = (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<u8>(),
        options(),
        options(),
    )
        .prop_map(
            |(source, destination, traffic_class, hop_by_hop_options, destination_options)| {
                let header = Ipv6Header {
                    source,
                    destination,
                    traffic_class,
                    ..Ipv6Header::default()
                };
                let extensions = Ipv6Extensions {
                    hop_by_hop_options,
                    destination_options,
                    ..Ipv6Extensions::default()
                };
                IpHeaders::Ipv6(header, extensions)
            },
        );
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
        check(&bytes);
    }

    /// Arbitrary bytes seldom pass the length check; these always do.
    #[test]
    fn arbitrary_bytes_with_the_right_length_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..200),
        is_v4 in any::<bool>(),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 58, 60]),
    ) {
        bytes[0] = if is_v4 { 0x40 | (bytes[0] & 0x0f) } else { 0x60 };
        if is_v4 {
            bytes[6..8].fill(0);
        }
        bytes[if is_v4 { 9 } else { 6 }] = protocol;
        declare_length(&mut bytes);
        check(&bytes);
    }

    #[test]
    fn a_damaged_packet_never_panics(
        (source, destination) in any_addresses(),
        shape in any_shape(0..u16::MAX),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = packet(source, destination, shape, b"some payload");
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        check(&bytes);
    }

    #[test]
    fn agrees_with_etherparse_on_valid_packets(
        headers in any_ip_headers(),
        shape in any_shape(0..u16::MAX),
        payload in proptest::collection::vec(any::<u8>(), 0..900),
    ) {
        let bytes = packet_behind(headers, shape, &payload);
        let ours = IpPacket::parse(&bytes).expect("valid");
        let theirs = SlicedPacket::from_ip(&bytes).expect("valid");
        let addresses: (IpAddr, IpAddr) = match theirs.net.as_ref().expect("IP") {
            NetSlice::Ipv4(slice) => (
                slice.header().source_addr().into(),
                slice.header().destination_addr().into(),
            ),
            NetSlice::Ipv6(slice) => (
                slice.header().source_addr().into(),
                slice.header().destination_addr().into(),
            ),
            NetSlice::Arp(_) => unreachable!("not over IP"),
        };
        prop_assert_eq!((ours.source(), ours.destination()), addresses);
        let payload = theirs.ip_payload().expect("IP");
        prop_assert_eq!(ours.protocol(), payload.ip_number.0);
        prop_assert_eq!(ours.segment(), payload.payload);
        let ports = match theirs.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                Some((tcp.source_port(), tcp.destination_port()))
            }
            Some(TransportSlice::Udp(udp)) => {
                Some((udp.source_port(), udp.destination_port()))
            }
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_))
            | None => None,
        };
        prop_assert_eq!(ports_of(ours.transport()), ports);
        prop_assert_eq!(kind_of(ours.transport()), shape);
    }
}

/// Asserts the invariants of every accepted packet.
fn check(bytes: &[u8]) {
    let _ = ecn(bytes);
    if let Ok(packet) = IpPacket::parse(bytes) {
        let mut redeclared = bytes.to_vec();
        declare_length(&mut redeclared);
        assert_eq!(
            redeclared, bytes,
            "the header declares the length of the packet"
        );
        assert_eq!(packet.is_v4(), packet.destination().is_ipv4());
        assert!(packet.transport_offset() <= bytes.len());
    }
}

fn ports_of(transport: Transport) -> Option<(u16, u16)> {
    match transport {
        Transport::Tcp {
            source_port,
            destination_port,
        }
        | Transport::Udp {
            source_port,
            destination_port,
        } => Some((source_port, destination_port)),
        Transport::IcmpEcho { .. }
        | Transport::IcmpError
        | Transport::IcmpOther
        | Transport::Other(_) => None,
    }
}

fn kind_of(transport: Transport) -> Shape {
    match transport {
        Transport::Tcp {
            source_port: from,
            destination_port: to,
        } => Shape::Tcp { from, to },
        Transport::Udp {
            source_port: from,
            destination_port: to,
        } => Shape::Udp { from, to },
        Transport::IcmpEcho {
            identifier,
            request: true,
        } => Shape::EchoRequest(identifier),
        Transport::IcmpEcho {
            identifier,
            request: false,
        } => Shape::EchoReply(identifier),
        Transport::IcmpError => Shape::IcmpError,
        Transport::IcmpOther => Shape::IcmpOther,
        Transport::Other(protocol) => Shape::Other(protocol),
    }
}
