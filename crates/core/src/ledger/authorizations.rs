//! The portal's grants. The rules are those of [`crate::policy::Policy`] and of
//! [`crate::connection::Connection`], for all clients together.

use super::record::{ClientRecord, EndedGrant, Grant, GrantEnd};
use super::{Ledger, names, note_ended, pins};
use crate::grant::{
    AccessRequest, AuthorizationEntry, AuthorizationRequest, Resource, TunnelAddresses,
};
use crate::ids::{ClientId, ResourceId, UnixTime};
use crate::policy::is_same_kind;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

impl Ledger {
    /// The portal grants a resource and sends the client's keys. Other keys than before are another
    /// transport: its candidates and its path are unknown.
    pub fn record_authorization(&mut self, request: &AuthorizationRequest) {
        let limit = self.limits.resources_per_client;
        let names = self.limits.names_per_client;
        self.change_or_create(request.client.id, Some(request.client.tunnel), |record| {
            let Some(granted) = admit(record, &request.resource, request.expires_at, limit) else {
                return false;
            };
            let moved = replace(&mut record.tunnel, request.client.tunnel);
            let named = names::announce(record, request.resource.id, &request.announced, names);
            let attached = record.attach(request.transport_keys());
            granted | moved | named | attached
        });
    }

    /// The portal grants a further resource and leaves the transport as it is. Without tunnel
    /// addresses, it is ignored for an unknown client.
    pub fn record_access(&mut self, request: &AccessRequest) {
        let limit = self.limits.resources_per_client;
        let names = self.limits.names_per_client;
        self.change_or_create(request.client, request.tunnel, |record| {
            let Some(granted) = admit(record, &request.resource, request.expires_at, limit) else {
                return false;
            };
            let tunnel = request.tunnel.unwrap_or(record.tunnel);
            let moved = replace(&mut record.tunnel, tunnel);
            let named = names::announce(record, request.resource.id, &request.announced, names);
            granted | moved | named
        });
    }

    /// The portal revokes a resource. Its names are removed with it, and the client with its last
    /// resource.
    pub fn revoke(&mut self, client: ClientId, resource: ResourceId) {
        let Entry::Occupied(mut entry) = self.clients.entry(client) else {
            return;
        };
        if !entry.get().grants.contains_key(&resource) {
            return;
        }
        let record = Arc::make_mut(entry.get_mut());
        let tunnel = record.tunnel;
        let ended = record.grants.remove(&resource).map(|grant| EndedGrant {
            client,
            tunnel,
            grant,
            end: GrantEnd::Revoked,
        });
        note_ended(&mut self.ended, ended);
        record.names.retain(|name| name.resource != resource);
        pins::forget_unnamed(record);
        if record.grants.is_empty() {
            entry.remove();
        }
        self.note(true);
    }

    /// Changes the expiry of a held grant.
    pub fn set_expiry(&mut self, entry: AuthorizationEntry) {
        self.change(entry.client, |record| {
            let grant = record.grants.get_mut(&entry.resource);
            grant.is_some_and(|grant| replace(&mut grant.expires_at, entry.expires_at))
        });
    }

    /// A resource changed: updates its filters and its name for every client that holds it. An
    /// update to another kind is ignored (docs/protocol.md 2.2).
    pub fn update_resource(&mut self, resource: &Resource) {
        let mut changed = false;
        for record in self.clients.values_mut() {
            let held = record.grants.get(&resource.id).map(|grant| &grant.resource);
            if held.is_none_or(|held| !is_outdated(held, resource)) {
                continue;
            }
            if let Some(grant) = Arc::make_mut(record).grants.get_mut(&resource.id) {
                grant.resource.filters.clone_from(&resource.filters);
                grant.resource.name.clone_from(&resource.name);
                changed = true;
            }
        }
        self.note(changed);
    }

    /// Revokes everything that is absent from the portal's list, and updates the expiry of the rest
    /// (docs/lessons.md 23). It creates no grant: only a grant of the portal carries what that
    /// needs.
    pub fn reconcile(&mut self, gateway: TunnelAddresses, granted: &[AuthorizationEntry]) {
        self.set_gateway(gateway);
        let granted: BTreeMap<_, _> = granted
            .iter()
            .map(|entry| ((entry.client, entry.resource), entry.expires_at))
            .collect();
        let is_unlisted = |client, resource, _: &Grant| !granted.contains_key(&(client, resource));
        self.remove_grants(GrantEnd::Unlisted, is_unlisted);
        let mut changed = false;
        for (client, record) in &mut self.clients {
            let listed = |id: &ResourceId| granted.get(&(*client, *id)).copied();
            let is_moved = |(id, grant): (_, &Grant)| listed(id) != Some(grant.expires_at);
            if !record.grants.iter().any(is_moved) {
                continue;
            }
            for (id, grant) in &mut Arc::make_mut(record).grants {
                grant.expires_at = listed(id).unwrap_or(grant.expires_at);
            }
            changed = true;
        }
        self.note(changed);
    }

    /// As [`Ledger::change`]; creates a record for an unknown client if there is room and `change`
    /// grants it something.
    fn change_or_create(
        &mut self,
        client: ClientId,
        tunnel: Option<TunnelAddresses>,
        change: impl FnOnce(&mut ClientRecord) -> bool,
    ) {
        if self.clients.contains_key(&client) {
            return self.change(client, change);
        }
        let Some(tunnel) = tunnel.filter(|_| self.clients.len() < self.limits.clients) else {
            return;
        };
        let mut record = ClientRecord::new(tunnel);
        if change(&mut record) {
            self.clients.insert(client, Arc::new(record));
            self.note(true);
        }
    }
}

/// Whether anything changed; `None` if the client is at its limit of resources. A grant of another
/// kind is a mistake of the portal: the earlier one stays.
fn admit(
    record: &mut ClientRecord,
    resource: &Resource,
    expires_at: Option<UnixTime>,
    limit: usize,
) -> Option<bool> {
    let held = record.grants.len();
    match record.grants.get_mut(&resource.id) {
        Some(grant) if !is_same_kind(&grant.resource.kind, &resource.kind) => Some(false),
        Some(grant) => {
            let update = Grant {
                resource: resource.clone(),
                expires_at,
            };
            Some(replace(grant, update))
        }
        None if held >= limit => None,
        None => {
            let grant = Grant {
                resource: resource.clone(),
                expires_at,
            };
            record.grants.insert(resource.id, grant);
            Some(true)
        }
    }
}

fn is_outdated(held: &Resource, update: &Resource) -> bool {
    let is_same_kind = std::mem::discriminant(&held.kind) == std::mem::discriminant(&update.kind);
    is_same_kind && (held.filters != update.filters || held.name != update.name)
}

/// Stores `new`; returns whether it differs from the former value.
fn replace<T: PartialEq>(place: &mut T, new: T) -> bool {
    let is_other = *place != new;
    *place = new;
    is_other
}
