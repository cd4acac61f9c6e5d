//! The slab of flows and its two indices. It knows no time and no limits.
//!
//! Keys are in the slab only; the indices hold 32-bit positions, which keeps 100,000 flows small.

use super::FlowTarget;
use super::key::{FlowProtocol, Inside, KeyHasher, Outside};
use super::list::{Chain, List, OWNER};
use crate::nat_table::{ClientSlot, MappingId};
use hashbrown::HashTable;
use std::net::IpAddr;
use std::ops::{Index, IndexMut};

/// A live or remembered flow: one cache line, which is all that a packet touches here. Fields that
/// both keys share are stored once.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Node {
    client: ClientSlot,
    protocol: FlowProtocol,
    inside_port: u16,
    outside_port: u16,
    proxy: IpAddr,
    real: IpAddr,
    pub(super) mapping: MappingId,
    pub(super) epoch: u32,
    /// How often the entry was used before.
    pub(super) generation: u16,
    /// The tick of the last packet.
    pub(super) last_packet: u32,
    pub(super) state: State,
    pub(super) fin_inbound: bool,
    pub(super) fin_outbound: bool,
}

const _: () = assert!(size_of::<Node>() == 64, "a flow fits one cache line");

impl Node {
    /// A new flow; both keys are of one client and protocol.
    pub(super) fn new(inside: Inside, outside: Outside, target: &FlowTarget, tick: u32) -> Self {
        Self {
            client: inside.client,
            protocol: inside.protocol,
            inside_port: inside.port,
            outside_port: outside.port,
            proxy: inside.proxy,
            real: outside.real,
            mapping: target.mapping,
            epoch: target.epoch,
            generation: 0,
            last_packet: tick,
            state: State::Unconfirmed,
            fin_inbound: false,
            fin_outbound: false,
        }
    }

    #[inline]
    pub(super) fn inside(&self) -> Inside {
        Inside {
            client: self.client,
            protocol: self.protocol,
            port: self.inside_port,
            proxy: self.proxy,
        }
    }

    #[inline]
    pub(super) fn outside(&self) -> Outside {
        Outside {
            client: self.client,
            protocol: self.protocol,
            port: self.outside_port,
            real: self.real,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Unconfirmed,
    Confirmed,
    /// Ended; its tuple is kept so that late packets are recognised.
    Remembered,
}

impl State {
    pub(super) fn is_live(self) -> bool {
        matches!(self, Self::Unconfirmed | Self::Confirmed)
    }
}

pub(super) struct Store {
    nodes: Vec<Node>,
    pub(super) chains: Vec<Chain>,
    free: List<OWNER>,
    used: usize,
    by_inside: HashTable<u32>,
    by_outside: HashTable<u32>,
    hasher: KeyHasher,
}

impl Store {
    pub(super) fn new(hasher: KeyHasher) -> Self {
        Self {
            nodes: Vec::new(),
            chains: Vec::new(),
            free: List::EMPTY,
            used: 0,
            by_inside: HashTable::new(),
            by_outside: HashTable::new(),
            hasher,
        }
    }

    /// Number of entries in use.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn find_inside(&self, key: &Inside) -> Option<u32> {
        let hash = self.hasher.inside(key);
        let found = self.by_inside.find(hash, |at| self[*at].inside() == *key);
        found.copied()
    }

    pub(super) fn find_outside(&self, key: &Outside) -> Option<u32> {
        let hash = self.hasher.outside(key);
        let found = self.by_outside.find(hash, |at| self[*at].outside() == *key);
        found.copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// Stores `node` and indexes it by its outside key, which must be unique. Never grows beyond
    /// room for `limit` nodes.
    pub(super) fn insert(&mut self, node: Node, limit: usize) -> u32 {
        let at = match self.free.pop_front(&mut self.chains) {
            Some(at) => {
                let generation = self[at].generation;
                self[at] = Node { generation, ..node };
                at
            }
            None => self.push(node, limit),
        };
        self.index_outside(at);
        self.used += 1;
        at
    }

    fn push(&mut self, node: Node, limit: usize) -> u32 {
        let length = self.nodes.len();
        if length == self.nodes.capacity() {
            let more = length
                .max(FIRST_PLACES)
                .min(limit.saturating_sub(length))
                .max(1);
            self.nodes.reserve_exact(more);
            self.chains.reserve_exact(more);
        }
        let generation = 0;
        self.nodes.push(Node { generation, ..node });
        self.chains.push(Chain::LOOSE);
        u32::try_from(length).expect("the limit on flows is below 2^32")
    }

    /// Frees the entry `at`, which must be in no list.
    pub(super) fn free(&mut self, at: u32) {
        self.unindex_inside(at);
        self.unindex_outside(at);
        let node = &mut self[at];
        node.state = State::Free;
        node.generation = node.generation.wrapping_add(1);
        self.free.push_back(&mut self.chains, at);
        self.used -= 1;
    }

    /// Indexes `at` by its inside key, which must be unique.
    pub(super) fn index_inside(&mut self, at: u32) {
        let hash = self.hasher.inside(&self[at].inside());
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |at: &u32| hasher.inside(&nodes[*at as usize].inside());
        self.by_inside.insert_unique(hash, at, rehash);
    }

    /// Removes `at` from the index by inside key, if it is there.
    pub(super) fn unindex_inside(&mut self, at: u32) {
        let hash = self.hasher.inside(&self[at].inside());
        if let Ok(entry) = self.by_inside.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
    }

    /// Gives `at` another outside key, which must be unique.
    pub(super) fn readdress(&mut self, at: u32, outside: Outside) {
        self.unindex_outside(at);
        let node = &mut self[at];
        (node.outside_port, node.real) = (outside.port, outside.real);
        self.index_outside(at);
    }

    fn index_outside(&mut self, at: u32) {
        let hash = self.hasher.outside(&self[at].outside());
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |at: &u32| hasher.outside(&nodes[*at as usize].outside());
        self.by_outside.insert_unique(hash, at, rehash);
    }

    fn unindex_outside(&mut self, at: u32) {
        let hash = self.hasher.outside(&self[at].outside());
        if let Ok(entry) = self.by_outside.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
    }

    /// Bytes on the heap, from the reserved capacity.
    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.chains.capacity() * size_of::<Chain>()
            + self.by_inside.allocation_size()
            + self.by_outside.allocation_size()
    }
}

impl Index<u32> for Store {
    type Output = Node;

    #[inline]
    fn index(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }
}

impl IndexMut<u32> for Store {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }
}

/// Number of entries that the first flow reserves.
const FIRST_PLACES: usize = 64;
