//! The authorization ledger: the portal's grants and the clients' announcements.
//!
//! Plain records, written before the affected actor is notified. Restarted parts restore from
//! them: a ConnectionActor from its client's [`ClientRecord`], a NAT from the pinned flows in it
//! and from the [`ResolvedName`]s, a whole process from the saved ledger ([`image`]).
//!
//! It has no rules of its own for grants and names: a record holds the client's
//! [`crate::authorizations::Authorizations`], as its connection has published them last, and with
//! the portal's commands that the connection has not confirmed yet (`commands`). Calls may be
//! repeated and come in any order. A record that was handed out never changes.

mod commands;
pub mod image;
mod known;
mod record;
mod restore;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;
mod transport;

pub use image::{ImageError, SavedState};
pub use record::{ClientRecord, EndedGrant, ResolvedName};

use crate::authorizations::{Grant, GrantEnd};
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use crate::nat_table::flows::PinnedFlow;
use commands::Unconfirmed;
use known::ResolvedNames;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The limits of a [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// Further clients are not recorded.
    pub clients: usize,
    /// Further grants are refused, as by the policy.
    pub resources_per_client: usize,
    /// A further candidate replaces the oldest.
    pub candidates_per_client: usize,
    /// Names by family; a further one replaces the longest ago resolved.
    pub known_names: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            clients: 65_536,
            resources_per_client: 4096,
            candidates_per_client: 64,
            known_names: 65_536,
        }
    }
}

/// See the module's documentation. It holds no client without a grant.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    gateway: Option<TunnelAddresses>,
    clients: BTreeMap<ClientId, Entry>,
    known: ResolvedNames,
    revision: u64,
    /// Number of the last command of the portal, of any client.
    commands: u64,
    /// Not yet taken. At most [`ENDED`]; then the oldest is dropped.
    ended: VecDeque<EndedGrant>,
}

#[derive(Clone, Debug)]
struct Entry {
    record: Arc<ClientRecord>,
    unconfirmed: Unconfirmed,
}

impl Entry {
    fn new(record: ClientRecord) -> Self {
        Self {
            record: Arc::new(record),
            unconfirmed: Unconfirmed::default(),
        }
    }
}

impl Ledger {
    /// A ledger without any record.
    #[must_use]
    pub fn new(limits: LedgerLimits) -> Self {
        Self {
            limits,
            gateway: None,
            clients: BTreeMap::new(),
            known: ResolvedNames::new(limits.known_names),
            revision: 0,
            commands: 0,
            ended: VecDeque::new(),
        }
    }

    /// Changes the limits of clients and grants; existing ones stay. The other limits cannot
    /// change.
    pub fn limit(&mut self, clients: usize, resources_per_client: usize) {
        self.limits.clients = clients;
        self.limits.resources_per_client = resources_per_client;
    }

    /// Increases with every change that is worth saving, and only then.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The gateway's own tunnel addresses; `None` until the portal has sent them.
    #[must_use]
    pub fn gateway(&self) -> Option<TunnelAddresses> {
        self.gateway
    }

    /// Sets the gateway's own tunnel addresses.
    pub fn set_gateway(&mut self, gateway: TunnelAddresses) {
        let before = self.gateway.replace(gateway);
        self.note(before != Some(gateway));
    }

    /// The record of a client; `None` without a grant.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Arc<ClientRecord>> {
        self.clients.get(&id).map(|entry| &entry.record)
    }

    /// All clients in the order of their ids.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = (ClientId, &Arc<ClientRecord>)> {
        self.clients.iter().map(|(id, entry)| (*id, &entry.record))
    }

    /// Removes a client with all its records.
    pub fn remove_client(&mut self, client: ClientId) {
        let Some(Entry { record, .. }) = self.clients.remove(&client) else {
            return;
        };
        self.note(true);
        let mut authorizations = record.authorizations.clone();
        self.note_ended(client, record.tunnel, authorizations.clear().ended);
    }

    /// The grants that ended since the last call; at most the last 1024.
    pub fn take_ended(&mut self) -> impl Iterator<Item = EndedGrant> {
        std::mem::take(&mut self.ended).into_iter()
    }

    /// Replaces the addresses of a name by those of the last DNS answer; an empty list removes
    /// them. The same addresses within 5 minutes are no change, but update the time of the answer.
    pub fn record_known(&mut self, known: ResolvedName) {
        let changed = self.known.record(known);
        self.note(changed);
    }

    /// The resolved names, in the order of the names.
    pub fn known_names(&self) -> impl ExactSizeIterator<Item = &ResolvedName> {
        self.known.iter()
    }

    /// Replaces the pinned flows of a client by those that the NAT has published.
    pub fn record_pins(&mut self, client: ClientId, pins: Vec<PinnedFlow>) {
        self.change(client, |record| replace(&mut record.pins, pins));
    }

    fn note(&mut self, changed: bool) {
        self.revision += u64::from(changed);
    }

    /// Calls `change` on a client's record; `change` returns whether it changed anything.
    fn change(&mut self, client: ClientId, change: impl FnOnce(&mut ClientRecord) -> bool) {
        if let Some(entry) = self.clients.get_mut(&client) {
            let changed = change(Arc::make_mut(&mut entry.record));
            self.note(changed);
        }
    }

    fn note_ended(
        &mut self,
        client: ClientId,
        tunnel: TunnelAddresses,
        ended: impl IntoIterator<Item = (Grant, GrantEnd)>,
    ) {
        for (grant, end) in ended {
            if self.ended.len() == ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(EndedGrant {
                client,
                tunnel,
                grant,
                end,
            });
        }
    }
}

/// Stores `new`; returns whether it differs from the former value.
fn replace<T: PartialEq>(place: &mut T, new: T) -> bool {
    let is_other = *place != new;
    *place = new;
    is_other
}

/// As many as the diagnosis journal holds.
const ENDED: usize = 1024;
