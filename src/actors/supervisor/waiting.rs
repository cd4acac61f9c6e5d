//! Commands that wait because a child's mailbox is full.

use super::SupervisorActor;
use crate::shell;
use actix::prelude::*;
use std::time::Duration;

impl SupervisorActor {
    /// Sends again what waits. A child that has taken nothing for so long that commands were
    /// dropped is ended: its successor learns from the ledger what the commands said.
    pub(super) fn resend(&mut self, ctx: &mut Context<Self>) {
        let mut stuck = self.tree.resend();
        stuck.extend(self.clients.resend());
        if stuck.is_empty() {
            return;
        }
        for child in stuck {
            self.supervision.handle_deaf(child, shell::now());
        }
        self.perform(ctx);
    }
}

/// A full mailbox is rare, and a healthy actor empties one in a few milliseconds.
pub(super) const RESEND_EVERY: Duration = Duration::from_millis(100);
