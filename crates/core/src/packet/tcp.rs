//! TCP headers, as far as the flow table and refusal detection read them (RFC 9293, 3.1).

use super::IpPacket;
use super::ip::PROTOCOL_TCP;

/// The TCP flags that end or begin a flow; none for other protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// It opens a connection.
    pub syn: bool,
    /// The sender has no more to send.
    pub fin: bool,
    /// The connection is no more.
    pub rst: bool,
}

impl TcpFlags {
    /// The flags of a packet; none if it is no TCP.
    #[must_use]
    pub fn of(packet: &IpPacket<'_>) -> Self {
        let is_tcp = packet.protocol() == PROTOCOL_TCP;
        match packet.segment().get(FLAGS_OFFSET) {
            Some(flags) if is_tcp => Self {
                syn: flags & 0x02 != 0,
                fin: flags & 0x01 != 0,
                rst: flags & 0x04 != 0,
            },
            Some(_) | None => Self::default(),
        }
    }
}

/// Whether a TCP packet is the reset that refuses a handshake: it has the sequence number zero
/// (RFC 9293, 3.10.7.1). Other resets end an established connection.
#[inline]
#[must_use]
pub fn is_handshake_reset(packet: &IpPacket<'_>) -> bool {
    TcpFlags::of(packet).rst && packet.segment().get(SEQUENCE) == Some(&[0; 4])
}

// RFC 9293, 3.1.
const SEQUENCE: std::ops::Range<usize> = 4..8;
const FLAGS_OFFSET: usize = 13;

#[cfg(test)]
mod tests {
    use super::super::samples::{Shape, packet_between};
    use super::*;

    #[test]
    fn reads_flags_of_tcp_only() {
        let shape = Shape::Tcp { from: 1, to: 2 };
        let mut bytes = packet_between("10.0.0.1", "10.0.0.2", shape);
        let flags = |bytes: &[u8]| TcpFlags::of(&IpPacket::parse(bytes).expect("valid"));
        for (bits, syn, fin, rst) in [
            (0x02, true, false, false),
            (0x11, false, true, false),
            (0x14, false, false, true),
            (0x18, false, false, false),
        ] {
            bytes[20 + FLAGS_OFFSET] = bits;
            assert_eq!(flags(&bytes), TcpFlags { syn, fin, rst });
        }
        let mut bytes = packet_between("10.0.0.1", "10.0.0.2", Shape::Udp { from: 1, to: 2 });
        bytes[20 + FLAGS_OFFSET] = 0xff;
        assert_eq!(flags(&bytes), TcpFlags::default());
    }
}
