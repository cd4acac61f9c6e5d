//! All connections, one for each gateway, and what they are opened with.
//!
//! Several resources share the connection of their gateway. Source: docs/protocol.md 3.4.

use super::Shared;
use super::connection::{Connection, ConnectionEvent, Keys, Opening};
use super::ice;
use super::wire::{GatewayId, Relay, RelaysPresence};
use super::wireguard::{BUFFER_BYTES, Identity};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Since when a connection's milestones are measured.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// When the packet came that asked for the resource that opened it.
    pub first_packet_at: Instant,
    /// When the grant came that opened it.
    pub opened_at: Instant,
}

/// All connections.
pub struct Gateways {
    identity: Identity,
    ice: ice::Settings,
    relays: BTreeMap<String, Vec<SocketAddr>>,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<ConnectionEvent>,
    connections: BTreeMap<GatewayId, (Connection, Begun)>,
    epoch: u32,
    scratch: Box<[u8; BUFFER_BYTES]>,
}

impl Gateways {
    /// None yet. `ice` lacks only the STUN servers, which the portal names.
    #[must_use]
    pub fn new(
        identity: Identity,
        ice: ice::Settings,
        shared: Arc<Shared>,
        events: mpsc::UnboundedSender<ConnectionEvent>,
    ) -> Self {
        Self {
            identity,
            ice,
            relays: BTreeMap::new(),
            shared,
            events,
            connections: BTreeMap::new(),
            epoch: 0,
            scratch: Box::new([0; BUFFER_BYTES]),
        }
    }

    /// The portal's whole list. Running connections keep what they were opened with.
    pub fn set_relays(&mut self, relays: Vec<Relay>) {
        self.relays.clear();
        self.add_relays(relays);
    }

    /// Relays came or went.
    pub fn change_relays(&mut self, presence: RelaysPresence) {
        for id in presence.disconnected_ids {
            self.relays.remove(&id);
        }
        for relay in &presence.connected {
            self.relays.remove(&relay.id);
        }
        self.add_relays(presence.connected);
    }

    /// Keeps the gateway's connection if it has these keys; opens or replaces it otherwise. One
    /// with other keys gets no goodbye: the gateway has dropped its end already.
    pub fn open_or_keep(&mut self, gateway: GatewayId, keys: Keys, first_packet_at: Instant) {
        if let Some((connection, _)) = self.connections.get(&gateway)
            && *connection.keys() == keys
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
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        let connection = Connection::open(opening, &self.identity, shared, events);
        let begun = Begun {
            first_packet_at,
            opened_at: tokio::time::Instant::now().into_std(),
        };
        self.connections.insert(gateway, (connection, begun));
    }

    /// When the connection began that `event` is about; `None` when it is history.
    #[must_use]
    pub fn current(&self, event: &ConnectionEvent) -> Option<Begun> {
        let (connection, begun) = self.connections.get(&event.gateway)?;
        (connection.epoch() == event.epoch).then_some(*begun)
    }

    /// Sends a packet through `gateway`.
    pub async fn send(&mut self, gateway: GatewayId, packet: &[u8]) {
        if let Some((connection, _)) = self.connections.get(&gateway) {
            connection.send(packet, self.scratch.as_mut_slice()).await;
        }
    }

    /// Takes candidates of `gateway`. Those of a gateway without a connection are lost, as with
    /// Firezone's clients: they must follow the grant.
    pub fn add_candidates(&self, gateway: GatewayId, candidates: Vec<String>) {
        match self.connections.get(&gateway) {
            Some((connection, _)) => connection.add_candidates(candidates),
            None => tracing::warn!(%gateway, "candidates came before their grant and are lost"),
        }
    }

    /// The connection has ended, or is to end without a word.
    pub fn forget(&mut self, gateway: GatewayId) {
        self.connections.remove(&gateway);
    }

    /// Says goodbye to `gateway`, in the background. `false` when there is no connection.
    pub fn leave(&mut self, gateway: GatewayId) -> bool {
        let connection = self.connections.remove(&gateway);
        connection
            .map(|(connection, _)| tokio::spawn(connection.leave()))
            .is_some()
    }

    /// Everybody with a connection.
    #[must_use]
    pub fn ids(&self) -> Vec<GatewayId> {
        self.connections.keys().copied().collect()
    }

    /// Says goodbye to everybody.
    pub async fn leave_all(self) {
        let connections = self.connections.into_values();
        let leaving = connections.map(|(connection, _)| connection.leave());
        futures_util::future::join_all(leaving).await;
    }

    fn add_relays(&mut self, relays: Vec<Relay>) {
        for Relay { id, addr } in relays {
            self.relays.entry(id).or_default().push(addr);
        }
    }
}

/// A few are enough to learn our addresses.
const MAX_STUN_SERVERS: usize = 4;
