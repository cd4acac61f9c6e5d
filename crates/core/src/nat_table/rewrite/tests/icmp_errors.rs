//! ICMP errors: the client gets the same as if the proxy IP had reported about the packet that it
//! sent.

use super::*;
use crate::packet::checksum::{checksum, transport_checksum};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

/// Type, code, and four bytes that depend on the type.
type Head = (u8, u8, [u8; 4]);

/// An error with these fields about `quoted`.
fn error((from, to): (IpAddr, IpAddr), hops: u8, head: Head, quoted: &[u8]) -> Vec<u8> {
    let (type_u8, code_u8, bytes5to8) = head;
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = Icmpv4Type::Unknown {
                type_u8,
                code_u8,
                bytes5to8,
            };
            let ip = PacketBuilder::ipv4(from.octets(), to.octets(), hops);
            ip.icmpv4(icmp).write(&mut bytes, quoted)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = Icmpv6Type::Unknown {
                type_u8,
                code_u8,
                bytes5to8,
            };
            let ip = PacketBuilder::ipv6(from.octets(), to.octets(), hops);
            ip.icmpv6(icmp).write(&mut bytes, quoted)
        }
        mixed => panic!("one family, not {mixed:?}"),
    }
    .expect("fits");
    bytes
}

fn router(case: &Case) -> IpAddr {
    match case.client {
        IpAddr::V4(_) => [192, 168, 9, 9].into(),
        IpAddr::V6(_) => [0xfe; 16].into(),
    }
}

/// An error about `quoted` that a router sends to the client of `case`.
fn reported(case: &Case, head: Head, quoted: &[u8]) -> Vec<u8> {
    error((router(case), case.client), 250, head, quoted)
}

fn parse(bytes: &[u8]) -> Result<Option<IcmpError>, DropReason> {
    let packet = IpPacket::parse_unbounded(bytes).expect("valid");
    IcmpError::parse(ANNA, &packet)
}

fn translate(case: &Case, mut bytes: Vec<u8>) -> Vec<u8> {
    let error = parse(&bytes).expect("honest").expect("about a flow");
    assert_eq!(error.about(), case.outside);
    let length = error.rewrite(&mut bytes, &case.inside).expect("its own");
    bytes.truncate(length);
    bytes
}

/// The headers of the quoted packet up to the transport header, and the maximum quotation.
fn quotation_bounds(case: &Case) -> (usize, usize) {
    match case.client {
        IpAddr::V4(_) => (20, 576 - 28),
        IpAddr::V6(_) => (40, 1280 - 48),
    }
}

/// The forwarded types: destination unreachable, too big, time exceeded, parameter problem.
fn any_head(case: &Case, which: u8, mtu: u16) -> Head {
    let [high, low] = mtu.to_be_bytes();
    match (case.client.is_ipv4(), which % 4) {
        (true, 0) => (3, 4, [0, 0, high, low]),
        (true, 1) => (3, which % 16, [0; 4]),
        (true, 2) => (11, 0, [0; 4]),
        (true, _) => (12, 0, [high, 0, 0, 0]),
        (false, 0) => (2, 0, [0, 0, high, low]),
        (false, 1) => (1, which % 7, [0; 4]),
        (false, 2) => (3, 0, [0; 4]),
        (false, _) => (4, 1, [0, 0, high, low]),
    }
}

/// A code reserved for the gateway becomes "host unreachable" (docs/lessons.md 8).
fn without_prohibited(case: &Case, head: Head) -> Head {
    match (case.client.is_ipv4(), head) {
        (true, (3, 9 | 10 | 13, rest)) => (3, 1, rest),
        (false, (1, 1, rest)) => (1, 3, rest),
        _ => head,
    }
}

/// docs/lessons.md 8: Unresolved is "unreachable", not "prohibited".
#[test]
fn replaces_prohibited_codes_of_remote_firewalls() {
    let case = case(FlowProtocol::Tcp);
    let sent = case.request_outside(b"");
    let translated = translate(&case, reported(&case, (3, 13, [0; 4]), &sent));
    assert_eq!(translated[20..22], [3, 1]);
}

