//! Inner IP packets, many in one buffer.

use super::buffer::Buffer;
use super::merge::Tail;
use super::offload::{self, MAX_HEADER_BYTES, Segmentation, VNET_HEADER_BYTES};
use super::{DropReason, IpPacket, TUNNEL_MTU_BYTES};

/// IP packets, back to back in one buffer that the batch owns; any of them may be a super-packet
/// ([`Segmentation`]).
///
/// A batch is what actors hand to each other: one message, one buffer, many packets. Order is the
/// order of arrival and is kept.
#[derive(Debug, Default)]
pub struct PacketBatch {
    buffer: Buffer,
    packets: Vec<Slot>,
    /// Of the last packet, where what comes next may continue it.
    tail: Option<Tail>,
    /// What was read and is none that we know to handle.
    refused: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    end: usize,
    segmentation: Option<Segmentation>,
}

/// A packet of a batch, to be changed in place.
#[derive(Debug)]
pub struct PacketMut<'a> {
    /// All of it, headers first.
    pub bytes: &'a mut [u8],
    /// How it is to be cut, if it is a super-packet.
    pub segmentation: Option<Segmentation>,
}

impl PacketMut<'_> {
    /// A view of it, proven to be one whole packet of which no segment exceeds the tunnel's MTU.
    ///
    /// # Errors
    /// As [`IpPacket::parse`].
    pub fn parse(&self) -> Result<IpPacket<'_>, DropReason> {
        parse(self.bytes, self.segmentation)
    }

    /// How many packets it stands for.
    #[must_use]
    pub fn segments(&self) -> usize {
        segments(self.bytes.len(), self.segmentation)
    }

    /// The first packet that it stands for; the others are lost.
    pub fn first(&mut self) -> &[u8] {
        match self.segmentation {
            Some(segmentation) => offload::first(self.bytes, segmentation),
            None => self.bytes,
        }
    }

    /// Hands each packet that it stands for to `take`; its bytes mean nothing afterwards.
    pub fn cut(&mut self, mut take: impl FnMut(&mut [u8])) {
        match self.segmentation {
            Some(segmentation) => offload::cut(self.bytes, segmentation, take),
            None => take(self.bytes),
        }
    }
}

fn parse(bytes: &[u8], segmentation: Option<Segmentation>) -> Result<IpPacket<'_>, DropReason> {
    match segmentation {
        None => IpPacket::parse(bytes),
        Some(segmentation) if segmentation.segment_bytes() > TUNNEL_MTU_BYTES => {
            Err(DropReason::OversizedIp)
        }
        Some(_) => IpPacket::parse_unbounded(bytes),
    }
}

fn segments(bytes: usize, segmentation: Option<Segmentation>) -> usize {
    segmentation.map_or(1, |segmentation| segmentation.segments(bytes))
}

impl PacketBatch {
    /// How many packets whoever gathers them one by one puts into one batch.
    pub const MAX_PACKETS: usize = 64;

