//! Commands of the portal that wait for their acknowledgement: if the connection dies, its
//! successor gets them.

use crate::command::ClientCommand;
use crate::ledger::ClientRecord;
use std::collections::VecDeque;

/// The unacknowledged requests of one client, oldest first; at most [`PENDING`], then the oldest is
/// dropped.
#[derive(Debug, Default)]
pub(super) struct PendingRequests(VecDeque<ClientCommand>);

impl PendingRequests {
    pub(super) fn push(&mut self, command: &ClientCommand) {
        if command.awaited_ref().is_some() {
            self.0.push_back(command.clone());
            let surplus = self.0.len().saturating_sub(PENDING);
            self.0.drain(..surplus);
        }
    }

    pub(super) fn settle(&mut self, reply_ref: &str) {
        self.0.retain(|it| it.awaited_ref() != Some(reply_ref));
    }

    /// Keeps what the record still grants; returns the requests for the successor.
    pub(super) fn renew(&mut self, record: &ClientRecord) -> Vec<ClientCommand> {
        let all = std::mem::take(&mut self.0).into_iter();
        self.0 = all.filter_map(|it| renewed(it, record)).collect();
        self.0.iter().cloned().collect()
    }
}

/// A grant with what the ledger has for it now; `None` if the portal has revoked it meanwhile.
fn renewed(mut command: ClientCommand, record: &ClientRecord) -> Option<ClientCommand> {
    let (resource, expires_at) = command.grant_mut()?;
    let grant = record.authorizations.grants().get(&resource.id)?;
    resource.filters.clone_from(&grant.resource.filters);
    resource.name.clone_from(&grant.resource.name);
    *expires_at = grant.expires_at;
    Some(command)
}

/// The portal repeats older requests.
const PENDING: usize = 32;
