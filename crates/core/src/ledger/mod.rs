//! The authorization ledger: what the portal granted and the client announced.
//!
//! Plain records, written before the actor that they concern is told. Whatever dies is built anew
//! from them: a ConnectionActor from its client's [`ClientRecord`], the NAT's mappings from the
//! names in it and from the [`ResolvedName`]s, a whole process from the saved ledger ([`image`]).
//!
//! The ledger follows the same rules as the actors' cores, so that what is rebuilt from it is what
//! died: a grant of another kind is refused, a name takes its proxy IPs from other names, whatever
//! the portal no longer lists is revoked. Every call may come twice and in any order. A record that
//! was handed out never changes.

mod authorizations;
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

/// How much a [`Ledger`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// One client more is not recorded.
    pub clients: usize,
    /// One grant more is refused, as by the policy.
    pub resources_per_client: usize,
    /// The name that was announced first gives way.
    pub names_per_client: usize,
    /// The oldest candidate gives way.
    pub candidates_per_client: usize,
    /// One pinned flow more is not recorded.
    pub pins_per_client: usize,
    /// Names by family; the one that was looked up longest ago gives way.
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

/// See the module's documentation. Clients without a grant are not in it.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    gateway: Option<TunnelAddresses>,
    clients: BTreeMap<ClientId, Arc<ClientRecord>>,
    known: ResolvedNames,
    revision: u64,
    /// Told to nobody yet. At most [`ENDED`]; the oldest gives way.
    ended: VecDeque<EndedGrant>,
}

impl Ledger {
    /// An empty ledger.
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

    /// Holds as many clients and grants as these limits say from now on; what it has stays. The
    /// other limits are for ever.
    pub fn limit(&mut self, clients: usize, resources_per_client: usize) {
        self.limits.clients = clients;
        self.limits.resources_per_client = resources_per_client;
    }

    /// Rises with every change that is worth saving, and only then.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The gateway's own tunnel addresses, once the portal has told them.
    #[must_use]
    pub fn gateway(&self) -> Option<TunnelAddresses> {
        self.gateway
    }

    /// Takes over the gateway's own tunnel addresses.
    pub fn set_gateway(&mut self, gateway: TunnelAddresses) {
        let before = self.gateway.replace(gateway);
        self.note(before != Some(gateway));
    }

    /// What is known of a client.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Arc<ClientRecord>> {
        self.clients.get(&id)
    }

    /// All clients in the order of their ids.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = (ClientId, &Arc<ClientRecord>)> {
        self.clients.iter().map(|(id, record)| (*id, record))
    }

    /// The client is gone, with all that it had.
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

    /// The grants that ended since the last call, or the last so many of them.
    pub fn take_ended(&mut self) -> impl Iterator<Item = EndedGrant> {
        std::mem::take(&mut self.ended).into_iter()
    }

    /// A name's addresses as the DNS told them last. Replaces the former; an empty list removes
    /// them. The same addresses again are no change until 5 minutes have passed, though the name
    /// counts as looked up now.
    pub fn record_known(&mut self, known: ResolvedName) {
        let changed = self.known.record(known);
        self.note(changed);
    }

    /// What names resolved to, in the order of the names.
    pub fn known_names(&self) -> impl ExactSizeIterator<Item = &ResolvedName> {
        self.known.iter()
    }

    fn note(&mut self, changed: bool) {
        self.revision += u64::from(changed);
    }

    /// Lets `change` work on a client's record and say whether it changed anything.
    fn change(&mut self, client: ClientId, change: impl FnOnce(&mut ClientRecord) -> bool) {
        if let Some(record) = self.clients.get_mut(&client) {
            let changed = change(Arc::make_mut(record));
            self.note(changed);
        }
    }

    /// Removes the grants that `is_over` names, their names and the clients that hold no other.
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

    /// Removes the grants whose time is over.
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

/// As many as anybody remembers.
const ENDED: usize = 1024;
