//! The storage of mappings, indexed by id, proxy IP, name and client.

use super::mapping::Mapping;
use super::{ClientSlot, MappingId};
use crate::names::DomainName;
use ahash::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// All mappings of a shard.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Read for each packet, never iterated.
    by_proxy: HashMap<(ClientSlot, IpAddr), MappingId, RandomState>,
    by_name: BTreeMap<(DomainName, ClientSlot), MappingId>,
    by_client: BTreeMap<ClientSlot, BTreeSet<MappingId>>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    mapping: Option<Box<Mapping>>,
}

impl Table {
    /// Keyed, so that a client cannot choose proxy IPs that collide, and a seed replays a run.
    pub(super) fn new([a, b, c, d]: [u64; 4]) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_proxy: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            by_name: BTreeMap::new(),
            by_client: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, id: MappingId) -> Option<&Mapping> {
        let slot = self.slots.get(id.index as usize)?;
        let mapping = slot.mapping.as_deref();
        mapping.filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: MappingId) -> Option<&mut Mapping> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let mapping = slot.mapping.as_deref_mut();
        mapping.filter(|_| slot.generation == id.generation)
    }

    pub(super) fn by_proxy(&self, client: ClientSlot, proxy_ip: IpAddr) -> Option<MappingId> {
        self.by_proxy.get(&(client, proxy_ip)).copied()
    }

    pub(super) fn by_name(&self, client: ClientSlot, name: &DomainName) -> Option<MappingId> {
        self.by_name.get(&(name.clone(), client)).copied()
    }

    /// The mapping at a random index, if there is one.
    pub(super) fn draw(&self, random: u32) -> Option<&Mapping> {
        let slot = random.checked_rem(u32::try_from(self.slots.len()).ok()?)?;
        self.slots.get(slot as usize)?.mapping.as_deref()
    }

    /// The mappings of all clients with that name.
    pub(super) fn all_by_name(&self, name: &DomainName) -> Vec<MappingId> {
        let first = (name.clone(), ClientSlot(0));
        let last = (name.clone(), ClientSlot(u32::MAX));
        self.by_name
            .range(first..=last)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Whether any client has that name.
    pub(super) fn has_name(&self, name: &DomainName) -> bool {
        let first = (name.clone(), ClientSlot(0));
        let last = (name.clone(), ClientSlot(u32::MAX));
        self.by_name.range(first..=last).next().is_some()
    }

    /// All ids, in the order of their names.
    pub(super) fn ids(&self) -> Vec<MappingId> {
        self.by_name.values().copied().collect()
    }

    pub(super) fn of_client(&self, client: ClientSlot) -> impl Iterator<Item = MappingId> {
        self.by_client.get(&client).into_iter().flatten().copied()
    }

    pub(super) fn count_of_client(&self, client: ClientSlot) -> usize {
        self.by_client.get(&client).map_or(0, BTreeSet::len)
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Adds a mapping for a name that its client does not have yet, without proxy IPs.
    pub(super) fn insert(&mut self, mut mapping: Mapping) -> MappingId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("the limits are far below 2^32")
        });
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation;
        let id = MappingId { index, generation };
        let name = (mapping.name().clone(), mapping.client);
        self.by_client.entry(mapping.client).or_default().insert(id);
        self.by_name.insert(name, id);
        mapping.id = id;
        slot.mapping = Some(Box::new(mapping));
        id
    }

    /// Indexes the mapping by a proxy IP; returns the mapping that it led to before, if that was
    /// another one.
    pub(super) fn index_proxy(
        &mut self,
        id: MappingId,
        client: ClientSlot,
        ip: IpAddr,
    ) -> Option<MappingId> {
        let former = self.by_proxy.insert((client, ip), id);
        former.filter(|former| *former != id)
    }

    /// Removes the proxy IPs that lead to the mapping from the index.
    pub(super) fn forget_proxies(&mut self, id: MappingId, client: ClientSlot, ips: &[IpAddr]) {
        for ip in ips {
            if self.by_proxy(client, *ip) == Some(id) {
                self.by_proxy.remove(&(client, *ip));
            }
        }
    }

    /// Removes a mapping; its id is never current again.
    pub(super) fn remove(&mut self, id: MappingId) -> Option<Mapping> {
        self.get(id)?;
        let slot = &mut self.slots[id.index as usize];
        let mapping = *slot.mapping.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        for ips in &mapping.proxy_ips {
            self.forget_proxies(id, mapping.client, ips);
        }
        self.by_name
            .remove(&(mapping.name().clone(), mapping.client));
        if let Some(ids) = self.by_client.get_mut(&mapping.client) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_client.remove(&mapping.client);
            }
        }
        Some(mapping)
    }
}
