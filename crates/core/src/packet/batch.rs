//! Inner IP packets, many in one allocation.

use std::ops::Range;

/// Up to [`Self::MAX_PACKETS`] IP packets, back to back in one buffer that the batch owns.
///
/// A batch is what actors hand to each other: one message, one allocation, many packets. Order is
/// the order of arrival and is kept.
#[derive(Debug, Default)]
pub struct PacketBatch {
    bytes: Vec<u8>,
    packets: Vec<Range<usize>>,
}

impl PacketBatch {
    /// Beyond this many packets a batch says it is full; one GRO datagram or TUN super-packet of
    /// 64 KiB holds about 50 packets of 1280 bytes.
    pub const MAX_PACKETS: usize = 64;

    /// An empty batch with room for `bytes` bytes of packets.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            packets: Vec::new(),
        }
    }

    /// A batch of one packet.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let mut batch = Self::with_capacity(packet.len());
        batch.push(packet);
        batch
    }

    /// Copies `packet` to the end.
    pub fn push(&mut self, packet: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        self.packets.push(start..self.bytes.len());
    }

    /// Lets `write` produce a packet of at most `max_bytes` bytes in place; it returns the range it
    /// wrote, relative to the slice it was given, or `None` to add nothing.
    pub fn push_with(
        &mut self,
        max_bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Option<Range<usize>>,
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + max_bytes, 0);
        let written = write(&mut self.bytes[start..]).filter(|range| range.end <= max_bytes);
        match written {
            Some(range) => {
                self.bytes.truncate(start + range.end);
                self.packets.push(start + range.start..start + range.end);
            }
            None => self.bytes.truncate(start),
        }
    }

    /// Keeps the packets for which `keep` answers true; `keep` may rewrite the packet in place, but
    /// not its length.
    pub fn retain_mut(&mut self, mut keep: impl FnMut(&mut [u8]) -> bool) {
        let bytes = &mut self.bytes;
        self.packets.retain(|range| keep(&mut bytes[range.clone()]));
    }

    /// As [`Self::retain_mut`], but the packet may become shorter: `keep` answers its new length,
    /// or `None` to drop it.
    pub fn retain_resized(&mut self, mut keep: impl FnMut(&mut [u8]) -> Option<usize>) {
        let bytes = &mut self.bytes;
        self.packets.retain_mut(|range| {
            let kept = keep(&mut bytes[range.clone()]);
            let kept = kept.filter(|length| *length <= range.len());
            range.end = range.start + kept.unwrap_or_default();
            kept.is_some()
        });
    }

    /// The packets, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|range| &self.bytes[range.clone()])
    }

    /// The number of packets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The number of bytes of all packets.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.packets.iter().map(ExactSizeIterator::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_bytes() {
        let mut batch = PacketBatch::default();
        batch.push(b"one");
        batch.push_with(10, |slot| {
            slot[2..5].copy_from_slice(b"two");
            Some(2..5)
        });
        batch.push_with(10, |_| None);
        batch.push(b"three");
        assert_eq!(
            batch.iter().collect::<Vec<_>>(),
            [b"one" as &[u8], b"two", b"three"]
        );
        assert_eq!(batch.total_bytes(), 11);
    }

    #[test]
    fn a_writer_that_claims_too_much_adds_nothing() {
        let mut batch = PacketBatch::default();
        batch.push_with(4, |_| Some(0..5));
        assert!(batch.is_empty());
    }

    #[test]
    fn packets_may_become_shorter_but_not_longer() {
        let mut batch = PacketBatch::default();
        for packet in [b"shorten" as &[u8], b"drop", b"claim"] {
            batch.push(packet);
        }
        batch.retain_resized(|packet| match &*packet {
            b"shorten" => Some(5),
            b"drop" => None,
            _ => Some(packet.len() + 1),
        });
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"short" as &[u8]]);
        assert_eq!(batch.total_bytes(), 5);
    }

    #[test]
    fn retain_rewrites_and_drops() {
        let mut batch = PacketBatch::default();
        batch.push(b"keep");
        batch.push(b"drop");
        batch.retain_mut(|packet| {
            let keep = packet == b"keep";
            packet[0] = b'K';
            keep
        });
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"Keep" as &[u8]]);
    }
}
