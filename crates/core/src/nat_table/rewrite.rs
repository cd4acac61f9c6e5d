//! Rewrites the bytes of a packet in place: addresses, ports and every checksum that covers them.
//!
//! Checksums are corrected by difference (RFC 1624), so a wrong one stays wrong and the receiver
//! still detects it (docs/lessons.md 30). The flow table decides about the new addresses. ICMP
//! errors, which carry a second packet inside, are in [`IcmpError`].

mod icmp_error;

pub use icmp_error::{IcmpError, IcmpErrorKind};

use super::flows::{FlowProtocol, Inside, Outside};
use crate::packet::checksum::ChecksumUpdate;
use crate::packet::{DropReason, IpPacket, Transport};
use std::net::IpAddr;

/// The offsets of the translated fields, taken from an [`IpPacket`] before its bytes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    is_v4: bool,
    protocol: FlowProtocol,
    transport_offset: usize,
}

impl Layout {
    /// `None` for protocols without translation: all but TCP, UDP and ICMP echo.
    #[must_use]
    pub fn of(packet: &IpPacket<'_>) -> Option<Self> {
        let protocol = match packet.transport() {
            Transport::Tcp { .. } => FlowProtocol::Tcp,
            Transport::Udp { .. } => FlowProtocol::Udp,
            Transport::IcmpEcho { .. } => FlowProtocol::Echo,
            Transport::IcmpError | Transport::IcmpOther | Transport::Other(_) => return None,
        };
        Some(Self {
            is_v4: packet.is_v4(),
            protocol,
            transport_offset: packet.transport_offset(),
        })
    }
}

/// Rewrites a packet from a client to a proxy IP: to the real IP, from the outside port.
///
/// # Errors
///
/// The packet is unchanged: [`DropReason::Untranslatable`] if it is not of the family of `to`,
/// [`DropReason::MalformedTransport`] if `layout` does not belong to it.
pub fn inbound(packet: &mut [u8], layout: Layout, to: &Outside) -> Result<(), DropReason> {
    let change = Change {
        endpoint: Endpoint::Destination,
        address: to.real,
        port: to.port,
    };
    replace(packet, layout, change)
}

/// Rewrites a packet from a real IP: from the proxy IP, to the client's port.
///
/// # Errors
///
/// As [`inbound`].
pub fn outbound(packet: &mut [u8], layout: Layout, to: &Inside) -> Result<(), DropReason> {
    let change = Change {
        endpoint: Endpoint::Source,
        address: to.proxy,
        port: to.port,
    };
    replace(packet, layout, change)
}

/// The replaced address. The port is that of the other end, the client.
#[derive(Clone, Copy)]
enum Endpoint {
    Source,
    Destination,
}

/// The new address of an end, and the client's new port.
#[derive(Clone, Copy)]
struct Change {
    endpoint: Endpoint,
    address: IpAddr,
    port: u16,
}

/// Replaces an address and the client's port. A transport header may end after the port: a missing
/// checksum is not corrected.
fn replace(packet: &mut [u8], layout: Layout, change: Change) -> Result<(), DropReason> {
    let Change {
        endpoint,
        address,
        port,
    } = change;
    if layout.is_v4 != address.is_ipv4() {
        return Err(DropReason::Untranslatable);
    }
    let (header, segment) = packet
        .split_at_mut_checked(layout.transport_offset)
        .ok_or(DropReason::MalformedTransport)?;
    let port_offset = match (layout.protocol, endpoint) {
        (FlowProtocol::Echo, _) => 4,
        (_, Endpoint::Destination) => 0,
        (_, Endpoint::Source) => 2,
    };
    let port_field = field(segment, port_offset).ok_or(DropReason::MalformedTransport)?;
    let old_port = u16::from_be_bytes(*port_field);
    let old = replace_address(header, endpoint, address).ok_or(DropReason::MalformedTransport)?;
    *field(segment, port_offset).ok_or(DropReason::MalformedTransport)? = port.to_be_bytes();

    let of_address = ChecksumUpdate::default().replace_addr(old, address);
    if layout.is_v4 {
        correct(header, IPV4_CHECKSUM_OFFSET, |sum| of_address.apply(sum));
    }
    let of_both = of_address.replace_u16(old_port, port);
    match layout.protocol {
        FlowProtocol::Tcp => correct(segment, 16, |sum| of_both.apply(sum)),
        FlowProtocol::Udp => correct(segment, 6, |sum| of_both.apply_udp(sum)),
        FlowProtocol::Echo if layout.is_v4 => {
            // ICMP over IPv4 has no pseudo header.
            let of_port = ChecksumUpdate::default().replace_u16(old_port, port);
            correct(segment, 2, |sum| of_port.apply(sum));
        }
        FlowProtocol::Echo => correct(segment, 2, |sum| of_both.apply(sum)),
    }
    Ok(())
}

/// Writes an address into an IP header and returns the former one.
fn replace_address(header: &mut [u8], endpoint: Endpoint, address: IpAddr) -> Option<IpAddr> {
    let (v4, v6) = match endpoint {
        Endpoint::Source => (12, 8),
        Endpoint::Destination => (16, 24),
    };
    match address {
        IpAddr::V4(address) => {
            let field: &mut [u8; 4] = header.get_mut(v4..)?.first_chunk_mut()?;
            Some(std::mem::replace(field, address.octets()).into())
        }
        IpAddr::V6(address) => {
            let field: &mut [u8; 16] = header.get_mut(v6..)?.first_chunk_mut()?;
            Some(std::mem::replace(field, address.octets()).into())
        }
    }
}

fn correct(bytes: &mut [u8], offset: usize, update: impl FnOnce(u16) -> u16) {
    if let Some(sum) = field(bytes, offset) {
        *sum = update(u16::from_be_bytes(*sum)).to_be_bytes();
    }
}

fn field(bytes: &mut [u8], offset: usize) -> Option<&mut [u8; 2]> {
    bytes.get_mut(offset..)?.first_chunk_mut()
}

/// RFC 791, 3.1, in the IPv4 header.
const IPV4_CHECKSUM_OFFSET: usize = 10;

#[cfg(test)]
mod tests;
