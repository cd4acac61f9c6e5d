//! The portal's commands about grants, and the snapshots that confirm them.
//!
//! The supervisor records a command before it passes it on, and a connection publishes its
//! authorizations after it. In between, the two cross: a snapshot may be from before a command. So
//! each command has a number, a snapshot names the last command that it includes, and those beyond
//! it are applied to it again. A late snapshot never brings back what was revoked.

use super::{ClientRecord, Entry, Ledger, replace};
use crate::authorizations::{Authorizations, Grant, GrantCommand, GrantEnd};
use crate::command::ClientCommand;
use crate::grant::{
    AccessRequest, AuthorizationEntry, AuthorizationRequest, Resource, TunnelAddresses,
};
use crate::ids::{ClientId, ResourceId, UnixTime};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The commands to one client that its connection has not confirmed.
#[derive(Clone, Debug, Default)]
pub(super) struct Unconfirmed {
    /// Each with its number, at most [`MAX_UNCONFIRMED`].
    commands: VecDeque<(u64, GrantCommand)>,
    /// Snapshots that do not include this command are ignored.
    required: u64,
    /// Number of the last command, confirmed or not.
    last: u64,
}

impl Unconfirmed {
    fn push(&mut self, number: u64, command: GrantCommand) {
        self.last = number;
        self.commands.push_back((number, command));
        if self.commands.len() > MAX_UNCONFIRMED
            && let Some((dropped, _)) = self.commands.pop_front()
        {
            self.required = dropped;
        }
    }

    /// All commands are part of the record that a new connection is restored from, so that no
    /// snapshot of its predecessor counts.
    fn clear(&mut self) {
        self.commands.clear();
        self.required = self.last;
    }

    /// The commands that a snapshot does not include; `None` if it is of no use.
    fn beyond(&mut self, included: u64) -> Option<impl Iterator<Item = &GrantCommand>> {
        if included < self.required {
            return None;
        }
        while self
            .commands
            .pop_front_if(|(number, _)| *number <= included)
            .is_some()
        {}
        Some(self.commands.iter().map(|(_, command)| command))
    }
}

impl Ledger {
    /// Records a command of the portal. Call it before the command is passed on: every restarted
    /// actor is then built from the portal's last word.
    pub fn record_command(&mut self, command: &ClientCommand) {
        match command {
            ClientCommand::Authorize(request) => self.record_authorization(request),
            ClientCommand::Allow(request) => self.record_access(request),
            ClientCommand::AddCandidates { client, candidates } => {
                self.add_candidates(*client, candidates);
            }
            ClientCommand::RemoveCandidates { client, candidates } => {
                self.remove_candidates(*client, candidates);
            }
            ClientCommand::Revoke { client, resource } => self.revoke(*client, *resource),
            ClientCommand::SetExpiry(entry) => self.set_expiry(*entry),
            ClientCommand::UpdateResource(resource) => self.update_resource(resource),
            ClientCommand::Reconcile { gateway, granted } => self.reconcile(*gateway, granted),
        }
    }

    /// The portal grants a resource and sends the client's keys. Other keys than before are another
    /// transport: its candidates and its path are unknown.
    pub fn record_authorization(&mut self, request: &AuthorizationRequest) {
        let client = request.client.id;
        self.create(client, Some(request.client.tunnel));
        if self.record(client, request.into()) {
            self.change(client, |record| {
                let moved = replace(&mut record.tunnel, request.client.tunnel);
                moved | record.attach(request.transport_keys())
            });
        }
    }

    /// The portal grants a further resource and leaves the transport as it is. Without tunnel
    /// addresses, it is ignored for an unknown client.
    pub fn record_access(&mut self, request: &AccessRequest) {
        self.create(request.client, request.tunnel);
        if self.record(request.client, request.into())
            && let Some(tunnel) = request.tunnel
        {
            self.change(request.client, |record| replace(&mut record.tunnel, tunnel));
        }
    }

    /// The portal revokes a resource. Its names are removed with it unless another resource covers
    /// them, and the client with its last resource.
    pub fn revoke(&mut self, client: ClientId, resource: ResourceId) {
        self.record(client, GrantCommand::Revoke(resource));
    }

    /// Changes the expiry of a held grant.
    pub fn set_expiry(&mut self, entry: AuthorizationEntry) {
        let command = GrantCommand::SetExpiry(entry.resource, entry.expires_at);
        self.record(entry.client, command);
    }

    /// A resource changed: updates its filters and its name for every client that holds it. An
    /// update to another kind is ignored (docs/protocol.md 2.2).
    pub fn update_resource(&mut self, resource: &Resource) {
        for client in self.ids() {
            let record = self.client(client);
            if record.is_some_and(|it| it.authorizations.grants().contains_key(&resource.id)) {
                self.record(client, GrantCommand::Update(resource.clone()));
            }
        }
    }

