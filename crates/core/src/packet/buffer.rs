//! Reusable memory for packets.
//!
//! Each thread keeps up to [`POOLED`] unused large buffers and frees further ones, so an idle
//! thread holds at most [`POOLED`] × [`BUFFER_BYTES`]. A large buffer is zeroed only when it is
//! allocated. Small contents (one packet, a handshake message) get memory of their own size.

use std::cell::RefCell;

/// Capacity of a large buffer: a super-packet of 64 KiB, and as much again for the next read.
pub const BUFFER_BYTES: usize = 128 * 1024;
/// Unused large buffers that a thread keeps: more than travel between its actors at any time
/// while none of them is stuck.
pub const POOLED: usize = 64;
/// From this size on a large buffer is used.
const SMALL_BYTES: usize = 4096;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes with spare capacity behind them. The spare bytes are initialized but have no meaning.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Its length is the capacity.
    room: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// An empty buffer with capacity for at least `bytes` bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let room = match bytes {
            0..SMALL_BYTES => vec![0; bytes],
            SMALL_BYTES..=BUFFER_BYTES => take(),
            _ => vec![0; bytes],
        };
        Self { room, used: 0 }
    }

    /// The number of bytes in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no bytes are in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The bytes in use, read-only.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.room[..self.used]
    }

    /// The bytes in use, for changes in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.used]
    }

    /// The whole writable memory from its start, for a read into it: at least `bytes` bytes, more
    /// if the capacity is larger.
    pub fn room_mut(&mut self, bytes: usize) -> &mut [u8] {
        self.reserve_total(bytes);
        &mut self.room
    }

    /// Declares the first `bytes` bytes in use.
    ///
    /// # Panics
    /// If the capacity is smaller.
    pub fn set_len(&mut self, bytes: usize) {
        assert!(bytes <= self.room.len(), "{bytes} of {}", self.room.len());
        self.used = bytes;
    }

    /// How many further bytes fit without a reallocation.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.room.len() - self.used
    }

    /// Takes the bytes in use and leaves an empty buffer: few bytes as a copy in memory of their
    /// own size, because copying costs less than another large buffer that is not in the cache;
    /// many bytes with their memory.
    #[must_use]
    pub fn take_fitted(&mut self) -> Self {
        match self.used {
            0..SMALL_BYTES => self.bytes().to_vec().into(),
            _ => std::mem::take(self),
        }
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.used;
        self.reserve_total(start + bytes.len());
        self.room[start..start + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// Ensures a capacity of `bytes` bytes in total; copies the content if it has to grow.
    fn reserve_total(&mut self, bytes: usize) {
        if bytes <= self.room.len() {
            return;
        }
        let mut larger = Self::with_room(bytes.max(2 * self.room.len()));
        larger.room[..self.used].copy_from_slice(&self.room[..self.used]);
        larger.used = self.used;
        *self = larger;
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(room: Vec<u8>) -> Self {
        let used = room.len();
        Self { room, used }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::with_room(self.used);
        copy.push(self.bytes());
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.room.len() == BUFFER_BYTES {
            give_back(std::mem::take(&mut self.room));
        }
    }
}

fn take() -> Vec<u8> {
    let used_before = POOL.try_with(|pool| pool.borrow_mut().pop());
    let used_before = used_before.ok().flatten();
    used_before.unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

/// Does nothing on a thread that is ending: its pool no longer exists.
fn give_back(room: Vec<u8>) {
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOLED {
            pool.push(room);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled() -> usize {
        POOL.with(|pool| pool.borrow().len())
    }

    #[test]
    fn a_large_buffer_is_reused_and_a_small_one_is_not_pooled() {
        let before = pooled();
        drop(Buffer::with_room(100));
        assert_eq!(pooled(), before);
        let large = Buffer::with_room(50_000);
        let place = large.room.as_ptr();
        drop(large);
        assert_eq!(pooled(), before + 1);
        assert_eq!(Buffer::with_room(60_000).room.as_ptr(), place);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<_> = (0..POOLED + 10).map(|_| Buffer::with_room(9000)).collect();
        drop(many);
        assert_eq!(pooled(), POOLED);
    }

    #[test]
    fn growth_keeps_the_content() {
        let mut buffer = Buffer::with_room(3);
        for n in 0..200u8 {
            buffer.push(&[n; 1000]);
        }
        assert_eq!(buffer.len(), 200_000);
        for (n, chunk) in buffer.bytes().chunks(1000).enumerate() {
            assert!(chunk.iter().all(|byte| usize::from(*byte) == n));
        }
        assert_eq!(buffer.clone().bytes(), buffer.bytes());
    }
}
