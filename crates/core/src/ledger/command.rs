//! The portal's commands, as they are recorded.

use super::Ledger;
use crate::command::ClientCommand;

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
}
