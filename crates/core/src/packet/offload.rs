//! Segmentation offload: super-packets, and the header that the kernel puts before each packet of a
//! TUN queue.
//!
//! A *super-packet* is one IP packet of up to 64 KiB with the payload of many: consecutive TCP
//! segments, or UDP datagrams of one flow. The kernel delivers and accepts them (virtio 1.2, 5.1.6;
//! `VIRTIO_NET_HDR_GSO_TCPV4`, `_TCPV6` and `_UDP_L4`), so that policy and translation process one
//! header instead of fifty. Code that needs single packets cuts them.
//!
//! The transport checksum of a super-packet has no meaning: it is computed when the packet is cut,
//! here or by the kernel. Its IP header, checksum included, is valid.

use super::checksum::{self, PartialSum};
use super::ip::{
    IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, skip_extension_headers,
};

/// How to cut a super-packet: into segments with a header of `header_bytes` (IP and transport) and
/// `payload_bytes` of payload each, less in the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    protocol: Protocol,
    ip_header_bytes: usize,
    header_bytes: usize,
    payload_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Offset of the checksum in the transport header.
    fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => TCP_CHECKSUM,
            Self::Udp => UDP_CHECKSUM,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
        }
    }
}

impl Segmentation {
    /// Reads the headers of `packet`; `None` for packets that cannot be cut: protocols other than
    /// TCP and UDP, and headers of more than [`MAX_HEADER_BYTES`].
    pub(super) fn of(packet: &[u8], payload_bytes: usize) -> Option<Self> {
        let (ip_header_bytes, protocol) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 0x0f) * 4, *packet.get(9)?),
            6 => {
                let payload = packet.get(IPV6_HEADER_BYTES..)?;
                let (protocol, transport) = skip_extension_headers(packet[6], payload).ok()?;
                (packet.len() - transport.len(), protocol)
            }
            _ => return None,
        };
        let (protocol, transport_bytes) = match protocol {
            PROTOCOL_TCP => {
                let offset = packet.get(ip_header_bytes + TCP_DATA_OFFSET)?;
                (Protocol::Tcp, usize::from(offset >> 4) * 4)
            }
            PROTOCOL_UDP => (Protocol::Udp, UDP_HEADER_BYTES),
            _ => return None,
        };
        let header_bytes = ip_header_bytes + transport_bytes;
        let is_sound = ip_header_bytes >= IPV4_HEADER_BYTES
            && transport_bytes >= UDP_HEADER_BYTES
            && (protocol == Protocol::Udp || transport_bytes >= TCP_HEADER_BYTES)
            && header_bytes <= packet.len().min(MAX_HEADER_BYTES);
        is_sound.then_some(Self {
            protocol,
            ip_header_bytes,
            header_bytes,
            payload_bytes,
        })
    }

    /// The number of segments in a super-packet of `packet_bytes`.
    #[must_use]
    pub fn segments(&self, packet_bytes: usize) -> usize {
        let payload = packet_bytes.saturating_sub(self.header_bytes);
        payload.div_ceil(self.payload_bytes.max(1)).max(1)
    }

    /// The length in bytes of every segment but the last, headers included.
    #[must_use]
    pub fn segment_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }

    /// Length of the IP and transport headers in bytes.
    pub(super) fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    pub(super) fn ip_header_bytes(&self) -> usize {
        self.ip_header_bytes
    }

    /// True for TCP, false for UDP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
    }
}

/// Cuts a super-packet in place and passes each segment to `take`, in order: a whole packet with
/// its own lengths, identification and checksums. Only headers are copied; afterwards the bytes of
/// `packet` have no meaning.
pub fn cut(packet: &mut [u8], segmentation: Segmentation, mut take: impl FnMut(&mut [u8])) {
    let header_bytes = segmentation.header_bytes;
    let Some(template) = Template::of(packet, segmentation) else {
        return;
    };
    let step = segmentation.payload_bytes.max(1);
    let mut start = 0;
    loop {
        let payload = packet.len() - start - header_bytes;
        let (bytes, is_last) = match payload <= step {
            true => (header_bytes + payload, true),
            false => (header_bytes + step, false),
        };
        // The header overwrites the end of the previous segment's payload, which is consumed.
        let segment = &mut packet[start..start + bytes];
        template.complete(segment, start, is_last);
        take(segment);
        if is_last {
            return;
        }
        start += step;
    }
}