    /// Revokes everything that is absent from the portal's list, and updates the expiry of the rest
    /// (docs/lessons.md 23). It creates no grant: only a grant of the portal carries what that
    /// needs.
    pub fn reconcile(&mut self, gateway: TunnelAddresses, granted: &[AuthorizationEntry]) {
        self.set_gateway(gateway);
        let mut listed: BTreeMap<ClientId, BTreeMap<_, _>> = BTreeMap::new();
        for entry in granted {
            let of_client = listed.entry(entry.client).or_default();
            of_client.insert(entry.resource, entry.expires_at);
        }
        for client in self.ids() {
            let listed = listed.remove(&client).unwrap_or_default();
            self.record(client, GrantCommand::Reconcile(listed));
        }
    }

    /// Removes the grants that have expired.
    pub fn prune_expired(&mut self, unix_now: UnixTime) {
        for client in self.ids() {
            self.renew(client, |authorizations| {
                authorizations
                    .expire(|_, grant| grant.is_over(unix_now))
                    .ended
            });
        }
    }

    /// The number of the last command to a client, for its connection; without a record, of the
    /// last command to any.
    #[must_use]
    pub fn last_command(&self, client: ClientId) -> u64 {
        let entry = self.clients.get(&client);
        entry.map_or(self.commands, |entry| entry.unconfirmed.last)
    }

    /// A connection is restored from the client's record: snapshots of its predecessor no longer
    /// count.
    pub fn note_restored(&mut self, client: ClientId) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.unconfirmed.clear();
        }
    }

    /// The client's connection has published its authorizations, which include the portal's
    /// commands up to number `included`.
    pub fn record_authorizations(
        &mut self,
        client: ClientId,
        included: u64,
        mut published: Authorizations,
        unix_now: UnixTime,
    ) {
        let limit = self.limits.resources_per_client;
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        let Some(commands) = entry.unconfirmed.beyond(included) else {
            return;
        };
        for command in commands {
            // Noted when it was recorded.
            let _ = published.apply(command, limit);
        }
        let _ = published.expire(|_, grant| grant.is_over(unix_now));
        self.renew(client, |recorded| {
            let gone = recorded.grants().iter();
            let gone = gone.filter(|(id, _)| !published.grants().contains_key(id));
            let end = |grant: &Grant| match grant.is_over(unix_now) {
                true => GrantEnd::Expired,
                false => GrantEnd::ClientGone,
            };
            let ended = gone.map(|(_, grant)| (grant.clone(), end(grant))).collect();
            *recorded = published;
            ended
        });
    }

    fn ids(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }

    /// Makes room for an unknown client; one that gets no grant is removed by [`Self::record`].
    fn create(&mut self, client: ClientId, tunnel: Option<TunnelAddresses>) {
        let has_room = self.clients.len() < self.limits.clients;
        if let Some(tunnel) = tunnel.filter(|_| has_room && !self.clients.contains_key(&client)) {
            let mut entry = Entry::new(ClientRecord::new(tunnel));
            // A snapshot from before is about grants that have ended.
            entry.unconfirmed.required = self.commands;
            self.clients.insert(client, entry);
        }
    }

    /// Applies a command, and keeps it until the client's connection confirms it. Returns whether
    /// the client has a record then, and, after a grant, holds the resource.
    fn record(&mut self, client: ClientId, command: GrantCommand) -> bool {
        let limit = self.limits.resources_per_client;
        self.commands += 1;
        self.renew(client, |authorizations| {
            authorizations.apply(&command, limit)
        });
        let Some(entry) = self.clients.get_mut(&client) else {
            return false;
        };
        let grants = entry.record.authorizations.grants();
        let is_held = match &command {
            GrantCommand::Allow { resource, .. } => grants.contains_key(&resource.id),
            GrantCommand::Revoke(_)
            | GrantCommand::SetExpiry(..)
            | GrantCommand::Update(_)
            | GrantCommand::Reconcile(_) => true,
        };
        entry.unconfirmed.push(self.commands, command);
        is_held
    }

    /// Changes the authorizations of a client; `change` returns the grants that end by it. The
    /// client is removed with its last grant.
    fn renew(
        &mut self,
        client: ClientId,
        change: impl FnOnce(&mut Authorizations) -> Vec<(Grant, GrantEnd)>,
    ) {
        let Some(entry) = self.clients.get_mut(&client) else {
            return;
        };
        let mut authorizations = entry.record.authorizations.clone();
        let ended = change(&mut authorizations);
        let tunnel = entry.record.tunnel;
        let is_news = authorizations != entry.record.authorizations;
        if authorizations.is_empty() {
            self.clients.remove(&client);
        } else if is_news {
            Arc::make_mut(&mut entry.record).authorizations = authorizations;
        }
        self.note(is_news);
        self.note_ended(client, tunnel, ended);
    }
}

/// More than a portal sends within the time after which a connection that does not answer is
/// replaced.
const MAX_UNCONFIRMED: usize = 64;
