//! Every rewritten packet against one that etherparse builds with the new addresses and ports:
//! equal in every byte, so the corrected checksums are those of a full sum (docs/lessons.md 30).

mod icmp_errors;

use super::*;
use crate::nat_table::ClientSlot;
use crate::packet::samples::{Shape, packet};
use proptest::collection::vec;
use proptest::prelude::*;

const ANNA: ClientSlot = ClientSlot(4);

/// A flow, with any addresses and ports.
#[derive(Clone, Copy, Debug)]
struct Case {
    client: IpAddr,
    inside: Inside,
    outside: Outside,
    service: u16,
}

impl Case {
    fn request(&self, address: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (port, self.service);
        let shape = match self.inside.protocol {
            FlowProtocol::Tcp => Shape::Tcp { from, to },
            FlowProtocol::Udp => Shape::Udp { from, to },
            FlowProtocol::Echo => Shape::EchoRequest(port),
        };
        packet(self.client, address, shape, payload)
    }

    fn answer(&self, address: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.service, port);
        let shape = match self.inside.protocol {
            FlowProtocol::Tcp => Shape::Tcp { from, to },
            FlowProtocol::Udp => Shape::Udp { from, to },
            FlowProtocol::Echo => Shape::EchoReply(port),
        };
        packet(address, self.client, shape, payload)
    }

    /// The request as the client sends it.
    fn request_inside(&self, payload: &[u8]) -> Vec<u8> {
        self.request(self.inside.proxy, self.inside.port, payload)
    }

    /// The request as the resource receives it.
    fn request_outside(&self, payload: &[u8]) -> Vec<u8> {
        self.request(self.outside.real, self.outside.port, payload)
    }
}

fn any_protocol() -> impl Strategy<Value = FlowProtocol> {
    prop_oneof![
        Just(FlowProtocol::Tcp),
        Just(FlowProtocol::Udp),
        Just(FlowProtocol::Echo)
    ]
}

fn any_case() -> impl Strategy<Value = Case> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 3]>().prop_map(|it| it.map(IpAddr::from)),
        any::<[[u8; 16]; 3]>().prop_map(|it| it.map(IpAddr::from)),
    ];
    (addresses, any_protocol(), any::<[u16; 3]>()).prop_map(
        |([address, proxy, real], protocol, [port, outside_port, service])| Case {
            client: address,
            inside: Inside {
                client: ANNA,
                protocol,
                port,
                proxy,
            },
            outside: Outside {
                client: ANNA,
                protocol,
                port: outside_port,
                real,
            },
            service,
        },
    )
}

fn layout(bytes: &[u8]) -> Layout {
    let packet = IpPacket::parse(bytes).expect("valid");
    Layout::of(&packet).expect("translatable")
}

proptest! {
    /// docs/lessons.md 30: Incremental checksums are tested against full ones.
    #[test]
    fn inbound_packets_equal_freshly_built_ones(
        case in any_case(), payload in vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = case.request_inside(&payload);
        let parsed = IpPacket::parse(&bytes).expect("valid");
        prop_assert_eq!(Inside::of(ANNA, &parsed), Ok(case.inside));
        let layout = layout(&bytes);
        inbound(&mut bytes, layout, &case.outside).expect("one family");
        prop_assert_eq!(bytes, case.request_outside(&payload));
    }

    /// docs/lessons.md 30: Incremental checksums are tested against full ones.
    #[test]
    fn outbound_packets_equal_freshly_built_ones(
        case in any_case(), payload in vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = case.answer(case.outside.real, case.outside.port, &payload);
        let parsed = IpPacket::parse(&bytes).expect("valid");
        prop_assert_eq!(Outside::of(ANNA, &parsed), Some(case.outside));
        let layout = layout(&bytes);
        outbound(&mut bytes, layout, &case.inside).expect("one family");
        prop_assert_eq!(bytes, case.answer(case.inside.proxy, case.inside.port, &payload));
    }

    #[test]
    fn both_translations_are_inverse_even_with_a_wrong_checksum(
        case in any_case(),
        payload in vec(any::<u8>(), 0..100),
        damage in 1u8..255,
    ) {
        let mut bytes = case.request_inside(&payload);
        if let Some(last) = bytes.last_mut().filter(|_| !payload.is_empty()) {
            *last ^= damage;
        }
        let before = bytes.clone();
        let layout = layout(&bytes);
        inbound(&mut bytes, layout, &case.outside).expect("one family");
        // The inverse of a translation of the destination is another one of the destination.
        let back = Outside {
            port: case.inside.port,
            real: case.inside.proxy,
            ..case.outside
        };
        inbound(&mut bytes, layout, &back).expect("one family");
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_zero(case in any_case(), payload in vec(any::<u8>(), 0..40)) {
        let protocol = FlowProtocol::Udp;
        let case = Case { inside: Inside { protocol, ..case.inside }, ..case };
        let mut bytes = case.request_inside(&payload);
        let layout = layout(&bytes);
        let sum = layout.transport_offset + 6;
        bytes[sum..sum + 2].fill(0);
        inbound(&mut bytes, layout, &case.outside).expect("one family");
        prop_assert_eq!(&bytes[sum..sum + 2], &[0, 0]);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_stay_unchanged_when_refused(
        case in any_case(), mut bytes in vec(any::<u8>(), 0..80), offset in 0usize..90,
    ) {
        let before = bytes.clone();
        let layout = Layout {
            is_v4: case.client.is_ipv4(),
            protocol: case.inside.protocol,
            transport_offset: offset,
        };
        if inbound(&mut bytes, layout, &case.outside).is_err() {
            prop_assert_eq!(&bytes, &before);
        }
        let _ = outbound(&mut bytes, layout, &case.inside);
        prop_assert_eq!(bytes.len(), before.len());
    }
}

#[test]
fn skips_options_and_extension_headers() {
    let destination_options = [17, 0, 1, 4, 0, 0, 0, 0];
    let udp = [0x13, 0x88, 0, 53, 0, 8, 0, 0];
    let mut bytes = vec![0x60, 0, 0, 0, 0, 16, 60, 64];
    bytes.extend([0xfd; 32]);
    bytes.extend(destination_options);
    bytes.extend(udp);
    let outside = Outside {
        client: ANNA,
        protocol: FlowProtocol::Udp,
        port: 6000,
        real: [0x20; 16].into(),
    };
    let layout = layout(&bytes);
    inbound(&mut bytes, layout, &outside).expect("one family");
    assert_eq!(bytes[24..40], [0x20; 16]);
    assert_eq!(bytes[40..48], destination_options);
    assert_eq!(bytes[48..50], 6000u16.to_be_bytes());
}

#[test]
fn a_packet_of_the_other_family_is_refused_unchanged() {
    let (client, proxy) = ([100, 64, 0, 1].into(), [100, 96, 0, 1].into());
    let mut bytes = packet(client, proxy, Shape::Udp { from: 1, to: 2 }, b"query");
    let before = bytes.clone();
    let outside = Outside {
        client: ANNA,
        protocol: FlowProtocol::Udp,
        port: 1,
        real: [0x20; 16].into(),
    };
    let refused = inbound(&mut bytes, layout(&before), &outside);
    assert_eq!(refused, Err(DropReason::Untranslatable));
    assert_eq!(bytes, before);
}

#[test]
fn only_tcp_udp_and_echo_have_a_layout() {
    let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    for shape in [Shape::IcmpError, Shape::IcmpOther, Shape::Other(47)] {
        let bytes = packet(from, to, shape, b"12345678");
        let packet = IpPacket::parse(&bytes).expect("valid");
        assert_eq!(Layout::of(&packet), None);
    }
}
