//! Saves the state for the next process: the ledger and the gateway's keys, on a memory file
//! system.

use super::{EXIT_BUDGET_SPENT, SupervisorActor};
use crate::shell;
use crate::state::StateFile;
use actix::prelude::*;
use postern_core::UnixTime;
use postern_core::ledger::{Ledger, SavedState};
use std::io;
use std::time::Duration;
use zeroize::Zeroizing;

/// Writes the state file.
pub struct StateSaver {
    spec: StateSaverSpec,
    /// The revision of the ledger that was saved last.
    saved: Option<u64>,
    is_failing: bool,
    pace: Duration,
}

/// The state file, and its contents besides the ledger.
pub struct StateSaverSpec {
    pub file: StateFile,
    pub gateway_key: Zeroizing<[u8; 32]>,
    /// The gateway's ICE credentials are derived from it (generation 0).
    pub ice_secret: Zeroizing<[u8; 32]>,
    /// The port that clients know.
    pub udp_port: u16,
    /// When this process took over clients of a previous one, if it did.
    pub taken_over_at: Option<UnixTime>,
}

impl StateSaver {
    pub fn new(spec: StateSaverSpec) -> Self {
        Self {
            spec,
            saved: None,
            is_failing: false,
            pace: SAVE_AFTER,
        }
    }

    fn save(&mut self, ledger: &Ledger) -> io::Result<()> {
        let begun = shell::now();
        let result = self.spec.file.save(&SavedState {
            saved_at: shell::unix_now(),
            gateway_key: self.spec.gateway_key.clone(),
            ice_secret: self.spec.ice_secret.clone(),
            udp_port: self.spec.udp_port,
            taken_over_at: self.spec.taken_over_at,
            ledger: ledger.clone(),
        });
        self.saved = Some(ledger.revision());
        // Saving takes at most a twentieth of the time, however many clients there are.
        let took = shell::now().saturating_duration_since(begun);
        self.pace = SAVE_AFTER.max(took * 20);
        self.note(&result);
        result
    }

    /// Logs once for each series of failures.
    fn note(&mut self, result: &io::Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        if let Err(error) = result
            && !was_failing
        {
            tracing::warn!(%error, "the state is not saved: the next process starts without clients");
        }
    }

    /// Whether this process took over recently, so that the state may be the cause of its deaths.
    fn is_suspicious(&self, now: UnixTime) -> bool {
        let since = self.spec.taken_over_at.map(|at| now.0.saturating_sub(at.0));
        since.is_some_and(|seconds| seconds < SUSPICIOUS.as_secs())
    }
}

impl SupervisorActor {
    /// Saves the ledger soon, if it has changed; called after everything that may change it.
    pub(super) fn save_soon(&mut self, ctx: &mut Context<Self>) {
        self.note_ended();
        let Some(state_saver) = &self.spec.state_saver else {
            return;
        };
        let is_saved = state_saver.saved == Some(self.spec.ledger.revision());
        if self.is_saving || is_saved || self.stopping {
            return;
        }
        self.is_saving = true;
        ctx.run_later(state_saver.pace, |actor, _| {
            actor.is_saving = false;
            actor.save();
        });
    }

    /// Saves even without a change, so that the file does not become stale.
    pub(super) fn save(&mut self) {
        if let Some(state_saver) = self.spec.state_saver.as_mut().filter(|_| !self.stopping) {
            self.spec.ledger.prune_expired(shell::unix_now());
            // A failure has been logged, and the next change tries again.
            let result = state_saver.save(&self.spec.ledger);
            self.spec.metrics.count_save(result.is_ok());
        }
        self.note_ended();
    }

    /// Returns whether the next process will find the state.
    pub(super) fn save_for_successor(&mut self, exit_code: i32) -> bool {
        let Some(state_saver) = &mut self.spec.state_saver else {
            return false;
        };
        if exit_code == EXIT_BUDGET_SPENT && state_saver.is_suspicious(shell::unix_now()) {
            tracing::warn!("died soon after taking over: the next process starts without clients");
            return false;
        }
        if exit_code == 0 {
            state_saver.spec.file.note_attempts(0);
        }
        let is_saved = state_saver.save(&self.spec.ledger).is_ok();
        self.spec.metrics.count_save(is_saved);
        is_saved
    }

    /// Saves once more, when the ledger can no longer change.
    pub(super) fn save_at_the_end(&mut self) {
        if let Some(state_saver) = &mut self.spec.state_saver {
            // If it fails, the state that was saved when the shutdown began remains.
            let result = state_saver.save(&self.spec.ledger);
            self.spec.metrics.count_save(result.is_ok());
        }
    }

    /// The process has run long enough: the state that it took over is harmless.
    pub(super) fn trust_state(&mut self) {
        if let Some(state_saver) = &self.spec.state_saver {
            state_saver.spec.file.note_attempts(0);
        }
    }

    /// The clients get a goodbye: nothing remains to be taken over.
    pub(super) fn forget_state(&mut self) {
        if let Some(state_saver) = &mut self.spec.state_saver
            && let Err(error) = state_saver.spec.file.remove()
        {
            tracing::warn!(%error, "the state file stays");
        }
    }
}

/// Changes come in bursts.
const SAVE_AFTER: Duration = Duration::from_millis(50);
/// How often the file is renewed without a change: far below any sensible `state.max_age`.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(15);
/// A process that spends its restart budget this soon after taking over leaves no state to the next
/// one, or process after process might die of the same cause.
pub(super) const SUSPICIOUS: Duration = Duration::from_secs(60);
