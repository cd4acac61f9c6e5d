//! Packets for the tests of this crate, built by etherparse as an independent implementation.

use etherparse::{Icmpv4Type, Icmpv6Type, IpHeaders};
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, icmpv4, icmpv6};
use proptest::prelude::*;
use std::net::IpAddr;

/// The transport layer of a sample packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Tcp {
        from: u16,
        to: u16,
    },
    Udp {
        from: u16,
        to: u16,
    },
    EchoRequest(u16),
    EchoReply(u16),
    /// A destination unreachable message.
    IcmpError,
    /// A timestamp request (v4), a node information query (v6).
    IcmpOther,
    /// A protocol number other than TCP, UDP, ICMP and the extension headers.
    Other(u8),
}

/// A packet of `shape` from `source` to `destination`, which must be of one family.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, shape: Shape, payload: &[u8]) -> Vec<u8> {
    finish(ip(source, destination), source.is_ipv4(), shape, payload)
}

/// As [`packet`], with addresses in text form.
pub(crate) fn packet_between(source: &str, destination: &str, shape: Shape) -> Vec<u8> {
    let parse = |text: &str| text.parse().expect("an address");
    packet(parse(source), parse(destination), shape, b"payload")
}

/// As [`packet`], with the given IP headers.
pub(crate) fn packet_behind(headers: IpHeaders, shape: Shape, payload: &[u8]) -> Vec<u8> {
    let is_v4 = headers.ipv4().is_some();
    finish(PacketBuilder::ip(headers), is_v4, shape, payload)
}

fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        mixed => panic!("one family, not {mixed:?}"),
    }
}

fn finish(ip: PacketBuilderStep<IpHeaders>, is_v4: bool, shape: Shape, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match shape {
        Shape::Tcp { from, to } => ip.tcp(from, to, 7, 512).write(&mut bytes, payload),
        Shape::Udp { from, to } => ip.udp(from, to).write(&mut bytes, payload),
        Shape::Other(protocol) => ip.write(&mut bytes, IpNumber(protocol), payload),
        Shape::EchoRequest(_) | Shape::EchoReply(_) | Shape::IcmpError | Shape::IcmpOther => {
            if is_v4 {
                ip.icmpv4(icmpv4_type(shape)).write(&mut bytes, payload)
            } else {
                ip.icmpv6(icmpv6_type(shape)).write(&mut bytes, payload)
            }
        }
    }
    .expect("fits");
    bytes
}

fn icmpv4_type(shape: Shape) -> Icmpv4Type {
    let echo = |id| etherparse::IcmpEchoHeader { id, seq: 1 };
    match shape {
        Shape::EchoRequest(id) => Icmpv4Type::EchoRequest(echo(id)),
        Shape::EchoReply(id) => Icmpv4Type::EchoReply(echo(id)),
        Shape::IcmpError => Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host),
        Shape::IcmpOther | Shape::Tcp { .. } | Shape::Udp { .. } | Shape::Other(_) => {
            Icmpv4Type::Unknown {
                type_u8: 15,
                code_u8: 0,
                bytes5to8: [0; 4],
            }
        }
    }
}

fn icmpv6_type(shape: Shape) -> Icmpv6Type {
    let echo = |id| etherparse::IcmpEchoHeader { id, seq: 1 };
    match shape {
        Shape::EchoRequest(id) => Icmpv6Type::EchoRequest(echo(id)),
        Shape::EchoReply(id) => Icmpv6Type::EchoReply(echo(id)),
        Shape::IcmpError => {
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address)
        }
        Shape::IcmpOther | Shape::Tcp { .. } | Shape::Udp { .. } | Shape::Other(_) => {
            Icmpv6Type::Unknown {
                type_u8: 139,
                code_u8: 0,
                bytes5to8: [0; 4],
            }
        }
    }
}

/// Any shape, with ports drawn from `ports`.
pub(crate) fn any_shape(ports: std::ops::Range<u16>) -> impl Strategy<Value = Shape> {
    prop_oneof![
        3 => (ports.clone(), ports.clone()).prop_map(|(from, to)| Shape::Tcp { from, to }),
        3 => (ports.clone(), ports).prop_map(|(from, to)| Shape::Udp { from, to }),
        1 => any::<u16>().prop_map(Shape::EchoRequest),
        1 => any::<u16>().prop_map(Shape::EchoReply),
        1 => Just(Shape::IcmpError),
        1 => Just(Shape::IcmpOther),
        1 => prop_oneof![Just(47u8), Just(50), Just(132)].prop_map(Shape::Other),
    ]
}

/// Any two addresses of one family.
pub(crate) fn any_addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}
