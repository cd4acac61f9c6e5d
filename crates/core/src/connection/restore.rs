//! Restores a connection from the ledger, and repeats events to actors that were restarted.

use super::{Connection, ConnectionConfig, ConnectionEvent, attached, policy_config};
use crate::UnixTime;
use crate::authorizations::NameMeaning;
use crate::grant::TransportKeys;
use crate::ledger::ClientRecord;
use crate::peer::Peer;
use crate::policy::Policy;
use std::time::Instant;

impl Connection {
    /// Restores the connection of a client from its record. It acknowledges nothing and expects no
    /// name, as both were done before.
    ///
    /// Resources that have expired are released. The proxy IPs of names are announced again, and
    /// the peer is attached again. If the path to the client is known, a handshake starts there
    /// immediately: the client does not know that its sessions are gone. The local addresses follow
    /// by [`Self::handle_local_addresses`].
    #[must_use]
    pub fn restore(
        config: ConnectionConfig,
        record: &ClientRecord,
        unix_now: UnixTime,
        now: Instant,
    ) -> Self {
        let mut connection = Self::new(config);
        let config = policy_config(&connection.config);
        connection.published = record.authorizations.clone();
        connection.policy = Policy::restore(config, &connection.published, unix_now, now);
        connection.expire(now);
        if connection.closed {
            return connection;
        }
        if let Some(keys) = &record.transport {
            connection.restore_transport(keys, record, now);
        }
        connection.announce_again();
        connection
    }

    fn restore_transport(&mut self, keys: &TransportKeys, record: &ClientRecord, now: Instant) {
        let config = self.peer_config(keys);
        let mut peer = match record.path {
            Some(path) => Peer::resume(&config, path, now),
            None => Peer::new(&config, now),
        };
        peer.add_remote_candidates(&record.remote_candidates, now);
        self.events.push_back(attached(keys));
        self.transport = Some((keys.clone(), peer));
        self.after_peer(now);
    }

    /// The NAT was restarted without its mappings: repeats every name of the client.
    pub fn handle_nat_table_restarted(&mut self) {
        self.announce_again();
    }

    fn announce_again(&mut self) {
        let names = self.policy.authorizations().names().values();
        let meanings = names.map(|proxied| NameMeaning {
            name: proxied.name.clone(),
            proxied: Some(proxied.clone()),
            announced_for: None,
        });
        self.events
            .extend(meanings.map(ConnectionEvent::NameChanged));
    }

    /// The UDP actor was restarted without its peers: attaches this one again.
    pub fn handle_udp_restarted(&mut self) {
        if let Some((keys, _)) = &self.transport {
            self.events.push_back(attached(keys));
        }
    }

    /// Signals sent through the portal may be lost: repeats them if ICE needs them.
    pub fn handle_portal_restarted(&mut self, now: Instant) {
        if let Some((_, peer)) = &mut self.transport {
            peer.handle_portal_restarted();
        }
        self.after_peer(now);
    }
}
