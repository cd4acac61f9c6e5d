//! The portal's commands, as a connection executes them.

use super::{Connection, ConnectionEvent};
use crate::UnixTime;
use crate::command::ClientCommand;
use crate::ids::ResourceId;
use std::time::Instant;

impl Connection {
    /// Executes a command of the portal about this client.
    pub fn handle_command(&mut self, command: ClientCommand, unix_now: UnixTime, now: Instant) {
        match command {
            ClientCommand::Authorize(request) => self.handle_authorization(*request, unix_now, now),
            ClientCommand::Allow(request) => self.handle_access(*request, unix_now, now),
            ClientCommand::AddCandidates { candidates, .. } => {
                let odd = self.add_remote_candidates(&candidates, now);
                self.report_odd(odd);
            }
            ClientCommand::RemoveCandidates { candidates, .. } => {
                let odd = self.remove_remote_candidates(&candidates, now);
                self.report_odd(odd);
            }
            ClientCommand::Revoke { resource, .. } => self.handle_revocation(resource, now),
            ClientCommand::SetExpiry(entry) => self.handle_expiry(entry, unix_now, now),
            ClientCommand::UpdateResource(resource) => self.handle_resource_update(&resource),
            ClientCommand::Reconcile { gateway, granted } => {
                self.handle_reconciliation(gateway, &granted, unix_now, now);
            }
        }
    }

    /// The resources that the client may reach.
    pub fn resources(&self) -> impl Iterator<Item = ResourceId> {
        self.policy.resources().map(|resource| resource.id)
    }

    /// Whether datagrams of the client are expected.
    #[must_use]
    pub fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    fn report_odd(&mut self, count: usize) {
        if count > 0 {
            self.events
                .push_back(ConnectionEvent::CandidatesSkipped(count));
        }
    }
}
