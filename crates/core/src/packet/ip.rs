//! Inner IP packets: parsed once on arrival, then viewed without a copy.
//!
//! An [`IpPacket`] is the proof that its bytes are one whole IPv4 (RFC 791) or IPv6 (RFC 8200)
//! packet with lengths that match, no fragment, and a readable transport header. The parser also
//! refuses well-formed packets of two kinds: fragments, including atomic IPv6 fragments
//! (docs/protocol.md 5.7), and packets that name destinations other than the one that policy
//! checks: IPv4 source-route options (RFC 7126, 4.3 and 4.4) and IPv6 routing headers with segments
//! left (RFC 5095). It does not verify checksums: the receiving host does, and offloads leave them
//! unfinished.

use super::{DropReason, Ecn, TUNNEL_MTU_BYTES};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// A validated view of one IP packet; borrows the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    protocol: u8,
    transport_offset: usize,
}

/// The fields of the transport header that policy and translation use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment (RFC 9293).
    Tcp {
        /// Source port, in host byte order.
        source_port: u16,
        /// Destination port, in host byte order.
        destination_port: u16,
    },
    /// A UDP datagram (RFC 768).
    Udp {
        /// Source port, in host byte order.
        source_port: u16,
        /// Destination port, in host byte order.
        destination_port: u16,
    },
    /// An ICMP or ICMPv6 echo request or reply.
    IcmpEcho {
        /// Distinguishes the sender's echo sessions, as a port does.
        identifier: u16,
        /// True for a request, false for a reply.
        request: bool,
    },
    /// An ICMP message about another packet: the error types of RFC 1122, 3.2.2, all types
    /// below 128 of ICMPv6 (RFC 4443, 2.1), and redirects of both.
    IcmpError,
    /// Any other ICMP or ICMPv6 message.
    IcmpOther,
    /// An IP protocol number other than TCP, UDP and the ICMP of this IP version.
    Other(u8),
}

impl<'a> IpPacket<'a> {
    /// Parses `bytes` as one whole packet that fits the tunnel.
    ///
    /// # Errors
    ///
    /// * [`DropReason::OversizedIp`]: longer than [`TUNNEL_MTU_BYTES`].
    /// * [`DropReason::MalformedIp`]: not IP, a length other than that of `bytes`, malformed
    ///   options or extension headers, or more than eight of the latter; source routing.
    /// * [`DropReason::Fragment`]: a fragment.
    /// * [`DropReason::MalformedTransport`]: a truncated TCP, UDP or ICMP header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        Self::parse_within(bytes, TUNNEL_MTU_BYTES)
    }

    /// As [`Self::parse`], but accepts packets of up to 65535 bytes: a TUN queue with segmentation
    /// offload delivers them, and they are cut later.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_unbounded(bytes: &'a [u8]) -> Result<Self, DropReason> {
        Self::parse_within(bytes, usize::from(u16::MAX))
    }

    fn parse_within(bytes: &'a [u8], max_bytes: usize) -> Result<Self, DropReason> {
        if bytes.len() > max_bytes {
            return Err(DropReason::OversizedIp);
        }
        match version(bytes) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(_) | None => Err(DropReason::MalformedIp),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let header = bytes
            .first_chunk::<IPV4_HEADER_BYTES>()
            .ok_or(DropReason::MalformedIp)?;
        let header_bytes = usize::from(header[0] & 0x0f) * 4;
        let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total_bytes != bytes.len() || header_bytes < IPV4_HEADER_BYTES {
            return Err(DropReason::MalformedIp);
        }
        let segment = bytes.get(header_bytes..).ok_or(DropReason::MalformedIp)?;
        if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT_BITS != 0 {
            return Err(DropReason::Fragment);
        }
        refuse_source_route(&bytes[IPV4_HEADER_BYTES..header_bytes])?;
        let protocol = header[9];
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Self {
            bytes,
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            transport: match protocol {
                PROTOCOL_ICMP => parse_icmp(segment, &ICMPV4)?,
                _ => parse_ports(protocol, segment)?,
            },
            protocol,
            transport_offset: header_bytes,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let (header, payload) = bytes
            .split_first_chunk::<IPV6_HEADER_BYTES>()
            .ok_or(DropReason::MalformedIp)?;
        if usize::from(u16::from_be_bytes([header[4], header[5]])) != payload.len() {
            return Err(DropReason::MalformedIp);
        }
        let (protocol, segment) = skip_extension_headers(header[6], payload)?;
        let (_, addresses) = header.split_at(8);
        let (source, destination) = addresses.split_at(16);
        Ok(Self {
            bytes,
            source: ipv6(source),
            destination: ipv6(destination),
            transport: match protocol {
                PROTOCOL_ICMPV6 => parse_icmp(segment, &ICMPV6)?,
                _ => parse_ports(protocol, segment)?,
            },
            protocol,
            transport_offset: bytes.len() - segment.len(),
        })
    }

    /// The source address of the IP header.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// The destination address of the IP header.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The IP protocol number of the transport header, behind any IPv6 extension headers.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The parsed transport header.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The ECN field (RFC 3168, 5).
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        ecn(self.bytes).unwrap_or_default()
    }

    /// All bytes of the packet, IP header first.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the transport header starts, in bytes from the start of the packet.
    #[must_use]
    pub fn transport_offset(&self) -> usize {
        self.transport_offset
    }

    /// The transport header and its payload.
    #[must_use]
    pub fn segment(&self) -> &'a [u8] {
        self.bytes.get(self.transport_offset..).unwrap_or_default()
    }

    /// Whether it is IPv4; else it is IPv6.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }
}

