//! Batches of outer UDP payloads that share one pair of addresses.

use super::Buffer;
use crate::ids::RelayId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The two ends of a UDP path as this host sees them, and the relay between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The local end; its address pins the source of sent datagrams, unless it is unspecified.
    pub local: SocketAddr,
    /// The end of the peer or server.
    pub remote: SocketAddr,
    /// The relay that carries the datagrams; `None` if they go directly.
    pub via: Option<RelayId>,
}

impl Path {
    /// A path without a relay.
    #[must_use]
    pub const fn direct(local: SocketAddr, remote: SocketAddr) -> Self {
        let via = None;
        Self { local, remote, via }
    }
}

/// The ECN field of an IP header (RFC 3168, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not support ECN.
    #[default]
    NotEct = 0b00,
    /// ECN-capable, codepoint ECT(1).
    Ect1 = 0b01,
    /// ECN-capable, codepoint ECT(0).
    Ect0 = 0b10,
    /// Congestion experienced: a router marked the packet.
    Ce = 0b11,
}

impl Ecn {
    /// From the two low bits of a traffic class or TOS byte.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            0b11 => Self::Ce,
            _ => Self::NotEct,
        }
    }
}

/// UDP payloads on one path, back to back, all `segment_bytes` long except the last, which may be
/// shorter: the shape of one GRO read and one GSO write.
#[derive(Clone, Debug)]
pub struct DatagramBatch {
    /// The addresses that all datagrams of the batch share.
    pub path: Path,
    /// The ECN field of the outer IP headers; all datagrams of a batch share it.
    pub ecn: Ecn,
    segment_bytes: usize,
    bytes: Buffer,
}

impl DatagramBatch {
    /// A batch of `bytes` cut every `segment_bytes`. A `segment_bytes` of 0 means one datagram.
    #[must_use]
    pub fn new(path: Path, ecn: Ecn, segment_bytes: usize, bytes: impl Into<Buffer>) -> Self {
        let bytes = bytes.into();
        let segment_bytes = if segment_bytes == 0 {
            bytes.len().max(1)
        } else {
            segment_bytes
        };
        Self {
            path,
            ecn,
            segment_bytes,
            bytes,
        }
    }

    /// A batch that holds one datagram, marked not ECN-capable.
    #[must_use]
    pub fn of(path: Path, datagram: Vec<u8>) -> Self {
        Self::new(path, Ecn::NotEct, 0, datagram)
    }

    /// Leaves the choice of the source address to the kernel.
    pub fn unpin_source(&mut self) {
        self.path.local.set_ip(unspecified_for(self.path.remote));
    }

    /// The datagrams, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes().chunks(self.segment_bytes)
    }

    /// The number of datagrams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().div_ceil(self.segment_bytes)
    }

    /// Whether the batch holds no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes, for a GSO write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    /// How many further bytes fit without a reallocation.
    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.bytes.spare()
    }

    /// The length in bytes of every datagram but the last.
    #[must_use]
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }
}

/// The unspecified address of the family of `remote`.
pub(crate) fn unspecified_for(remote: SocketAddr) -> IpAddr {
    match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_the_segment_length() {
        let path = Path::direct(
            "127.0.0.1:1".parse().expect("literal"),
            "127.0.0.1:2".parse().expect("literal"),
        );
        let batch = DatagramBatch::new(path, Ecn::Ect0, 3, b"aaabbbc".to_vec());
        assert_eq!(batch.len(), 3);
        assert_eq!(
            batch.segments().collect::<Vec<_>>(),
            [b"aaa" as &[u8], b"bbb", b"c"]
        );
        let single = DatagramBatch::of(path, b"whole".to_vec());
        assert_eq!(single.segments().count(), 1);
    }
}
