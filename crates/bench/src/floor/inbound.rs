//! From the other end to the interface: what one call received is opened in place, and written in
//! as few super-packets as it makes.

use super::device::TunDevice;
use super::gather::Gathered;
use super::session::{HEADER_BYTES, Opener};
use super::socket::GsoSocket;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

/// What was received and is not for the interface.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Datagrams that are no data messages of a session of ours.
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Packets of data messages that are meant for the client itself.
    pub(super) control_packets: Vec<Vec<u8>>,
    /// Who sent the last authentic data message.
    pub(super) authentic: Option<SocketAddr>,
}

/// The way in, with its buffers.
pub(super) struct Inbound {
    buffer: Box<[u8]>,
    gathered: Gathered,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; DATAGRAMS_BYTES].into(),
            gathered: Gathered::default(),
        }
    }

    /// Writes on what the socket has, at most so many reads of it. Returns whether it may have
    /// more.
    pub(super) fn forward(
        &mut self,
        device: &TunDevice,
        socket: &mut GsoSocket,
        openers: &[Opener],
        mail: &mut Mail,
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
                    None => mail.datagrams.push((received.from, datagram.to_vec())),
                    Some(opener) => {
                        let opened = opener.open(datagram).map(|it| it.len());
                        if let Some(bytes) = opened {
                            mail.authentic = Some(received.from);
                            let packet = start + HEADER_BYTES..start + HEADER_BYTES + bytes;
                            self.packet(device, packet, mail)?;
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
        mail: &mut Mail,
    ) -> io::Result<()> {
        let packet = &self.buffer[range.clone()];
        let Some(bytes) = ip_bytes(packet) else {
            return Ok(());
        };
        if is_control(packet) {
            mail.control_packets.push(packet.to_vec());
            return Ok(());
        }
        // What stands behind the packet is padding.
        let range = range.start..range.start + bytes;
        if !self.gathered.take(&self.buffer, range.clone()) {
            self.flush(device)?;
            self.gathered.take(&self.buffer, range);
        }
        Ok(())
    }

    fn flush(&mut self, device: &TunDevice) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let header = self.gathered.complete(&mut self.buffer);
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        pieces[0] = IoSlice::new(&header);
        let ranges = self.gathered.pieces();
        for (piece, range) in pieces[1..].iter_mut().zip(ranges) {
            *piece = IoSlice::new(&self.buffer[range.clone()]);
        }
        let count = ranges.len().min(PIECES_MAX - 1) + 1;
        device.write(&pieces[..count])?;
        self.gathered.clear();
        Ok(())
    }
}

/// The length that the IP header tells, if the packet has it.
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

/// A message to the client itself (docs/protocol.md 4.
fn is_control(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6 && packet.get(6) == Some(&0xff)
}

/// What UDP_GRO gathers at most.
const DATAGRAMS_BYTES: usize = 65_536;
/// The kernel gathers at most 64 datagrams (`UDP_GRO_CNT_MAX`), some with empty room to spare.
const PIECES_MAX: usize = 130;
/// So that neither direction starves the other.
const READS_BEFORE_YIELD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_cut_off_and_what_is_no_packet_is_none() {
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