impl fmt::Debug for IpPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpPacket")
            .field("source", &self.source)
            .field("destination", &self.destination)
            .field("transport", &self.transport)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The destination address of a possibly truncated IP packet; `None` if it is not IP.
#[must_use]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match version(packet)? {
        4 => packet
            .get(16..20)?
            .first_chunk::<4>()
            .map(|octets| IpAddr::from(*octets)),
        6 => packet
            .get(24..40)?
            .first_chunk::<16>()
            .map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// The ECN field of a possibly truncated IP packet; `None` if it is not IP.
#[must_use]
pub fn ecn(packet: &[u8]) -> Option<Ecn> {
    let second = *packet.get(1)?;
    match version(packet)? {
        4 => Some(Ecn::from_bits(second)),
        6 => Some(Ecn::from_bits(second >> 4)),
        _ => None,
    }
}

fn version(bytes: &[u8]) -> Option<u8> {
    bytes.first().map(|first| first >> 4)
}

fn ipv6(bytes: &[u8]) -> IpAddr {
    let octets = bytes.first_chunk::<16>().copied().unwrap_or_default();
    Ipv6Addr::from(octets).into()
}

/// Refuses IPv4 options that carry a source route, which would lead the packet to addresses that no
/// rule has checked, and malformed option lists, which could hide one.
fn refuse_source_route(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        options = match *kind {
            OPTION_END => return Ok(()),
            OPTION_NOP => rest,
            OPTION_LOOSE_ROUTE | OPTION_STRICT_ROUTE => return Err(DropReason::MalformedIp),
            _ => {
                let bytes = rest.first().map_or(0, |length| usize::from(*length));
                if bytes < 2 {
                    return Err(DropReason::MalformedIp);
                }
                options.get(bytes..).ok_or(DropReason::MalformedIp)?
            }
        };
    }
    Ok(())
}

