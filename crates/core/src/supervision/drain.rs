//! Draining: new clients are refused, the others may finish, then the process ends.

use super::{Supervision, SupervisionEvent as Event};
use crate::connection::ConnectionStats;
use std::time::{Duration, Instant};

/// The progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When the process ends at the latest.
    pub ends_at: Instant,
    /// Number of requests that were refused.
    pub refused: u64,
    /// Clients with recent traffic, as counted last.
    pub active: usize,
    pub(super) next_count: Instant,
}

impl Supervision {
    /// Refuses new clients from now on, and ends within `grace`. A second call changes the end.
    pub fn handle_drain(&mut self, grace: Duration, now: Instant) {
        let ends_at = now + grace.min(LONGEST_GRACE);
        let active = self.clients.len();
        let drain = self.drain.get_or_insert(Drain {
            ends_at,
            refused: 0,
            active,
            next_count: now + COUNT_EVERY,
        });
        drain.ends_at = ends_at;
    }

    /// Admits new clients again; returns the drain that is called off.
    pub fn cancel_drain(&mut self) -> Option<Drain> {
        self.drain.take()
    }

    /// The drain under way; `None` if new clients are admitted.
    #[must_use]
    pub fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref()
    }

    /// Takes the number of active clients for the report.
    pub fn note_active(&mut self, active: usize) {
        if let Some(drain) = &mut self.drain {
            drain.active = active;
        }
    }

    /// Answers [`CountActive`](Event::CountActive): without active clients the drain is over.
    pub fn handle_active(&mut self, active: usize, now: Instant) {
        self.note_active(active);
        if self
            .drain
            .is_some_and(|it| active == 0 || it.ends_at <= now)
        {
            self.emit(Event::Drained);
        }
    }

    pub(super) fn count_active(&mut self, now: Instant) {
        if let Some(drain) = self.drain.as_mut().filter(|it| it.next_count <= now) {
            drain.next_count = now + COUNT_EVERY;
            self.emit(Event::CountActive);
        }
    }
}

/// Whether a client has traffic under way. A connection that does not answer counts as active.
#[must_use]
pub fn is_active(stats: Option<&ConnectionStats>) -> bool {
    let Some(stats) = stats else { return true };
    let directions = [stats.inbound, stats.outbound];
    let last = directions.into_iter().filter_map(|it| it.last_before).min();
    last.is_some_and(|before| before < QUIET)
}

/// How often the remaining clients are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A client without traffic for this long has nothing under way that could not continue at another
/// gateway.
const QUIET: Duration = Duration::from_secs(60);
/// A year, so that no sum of times overflows.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);