    /// An empty batch with room for `bytes` bytes of packets.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Buffer::with_room(bytes),
            packets: Vec::new(),
            tail: None,
            refused: 0,
        }
    }

    /// A batch of one packet.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let mut batch = Self::with_capacity(packet.len());
        batch.push(packet);
        batch
    }

    /// Copies `packet`, which is no super-packet, to the end.
    pub fn push(&mut self, packet: &[u8]) {
        self.push_segmented(packet, None);
    }

    /// Copies `packet` to the end, which is to be cut as `segmentation` says.
    pub fn push_segmented(&mut self, packet: &[u8], segmentation: Option<Segmentation>) {
        let start = self.buffer.len();
        self.buffer.push(packet);
        self.append(start, segmentation);
    }

    fn append(&mut self, start: usize, segmentation: Option<Segmentation>) {
        self.packets.push(Slot {
            start,
            end: self.buffer.len(),
            segmentation,
        });
        self.tail = None;
    }

    /// Lets `write` produce a packet in `max_bytes` bytes of room; it returns its length, or `None`
    /// to add nothing. A packet that continues the one before becomes part of it.
    pub fn push_merging(
        &mut self,
        max_bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let end = self.buffer.len();
        // Written so that its payload lies where it belongs if it is merged; the end of the payload
        // before, which its header then covers, is put aside.
        let header_bytes = self.tail.map_or(0, |tail| tail.header_bytes());
        let start = end - header_bytes;
        let room = self.buffer.room_mut(end + max_bytes);
        let mut covered = [0; MAX_HEADER_BYTES];
        covered[..header_bytes].copy_from_slice(&room[start..end]);
        let written = write(&mut room[start..start + max_bytes]);
        let Some(bytes) = written.filter(|bytes| *bytes <= max_bytes) else {
            room[start..end].copy_from_slice(&covered[..header_bytes]);
            return;
        };
        if self.merge(start, bytes, &covered[..header_bytes]) {
            return;
        }
        let room = self.buffer.room_mut(end + bytes);
        if header_bytes > 0 {
            room.copy_within(start..start + bytes, end);
            room[start..end].copy_from_slice(&covered[..header_bytes]);
        }
        let tail = Tail::of(&room[end..end + bytes]);
        self.buffer.set_len(end + bytes);
        self.append(end, None);
        self.tail = tail;
    }

    /// Whether the packet at `start`, of `bytes` bytes, continues the last one, whose end its
    /// header covers.
    fn merge(&mut self, start: usize, bytes: usize, covered: &[u8]) -> bool {
        let (Some(tail), Some(last)) = (self.tail, self.packets.last_mut()) else {
            return false;
        };
        let room = self.buffer.room_mut(0);
        let next = &room[start..start + bytes];
        if !tail.is_continued(last.end - last.start, next) {
            return false;
        }
        let header_bytes = covered.len();
        let is_pushed = tail.is_pushed(next);
        self.tail = tail.after(&next[..header_bytes], bytes - header_bytes);
        room[start..last.end].copy_from_slice(covered);
        last.end = start + bytes;
        last.segmentation = Some(tail.segmentation());
        tail.complete(&mut room[last.start..last.end], is_pushed);
        self.buffer.set_len(last.end);
        true
    }

    /// Lets `read` fill `max_bytes` bytes of room with what a TUN queue with offloads hands over: a
    /// header and a packet. It returns how many bytes it read. What does not fit its header is
    /// dropped, and counted in [`Self::refused`].
    ///
    /// # Errors
    /// Those of `read`, which then has added nothing.
    pub fn push_offloaded<E>(
        &mut self,
        max_bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.buffer.len();
        let room = &mut self.buffer.room_mut(start + max_bytes)[start..start + max_bytes];
        let bytes = read(room)?.min(max_bytes);
        let received = room[..bytes]
            .split_first_chunk_mut()
            .and_then(|(header, packet)| offload::receive(*header, packet).ok());
        let Some(segmentation) = received else {
            self.refused += 1;
            return Ok(());
        };
        self.buffer.set_len(start + bytes);
        self.append(start + VNET_HEADER_BYTES, segmentation);
        Ok(())
    }

    /// How much of what was read was dropped.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Whether `bytes` bytes more fit without moving the others.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.buffer.spare() >= bytes
    }

    /// Keeps the packets for which `keep` answers true; `keep` may rewrite the packet in place, but
    /// not its length.
    pub fn retain_mut(&mut self, mut keep: impl FnMut(&mut PacketMut<'_>) -> bool) {
        self.tail = None;
        let buffer = self.buffer.bytes_mut();
        self.packets.retain(|slot| {
            keep(&mut PacketMut {
                bytes: &mut buffer[slot.start..slot.end],
                segmentation: slot.segmentation,
            })
        });
    }

    /// As [`Self::retain_mut`], but the packet may become shorter: `keep` answers its new length,
    /// or `None` to drop it.
    pub fn retain_resized(&mut self, mut keep: impl FnMut(&mut PacketMut<'_>) -> Option<usize>) {
        self.tail = None;
        let buffer = self.buffer.bytes_mut();
        self.packets.retain_mut(|slot| {
            let bytes = slot.end - slot.start;
            let kept = keep(&mut PacketMut {
                bytes: &mut buffer[slot.start..slot.end],
                segmentation: slot.segmentation,
            });
            let kept = kept.filter(|length| *length <= bytes);
            slot.end = slot.start + kept.unwrap_or_default();
            kept.is_some()
        });
    }

    /// Hands each packet to `take`, oldest first; they may be used up.
    pub fn for_each_mut(&mut self, mut take: impl FnMut(PacketMut<'_>)) {
        self.retain_mut(|packet| {
            take(PacketMut {
                bytes: &mut *packet.bytes,
                segmentation: packet.segmentation,
            });
            true
        });
    }

    /// The bytes of the packets, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let buffer = self.buffer.bytes();
        self.packets
            .iter()
            .map(|slot| &buffer[slot.start..slot.end])
    }

    /// The packets with how they are to be cut, oldest first.
    pub fn segmented(&self) -> impl Iterator<Item = (&[u8], Option<Segmentation>)> {
        let segmentation = self.packets.iter().map(|slot| slot.segmentation);
        self.iter().zip(segmentation)
    }

    /// How many packets there are, each super-packet counted as those that it stands for.
    #[must_use]
    pub fn segments(&self) -> usize {
        let counts = self
            .packets
            .iter()
            .map(|slot| segments(slot.end - slot.start, slot.segmentation));
        counts.sum()
    }

    /// The number of packets, each super-packet counted as one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The number of bytes of all packets, each super-packet counted as those that it stands for.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        let bytes = self.packets.iter().map(|slot| {
            let bytes = slot.end - slot.start;
            let further = segments(bytes, slot.segmentation) - 1;
            bytes + further * slot.segmentation.map_or(0, |it| it.header_bytes())
        });
        bytes.sum()
    }
}

#[cfg(test)]
mod tests;