proptest! {
    /// docs/lessons.md 20: An ICMP error may carry only 8 bytes of layer 4.
    #[test]
    fn an_error_with_any_quotation_equals_one_from_the_proxy_ip(
        case in any_case(),
        payload in vec(any::<u8>(), 0..1400),
        quoted in any::<prop::sample::Index>(),
        (which, mtu) in any::<(u8, u16)>(),
    ) {
        let (offset, room) = quotation_bounds(&case);
        let sent = case.request_outside(&payload);
        let quoted = offset + 8 + quoted.index(sent.len() + 1 - offset - 8);
        // Half a checksum cannot be corrected.
        prop_assume!(case.inside.protocol != FlowProtocol::Tcp || quoted != offset + 17);
        let head = any_head(&case, which, mtu);
        let translated = translate(&case, reported(&case, head, &sent[..quoted]));

        let seen = case.request_inside(&payload);
        let in_the_name = (case.inside.proxy, case.client);
        let head = without_prohibited(&case, head);
        prop_assert_eq!(translated, error(in_the_name, 20, head, &seen[..quoted.min(room)]));
    }

    /// docs/lessons.md 20: An ICMP error may carry only 8 bytes of layer 4.
    #[test]
    fn an_error_stays_within_the_length_limit_with_correct_checksums(
        case in any_case(), payload in vec(any::<u8>(), 1300..3000),
    ) {
        let head = any_head(&case, 1, 0);
        let bytes = translate(&case, reported(&case, head, &case.request_outside(&payload)));
        let packet = IpPacket::parse(&bytes).expect("fits the tunnel");
        match case.client {
            IpAddr::V4(_) => {
                prop_assert_eq!(bytes.len(), 576);
                prop_assert_eq!(checksum(&bytes[..20]), 0);
                prop_assert_eq!(checksum(packet.segment()), 0);
            }
            IpAddr::V6(_) => {
                prop_assert_eq!(bytes.len(), 1280);
                let (from, to) = (packet.source(), packet.destination());
                prop_assert_eq!(transport_checksum(from, to, 58, packet.segment()), 0);
            }
        }
    }

    #[test]
    fn damaged_errors_never_panic_and_never_grow(
        case in any_case(),
        head in any::<(u8, u8, [u8; 4])>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        (keep, other) in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let mut quoted = case.request_outside(b"payload");
        for (place, byte) in damage {
            *place.get_mut(&mut quoted) = byte;
        }
        quoted.truncate(keep.index(quoted.len() + 1));
        let mut bytes = reported(&case, head, &quoted);
        let Ok(packet) = IpPacket::parse_unbounded(&bytes) else {
            return Ok(());
        };
        let Ok(Some(error)) = IcmpError::parse(ANNA, &packet) else {
            return Ok(());
        };
        let length = bytes.len();
        let shorter = other.index(length + 1);
        if let Ok(new) = error.rewrite(&mut bytes[..shorter], &case.inside) {
            prop_assert!(new <= shorter);
        }
        if let Ok(new) = error.rewrite(&mut bytes, &case.inside) {
            prop_assert!(new <= length);
            prop_assert!(IpPacket::parse_unbounded(&bytes[..new]).is_ok());
        }
    }
}

fn case(protocol: FlowProtocol) -> Case {
    Case {
        client: [100, 64, 0, 1].into(),
        inside: Inside {
            client: ANNA,
            protocol,
            port: 5000,
            proxy: [100, 96, 0, 1].into(),
        },
        outside: Outside {
            client: ANNA,
            protocol,
            port: 6000,
            real: [10, 20, 0, 100].into(),
        },
        service: 443,
    }
}

fn case_v6(protocol: FlowProtocol) -> Case {
    let address = |text: &str| text.parse::<IpAddr>().expect("literal");
    let v4 = case(protocol);
    let proxy = address("fd00:2021:1111:8000::1");
    let real = address("fd00:20::100");
    Case {
        client: address("fd00:2021:1111::1"),
        inside: Inside { proxy, ..v4.inside },
        outside: Outside { real, ..v4.outside },
        ..v4
    }
}

const NET: Head = (3, 0, [0; 4]);

#[test]
fn distinguishes_an_unreachable_address_from_a_closed_port() {
    use IcmpErrorKind::{AddressUnreachable, Other, PortUnreachable};
    let kinds = |case: Case, kind, codes: std::ops::RangeInclusive<u8>| {
        let sent = case.request_outside(b"");
        let kind_of = |code| {
            let bytes = reported(&case, (kind, code, [0; 4]), &sent);
            parse(&bytes).expect("honest").expect("a flow").kind()
        };
        codes.map(kind_of).collect::<Vec<_>>()
    };
    let v4 = case(FlowProtocol::Tcp);
    let unreachable = kinds(v4, 3, 0..=15);
    assert_eq!(unreachable[..2], [AddressUnreachable; 2]);
    assert_eq!(unreachable[2..4], [PortUnreachable; 2]);
    assert_eq!(unreachable[4], Other);
    assert_eq!(unreachable[5..13], [AddressUnreachable; 8]);
    assert_eq!(unreachable[13..], [Other; 3]);
    assert_eq!(kinds(v4, 11, 0..=1), [Other; 2]);
    let (address, port) = (AddressUnreachable, PortUnreachable);
    let v6 = case_v6(FlowProtocol::Udp);
    let unreachable = kinds(v6, 1, 0..=6);
    assert_eq!(
        unreachable,
        [address, Other, address, address, port, Other, address]
    );
    assert_eq!(kinds(v6, 2, 0..=0), [Other]);
}

