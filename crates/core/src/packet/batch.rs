//! Inner IP packets, many in one buffer.

use super::buffer::Buffer;
use super::merge::MergeState;
use super::offload::{self, MAX_HEADER_BYTES, Segmentation, VNET_HEADER_BYTES};
use super::{DropReason, IpPacket, TUNNEL_MTU_BYTES};

/// IP packets, back to back in one buffer that the batch owns; any of them may be a super-packet
/// ([`Segmentation`]).
///
/// Actors exchange batches: one message, one buffer, many packets, in the order of arrival.
#[derive(Debug, Default)]
pub struct PacketBatch {
    buffer: Buffer,
    packets: Vec<Slot>,
    /// The state of the last packet, where the next may be merged into it.
    merge_state: Option<MergeState>,
    /// Number of packets that were read but are of no known kind.
    refused: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    end: usize,
    segmentation: Option<Segmentation>,
}

/// A packet of a batch, mutable in place.
#[derive(Debug)]
pub struct PacketMut<'a> {
    /// The whole packet, headers first.
    pub bytes: &'a mut [u8],
    /// How to cut it, for a super-packet.
    pub segmentation: Option<Segmentation>,
}

impl PacketMut<'_> {
    /// A validated view of the packet; no segment of it exceeds the tunnel's MTU.
    ///
    /// # Errors
    /// As [`IpPacket::parse`].
    pub fn parse(&self) -> Result<IpPacket<'_>, DropReason> {
        parse(self.bytes, self.segmentation)
    }

    /// The number of packets it represents: 1, or the segments of a super-packet.
    #[must_use]
    pub fn segments(&self) -> usize {
        segments(self.bytes.len(), self.segmentation)
    }

    /// The first packet that it represents; the others are lost.
    pub fn first(&mut self) -> &[u8] {
        match self.segmentation {
            Some(segmentation) => offload::first(self.bytes, segmentation),
            None => self.bytes,
        }
    }

    /// Passes each packet that it represents to `take`; its bytes have no meaning afterwards.
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
    /// Packets per batch, for code that collects packets one by one.
    pub const MAX_PACKETS: usize = 64;

    /// An empty batch with room for `bytes` bytes of packets.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Buffer::with_room(bytes),
            packets: Vec::new(),
            merge_state: None,
            refused: 0,
        }
    }

    /// A batch of one packet, which is copied.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let mut batch = Self::with_capacity(packet.len());
        batch.push(packet);
        batch
    }

    /// Appends a copy of `packet`, which is not a super-packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.push_segmented(packet, None);
    }

    /// Appends a copy of `packet`, to be cut as `segmentation` says.
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
        self.merge_state = None;
    }

    /// Lets `write` produce a packet in `max_bytes` bytes of space; it returns the packet's length,
    /// or `None` to add nothing. A packet that continues the previous one is merged into it.
    pub fn push_merging(
        &mut self,
        max_bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let end = self.buffer.len();
        // The payload is written where it belongs after a merge; the end of the previous payload,
        // which the new header then covers, is saved.
        let header_bytes = self
            .merge_state
            .map_or(0, |merge_state| merge_state.header_bytes());
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
        let merge_state = MergeState::of(&room[end..end + bytes]);
        self.buffer.set_len(end + bytes);
        self.append(end, None);
        self.merge_state = merge_state;
    }

    /// Merges the packet at `start`, of `bytes` bytes, into the last one, if it continues that;
    /// returns whether it did. Its header covers the end of the last packet, saved in `covered`.
    fn merge(&mut self, start: usize, bytes: usize, covered: &[u8]) -> bool {
        let (Some(merge_state), Some(last)) = (self.merge_state, self.packets.last_mut()) else {
            return false;
        };
        let room = self.buffer.room_mut(0);
        let next = &room[start..start + bytes];
        if !merge_state.can_append(last.end - last.start, next) {
            return false;
        }
        let header_bytes = covered.len();
        let is_pushed = merge_state.is_pushed(next);
        self.merge_state = merge_state.appended(&next[..header_bytes], bytes - header_bytes);
        room[start..last.end].copy_from_slice(covered);
        last.end = start + bytes;
        last.segmentation = Some(merge_state.segmentation());
        merge_state.complete(&mut room[last.start..last.end], is_pushed);
        self.buffer.set_len(last.end);
        true
    }

    /// Lets `read` fill `max_bytes` bytes of space with a header and a packet from a TUN queue with
    /// offloads; it returns the number of bytes read. A packet that contradicts its header is
    /// dropped and counted in [`Self::refused`].
    ///
    /// # Errors
    /// The error of `read`; nothing is added then.
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

    /// How many packets that were read were dropped.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Whether `bytes` more bytes fit without a reallocation.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.buffer.spare() >= bytes
    }

    /// Keeps the packets for which `keep` returns true; `keep` may rewrite the packet in place, but
    /// not change its length.
    pub fn retain_mut(&mut self, mut keep: impl FnMut(&mut PacketMut<'_>) -> bool) {
        self.merge_state = None;
        let buffer = self.buffer.bytes_mut();
        self.packets.retain(|slot| {
            keep(&mut PacketMut {
                bytes: &mut buffer[slot.start..slot.end],
                segmentation: slot.segmentation,
            })
        });
    }

    /// As [`Self::retain_mut`], but the packet may become shorter: `keep` returns its new length,
    /// or `None` to drop it.
    pub fn retain_resized(&mut self, mut keep: impl FnMut(&mut PacketMut<'_>) -> Option<usize>) {
        self.merge_state = None;
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

    /// Passes each packet to `take`, oldest first; `take` may overwrite it.
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

    /// The packets with their segmentation, oldest first.
    pub fn segmented(&self) -> impl Iterator<Item = (&[u8], Option<Segmentation>)> {
        let segmentation = self.packets.iter().map(|slot| slot.segmentation);
        self.iter().zip(segmentation)
    }

    /// The number of packets, each super-packet counted as its segments.
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

    /// Whether the batch holds no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The number of bytes of all packets, each super-packet counted as its segments.
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