/// Skips the extension headers of an IPv6 packet: returns the first protocol number that is not an
/// extension header, and the bytes of that header and its payload. `payload` is everything after
/// the fixed header.
pub(super) fn skip_extension_headers(
    first_protocol: u8,
    payload: &[u8],
) -> Result<(u8, &[u8]), DropReason> {
    let mut protocol = first_protocol;
    let mut rest = payload;
    for place in 0..=IPV6_EXTENSION_HEADERS_MAX {
        match protocol {
            EXTENSION_FRAGMENT => return Err(DropReason::Fragment),
            // RFC 8200, 4.1: only directly after the IPv6 header.
            EXTENSION_HOP_BY_HOP if place > 0 => return Err(DropReason::MalformedIp),
            EXTENSION_HOP_BY_HOP | EXTENSION_ROUTING | EXTENSION_DESTINATION => {}
            // An authentication header ends the walk: its payload cannot be translated, and no
            // filter names it.
            _ => return Ok((protocol, rest)),
        }
        let [next, eights, _, segments_left, ..] = *rest else {
            return Err(DropReason::MalformedIp);
        };
        if protocol == EXTENSION_ROUTING && segments_left != 0 {
            return Err(DropReason::MalformedIp);
        }
        rest = rest
            .get((usize::from(eights) + 1) * 8..)
            .ok_or(DropReason::MalformedIp)?;
        protocol = next;
    }
    Err(DropReason::MalformedIp)
}

fn parse_ports(protocol: u8, segment: &[u8]) -> Result<Transport, DropReason> {
    match protocol {
        PROTOCOL_TCP => {
            let header = segment
                .first_chunk::<20>()
                .ok_or(DropReason::MalformedTransport)?;
            let header_bytes = usize::from(header[12] >> 4) * 4;
            if header_bytes < header.len() || header_bytes > segment.len() {
                return Err(DropReason::MalformedTransport);
            }
            Ok(Transport::Tcp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
            })
        }
        PROTOCOL_UDP => {
            let header = segment
                .first_chunk::<8>()
                .ok_or(DropReason::MalformedTransport)?;
            let datagram_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if datagram_bytes < header.len() || datagram_bytes > segment.len() {
                return Err(DropReason::MalformedTransport);
            }
            Ok(Transport::Udp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
            })
        }
        other => Ok(Transport::Other(other)),
    }
}

/// The type numbers that differ between ICMP and ICMPv6.
struct IcmpTypes {
    echo_request: u8,
    echo_reply: u8,
    is_error: fn(u8) -> bool,
}

const ICMPV4: IcmpTypes = IcmpTypes {
    echo_request: 8,
    echo_reply: 0,
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    is_error: |kind| matches!(kind, 3 | 4 | 5 | 11 | 12),
};

const ICMPV6: IcmpTypes = IcmpTypes {
    echo_request: 128,
    echo_reply: 129,
    // RFC 4443, 2.1: errors have a zero high bit; 137 is a redirect (RFC 4861).
    is_error: |kind| kind < 128 || kind == 137,
};

fn parse_icmp(segment: &[u8], types: &IcmpTypes) -> Result<Transport, DropReason> {
    let header = segment
        .first_chunk::<8>()
        .ok_or(DropReason::MalformedTransport)?;
    let kind = header[0];
    if kind == types.echo_request || kind == types.echo_reply {
        return Ok(Transport::IcmpEcho {
            identifier: u16::from_be_bytes([header[4], header[5]]),
            request: kind == types.echo_request,
        });
    }
    if (types.is_error)(kind) {
        return Ok(Transport::IcmpError);
    }
    Ok(Transport::IcmpOther)
}

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_HEADER_BYTES: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub(crate) const IPV6_HEADER_BYTES: usize = 40;
/// "More fragments" and the fragment offset (RFC 791, 3.1).
const IPV4_FRAGMENT_BITS: u16 = 0x3fff;
/// More extension headers than a legitimate packet carries; RFC 8200, 4.1 lists seven.
const IPV6_EXTENSION_HEADERS_MAX: usize = 8;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_ROUTE: u8 = 131;
const OPTION_STRICT_ROUTE: u8 = 137;

const EXTENSION_HOP_BY_HOP: u8 = 0;
const EXTENSION_ROUTING: u8 = 43;
const EXTENSION_FRAGMENT: u8 = 44;
const EXTENSION_DESTINATION: u8 = 60;

#[cfg(test)]
mod tests;
