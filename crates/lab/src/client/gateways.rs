//! All connections, one for each gateway, and the relays that they use as STUN servers.
//!
//! Several resources share the connection of their gateway. Source: docs/protocol.md 3.4.

use super::clock::now;
use super::connection::{Connection, ConnectionEvent, Keys, Opening};
use super::data_plane::DataPlane;
use super::ice;
use super::vocabulary::GatewayId;
use super::wire::{Relay, RelaysPresence};
use super::wireguard::{BUFFER_BYTES, Identity};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// The reference times for a connection's milestones.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimes {
    /// Arrival of the first packet for the resource that opened the connection.
    pub first_packet_at: Instant,
    /// Arrival of the grant that opened the connection.
    pub opened_at: Instant,
}

pub struct Gateways {
    identity: Identity,
    ice: ice::Settings,
    relays: BTreeMap<String, Vec<SocketAddr>>,
    data_plane: Arc<DataPlane>,
    events: mpsc::UnboundedSender<ConnectionEvent>,
    connections: BTreeMap<GatewayId, (Connection, ConnectionTimes)>,
    epoch: u32,
    scratch: Box<[u8; BUFFER_BYTES]>,
}

impl Gateways {
    /// `ice` lacks only the STUN servers, which the portal names.
    pub fn new(
        identity: Identity,
        ice: ice::Settings,
        data_plane: Arc<DataPlane>,
        events: mpsc::UnboundedSender<ConnectionEvent>,
    ) -> Self {
        Self {
            identity,
            ice,
            relays: BTreeMap::new(),
            data_plane,
            events,
            connections: BTreeMap::new(),
            epoch: 0,
            scratch: Box::new([0; BUFFER_BYTES]),
        }
    }

    /// Takes the portal's whole list. Existing connections keep the servers they started with.
    pub fn set_relays(&mut self, relays: Vec<Relay>) {
        self.relays.clear();
        self.add_relays(relays);
    }

    /// Takes a change of the portal's list.
    pub fn change_relays(&mut self, presence: RelaysPresence) {
        let replaced = presence.connected.iter().map(|relay| &relay.id);
        for id in presence.disconnected_ids.iter().chain(replaced) {
            self.relays.remove(id);
        }
        self.add_relays(presence.connected);
    }

    fn add_relays(&mut self, relays: Vec<Relay>) {
        for Relay { id, addr } in relays {
            self.relays.entry(id).or_default().push(addr);
        }
    }

    /// Keeps the gateway's connection if it has these keys; opens or replaces it otherwise. A
    /// replaced connection sends no goodbye: the gateway has already dropped its end.
    pub fn open_or_keep(&mut self, gateway: GatewayId, keys: Keys, first_packet_at: Instant) {
        if let Some((connection, _)) = self.connections.get(&gateway)
            && connection.keys == keys
        {
            connection.refresh();
            return;
        }
        self.epoch = self.epoch.wrapping_add(1);
        let servers = self.relays.values().flatten().copied();
        let opening = Opening {
            gateway,
            epoch: self.epoch,
            keys,
            ice: ice::Settings {
                stun_servers: servers.take(MAX_STUN_SERVERS).collect(),
                ..self.ice.clone()
            },
        };
        let (data_plane, events) = (Arc::clone(&self.data_plane), self.events.clone());
        let connection = Connection::open(opening, &self.identity, data_plane, events);
        let times = ConnectionTimes {
            first_packet_at,
            opened_at: now(),
        };
        self.connections.insert(gateway, (connection, times));
    }

    /// The times of the event's connection; `None` when it has ended or been replaced.
    pub fn current(&self, event: &ConnectionEvent) -> Option<ConnectionTimes> {
        let (connection, times) = self.connections.get(&event.gateway)?;
        (connection.epoch == event.epoch).then_some(*times)
    }

    /// Sends a packet through `gateway`, if there is a connection.
    pub async fn send(&mut self, gateway: GatewayId, packet: &[u8]) {
        if let Some((connection, _)) = self.connections.get(&gateway) {
            connection.send(packet, self.scratch.as_mut_slice()).await;
        }
    }

    /// Takes candidates of `gateway`. Drops those of a gateway without a connection, as Firezone's
    /// clients do: candidates must follow the grant.
    pub fn add_candidates(&self, gateway: GatewayId, candidates: Vec<String>) {
        match self.connections.get(&gateway) {
            Some((connection, _)) => connection.add_candidates(candidates),
            None => tracing::warn!(%gateway, "candidates came before their grant and are lost"),
        }
    }

    /// Drops the connection without a goodbye.
    pub fn forget(&mut self, gateway: GatewayId) {
        self.connections.remove(&gateway);
    }

    /// Says goodbye to `gateway`, in the background. `false` when there is no connection.
    pub fn leave(&mut self, gateway: GatewayId) -> bool {
        let connection = self.connections.remove(&gateway);
        let leaving = connection.map(|(connection, _)| tokio::spawn(connection.leave()));
        leaving.is_some()
    }

    /// The gateways with a connection.
    pub fn ids(&self) -> Vec<GatewayId> {
        self.connections.keys().copied().collect()
    }

    /// Says goodbye to all gateways.
    pub async fn leave_all(self) {
        let connections = self.connections.into_values();
        let leaving = connections.map(|(connection, _)| connection.leave());
        futures_util::future::join_all(leaving).await;
    }
}

/// A few are enough to learn the client's addresses.
const MAX_STUN_SERVERS: usize = 4;
