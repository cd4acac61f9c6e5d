//! Merges consecutive packets of a flow into super-packets.
//!
//! The rules are those of the kernel's GRO: only packets that segmentation would restore byte for
//! byte are merged, except the identification of IPv4 packets with "don't fragment", which has no
//! meaning (RFC 6864, 4.1). A packet with a wrong checksum is never merged, because segmentation
//! computes a new checksum: it stays wrong, and its receiver detects that.

use super::ip::{IPV6_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP};
use super::offload::{
    self, MAX_HEADER_BYTES, Segmentation, TCP_ACK, TCP_FLAGS, TCP_PSH, TCP_SEQUENCE, u16_at, u32_at,
};

/// The state of the last packet of a batch, into which the next may be merged.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeState {
    segmentation: Segmentation,
    /// The headers of the first packet.
    header: [u8; MAX_HEADER_BYTES],
    payload_bytes: usize,
    next_sequence: u32,
    next_identification: u16,
}

impl MergeState {
    /// The state after a single packet; `None` if nothing may be merged with it.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        if !is_plain(packet) {
            return None;
        }
        let header_bytes = Segmentation::of(packet, 1)?.header_bytes();
        let payload_bytes = packet.len().checked_sub(header_bytes)?;
        let segmentation = Segmentation::of(packet, payload_bytes)?;
        let ip = segmentation.ip_header_bytes();
        let is_open = match segmentation.is_tcp() {
            true => packet[ip + TCP_FLAGS] == TCP_ACK,
            false => is_whole_datagram(&packet[ip..]),
        };
        if payload_bytes == 0 || !is_open || !offload::is_sound(packet, segmentation) {
            return None;
        }
        let mut header = [0; MAX_HEADER_BYTES];
        header[..header_bytes].copy_from_slice(&packet[..header_bytes]);
        let sequence = match segmentation.is_tcp() {
            true => u32_at(packet, ip + TCP_SEQUENCE),
            false => 0,
        };
        Some(Self {
            segmentation,
            header,
            payload_bytes,
            next_sequence: sequence.wrapping_add(payload_bytes as u32),
            next_identification: u16_at(packet, 4).wrapping_add(1),
        })
    }

    /// How to cut the super-packet.
    pub(super) fn segmentation(&self) -> Segmentation {
        self.segmentation
    }

    pub(super) fn header_bytes(&self) -> usize {
        self.segmentation.header_bytes()
    }

    /// Whether `next`, a single packet, continues the packet that has grown to `packet_bytes`.
    pub(super) fn can_append(&self, packet_bytes: usize, next: &[u8]) -> bool {
        let header_bytes = self.header_bytes();
        let fits = next.len() > header_bytes
            && next.len() - header_bytes <= self.payload_bytes
            && packet_bytes + next.len() - header_bytes <= usize::from(u16::MAX);
        fits && is_plain(next)
            && self.has_same_header(next)
            && offload::is_sound(next, self.segmentation)
    }

    fn has_same_header(&self, next: &[u8]) -> bool {
        let (known, header_bytes) = (&self.header, self.header_bytes());
        let ip = self.segmentation.ip_header_bytes();
        let has_same_ip = match known[0] >> 4 {
            4 => {
                // All fields except length, identification and checksum.
                let follows = next[6] & IPV4_DONT_FRAGMENT != 0
                    || u16_at(next, 4) == self.next_identification;
                follows
                    && next[..2] == known[..2]
                    && next[6..10] == known[6..10]
                    && next[12..20] == known[12..20]
            }
            _ => next[..4] == known[..4] && next[6..40] == known[6..40],
        };
        if !has_same_ip || next[ip..ip + 4] != known[ip..ip + 4] {
            return false;
        }
        if !self.segmentation.is_tcp() {
            return is_whole_datagram(&next[ip..]);
        }
        let (known, new) = (&known[ip..header_bytes], &next[ip..header_bytes]);
        // All fields except sequence number, checksum and PSH.
        u32_at(new, TCP_SEQUENCE) == self.next_sequence
            && new[TCP_FLAGS] & !TCP_PSH == TCP_ACK
            && new[8..TCP_FLAGS] == known[8..TCP_FLAGS]
            && new[14..16] == known[14..16]
            && new[18..] == known[18..]
    }

    /// Whether a TCP segment has PSH set.
    pub(super) fn is_pushed(&self, header: &[u8]) -> bool {
        let at = self.segmentation.ip_header_bytes() + TCP_FLAGS;
        self.segmentation.is_tcp() && header[at] & TCP_PSH != 0
    }

    /// The state after `next` was appended; `None` if nothing may follow.
    pub(super) fn appended(self, next_header: &[u8], next_payload_bytes: usize) -> Option<Self> {
        let is_full = next_payload_bytes == self.payload_bytes;
        (is_full && !self.is_pushed(next_header)).then_some(Self {
            next_sequence: self.next_sequence.wrapping_add(next_payload_bytes as u32),
            next_identification: u16_at(next_header, 4).wrapping_add(1),
            ..self
        })
    }

    /// Updates the lengths and flags of the grown packet.
    pub(super) fn complete(&self, packet: &mut [u8], is_pushed: bool) {
        let ip = self.segmentation.ip_header_bytes();
        offload::write_lengths(packet, self.segmentation);
        if is_pushed {
            packet[ip + TCP_FLAGS] |= TCP_PSH;
        }
    }
}

/// Whether this is a whole TCP or UDP packet without IP options, extension headers or fragments.
fn is_plain(packet: &[u8]) -> bool {
    match packet {
        [
            0x45,
            _,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            _,
            PROTOCOL_TCP | PROTOCOL_UDP,
            ..,
        ] => {
            usize::from(u16::from_be_bytes([*l0, *l1])) == packet.len()
                && u16::from_be_bytes([*f0, *f1]) & IPV4_FRAGMENT == 0
        }
        [
            0x60..=0x6f,
            _,
            _,
            _,
            l0,
            l1,
            PROTOCOL_TCP | PROTOCOL_UDP,
            ..,
        ] => usize::from(u16::from_be_bytes([*l0, *l1])) + IPV6_HEADER_BYTES == packet.len(),
        _ => false,
    }
}

/// Whether the UDP length is the packet's and a checksum is present (RFC 768: zero means none).
fn is_whole_datagram(datagram: &[u8]) -> bool {
    usize::from(u16_at(datagram, 4)) == datagram.len() && u16_at(datagram, 6) != 0
}

const IPV4_DONT_FRAGMENT: u8 = 0x40;
/// Fragment offset and "more fragments" (RFC 791, 3.1).
const IPV4_FRAGMENT: u16 = 0x3fff;
