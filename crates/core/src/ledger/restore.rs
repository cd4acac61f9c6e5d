//! Restores the records of a saved ledger, limited to what this ledger could have recorded itself.

use super::record::ClientRecord;
use super::transport::MAX_CANDIDATE_BYTES;
use super::{Entry, Ledger, LedgerLimits};
use crate::ids::ClientId;
use crate::nat_table::MAX_PINS_OF_CLIENT;
use std::collections::BTreeSet;

impl Ledger {
    /// Restores a client's record, within the limits.
    pub(super) fn restore(&mut self, client: ClientId, mut record: ClientRecord) {
        let is_known = self.clients.contains_key(&client);
        if !is_known && self.clients.len() >= self.limits.clients {
            return;
        }
        fit(&mut record, &self.limits);
        if !record.authorizations.is_empty() {
            self.clients.insert(client, Entry::new(record));
            self.note(true);
        }
    }
}

fn fit(record: &mut ClientRecord, limits: &LedgerLimits) {
    if record.transport.is_none() {
        record.remote_candidates.clear();
        record.path = None;
    }
    let mut seen = BTreeSet::new();
    let candidates = &mut record.remote_candidates;
    candidates.retain(|line| line.len() <= MAX_CANDIDATE_BYTES && seen.insert(line.clone()));
    let excess = candidates
        .len()
        .saturating_sub(limits.candidates_per_client);
    candidates.drain(..excess);
    record.pins.truncate(MAX_PINS_OF_CLIENT);
}
