//! Sealed datagrams on their way to the socket, collected into batches for GSO writes.

use crate::packet::buffer::BUFFER_BYTES;
use crate::packet::{Buffer, DatagramBatch, Ecn, Path};
use std::collections::VecDeque;

/// Collects consecutive datagrams on one path with one ECN mark into one batch, while all except
/// the last have the same length and the kernel's limits are kept.
#[derive(Default)]
pub(crate) struct Outbox {
    open: Option<OpenBatch>,
    closed: VecDeque<DatagramBatch>,
}

struct OpenBatch {
    path: Path,
    ecn: Ecn,
    segment_bytes: usize,
    segments: usize,
    bytes: Buffer,
}

/// An outbox for datagrams on one path: an open batch is on that path.
pub(crate) struct Lane<'a> {
    outbox: &'a mut Outbox,
    path: &'a Path,
}

impl Lane<'_> {
    /// Appends a datagram of at most `max_bytes` bytes that `write` produces in place; it returns
    /// the length written, or `None` for nothing.
    pub(crate) fn push_with(
        &mut self,
        ecn: Ecn,
        max_bytes: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let open = self.open_for(ecn, max_bytes);
        let start = open.bytes.len();
        let slot = &mut open.bytes.room_mut(start + max_bytes)[start..start + max_bytes];
        let written = write(slot).filter(|bytes| *bytes <= max_bytes);
        let bytes = written.unwrap_or(0);
        open.bytes.set_len(start + bytes);
        if bytes == 0 {
            return;
        }
        open.segments += 1;
        if open.segments == 1 {
            open.segment_bytes = bytes;
        }
        // A shorter datagram ends a GSO batch; open_for excludes a longer one.
        let is_last = bytes < open.segment_bytes || open.segments == MAX_SEGMENTS;
        if is_last {
            self.outbox.close();
        }
    }

    fn open_for(&mut self, ecn: Ecn, max_bytes: usize) -> &mut OpenBatch {
        let fits = self.outbox.open.as_ref().is_some_and(|open| {
            let not_longer = open.segments == 0 || max_bytes <= open.segment_bytes;
            open.ecn == ecn && not_longer && open.bytes.len() + max_bytes <= MAX_BATCH_BYTES
        });
        if !fits {
            self.outbox.close();
        }
        self.outbox.open.get_or_insert_with(|| OpenBatch {
            path: *self.path,
            ecn,
            segment_bytes: 0,
            segments: 0,
            bytes: Buffer::with_room(BUFFER_BYTES),
        })
    }
}

impl Outbox {
    /// Where to append datagrams on `path`; compares paths once for all of them.
    pub(crate) fn on<'a>(&'a mut self, path: &'a Path) -> Lane<'a> {
        if self.open.as_ref().is_some_and(|open| open.path != *path) {
            self.close();
        }
        let outbox = self;
        Lane { outbox, path }
    }

    /// Appends a complete datagram.
    pub(crate) fn push(&mut self, path: &Path, ecn: Ecn, datagram: &[u8]) {
        self.on(path).push_with(ecn, datagram.len(), |slot| {
            slot.copy_from_slice(datagram);
            Some(datagram.len())
        });
    }

    /// The next batch, oldest first.
    pub(crate) fn pop(&mut self) -> Option<DatagramBatch> {
        if self.closed.is_empty() {
            self.close();
        }
        self.closed.pop_front()
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if open.segments > 0 {
            // With varying lengths or marks, each datagram can become a separate batch.
            let bytes = open.bytes.take_fitted();
            let batch = DatagramBatch::new(open.path, open.ecn, open.segment_bytes, bytes);
            self.closed.push_back(batch);
        }
    }
}

/// The kernel's limit of segments per UDP GSO write (`UDP_MAX_SEGMENTS`, 64 before Linux 6.9).
const MAX_SEGMENTS: usize = 64;
/// The largest UDP payload of one write, less a margin for IP headers.
const MAX_BATCH_BYTES: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(port: u16) -> Path {
        Path::direct(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], port).into())
    }

    proptest! {
        /// Every datagram comes out once, in order, on its path, in batches that the kernel
        /// accepts.
        #[test]
        fn no_datagram_is_lost_or_reordered(
            sent in proptest::collection::vec((1u16..3, 0u8..4, 1usize..1400), 0..300)
        ) {
            let mut outbox = Outbox::default();
            for (number, (port, ecn, bytes)) in sent.iter().enumerate() {
                outbox.push(&path(*port), Ecn::from_bits(*ecn), &vec![number as u8; *bytes]);
            }
            let mut received = Vec::new();
            while let Some(batch) = outbox.pop() {
                prop_assert!(batch.len() <= MAX_SEGMENTS && batch.bytes().len() <= MAX_BATCH_BYTES);
                for segment in batch.segments() {
                    received.push((batch.path, batch.ecn, segment.to_vec()));
                }
            }
            let expected: Vec<_> = sent
                .iter()
                .enumerate()
                .map(|(number, (port, ecn, bytes))| {
                    (path(*port), Ecn::from_bits(*ecn), vec![number as u8; *bytes])
                })
                .collect();
            prop_assert_eq!(received, expected);
        }
    }

    #[test]
    fn a_batch_of_one_datagram_wastes_no_memory() {
        let mut outbox = Outbox::default();
        for mark in 0..100_u8 {
            outbox.push(&path(2), Ecn::from_bits(mark % 2), &[0; 100]);
        }
        let batches: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(batches.len(), 100);
        let spare: usize = batches.iter().map(DatagramBatch::spare).sum();
        assert!(spare < 100_000, "{spare}");
    }

    #[test]
    fn equal_lengths_share_a_batch_and_a_short_one_ends_it() {
        let mut outbox = Outbox::default();
        for bytes in [100, 100, 60, 100] {
            outbox.push(&path(2), Ecn::NotEct, &vec![0; bytes]);
        }
        let lens: Vec<_> = std::iter::from_fn(|| outbox.pop())
            .map(|batch| batch.len())
            .collect();
        assert_eq!(lens, [3, 1]);
    }
}
