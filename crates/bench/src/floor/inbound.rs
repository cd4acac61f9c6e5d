//! From the other end to the interface: opens received datagrams in place, and writes them in as
//! few super-packets as possible.

use super::coalesce::SuperPacket;
use super::device::TunDevice;
use super::session::{HEADER_BYTES, Opener};
use super::socket::GsoSocket;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

/// Received data that is not for the interface.
#[derive(Debug, Default)]
pub(super) struct ReceivedControl {
    /// Datagrams that are not data messages of one of our sessions.
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Packets in data messages that are addressed to the client itself.
    pub(super) control_packets: Vec<Vec<u8>>,
    /// Sender of the last authentic data message.
    pub(super) authentic: Option<SocketAddr>,
}

/// The inbound direction, with its buffers.
pub(super) struct Inbound {
    buffer: Box<[u8]>,
    super_packet: SuperPacket,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; DATAGRAMS_BYTES].into(),
            super_packet: SuperPacket::default(),
        }
    }

    /// Forwards received datagrams, with a limited number of reads of the socket. Returns whether
    /// the socket may have more.
    pub(super) fn forward(
        &mut self,
        device: &TunDevice,
        socket: &mut GsoSocket,
        openers: &[Opener],
        control: &mut ReceivedControl,
    ) -> io::Result<bool> {
        for _ in 0..READS_BEFORE_YIELD {
            let Some(received) = socket.receive(&mut self.buffer)? else {
                return Ok(false);
            };
            let mut start = 0;
            while start < received.bytes {
                let end = received.bytes.min(start + received.datagram_bytes);
                let datagram = &mut self.buffer[start..end];
                match openers.iter().find(|it| it.is_meant(datagram)) {
                    None => control.datagrams.push((received.from, datagram.to_vec())),
                    Some(opener) => {
                        let opened = opener.open(datagram).map(|it| it.len());
                        if let Some(bytes) = opened {
                            control.authentic = Some(received.from);
                            let packet = start + HEADER_BYTES..start + HEADER_BYTES + bytes;
                            self.packet(device, packet, control)?;
                        }
                    }
                }
                start = end;
            }
            self.flush(device)?;
        }
        Ok(true)
    }

    fn packet(
        &mut self,
        device: &TunDevice,
        range: Range<usize>,
        control: &mut ReceivedControl,
    ) -> io::Result<()> {
        let packet = &self.buffer[range.clone()];
        let Some(bytes) = ip_bytes(packet) else {
            return Ok(());
        };
        if is_control(packet) {
            control.control_packets.push(packet.to_vec());
            return Ok(());
        }
        // The bytes behind the packet are padding.
        let range = range.start..range.start + bytes;
        if !self.super_packet.take(&self.buffer, range.clone()) {
            self.flush(device)?;
            self.super_packet.take(&self.buffer, range);
        }
        Ok(())
    }

    fn flush(&mut self, device: &TunDevice) -> io::Result<()> {
        if self.super_packet.is_empty() {
            return Ok(());
        }
        let header = self.super_packet.complete(&mut self.buffer);
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        pieces[0] = IoSlice::new(&header);
        let ranges = self.super_packet.pieces();
        for (piece, range) in pieces[1..].iter_mut().zip(ranges) {
            *piece = IoSlice::new(&self.buffer[range.clone()]);
        }
        let count = ranges.len().min(PIECES_MAX - 1) + 1;
        device.write(&pieces[..count])?;
        self.super_packet.clear();
        Ok(())
    }
}

/// Length in the IP header, if the packet has that many bytes.
fn ip_bytes(packet: &[u8]) -> Option<usize> {
    let told = match packet {
        [first, _, l0, l1, ..] if first >> 4 == 4 => u16::from_be_bytes([*l0, *l1]).into(),
        [first, _, _, _, l0, l1, ..] if first >> 4 == 6 => {
            usize::from(u16::from_be_bytes([*l0, *l1])) + 40
        }
        _ => return None,
    };
    (told >= 20 && told <= packet.len()).then_some(told)
}

/// Whether a packet is a message to the client itself (docs/protocol.md 4).
fn is_control(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 && packet.get(6) == Some(&0xff)
}

/// The largest batch that UDP_GRO gathers.
const DATAGRAMS_BYTES: usize = 65_536;
/// The kernel gathers at most 64 datagrams (`UDP_GRO_CNT_MAX`); leaves spare room.
const PIECES_MAX: usize = 130;
/// Limit of reads, so that neither direction starves the other.
const READS_BEFORE_YIELD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_removed_and_other_data_is_no_packet() {
        let mut v4 = vec![0; 64];
        (v4[0], v4[3]) = (0x45, 52);
        assert_eq!(ip_bytes(&v4), Some(52));
        let mut v6 = vec![0; 64];
        (v6[0], v6[5]) = (0x60, 8);
        assert_eq!(ip_bytes(&v6), Some(48));
        v4[3] = 65;
        assert_eq!(ip_bytes(&v4), None, "cut short");
        v4[3] = 19;
        assert_eq!(ip_bytes(&v4), None, "shorter than a header");
        assert_eq!(ip_bytes(&[]), None, "a keepalive");
    }

    proptest::proptest! {
        #[test]
        fn a_length_is_never_beyond_the_packet(
            packet in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
        ) {
            let told = ip_bytes(&packet);
            proptest::prop_assert!(told.is_none_or(|bytes| bytes <= packet.len()));
            if told.is_some() {
                is_control(&packet);
            }
        }
    }
}