/// docs/lessons.md 20: An ICMP error may carry only 8 bytes of layer 4.
#[test]
fn rejects_less_than_eight_bytes_of_the_transport_header() {
    for case in [case(FlowProtocol::Tcp), case_v6(FlowProtocol::Echo)] {
        let sent = case.request_outside(b"payload");
        let (offset, _) = quotation_bounds(&case);
        let head = any_head(&case, 1, 0);
        for quoted in [0, offset - 1, offset, offset + 7] {
            let refused = parse(&reported(&case, head, &sent[..quoted]));
            assert_eq!(refused, Err(DropReason::MalformedTransport));
        }
        assert!(parse(&reported(&case, head, &sent[..offset + 8])).is_ok());
    }
}

#[test]
fn removes_options_of_the_reporter_and_keeps_those_of_the_quoted_packet() {
    let case = case(FlowProtocol::Udp);
    let with_options = |mut bytes: Vec<u8>| {
        bytes.splice(20..20, [1, 1, 1, 0]);
        bytes[0] = 0x46;
        let total = u16::try_from(bytes.len()).expect("short");
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..24]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let quoted = with_options(case.request_outside(b"query"));
    let bytes = with_options(reported(&case, NET, &quoted));
    let expected = with_options(case.request_inside(b"query"));
    let in_the_name = (case.inside.proxy, case.client);
    assert_eq!(
        translate(&case, bytes),
        error(in_the_name, 20, NET, &expected)
    );
}

#[test]
fn removes_extensions_about_the_reporter() {
    let case = case(FlowProtocol::Udp);
    let mut quoted = case.request_outside(&[7; 200]);
    quoted.truncate(128);
    let seen = case.request_inside(&[7; 200]);
    let extended = [&quoted[..], &[0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9]].concat();
    let bytes = reported(&case, (11, 0, [0, 32, 0, 0]), &extended);
    let in_the_name = (case.inside.proxy, case.client);
    let expected = error(in_the_name, 20, (11, 0, [0; 4]), &seen[..128]);
    assert_eq!(translate(&case, bytes), expected);
}

#[test]
fn removes_bytes_behind_the_quoted_packet() {
    let case = case_v6(FlowProtocol::Echo);
    let quoted = [case.request_outside(b"ping"), vec![9; 30]].concat();
    let head = (1, 3, [0; 4]);
    let in_the_name = (case.inside.proxy, case.client);
    let expected = error(in_the_name, 20, head, &case.request_inside(b"ping"));
    assert_eq!(translate(&case, reported(&case, head, &quoted)), expected);
}

#[test]
fn an_error_about_an_untranslated_packet_has_no_flow() {
    let case = case(FlowProtocol::Tcp);
    let head = |quoted: &[u8]| reported(&case, NET, quoted);
    let other = packet(case.client, case.outside.real, Shape::Other(47), &[0; 20]);
    assert_eq!(parse(&head(&other)), Ok(None));
    let reply = packet(case.client, case.outside.real, Shape::EchoReply(1), b"");
    assert_eq!(parse(&head(&reply)), Ok(None));
    let stranger = packet(
        [100, 64, 0, 2].into(),
        case.outside.real,
        Shape::Udp { from: 1, to: 2 },
        b"",
    );
    assert_eq!(parse(&head(&stranger)), Ok(None));
    assert_eq!(parse(&case.request_inside(b"")), Ok(None));
}

#[test]
fn refuses_types_that_are_not_forwarded() {
    let case = case(FlowProtocol::Tcp);
    let sent = case.request_outside(b"payload");
    for kind in [4, 5] {
        let refused = parse(&reported(&case, (kind, 0, [0; 4]), &sent));
        assert_eq!(refused, Err(DropReason::Untranslatable), "type {kind}");
    }
    let mut later_fragment = sent.clone();
    later_fragment[7] = 1;
    let refused = parse(&reported(&case, NET, &later_fragment));
    assert_eq!(refused, Err(DropReason::Fragment));
    let mut wrong = reported(&case, NET, &sent);
    wrong[22] ^= 1;
    assert_eq!(parse(&wrong), Err(DropReason::MalformedTransport));
    let error = parse(&reported(&case, NET, &sent)).expect("honest");
    let error = error.expect("about a flow");
    let inside = case_v6(FlowProtocol::Tcp).inside;
    let refused = error.rewrite(&mut reported(&case, NET, &sent), &inside);
    assert_eq!(refused, Err(DropReason::Untranslatable));
}

#[test]
fn a_first_fragment_identifies_its_flow() {
    let case = case(FlowProtocol::Udp);
    let mut first = case.request_outside(b"payload");
    first[6] = 0x20;
    let error = parse(&reported(&case, NET, &first)).expect("honest");
    assert_eq!(error.map(|error| error.about()), Some(case.outside));
}
