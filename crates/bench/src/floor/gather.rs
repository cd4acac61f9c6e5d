//! Which packets of a batch one super-packet can stand for, without moving them: the first whole,
//! the payloads of the others behind it as pieces of one write.
//!
//! Only TCP segments with data that follow each other, and UDP datagrams of a flow, all equally
//! long but for the last (`VIRTIO_NET_HDR_GSO_TCPV4`, `_TCPV6`, `_UDP_L4`). Checksums are made anew
//! by the kernel and are not verified before: what came out of the session is what its other end
//! had put in, and this is the floor.

use std::ops::Range;

/// Packets of one buffer that are to be written at once.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The first packet, then the payloads of those that continue it.
    pieces: Vec<Range<usize>>,
    flow: Option<Flow>,
    bytes: usize,
}

/// What continues a packet.
#[derive(Clone, Copy, Debug)]
struct Flow {
    ip_header_bytes: usize,
    header_bytes: usize,
    /// Of the first packet, so of all but the last.
    payload_bytes: usize,
    is_tcp: bool,
    next_sequence: u32,
    /// Whether more may follow.
    is_open: bool,
}

impl Gathered {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces to write, after the header of the queue.
    pub(super) fn pieces(&self) -> &[Range<usize>] {
        &self.pieces
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.flow = None;
    }

    /// Takes the packet at `range` if it continues what is there, or nothing is there.
    pub(super) fn take(&mut self, buffer: &[u8], range: Range<usize>) -> bool {
        let next = &buffer[range.clone()];
        let Some(first) = self.pieces.first() else {
            self.flow = Flow::of(next);
            self.bytes = next.len();
            self.pieces.push(range);
            return true;
        };
        let first = &buffer[first.clone()];
        let fits = |flow: &&mut Flow| self.bytes + next.len() - flow.header_bytes <= IP_BYTES_MAX;
        let flow = self
            .flow
            .as_mut()
            .filter(|flow| flow.is_continued(first, next));
        let Some(flow) = flow.filter(fits) else {
            return false;
        };
        flow.note(next);
        let payload = range.start + flow.header_bytes..range.end;
        self.bytes += payload.len();
        self.pieces.push(payload);
        true
    }

