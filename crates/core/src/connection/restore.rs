//! Restores a connection from the ledger, and repeats events to actors that were restarted.

use super::{Connection, ConnectionConfig, ConnectionEvent, attached};
use crate::UnixTime;
use crate::grant::TransportKeys;
use crate::ledger::{ClientRecord, RecordedName};
use crate::names::DomainName;
use crate::peer::Peer;
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
        let max_resources = config.max_resources;
        let mut connection = Self::new(config);
        // Grants from before a lower limit stay.
        connection.limit_resources(max_resources.max(record.grants.len()));
        for grant in record.grants.values() {
            let resource = grant.resource.clone();
            let allowed = connection
                .policy
                .allow(resource, grant.expires_at, unix_now, now);
            if let Err(error) = allowed {
                let events = [
                    ConnectionEvent::Refused(error),
                    ConnectionEvent::ResourceReleased(grant.resource.id),
                ];
                connection.events.extend(events);
            }
        }
        connection.limit_resources(max_resources);
        connection.policy.handle_timeout(now);
        connection.after_policy(now);
        if connection.closed {
            return connection;
        }
        if let Some(keys) = &record.transport {
            connection.restore_transport(keys, record, now);
        }
        connection.restore_names(&record.names);
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

    /// Skips names of released resources.
    fn restore_names(&mut self, names: &[RecordedName]) {
        for name in names {
            let announced = &name.announced;
            let Ok(parsed) = announced.domain.parse::<DomainName>() else {
                continue;
            };
            let ips = &announced.proxy_ips;
            let is_assigned = self.policy.assign_proxies(name.resource, &parsed, ips);
            if is_assigned.is_ok() {
                let key = (&parsed, name.resource);
                self.names
                    .insert(key, announced, name.in_tunnel, &self.policy);
            }
        }
        self.announce_again();
    }

    /// The NAT was restarted without its mappings: repeats every name of the client.
    pub fn handle_nat_table_restarted(&mut self) {
        self.announce_again();
    }

    fn announce_again(&mut self) {
        let names = self.names.in_force(&self.policy);
        self.events
            .extend(names.map(|(resource, name, announced, in_tunnel)| {
                ConnectionEvent::ProxyIpsAssigned {
                    resource,
                    announced,
                    name,
                    in_tunnel,
                }
            }));
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
