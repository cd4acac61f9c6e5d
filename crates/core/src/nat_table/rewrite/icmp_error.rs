//! ICMP errors about translated packets: parsed, matched to a flow by the caller, and rewritten
//! both outside and in the quoted packet.
//!
//! A quoted packet is one that a client sent, after its translation: from the client's tunnel
//! address and the outside port to the real IP. Only eight bytes of its transport header are
//! guaranteed (RFC 792), so only those are required (docs/lessons.md 20). Destination unreachable,
//! time exceeded and parameter problem (RFC 5508, 4), and packet too big are translated. Redirects
//! and the deprecated source quench (RFC 6633) are refused: they are for hosts on the same link.

use super::{Change, Endpoint, Layout, replace};
use crate::nat_table::ClientSlot;
use crate::nat_table::flows::{FlowProtocol, Inside, Outside};
use crate::packet::checksum::{checksum, transport_checksum};
use crate::packet::{DropReason, IpPacket, Transport, icmp, ip};
use crate::replies::{Refusal, RefusalKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An ICMP error from a resource or a router on the path, about a packet that a client may have
/// sent to a proxy IP. Its checksum was correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    about: Outside,
    kind: IcmpErrorKind,
    client: IpAddr,
    message_offset: usize,
    /// How much of the quoted packet may be forwarded.
    quoted_bytes: usize,
    quoted: Layout,
    /// The offset of the length field of RFC 4884 in the message, where its type has one.
    length_offset: Option<usize>,
}

/// The statement of an ICMP error about the tried address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// The address is unreachable: another address of the name may work.
    AddressUnreachable,
    /// The address is reachable, but the port is closed.
    PortUnreachable,
    /// Another problem: too big, too far, forbidden on the path.
    Other,
}

impl From<IcmpErrorKind> for Refusal {
    fn from(kind: IcmpErrorKind) -> Self {
        let how = match kind {
            IcmpErrorKind::AddressUnreachable => RefusalKind::AddressUnreachable,
            IcmpErrorKind::PortUnreachable => RefusalKind::PortUnreachable,
            IcmpErrorKind::Other => RefusalKind::Other,
        };
        Self { how, port: None }
    }
}

impl IcmpError {
    /// Parses an error that is addressed to `client`. `None` if it is no ICMP error, or not about a
    /// packet that can have been translated: such packets do not concern the flow table.
    ///
    /// # Errors
    ///
    /// * [`DropReason::MalformedTransport`]: its checksum is wrong (RFC 5508, REQ-3), or too little
    ///   is quoted.
    /// * [`DropReason::Fragment`]: the quoted packet is a later fragment, which names no flow.
    /// * [`DropReason::Untranslatable`]: a type that is not translated.
    pub fn parse(client: ClientSlot, packet: &IpPacket<'_>) -> Result<Option<Self>, DropReason> {
        if packet.transport() != Transport::IcmpError {
            return Ok(None);
        }
        require_checksum(packet)?;
        let Some((header, quotation)) = packet.segment().split_first_chunk::<MESSAGE_BYTES>()
        else {
            return Err(DropReason::MalformedTransport);
        };
        let (length_offset, length_unit) = match (packet.is_v4(), header[0]) {
            (true, 3 | 11 | 12) => (Some(5), 4),
            (false, 1 | 3) => (Some(4), 8),
            (false, 2 | 4) => (None, 0),
            _ => return Err(DropReason::Untranslatable),
        };
        let quoted = match packet.is_v4() {
            true => Quoted::parse_v4(quotation)?,
            false => Quoted::parse_v6(quotation)?,
        };
        let Some((protocol, port)) = quoted.flow(quotation)? else {
            return Ok(None);
        };
        if quoted.source != packet.destination() {
            return Ok(None);
        }
        let length = length_offset.map_or(0, |at| usize::from(header[at]) * length_unit);
        Ok(Some(Self {
            about: Outside {
                client,
                protocol,
                port,
                real: quoted.destination,
            },
            kind: kind_of(packet.is_v4(), header[0], header[1]),
            client: quoted.source,
            message_offset: packet.transport_offset(),
            quoted_bytes: quoted.bytes_to_keep(quotation.len(), length),
            quoted: Layout {
                is_v4: packet.is_v4(),
                protocol,
                transport_offset: quoted.transport_offset,
            },
            length_offset,
        }))
    }

    /// The flow it is about, if there is such a flow.
    #[must_use]
    pub fn about(&self) -> Outside {
        self.about
    }

    /// What it reports about the real IP.
    #[must_use]
    pub fn kind(&self) -> IcmpErrorKind {
        self.kind
    }

