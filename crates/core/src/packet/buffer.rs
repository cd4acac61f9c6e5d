//! Memory for packets, used again instead of allocated anew.
//!
//! Each thread keeps up to [`POOLED`] large buffers that nobody uses just now; what is returned
//! beyond that is freed, so an idle thread holds [`POOLED`] × [`BUFFER_BYTES`] at most. A large
//! buffer is zeroed once in its life. Small contents (one packet, a handshake message) get memory
//! of their own size.

use std::cell::RefCell;

/// Room of a large buffer: a super-packet of 64 KiB, and as much again for what is read after it.
pub const BUFFER_BYTES: usize = 128 * 1024;
/// Large buffers that a thread keeps: more than are on their way between its actors at any time
/// while none of them is stuck.
pub const POOLED: usize = 64;
/// From here on a large buffer is worth it.
const SMALL_BYTES: usize = 4096;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes with room behind them. What is in the room is initialized, but means nothing.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Always as long as its room.
    room: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// Empty, with room for at least `bytes` bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let room = match bytes {
            0..SMALL_BYTES => vec![0; bytes],
            SMALL_BYTES..=BUFFER_BYTES => take(),
            _ => vec![0; bytes],
        };
        Self { room, used: 0 }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// What is there.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.room[..self.used]
    }

    /// What is there.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.used]
    }

    /// The first `bytes` bytes of all that can be written to, for whoever reads into it; more than
    /// was asked for, if there is.
    pub fn room_mut(&mut self, bytes: usize) -> &mut [u8] {
        self.reserve_total(bytes);
        &mut self.room
    }

    /// Says how many bytes from the start mean something from now on.
    ///
    /// # Panics
    /// When there is less room.
    pub fn set_len(&mut self, bytes: usize) {
        assert!(bytes <= self.room.len(), "{bytes} of {}", self.room.len());
        self.used = bytes;
    }

    /// How many bytes fit without moving.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.room.len() - self.used
    }

    /// Takes what is there: little of it as a copy in memory of its own size, because copying costs
    /// less than another large buffer that is not in the cache; more of it with its memory.
    #[must_use]
    pub fn take_fitted(&mut self) -> Self {
        match self.used {
            0..SMALL_BYTES => self.bytes().to_vec().into(),
            _ => std::mem::take(self),
        }
    }

    /// Appends.
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.used;
        self.reserve_total(start + bytes.len());
        self.room[start..start + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// Lets `bytes` bytes fit in all, at the price of a copy if they do not yet.
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

/// On a thread that ends there is no pool any more.
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
    fn a_large_buffer_is_used_again_and_a_small_one_is_not_kept() {
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
    fn it_grows_and_keeps_what_is_there() {
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
