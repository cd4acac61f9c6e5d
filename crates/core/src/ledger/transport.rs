//! The transport of a client: keys, candidates, path.

use super::Ledger;
use super::record::ClientRecord;
use crate::grant::TransportKeys;
use crate::ids::ClientId;
use crate::packet::Path;

impl Ledger {
    /// Adds candidates of the client. Ignores them without a transport, and lines of more than 512
    /// bytes.
    pub fn add_candidates(&mut self, client: ClientId, candidates: &[String]) {
        let limit = self.limits.candidates_per_client;
        let is_fit = |line: &&String| line.len() <= MAX_CANDIDATE_BYTES;
        let added: Vec<_> = candidates.iter().filter(is_fit).collect();
        let added = &added[added.len().saturating_sub(limit)..];
        self.change(client, |record| {
            record.transport.is_some() && record.add_candidates(added, limit)
        });
    }

    /// Removes candidates that the client withdrew.
    pub fn remove_candidates(&mut self, client: ClientId, candidates: &[String]) {
        self.change(client, |record| {
            let before = record.remote_candidates.len();
            let kept = |held: &String| !candidates.contains(held);
            record.remote_candidates.retain(kept);
            before != record.remote_candidates.len()
        });
    }

    /// Records the path of the client's datagrams.
    pub fn record_path(&mut self, client: ClientId, path: Path) {
        self.change(client, |record| {
            let is_new = record.transport.is_some() && record.path != Some(path);
            if is_new {
                record.path = Some(path);
            }
            is_new
        });
    }

    /// Removes the transport; the grants stay.
    pub fn forget_transport(&mut self, client: ClientId) {
        self.change(client, |record| {
            let had = record.transport.take().is_some();
            record.forget_path();
            had
        });
    }
}

impl ClientRecord {
    /// Sets the keys; returns whether they differ from the former ones.
    pub(super) fn attach(&mut self, keys: TransportKeys) -> bool {
        if self.transport.as_ref() == Some(&keys) {
            return false;
        }
        self.transport = Some(keys);
        self.forget_path();
        true
    }

    /// Returns whether any was new. Keeps at most `limit`; evicts candidates that are not in
    /// `added` first.
    fn add_candidates(&mut self, added: &[&String], limit: usize) -> bool {
        let held = &mut self.remote_candidates;
        let mut is_changed = false;
        for candidate in added {
            if held.contains(candidate) {
                continue;
            }
            if held.len() >= limit
                && let Some(oldest) = held.iter().position(|line| !added.contains(&line))
            {
                held.remove(oldest);
            }
            held.push((*candidate).clone());
            is_changed = true;
        }
        is_changed
    }

    fn forget_path(&mut self) {
        self.remote_candidates.clear();
        self.path = None;
    }
}

/// Several times the longest line that any agent writes: type, two addresses and some extensions.
pub(super) const MAX_CANDIDATE_BYTES: usize = 512;