/// The first segment of a super-packet, as [`cut`] produces it; the others are lost.
pub fn first(packet: &mut [u8], segmentation: Segmentation) -> &[u8] {
    let bytes = packet.len().min(segmentation.segment_bytes());
    let is_last = bytes == packet.len();
    let Some(template) = Template::of(packet, segmentation) else {
        return packet;
    };
    template.complete(&mut packet[..bytes], 0, is_last);
    &packet[..bytes]
}

/// The headers of a super-packet, and the values that all its segments share.
struct Template {
    segmentation: Segmentation,
    header: [u8; MAX_HEADER_BYTES],
    /// Addresses and protocol of the pseudo header.
    pseudo: PartialSum,
    sequence: u32,
    flags: u8,
    identification: u16,
}

impl Template {
    fn of(packet: &[u8], segmentation: Segmentation) -> Option<Self> {
        let Segmentation {
            header_bytes,
            ip_header_bytes: ip,
            ..
        } = segmentation;
        let mut header = [0; MAX_HEADER_BYTES];
        header
            .get_mut(..header_bytes)?
            .copy_from_slice(packet.get(..header_bytes)?);
        let (sequence, flags) = match segmentation.protocol {
            Protocol::Tcp => (u32_at(&header, ip + TCP_SEQUENCE), header[ip + TCP_FLAGS]),
            Protocol::Udp => (0, 0),
        };
        Some(Self {
            pseudo: pseudo_header(&header, segmentation),
            segmentation,
            sequence,
            flags,
            identification: u16_at(&header, 4),
            header,
        })
    }

    /// Writes the header of a segment; its payload starts `offset` bytes into the super-packet's.
    fn complete(&self, segment: &mut [u8], offset: usize, is_last: bool) {
        let Segmentation {
            protocol,
            header_bytes,
            ip_header_bytes: ip,
            payload_bytes,
        } = self.segmentation;
        segment[..header_bytes].copy_from_slice(&self.header[..header_bytes]);
        let bytes = segment.len();
        if segment[0] >> 4 == 4 {
            let number = offset / payload_bytes.max(1);
            let identification = self.identification.wrapping_add(number as u16);
            put_u16(segment, 4, identification);
        }
        write_lengths(segment, self.segmentation);
        if protocol == Protocol::Tcp {
            let sequence = self.sequence.wrapping_add(offset as u32);
            segment[ip + TCP_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
            // FIN and PSH belong to the last segment, CWR to the first.
            let mut flags = self.flags;
            if !is_last {
                flags &= !(TCP_FIN | TCP_PSH);
            }
            if offset > 0 {
                flags &= !TCP_CWR;
            }
            segment[ip + TCP_FLAGS] = flags;
        }
        let at = ip + protocol.checksum_offset();
        put_u16(segment, at, 0);
        let sum = self.pseudo.plus_len(bytes - ip).plus(&segment[ip..]);
        put_u16(segment, at, checksum_field(protocol, sum));
    }
}

fn checksum_field(protocol: Protocol, sum: PartialSum) -> u16 {
    match (protocol, sum.complement()) {
        // RFC 768: zero means that there is no checksum.
        (Protocol::Udp, 0) => u16::MAX,
        (_, checksum) => checksum,
    }
}

/// The sum of addresses and protocol, without the length.
fn pseudo_header(header: &[u8], segmentation: Segmentation) -> PartialSum {
    let addresses = match header[0] >> 4 {
        4 => &header[12..20],
        _ => &header[8..40],
    };
    PartialSum::default()
        .plus(addresses)
        .plus_len(segmentation.protocol.number().into())
}

/// Writes the length of the whole packet into its headers.
pub(super) fn write_lengths(packet: &mut [u8], segmentation: Segmentation) {
    let (bytes, ip) = (packet.len(), segmentation.ip_header_bytes);
    if packet[0] >> 4 == 4 {
        put_u16(packet, 2, bytes as u16);
        put_u16(packet, IPV4_CHECKSUM, 0);
        let sum = checksum::checksum(&packet[..ip]);
        put_u16(packet, IPV4_CHECKSUM, sum);
    } else {
        put_u16(packet, 4, (bytes - IPV6_HEADER_BYTES) as u16);
    }
    if segmentation.protocol == Protocol::Udp {
        put_u16(packet, ip + 4, (bytes - ip) as u16);
    }
}

/// Whether the checksums of a single packet are valid.
pub(super) fn is_sound(packet: &[u8], segmentation: Segmentation) -> bool {
    let ip = segmentation.ip_header_bytes;
    if packet[0] >> 4 == 4 && checksum::checksum(&packet[..ip]) != 0 {
        return false;
    }
    let pseudo = pseudo_header(packet, segmentation).plus_len(packet.len() - ip);
    pseudo.plus(&packet[ip..]).complement() == 0
}

/// Length of the header before each packet of a TUN queue (`struct virtio_net_hdr`, virtio 1.2,
/// 5.1.6.1), in native byte order.
pub const VNET_HEADER_BYTES: usize = 10;

/// Accepts a packet from a TUN queue with offloads: completes the checksum of a single packet that
/// the kernel left unfinished, and returns how to cut a super-packet.
///
/// # Errors
/// If header and packet contradict each other.
pub fn receive(
    header: [u8; VNET_HEADER_BYTES],
    packet: &mut [u8],
) -> Result<Option<Segmentation>, NotOffloaded> {
    let [flags, kind, _, _, size @ .., s0, s1, o0, o1] = header;
    let [size0, size1] = size;
    let payload_bytes = usize::from(u16::from_ne_bytes([size0, size1]));
    let start = usize::from(u16::from_ne_bytes([s0, s1]));
    let offset = usize::from(u16::from_ne_bytes([o0, o1]));
    match kind & !GSO_ECN {
        GSO_NONE if flags & NEEDS_CHECKSUM != 0 => {
            complete_checksum(packet, start, offset).ok_or(NotOffloaded)?;
            Ok(None)
        }
        GSO_NONE => Ok(None),
        GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 if payload_bytes > 0 => {
            let segmentation = Segmentation::of(packet, payload_bytes).ok_or(NotOffloaded)?;
            Ok(Some(segmentation))
        }
        _ => Err(NotOffloaded),
    }
}

/// The kernel delivered a kind of packet that was not requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of the TUN queue does not fit its header")]
pub struct NotOffloaded;

/// Completes a partial checksum: the field holds the sum of the pseudo header.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let sum = PartialSum::default()
        .plus(packet.get(start..)?)
        .complement();
    let field = packet.get_mut(start + offset..)?.first_chunk_mut::<2>()?;
    let is_udp = offset == UDP_CHECKSUM;
    let sum = if is_udp && sum == 0 { u16::MAX } else { sum };
    *field = sum.to_be_bytes();
    Some(())
}

