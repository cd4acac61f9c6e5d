//! From the interface to the other end: super-packets are cut, and what they stand for is sealed
//! into one batch for the kernel.
//!
//! Each byte is copied once, from where the kernel wrote it to where it is sealed in place. A batch
//! goes on over several reads for as long as its datagrams are equally long.

use super::device::{READ_BYTES, TunDevice};
use super::session::{HEADER_BYTES, OVERHEAD_BYTES, Sealer, TAG_BYTES};
use super::socket::{BATCH_BYTES, BATCH_DATAGRAMS, GsoSocket};
use postern_core::packet::offload::{self, VNET_HEADER_BYTES};
use std::io;
use std::net::SocketAddr;

/// The way out, with its buffers.
pub(super) struct Outbound {
    read: Box<[u8]>,
    batch: Batch,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            read: vec![0; READ_BYTES].into(),
            batch: Batch::new(),
        }
    }

    /// Sends on what the interface has, at most so many reads of it. Returns whether it may have
    /// more.
    pub(super) fn forward(
        &mut self,
        device: &TunDevice,
        socket: &GsoSocket,
        peer: Option<(SocketAddr, &mut Sealer)>,
    ) -> io::Result<bool> {
        let Some((to, sealer)) = peer else {
            // Nobody to send to: what applications sent is lost.
            while device.read(&mut self.read)?.is_some() {}
            return Ok(false);
        };
        let mut send = |bytes: &[u8], datagram_bytes| socket.send(to, bytes, datagram_bytes);
        for _ in 0..READS_BEFORE_YIELD {
            let Some(bytes) = device.read(&mut self.read)? else {
                self.batch.flush(&mut send)?;
                return Ok(false);
            };
            let Some((header, packet)) =
                self.read[..bytes].split_first_chunk_mut::<VNET_HEADER_BYTES>()
            else {
                continue;
            };
            let batch = &mut self.batch;
            match offload::receive(*header, packet) {
                Ok(Some(segmentation)) => {
                    let mut sent = Ok(());
                    offload::cut(packet, segmentation, |segment| {
                        let pushed = batch.push(segment, sealer, &mut send);
                        sent = std::mem::replace(&mut sent, Ok(())).and(pushed);
                    });
                    sent?;
                }
                Ok(None) => batch.push(packet, sealer, &mut send)?,
                Err(_) => {}
            }
        }
        self.batch.flush(&mut send)?;
        Ok(true)
    }
}

/// Datagrams that are equally long but for the last.
struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    datagrams: usize,
    datagram_bytes: usize,
}

impl Batch {
    fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_BYTES].into(),
            used: 0,
            datagrams: 0,
            datagram_bytes: 0,
        }
    }

    /// Seals a packet to the end, and sends what does not go together with it.
    fn push(
        &mut self,
        packet: &[u8],
        sealer: &mut Sealer,
        send: &mut impl FnMut(&[u8], usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let needed = packet.len() + OVERHEAD_BYTES;
        if needed > self.datagram_bytes || self.used + needed > BATCH_BYTES {
            self.flush(send)?;
            self.datagram_bytes = needed;
        }
        let Some(message) = self.bytes.get_mut(self.used..self.used + needed) else {
            // Larger than any packet of an interface can be.
            self.datagram_bytes = 0;
            return Ok(());
        };
        message[HEADER_BYTES..needed - TAG_BYTES].copy_from_slice(packet);
        sealer.seal(message);
        self.used += needed;
        self.datagrams += 1;
        let is_last = needed < self.datagram_bytes || self.datagrams == BATCH_DATAGRAMS;
        if is_last {
            self.flush(send)?;
        }
        Ok(())
    }

    /// Sends what there is.
    fn flush(&mut self, send: &mut impl FnMut(&[u8], usize) -> io::Result<()>) -> io::Result<()> {
        let (used, datagram_bytes) = (self.used, self.datagram_bytes);
        (self.used, self.datagrams, self.datagram_bytes) = (0, 0, 0);
        match used {
            0 => Ok(()),
            _ => lossy(send(&self.bytes[..used], datagram_bytes)),
        }
    }
}

/// IP may lose packets: only a socket that is gone is an error.
fn lossy(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}

/// So that neither direction starves the other.
const READS_BEFORE_YIELD: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::session::Opener;
    use super::*;

    /// Pushes packets of these lengths, each filled with its number, and returns what was sent: the
    /// length of the datagrams, and the packets in them.
    fn sent(lengths: &[usize]) -> Vec<(usize, Vec<Vec<u8>>)> {
        let (mut sealer, opener) = (Sealer::new(&[1; 32], 5), Opener::new(&[1; 32], 5));
        let mut batches = Vec::new();
        let mut send = |bytes: &[u8], datagram_bytes: usize| {
            let mut bytes = bytes.to_vec();
            let opened = bytes.chunks_mut(datagram_bytes);
            let opened = opened.map(|it| opener.open(it).expect("authentic").to_vec());
            batches.push((datagram_bytes, opened.collect()));
            Ok(())
        };
        let mut batch = Batch::new();
        for (number, length) in lengths.iter().enumerate() {
            let packet = vec![number as u8; *length];
            let pushed = batch.push(&packet, &mut sealer, &mut send);
            pushed.expect("is sent");
        }
        batch.flush(&mut send).expect("is sent");
        batches
    }

    fn packet(number: u8, length: usize) -> Vec<u8> {
        vec![number; length]
    }

    #[test]
    fn equally_long_packets_go_together_and_a_shorter_one_ends_the_batch() {
        let batches = sent(&[100, 100, 40, 100]);
        let first = vec![packet(0, 100), packet(1, 100), packet(2, 40)];
        assert_eq!(batches, [(132, first), (132, vec![packet(3, 100)])]);
    }

    #[test]
    fn a_longer_packet_begins_a_batch_of_its_own() {
        let batches = sent(&[40, 100, 100]);
        let second = vec![packet(1, 100), packet(2, 100)];
        assert_eq!(batches, [(72, vec![packet(0, 40)]), (132, second)]);
    }

    #[test]
    fn a_batch_is_no_more_than_the_kernel_takes() {
        let counts = |lengths: &[usize]| -> Vec<usize> {
            sent(lengths).iter().map(|(_, it)| it.len()).collect()
        };
        assert_eq!(counts(&[64; 150]), [64, 64, 22]);
        assert_eq!(counts(&[1280; 60]), [49, 11]);
    }

    #[test]
    fn what_no_datagram_can_hold_is_dropped_and_its_neighbours_are_not() {
        let batches = sent(&[100, 70_000, 100]);
        let expected = [(132, vec![packet(0, 100)]), (132, vec![packet(2, 100)])];
        assert_eq!(batches, expected);
    }
}
