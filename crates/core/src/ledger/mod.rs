//! The authorization ledger: the portal's grants and the clients' announcements.
//!
//! Plain records, written before the affected actor is notified. Restarted parts restore from them:
//! a ConnectionActor from its client's [`ClientRecord`], the NAT's mappings from the names in it
//! and from the [`ResolvedName`]s, a whole process from the saved ledger ([`image`]).
//!
//! The ledger follows the same rules as the actors' cores, so that a restored part equals its
//! predecessor: a grant of another kind is refused, a name takes over its proxy IPs from other
//! names, a grant that the portal no longer lists is revoked. Calls may be repeated and come in any
//! order. A record that was handed out never changes.

mod authorizations;
mod command;
pub mod image;
mod known;
mod names;
mod pins;
mod record;
mod restore;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;
mod transport;

pub use image::{ImageError, SavedState};
pub use record::{ClientRecord, EndedGrant, FlowKey, Grant, GrantEnd, RecordedName, ResolvedName};

use crate::grant::TunnelAddresses;
use crate::ids::{ClientId, ResourceId, UnixTime};
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
    /// A further name replaces the one that was announced first.
    pub names_per_client: usize,
    /// A further candidate replaces the oldest.
    pub candidates_per_client: usize,
    /// Further pinned flows are not recorded.
    pub pins_per_client: usize,
    /// Names by family; a further one replaces the longest ago resolved.
    pub known_names: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            clients: 65_536,
            resources_per_client: 4096,
            names_per_client: 2048,
            candidates_per_client: 64,
            pins_per_client: 256,
            known_names: 65_536,
        }
    }
}

/// See the module's documentation. It holds no client without a grant.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    gateway: Option<TunnelAddresses>,
    clients: BTreeMap<ClientId, Arc<ClientRecord>>,
    known: ResolvedNames,
    revision: u64,
    /// Not yet taken. At most [`ENDED`]; then the oldest is dropped.
    ended: VecDeque<EndedGrant>,
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
        self.clients.get(&id)
    }

    /// All clients in the order of their ids.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = (ClientId, &Arc<ClientRecord>)> {
        self.clients.iter().map(|(id, record)| (*id, record))
    }

    /// Removes a client with all its records.
    pub fn remove_client(&mut self, client: ClientId) {
        let Some(record) = self.clients.remove(&client) else {
            return;
        };
        self.note(true);
        for grant in record.grants.values() {
            let ended = EndedGrant {
                client,
                tunnel: record.tunnel,
                grant: grant.clone(),
                end: GrantEnd::ClientGone,
            };
            note_ended(&mut self.ended, Some(ended));
        }
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

    fn note(&mut self, changed: bool) {
        self.revision += u64::from(changed);
    }

    /// Calls `change` on a client's record; `change` returns whether it changed anything.
    fn change(&mut self, client: ClientId, change: impl FnOnce(&mut ClientRecord) -> bool) {
        if let Some(record) = self.clients.get_mut(&client) {
            let changed = change(Arc::make_mut(record));
            self.note(changed);
        }
    }

    /// Removes the grants for which `is_over` is true, with their names, and the clients without
    /// any other.
    fn remove_grants(
        &mut self,
        end: GrantEnd,
        is_over: impl Fn(ClientId, ResourceId, &Grant) -> bool,
    ) {
        let mut changed = false;
        let ended = &mut self.ended;
        self.clients.retain(|client, record| {
            if record
                .grants
                .iter()
                .all(|(id, grant)| !is_over(*client, *id, grant))
            {
                return true;
            }
            changed = true;
            let record = Arc::make_mut(record);
            let (client, tunnel) = (*client, record.tunnel);
            record.grants.retain(|id, grant| {
                let is_kept = !is_over(client, *id, grant);
                let gone = (!is_kept).then(|| EndedGrant {
                    client,
                    tunnel,
                    grant: grant.clone(),
                    end,
                });
                note_ended(ended, gone);
                is_kept
            });
            let grants = &record.grants;
            record
                .names
                .retain(|name| grants.contains_key(&name.resource));
            pins::forget_unnamed(record);
            !record.grants.is_empty()
        });
        self.note(changed);
    }

    /// Removes the grants that have expired.
    pub fn prune_expired(&mut self, unix_now: UnixTime) {
        self.remove_grants(GrantEnd::Expired, |_, _, grant| grant.is_over(unix_now));
    }
}

fn note_ended(all: &mut VecDeque<EndedGrant>, ended: Option<EndedGrant>) {
    all.extend(ended);
    if all.len() > ENDED {
        all.pop_front();
    }
}

/// As many as the diagnosis journal holds.
const ENDED: usize = 1024;
