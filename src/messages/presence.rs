//! Counts what exists by its existence: batches in a mailbox, clients with a session.

use std::sync::Arc;

/// The number of its [`Presence`]s. Each counts until it is dropped, also by a panic.
#[derive(Debug, Default)]
pub struct Headcount(Arc<()>);

/// One entry of a [`Headcount`].
#[derive(Debug)]
#[must_use = "it counts only while it is held"]
pub struct Presence(#[expect(dead_code, reason = "it counts by existing")] Arc<()>);

impl Headcount {
    pub fn enter(&self) -> Presence {
        Presence(Arc::clone(&self.0))
    }

    pub fn get(&self) -> u64 {
        Arc::strong_count(&self.0).saturating_sub(1) as u64
    }
}