/// Returns the header with which a TUN queue accepts `packet`, and prepares the packet's checksum.
#[must_use]
pub fn transmit(packet: &mut [u8], segmentation: Option<Segmentation>) -> [u8; VNET_HEADER_BYTES] {
    let Some(segmentation) = segmentation else {
        return [0; VNET_HEADER_BYTES];
    };
    let ip = segmentation.ip_header_bytes;
    let at = ip + segmentation.protocol.checksum_offset();
    let pseudo = pseudo_header(packet, segmentation).plus_len(packet.len() - ip);
    put_u16(packet, at, !pseudo.complement());
    let kind = match (segmentation.protocol, packet[0] >> 4) {
        (Protocol::Tcp, 4) => GSO_TCPV4,
        (Protocol::Tcp, _) => GSO_TCPV6,
        (Protocol::Udp, _) => GSO_UDP_L4,
    };
    let field = |value: usize| (value as u16).to_ne_bytes();
    let [h0, h1] = field(segmentation.header_bytes);
    let [g0, g1] = field(segmentation.payload_bytes);
    let [s0, s1] = field(ip);
    let [o0, o1] = field(segmentation.protocol.checksum_offset());
    [NEEDS_CHECKSUM, kind, h0, h1, g0, g1, s0, s1, o0, o1]
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The flag `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// The values `VIRTIO_NET_HDR_GSO_*`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The flag `VIRTIO_NET_HDR_GSO_ECN`.
const GSO_ECN: u8 = 0x80;

/// IPv4 and TCP with all options each, or IPv6 and TCP with some.
pub(super) const MAX_HEADER_BYTES: usize = 120;
const IPV4_CHECKSUM: usize = 10;
const UDP_HEADER_BYTES: usize = 8;
const UDP_CHECKSUM: usize = 6;
const TCP_HEADER_BYTES: usize = 20;
pub(super) const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
pub(super) const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_FIN: u8 = 0x01;
pub(super) const TCP_PSH: u8 = 0x08;
pub(super) const TCP_ACK: u8 = 0x10;
const TCP_CWR: u8 = 0x80;

#[cfg(test)]
mod tests;
