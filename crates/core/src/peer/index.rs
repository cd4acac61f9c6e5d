//! Allocation of WireGuard receiver indices, which encode the peer and its shard.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// The upper 24 bits of all WireGuard receiver indices of one peer; the lowest 8 bits of the 32-bit
/// index number its sessions.
///
/// The lowest byte of the 24 is the shard that owns the peer. Receiver indices are little-endian on
/// the wire, so the shard is the second byte of the field: a socket filter can read it at a fixed
/// offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The peer of a receiver index from the wire.
    #[must_use]
    pub fn of_receiver_index(receiver_index: u32) -> Self {
        Self(receiver_index >> 8)
    }

    /// The 24 bits, in the low bits of the word.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// The shard that owns the peer.
    #[must_use]
    pub fn shard(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

/// Allocates peer indices that are unique while in use and unpredictable in their order.
pub struct PeerIndexPool {
    rng: ChaCha12Rng,
    in_use: BTreeSet<PeerIndex>,
    /// Number of indices in use per shard.
    peers: BTreeMap<u8, usize>,
}

impl PeerIndexPool {
    /// Peers that one shard can have at once: half of the 16-bit space, beyond which the search for
    /// a free index by random draws becomes expensive.
    pub const MAX_PER_SHARD: usize = 1 << 15;

    /// An empty pool with a random generator from `seed`.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha12Rng::from_seed(seed),
            in_use: BTreeSet::new(),
            peers: BTreeMap::new(),
        }
    }

    /// The shard with the fewest peers among the first `shards`; the lowest of several.
    #[must_use]
    pub fn emptiest(&self, shards: u8) -> u8 {
        let all = 0..shards;
        all.min_by_key(|shard| self.peers(*shard)).unwrap_or(0)
    }

    fn peers(&self, shard: u8) -> usize {
        self.peers.get(&shard).copied().unwrap_or(0)
    }

    /// A free index of `shard`, or `None` when the shard has [`Self::MAX_PER_SHARD`] peers.
    pub fn allocate(&mut self, shard: u8) -> Option<PeerIndex> {
        if self.peers(shard) >= Self::MAX_PER_SHARD {
            return None;
        }
        loop {
            let random = self.rng.next_u32() & 0xFFFF;
            let index = PeerIndex(random << 8 | u32::from(shard));
            if self.in_use.insert(index) {
                *self.peers.entry(shard).or_default() += 1;
                return Some(index);
            }
        }
    }

    /// Makes an index available again.
    pub fn release(&mut self, index: PeerIndex) {
        if self.in_use.remove(&index)
            && let Some(peers) = self.peers.get_mut(&index.shard())
        {
            *peers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_is_the_second_byte_on_the_wire() {
        let index = PeerIndexPool::new([7; 32])
            .allocate(3)
            .expect("an empty pool has room");
        let receiver_index = index.to_bits() << 8 | 0x42;
        assert_eq!(receiver_index.to_le_bytes()[1], 3);
        assert_eq!(PeerIndex::of_receiver_index(receiver_index), index);
    }

    #[test]
    fn indices_are_unique_until_released() {
        let mut pool = PeerIndexPool::new([1; 32]);
        let taken: BTreeSet<_> = (0..1000).filter_map(|_| pool.allocate(0)).collect();
        assert_eq!(taken.len(), 1000);
        for index in taken {
            pool.release(index);
        }
        assert!(pool.in_use.is_empty());
    }

    #[test]
    fn a_full_shard_refuses_and_leaves_the_others_alone() {
        let mut pool = PeerIndexPool::new([2; 32]);
        for _ in 0..PeerIndexPool::MAX_PER_SHARD {
            assert!(pool.allocate(0).is_some());
        }
        assert_eq!(pool.allocate(0), None);
        assert!(pool.allocate(1).is_some());
    }

    #[test]
    fn the_emptiest_shard_is_chosen_and_a_double_release_counts_once() {
        let mut pool = PeerIndexPool::new([3; 32]);
        let mut next = || {
            let shard = pool.emptiest(3);
            pool.allocate(shard).expect("room")
        };
        let indices = [next(), next(), next(), next()];
        assert_eq!(indices.map(PeerIndex::shard), [0, 1, 2, 0]);
        pool.release(indices[2]);
        pool.release(indices[2]);
        assert_eq!(pool.emptiest(3), 2);
        assert_eq!(pool.emptiest(2), 1);
        pool.allocate(2).expect("room");
        assert_eq!(pool.emptiest(3), 1);
    }
}
