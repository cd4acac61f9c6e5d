//! ICMP errors that the gateway sends down the tunnel about packets it refuses.
//!
//! There are two kinds, with the types, codes and lengths of docs/protocol.md 5.6. The gateway
//! never answers an ICMP error, or a packet from or to an address that does not denote one host
//! (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)): it drops such packets silently.

use super::checksum::{checksum, transport_checksum};
use super::ip::{self, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES};
use super::{IpPacket, TUNNEL_MTU_BYTES, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The two errors that the gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpReply {
    /// The policy forbids it: ICMP type 3 code 13 (RFC 1812), ICMPv6 type 1 code 1. Clients read it
    /// as "ask for access again" (docs/lessons.md 8).
    Prohibited,
    /// Permitted, but unreachable: ICMP type 3 code 0, ICMPv6 type 1 code 3 (address unreachable).
    NetworkUnreachable,
}

/// Builds the error about `packet`, from its destination to its source.
///
/// At most 96 bytes for IPv4 and 1280 for IPv6. `None` if the packet must not be answered.
#[must_use]
pub fn reply_to(packet: &IpPacket<'_>, reply: IcmpReply) -> Option<Vec<u8>> {
    if packet.transport() == Transport::IcmpError {
        return None;
    }
    match (packet.source(), packet.destination()) {
        (IpAddr::V4(client), IpAddr::V4(target)) => {
            let answerable = is_one_host_v4(client) && can_send_errors_v4(target);
            answerable.then(|| reply_v4(packet, reply, client, target))
        }
        (IpAddr::V6(client), IpAddr::V6(target)) => {
            let answerable = is_one_host_v6(client) && is_one_host_v6(target);
            answerable.then(|| reply_v6(packet, reply, client, target))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn reply_v4(
    offending: &IpPacket<'_>,
    reply: IcmpReply,
    client: Ipv4Addr,
    target: Ipv4Addr,
) -> Vec<u8> {
    let code = match reply {
        IcmpReply::Prohibited => 13,
        IcmpReply::NetworkUnreachable => 0,
    };
    let quoted_bytes = offending.transport_offset() + IPV4_QUOTED_TRANSPORT_BYTES;
    let message = error_message(ICMPV4_UNREACHABLE, code, offending, quoted_bytes);

    let mut packet = Vec::with_capacity(IPV4_HEADER_BYTES + message.len());
    packet.extend(header_v4(target, client, message.len()));

    let message_sum = checksum(&message);
    packet.extend(message);
    write_message_sum(&mut packet, IPV4_HEADER_BYTES, message_sum);
    packet
}

fn reply_v6(
    offending: &IpPacket<'_>,
    reply: IcmpReply,
    client: Ipv6Addr,
    target: Ipv6Addr,
) -> Vec<u8> {
    let code = match reply {
        IcmpReply::Prohibited => 1,
        IcmpReply::NetworkUnreachable => 3,
    };
    let quoted_bytes = TUNNEL_MTU_BYTES - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES;
    let message = error_message(ICMPV6_UNREACHABLE, code, offending, quoted_bytes);

    let mut packet = Vec::with_capacity(IPV6_HEADER_BYTES + message.len());
    packet.extend(header_v6(target, client, message.len()));

    let (source, destination) = (target.into(), client.into());
    let message_sum = transport_checksum(source, destination, ip::PROTOCOL_ICMPV6, &message);
    packet.extend(message);
    write_message_sum(&mut packet, IPV6_HEADER_BYTES, message_sum);
    packet
}

/// The IPv4 header of an ICMP error of `message_bytes` bytes.
pub(crate) fn header_v4(
    source: Ipv4Addr,
    client: Ipv4Addr,
    message_bytes: usize,
) -> [u8; IPV4_HEADER_BYTES] {
    let mut header = [0; IPV4_HEADER_BYTES];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length_u16(IPV4_HEADER_BYTES + message_bytes));
    // Identification 0 and "don't fragment": an atomic datagram (RFC 6864, 4.1).
    header[6] = 0x40;
    header[8] = REPLY_TTL;
    header[9] = ip::PROTOCOL_ICMP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&client.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The IPv6 header of an ICMPv6 error of `message_bytes` bytes.
pub(crate) fn header_v6(
    source: Ipv6Addr,
    client: Ipv6Addr,
    message_bytes: usize,
) -> [u8; IPV6_HEADER_BYTES] {
    let mut header = [0; IPV6_HEADER_BYTES];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length_u16(message_bytes));
    header[6] = ip::PROTOCOL_ICMPV6;
    header[7] = REPLY_TTL;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&client.octets());
    header
}

/// An ICMP error without its checksum: type, code, four unused bytes, and the start of the
/// offending packet.
fn error_message(kind: u8, code: u8, offending: &IpPacket<'_>, quoted_bytes: usize) -> Vec<u8> {
    let bytes = offending.bytes();
    let quoted = bytes.get(..quoted_bytes).unwrap_or(bytes);
    let mut message = Vec::with_capacity(ICMP_HEADER_BYTES + quoted.len());
    message.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    message.extend(quoted);
    message
}

fn write_message_sum(packet: &mut [u8], message_offset: usize, sum: u16) {
    packet[message_offset + 2..message_offset + 4].copy_from_slice(&sum.to_be_bytes());
}

fn length_u16(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("a reply is never longer than the tunnel's MTU")
        .to_be_bytes()
}

/// RFC 1122, 3.2.2: not zero, loopback, broadcast, multicast or class E.
fn is_one_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !matches!(first, 0 | 127 | 224..)
}

/// Whether an error may carry this source address. Less strict than [`is_one_host_v4`]: packets to
/// an address that an Internet resource refuses, such as loopback, are answered
/// (docs/protocol.md 5.2, step 7).
fn can_send_errors_v4(address: Ipv4Addr) -> bool {
    !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
}

fn is_one_host_v6(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}

/// Hop limit of a reply: the client is one hop away, hosts behind it a few more.
const REPLY_TTL: u8 = 20;
/// Destination unreachable (RFC 792).
const ICMPV4_UNREACHABLE: u8 = 3;
/// Destination unreachable (RFC 4443, 3.1).
const ICMPV6_UNREACHABLE: u8 = 1;
/// The bytes beyond the IP header that RFC 792 guarantees in a quotation (docs/lessons.md 20).
const IPV4_QUOTED_TRANSPORT_BYTES: usize = 8;
const ICMP_HEADER_BYTES: usize = 8;

#[cfg(test)]
mod tests;
