//! ICMP errors against an independent parser and the rules of docs/protocol.md 5.6.

use super::*;
use crate::packet::checksum::checksum;
use crate::packet::samples::{
    Shape, any_addresses, any_shape, packet, packet_behind, packet_between,
};
use etherparse::{IpHeaders, Ipv4Extensions, Ipv4Header, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const UDP: Shape = Shape::Udp {
    from: 40000,
    to: 53,
};

/// The ICMP type, code and quoted bytes of `reply`, read by etherparse.
fn read(reply: &[u8]) -> (u8, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ip(reply).expect("valid");
    match sliced.transport.expect("ICMP") {
        TransportSlice::Icmpv4(icmp) => (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec()),
        TransportSlice::Icmpv6(icmp) => (icmp.type_u8(), icmp.code_u8(), icmp.payload().to_vec()),
        TransportSlice::Tcp(_) | TransportSlice::Udp(_) | TransportSlice::Igmp(_) => {
            panic!("no ICMP")
        }
    }
}

fn reply(bytes: &[u8], kind: IcmpReply) -> Option<Vec<u8>> {
    reply_to(&IpPacket::parse_unbounded(bytes).expect("valid"), kind)
}

#[test]
fn types_and_codes_match_the_specification() {
    let v4 = packet_between("100.64.0.5", "10.20.0.100", UDP);
    let v6 = packet_between("fd00:2021:1111::5", "2001:db8::100", UDP);
    for (offending, kind, expected) in [
        (&v4, IcmpReply::Prohibited, (3, 13)),
        (&v4, IcmpReply::NetworkUnreachable, (3, 0)),
        (&v6, IcmpReply::Prohibited, (1, 1)),
        (&v6, IcmpReply::NetworkUnreachable, (1, 3)),
    ] {
        let reply = reply(offending, kind).expect("answerable");
        let (kind, code, _) = read(&reply);
        assert_eq!((kind, code), expected);
    }
}

/// RFC 792 and RFC 4443 byte for byte, checksums included.
#[test]
fn an_ipv4_reply_matches_a_routers_byte_for_byte() {
    let mut header = Ipv4Header::new(
        0,
        64,
        etherparse::ip_number::UDP,
        [100, 64, 0, 5],
        [10, 20, 0, 9],
    )
    .expect("fits");
    header.options = [1, 1, 1, 0].into();
    let offending = packet_behind(
        IpHeaders::Ipv4(header, Ipv4Extensions::default()),
        UDP,
        &[7; 300],
    );
    let reply = reply(&offending, IcmpReply::Prohibited).expect("answerable");
    assert_eq!(reply.len(), 20 + 8 + 24 + 8);
    assert_eq!(reply[8], 20, "hops");
    assert_eq!(reply[12..20], [10, 20, 0, 9, 100, 64, 0, 5]);
    let (_, _, quoted) = read(&reply);
    assert_eq!(
        quoted,
        offending[..24 + 8],
        "docs/lessons.md 20: header with options, and 8 bytes"
    );
}

/// docs/lessons.md 20: the quotation is cut to the length that the RFC allows.
#[test]
fn an_ipv6_reply_quotes_up_to_1280_bytes() {
    let (source, destination) = (
        "fd00:2021:1111::5".parse().unwrap(),
        "2001:db8::9".parse().unwrap(),
    );
    let short = packet(source, destination, UDP, &[7; 100]);
    let long = packet(source, destination, UDP, &[7; 1280 - 48]);
    let short_reply = reply(&short, IcmpReply::Prohibited).expect("answerable");
    assert_eq!(read(&short_reply).2, short);
    let long_reply = reply(&long, IcmpReply::Prohibited).expect("answerable");
    assert_eq!(long_reply.len(), 1280);
    assert_eq!(read(&long_reply).2, long[..1280 - 48]);
    assert_eq!(long_reply[7], 20, "hops");
}

#[test]
fn icmp_errors_are_never_answered() {
    for (source, destination) in [
        ("100.64.0.5", "10.0.0.1"),
        ("fd00:2021:1111::5", "2001:db8::1"),
    ] {
        let error = packet_between(source, destination, Shape::IcmpError);
        assert_eq!(reply(&error, IcmpReply::Prohibited), None);
        let ping = packet_between(source, destination, Shape::EchoRequest(1));
        assert!(reply(&ping, IcmpReply::Prohibited).is_some());
    }
}

#[test]
fn addresses_that_denote_no_single_host_are_never_answered() {
    for source in [
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "240.0.0.1",
    ] {
        let bytes = packet_between(source, "10.0.0.1", UDP);
        assert_eq!(reply(&bytes, IcmpReply::Prohibited), None, "from {source}");
    }
    for destination in ["224.0.0.251", "255.255.255.255", "0.0.0.0"] {
        let bytes = packet_between("100.64.0.5", destination, UDP);
        assert_eq!(
            reply(&bytes, IcmpReply::Prohibited),
            None,
            "to {destination}"
        );
    }
    for (source, destination) in [
        ("ff02::1", "2001:db8::1"),
        ("::", "2001:db8::1"),
        ("2001:db8::1", "ff02::fb"),
    ] {
        let bytes = packet_between(source, destination, UDP);
        assert_eq!(
            reply(&bytes, IcmpReply::Prohibited),
            None,
            "{source} to {destination}"
        );
    }
}

proptest! {
    #[test]
    fn replies_always_parse_and_have_valid_checksums(
        (source, destination) in any_addresses(),
        shape in any_shape(0..u16::MAX),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        prohibited in any::<bool>(),
    ) {
        let kind = if prohibited { IcmpReply::Prohibited } else { IcmpReply::NetworkUnreachable };
        let offending = packet(source, destination, shape, &payload);
        let Some(reply) = reply(&offending, kind) else { return Ok(()) };
        // Fits the tunnel's MTU, and is itself never answered.
        let parsed = IpPacket::parse(&reply).expect("valid");
        prop_assert_eq!(parsed.transport(), Transport::IcmpError);
        prop_assert_eq!((parsed.source(), parsed.destination()), (destination, source));
        let (_, _, quoted) = read(&reply);
        prop_assert!(offending.starts_with(&quoted));
        if parsed.is_v4() {
            prop_assert_eq!(checksum(&reply[..20]), 0);
        }
        check_message_sum(&reply)?;
    }
}

/// Compares the checksum with the one that etherparse computes.
fn check_message_sum(reply: &[u8]) -> Result<(), TestCaseError> {
    let sliced = SlicedPacket::from_ip(reply).expect("valid");
    match sliced.transport.expect("ICMP") {
        TransportSlice::Icmpv4(icmp) => {
            let expected = icmp.icmp_type().calc_checksum(icmp.payload());
            prop_assert_eq!(icmp.checksum(), expected);
        }
        TransportSlice::Icmpv6(icmp) => {
            let header = sliced
                .net
                .as_ref()
                .and_then(|net| net.ipv6_ref())
                .expect("IPv6")
                .header();
            prop_assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        }
        TransportSlice::Tcp(_) | TransportSlice::Udp(_) | TransportSlice::Igmp(_) => {
            panic!("no ICMP")
        }
    }
    Ok(())
}
