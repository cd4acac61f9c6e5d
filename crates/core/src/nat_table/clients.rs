//! The clients of a shard, by id, tunnel address and slot; and the addresses of the clients of
//! other shards.

use super::ClientSlot;
use super::sorting::Location;
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The attached clients. Slots are dense and reused.
#[derive(Default)]
pub(super) struct ClientTable {
    by_id: BTreeMap<ClientId, ClientSlot>,
    by_address: HashMap<IpAddr, Location>,
    /// The clients of other shards.
    remote: BTreeMap<ClientId, TunnelAddresses>,
    slots: Vec<Option<AttachedClient>>,
    free: Vec<ClientSlot>,
}

struct AttachedClient {
    id: ClientId,
    tunnel: TunnelAddresses,
}

impl ClientTable {
    /// Assigns the addresses to the client; an address of another client is taken over. Returns the
    /// slot to clear first if the client comes with other addresses than before.
    pub(super) fn attach(&mut self, id: ClientId, tunnel: TunnelAddresses) -> Option<ClientSlot> {
        self.unroute(id);
        let former = self
            .slot(id)
            .filter(|slot| self.tunnel(*slot) != Some(tunnel));
        if former.is_some() {
            self.detach(id);
        }
        let slot = self.slot(id).unwrap_or_else(|| self.allocate());
        self.by_id.insert(id, slot);
        self.slots[slot.0 as usize] = Some(AttachedClient { id, tunnel });
        for address in addresses(tunnel) {
            self.by_address.insert(address, Location::Local(slot));
        }
        former
    }

    /// Removes the client, and its addresses where they are still its own. Returns its slot.
    pub(super) fn detach(&mut self, id: ClientId) -> Option<ClientSlot> {
        let slot = self.by_id.remove(&id)?;
        let client = self.slots[slot.0 as usize].take()?;
        self.vacate(client.tunnel, |location| location == Location::Local(slot));
        self.free.push(slot);
        Some(slot)
    }

    /// Assigns the addresses to a client of `shard`; an address of another client is taken over.
    pub(super) fn route(&mut self, id: ClientId, tunnel: TunnelAddresses, shard: u8) {
        self.unroute(id);
        for address in addresses(tunnel) {
            self.by_address.insert(address, Location::Remote(shard, id));
        }
        self.remote.insert(id, tunnel);
    }

    /// Removes a client of another shard, and its addresses where they are still its own.
    pub(super) fn unroute(&mut self, id: ClientId) {
        if let Some(tunnel) = self.remote.remove(&id) {
            self.vacate(
                tunnel,
                |location| matches!(location, Location::Remote(_, owner) if owner == id),
            );
        }
    }

    fn vacate(&mut self, tunnel: TunnelAddresses, is_meant: impl Fn(Location) -> bool) {
        for address in addresses(tunnel) {
            if self.location(address).is_some_and(&is_meant) {
                self.by_address.remove(&address);
            }
        }
    }

    pub(super) fn slot(&self, id: ClientId) -> Option<ClientSlot> {
        self.by_id.get(&id).copied()
    }

    /// The client of this shard with this address.
    pub(super) fn at(&self, address: IpAddr) -> Option<ClientSlot> {
        match self.location(address)? {
            Location::Local(slot) => Some(slot),
            Location::Remote(..) => None,
        }
    }

    /// The owner of an address, on any shard.
    pub(super) fn location(&self, address: IpAddr) -> Option<Location> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn id(&self, slot: ClientSlot) -> Option<ClientId> {
        self.slots
            .get(slot.0 as usize)?
            .as_ref()
            .map(|client| client.id)
    }

    fn tunnel(&self, slot: ClientSlot) -> Option<TunnelAddresses> {
        self.slots
            .get(slot.0 as usize)?
            .as_ref()
            .map(|client| client.tunnel)
    }

    fn allocate(&mut self) -> ClientSlot {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ClientSlot(u32::try_from(self.slots.len() - 1).expect("fewer clients than memory"))
        })
    }
}

fn addresses(tunnel: TunnelAddresses) -> [IpAddr; 2] {
    [tunnel.ipv4.into(), tunnel.ipv6.into()]
}