    /// Makes the first packet the head of all, and returns the header of the queue for it.
    pub(super) fn complete(&self, buffer: &mut [u8]) -> [u8; 10] {
        let (Some(flow), [first, .., last]) = (self.flow, &self.pieces[..]) else {
            return [0; 10];
        };
        // The flags of the last segment speak for all: it may push or end.
        let last_flags = (last.start - flow.header_bytes) + flow.ip_header_bytes + TCP_FLAGS;
        let last_flags = buffer[last_flags];
        let head = &mut buffer[first.start..first.start + flow.header_bytes];
        let ip = flow.ip_header_bytes;
        match ip {
            IPV4_BYTES => {
                put(head, 2, self.bytes);
                put(head, 10, 0);
                let sum = fold(sum(&head[..IPV4_BYTES]));
                put(head, 10, usize::from(!sum));
            }
            _ => put(head, 4, self.bytes - IPV6_BYTES),
        }
        let (addresses, protocol) = match ip {
            IPV4_BYTES => (sum(&head[12..20]), head[9]),
            _ => (sum(&head[8..40]), head[6]),
        };
        let length = self.bytes - ip;
        let pseudo = fold(addresses + u64::from(protocol) + length as u64);
        let at = match flow.is_tcp {
            true => {
                head[ip + TCP_FLAGS] |= last_flags;
                TCP_CHECKSUM
            }
            false => {
                put(head, ip + 4, length);
                UDP_CHECKSUM
            }
        };
        put(head, ip + at, pseudo.into());
        let kind = match (flow.is_tcp, ip) {
            (true, IPV4_BYTES) => GSO_TCPV4,
            (true, _) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        let field = |value: usize| (value as u16).to_ne_bytes();
        let [h0, h1] = field(flow.header_bytes);
        let [g0, g1] = field(flow.payload_bytes);
        let [s0, s1] = field(ip);
        let [o0, o1] = field(at);
        [NEEDS_CHECKSUM, kind, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

impl Flow {
    /// Of a packet that others may continue.
    fn of(packet: &[u8]) -> Option<Self> {
        let (ip_header_bytes, protocol) = match packet {
            [0x45, _, _, _, _, _, flags, offset, _, protocol, ..]
                if flags & 0x3f == 0 && *offset == 0 =>
            {
                (IPV4_BYTES, *protocol)
            }
            [first, _, _, _, _, _, protocol, ..] if first >> 4 == 6 => (IPV6_BYTES, *protocol),
            _ => return None,
        };
        let (is_tcp, transport_bytes) = match protocol {
            TCP => {
                let offset = packet.get(ip_header_bytes + 12)?;
                (true, usize::from(offset >> 4) * 4)
            }
            UDP => (false, UDP_BYTES),
            _ => return None,
        };
        let header_bytes = ip_header_bytes + transport_bytes;
        let payload_bytes = packet.len().checked_sub(header_bytes)?;
        let transport = &packet[ip_header_bytes..];
        let is_open = match is_tcp {
            true => transport_bytes >= TCP_BYTES && transport[TCP_FLAGS] == ACK,
            // A datagram without a checksum would be given one.
            false => transport[UDP_CHECKSUM..UDP_CHECKSUM + 2] != [0, 0],
        };
        (payload_bytes > 0 && is_open).then(|| Self {
            ip_header_bytes,
            header_bytes,
            payload_bytes,
            is_tcp,
            next_sequence: sequence(transport).wrapping_add(payload_bytes as u32),
            is_open: true,
        })
    }

    fn is_continued(&self, first: &[u8], next: &[u8]) -> bool {
        let (ip, header) = (self.ip_header_bytes, self.header_bytes);
        if !self.is_open || next.len() <= header || next.len() > header + self.payload_bytes {
            return false;
        }
        // All but lengths, numbers and checksums.
        let has_same_ip = match ip {
            IPV4_BYTES => {
                next[..2] == first[..2]
                    && next[6..10] == first[6..10]
                    && next[12..20] == first[12..20]
            }
            _ => next[..4] == first[..4] && next[6..40] == first[6..40],
        };
        let (known, new) = (&first[ip..header], &next[ip..header]);
        if !has_same_ip || new[..4] != known[..4] {
            return false;
        }
        match self.is_tcp {
            true => {
                sequence(new) == self.next_sequence
                    && new[8..TCP_FLAGS] == known[8..TCP_FLAGS]
                    && new[TCP_FLAGS] & !(PSH | FIN) == ACK
                    && new[14..16] == known[14..16]
                    && new[18..] == known[18..]
            }
            false => new[UDP_CHECKSUM..] != [0, 0],
        }
    }

    fn note(&mut self, next: &[u8]) {
        let payload = next.len() - self.header_bytes;
        let transport = &next[self.ip_header_bytes..];
        self.next_sequence = self.next_sequence.wrapping_add(payload as u32);
        let is_last = self.is_tcp && transport[TCP_FLAGS] != ACK;
        self.is_open = payload == self.payload_bytes && !is_last;
    }
}

/// Of a TCP header; means nothing in UDP.
fn sequence(transport: &[u8]) -> u32 {
    let bytes = transport.get(4..8).and_then(<[u8]>::first_chunk::<4>);
    bytes.map_or(0, |it| u32::from_be_bytes(*it))
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Of 16-bit words; an even number of bytes.
fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|it| u64::from(u16::from_be_bytes(*it)))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const IP_BYTES_MAX: usize = 65_535;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP: u8 = 6;
const TCP_BYTES: usize = 20;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const UDP: u8 = 17;
const UDP_BYTES: usize = 8;
const UDP_CHECKSUM: usize = 6;

#[cfg(test)]
mod tests;