    /// Rewrites `packet`, which this was parsed from, into an error about the packet that the
    /// client sent, from the proxy IP: the reporter stays hidden. Returns the new length, which is
    /// never more than the old; cut off the rest.
    ///
    /// Type, pointer and MTU are kept, and all codes except those for "prohibited". The quotation
    /// is cut to fit 576 bytes (RFC 1812, 4.3.2.3), or 1280 for IPv6 (RFC 4443, 2.4 (c)), and
    /// extensions (RFC 4884), which describe the reporter, are removed.
    ///
    /// # Errors
    ///
    /// [`DropReason::Untranslatable`] if `inside` is not of its family,
    /// [`DropReason::MalformedTransport`] if this was not parsed from `packet`.
    pub fn rewrite(&self, packet: &mut [u8], inside: &Inside) -> Result<usize, DropReason> {
        let message_bytes = MESSAGE_BYTES + self.quoted_bytes;
        let message_end = self.message_offset + message_bytes;
        let message = packet
            .get_mut(self.message_offset..message_end)
            .ok_or(DropReason::MalformedTransport)?;
        let (header, quotation) = message.split_at_mut(MESSAGE_BYTES);
        let change = Change {
            endpoint: Endpoint::Destination,
            address: inside.proxy,
            port: inside.port,
        };
        replace(quotation, self.quoted, change)?;
        header[CHECKSUM].fill(0);
        if let Some(code) = plain_code(inside.proxy.is_ipv4(), header[0], header[1]) {
            header[1] = code;
        }
        if let Some(at) = self.length_offset {
            header[at] = 0;
        }
        match (inside.proxy, self.client) {
            (IpAddr::V4(proxy), IpAddr::V4(client)) => {
                let sum = checksum(message);
                message[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
                let header = icmp::header_v4(proxy, client, message_bytes);
                put_before(packet, &header, self.message_offset..message_end)
            }
            (IpAddr::V6(proxy), IpAddr::V6(client)) => {
                let (source, destination) = (inside.proxy, self.client);
                let sum = transport_checksum(source, destination, ip::PROTOCOL_ICMPV6, message);
                message[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
                let header = icmp::header_v6(proxy, client, message_bytes);
                put_before(packet, &header, self.message_offset..message_end)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(DropReason::Untranslatable)
            }
        }
    }
}

/// The replacement of a code that says "prohibited" on the path: clients would take it for the
/// gateway's own and request access again (docs/lessons.md 8).
fn plain_code(is_v4: bool, kind: u8, code: u8) -> Option<u8> {
    match (is_v4, kind, code) {
        // Network, host and communication prohibited: host unreachable (RFC 1812, 5.2.7.1).
        (true, 3, 9 | 10 | 13) => Some(1),
        // Administratively prohibited: address unreachable (RFC 4443, 3.1).
        (false, 1, 1) => Some(3),
        _ => None,
    }
}

/// Moves the message directly behind a plain header, over the options or extension headers between
/// them.
fn put_before(
    packet: &mut [u8],
    header: &[u8],
    message: std::ops::Range<usize>,
) -> Result<usize, DropReason> {
    if message.start < header.len() {
        return Err(DropReason::MalformedTransport);
    }
    let length = header.len() + message.len();
    packet.copy_within(message, header.len());
    packet[..header.len()].copy_from_slice(header);
    Ok(length)
}

/// The checksum is recomputed for the forwarded error, which would repair a wrong one.
fn require_checksum(packet: &IpPacket<'_>) -> Result<(), DropReason> {
    let (source, destination) = (packet.source(), packet.destination());
    let rest = match packet.is_v4() {
        true => checksum(packet.segment()),
        false => transport_checksum(source, destination, packet.protocol(), packet.segment()),
    };
    match rest {
        0 => Ok(()),
        _ => Err(DropReason::MalformedTransport),
    }
}

fn kind_of(is_v4: bool, kind: u8, code: u8) -> IcmpErrorKind {
    match (is_v4, kind, code) {
        // Network or host: unreachable, unknown, isolated, prohibited, not for this service, or no
        // source route (RFC 1122, 3.2.2.1).
        (true, 3, 0 | 1 | 5..=12) => IcmpErrorKind::AddressUnreachable,
        // Protocol, port.
        (true, 3, 2 | 3) => IcmpErrorKind::PortUnreachable,
        // No route, beyond scope, address unreachable, reject route (RFC 4443, 3.1).
        (false, 1, 0 | 2 | 3 | 6) => IcmpErrorKind::AddressUnreachable,
        (false, 1, 4) => IcmpErrorKind::PortUnreachable,
        _ => IcmpErrorKind::Other,
    }
}

/// The start of a packet inside an ICMP error.
struct Quoted {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport_offset: usize,
    declared_bytes: usize,
}

impl Quoted {
    fn parse_v4(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = bytes
            .first_chunk::<20>()
            .ok_or(DropReason::MalformedTransport)?;
        let header_bytes = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_bytes < header.len() {
            return Err(DropReason::MalformedTransport);
        }
        // The first fragment has the ports; later routers may fragment.
        if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT_OFFSET_BITS != 0 {
            return Err(DropReason::Fragment);
        }
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol: header[9],
            transport_offset: header_bytes,
            declared_bytes: usize::from(u16::from_be_bytes([header[2], header[3]])),
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, DropReason> {
        let header = bytes
            .first_chunk::<40>()
            .ok_or(DropReason::MalformedTransport)?;
        if header[0] >> 4 != 6 {
            return Err(DropReason::MalformedTransport);
        }
        let (_, addresses) = header.split_at(8);
        let (source, destination) = addresses.split_at(16);
        let address = |octets: &[u8]| octets.first_chunk::<16>().copied().unwrap_or_default();
        let (protocol, transport_offset) = skip_extension_headers(header[6], bytes)?;
        Ok(Self {
            source: Ipv6Addr::from(address(source)).into(),
            destination: Ipv6Addr::from(address(destination)).into(),
            protocol,
            transport_offset,
            declared_bytes: 40 + usize::from(u16::from_be_bytes([header[4], header[5]])),
        })
    }

    /// The outside protocol and port; `None` for packets that are never translated.
    fn flow(&self, bytes: &[u8]) -> Result<Option<(FlowProtocol, u16)>, DropReason> {
        let transport = bytes
            .get(self.transport_offset..)
            .and_then(|bytes| bytes.first_chunk::<PROMISED_BYTES>())
            .ok_or(DropReason::MalformedTransport)?;
        let [kind, _, _, _, id_high, id_low, ..] = *transport;
        let port = u16::from_be_bytes([transport[0], transport[1]]);
        let identifier = u16::from_be_bytes([id_high, id_low]);
        Ok(match (self.protocol, self.source.is_ipv4(), kind) {
            (ip::PROTOCOL_TCP, _, _) => Some((FlowProtocol::Tcp, port)),
            (ip::PROTOCOL_UDP, _, _) => Some((FlowProtocol::Udp, port)),
            (ip::PROTOCOL_ICMP, true, ICMPV4_ECHO_REQUEST)
            | (ip::PROTOCOL_ICMPV6, false, ICMPV6_ECHO_REQUEST) => {
                Some((FlowProtocol::Echo, identifier))
            }
            _ => None,
        })
    }

    /// How much of `available` quoted bytes is forwarded, if the length field of RFC 4884 says that
    /// the quotation ends after `length` bytes.
    fn bytes_to_keep(&self, available: usize, length: usize) -> usize {
        let room = match self.source {
            IpAddr::V4(_) => IPV4_ERROR_BYTES_MAX - 20 - MESSAGE_BYTES,
            IpAddr::V6(_) => IPV6_ERROR_BYTES_MAX - 40 - MESSAGE_BYTES,
        };
        // Shorter quotations have no extensions behind them (RFC 4884, 4), so the byte has no
        // meaning there.
        let quotation = match length {
            EXTENDED_QUOTATION_BYTES_MIN.. => length,
            _ => available,
        };
        // Some hosts quote a wrong length: it must not cost the ports.
        let promised = self.transport_offset + PROMISED_BYTES;
        let declared = self.declared_bytes.max(promised);
        available.min(room).min(quotation).min(declared)
    }
}

/// The transport protocol of a quoted IPv6 packet and its offset.
fn skip_extension_headers(first: u8, bytes: &[u8]) -> Result<(u8, usize), DropReason> {
    let (mut protocol, mut offset) = (first, 40);
    for _ in 0..=EXTENSION_HEADERS_MAX {
        match protocol {
            EXTENSION_FRAGMENT => return Err(DropReason::Fragment),
            EXTENSION_HOP_BY_HOP | EXTENSION_ROUTING | EXTENSION_DESTINATION => {}
            _ => return Ok((protocol, offset)),
        }
        let header = bytes
            .get(offset..)
            .and_then(|bytes| bytes.first_chunk::<2>())
            .ok_or(DropReason::MalformedTransport)?;
        protocol = header[0];
        offset += (usize::from(header[1]) + 1) * 8;
    }
    Err(DropReason::MalformedTransport)
}

/// Type, code, checksum and four bytes that depend on the type.
const MESSAGE_BYTES: usize = 8;
const CHECKSUM: std::ops::Range<usize> = 2..4;
/// Of the transport header of the quoted packet (RFC 792).
const PROMISED_BYTES: usize = 8;
/// RFC 1812, 4.3.2.3, in bytes.
const IPV4_ERROR_BYTES_MAX: usize = 576;
/// RFC 4443, 2.4 (c), in bytes.
const IPV6_ERROR_BYTES_MAX: usize = 1280;
/// RFC 4884, 4: the minimum padding of a quotation before extensions.
const EXTENDED_QUOTATION_BYTES_MIN: usize = 128;
/// More than any legitimate packet carries, as in `IpPacket`.
const EXTENSION_HEADERS_MAX: usize = 8;
const IPV4_FRAGMENT_OFFSET_BITS: u16 = 0x1fff;
const ICMPV4_ECHO_REQUEST: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const EXTENSION_HOP_BY_HOP: u8 = 0;
const EXTENSION_ROUTING: u8 = 43;
const EXTENSION_FRAGMENT: u8 = 44;
const EXTENSION_DESTINATION: u8 = 60;
