//! The recently ended grants: they distinguish "never allowed" from "no longer allowed".

use crate::authorizations::{Grant, GrantEnd};
use crate::grant::TunnelAddresses;
use crate::ids::{ClientId, UnixTime};
use crate::ledger::EndedGrant;
use std::collections::VecDeque;

/// A grant that a client held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The client that held the grant.
    pub client: ClientId,
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// The grant when it ended.
    pub grant: Grant,
    /// When the grant ended.
    pub at: UnixTime,
    /// The reason of the end.
    pub end: GrantEnd,
}

/// The last [`JournalEntry`]s, oldest first. When full, the oldest is dropped.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<JournalEntry>,
}

impl Journal {
    /// Number of entries: some hundred bytes each.
    pub const ENTRIES: usize = 1024;

    /// Records a grant that the ledger removed. If it had expired, the expiry is its reason and
    /// time, for any cause of the removal.
    pub fn note(&mut self, ended: EndedGrant, unix_now: UnixTime) {
        let EndedGrant {
            client,
            tunnel,
            grant,
            end,
        } = ended;
        let expired_at = grant.expires_at.filter(|_| grant.is_over(unix_now));
        let end = expired_at.map_or(end, |_| GrantEnd::Expired);
        if self.entries.len() >= Self::ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(JournalEntry {
            client,
            tunnel,
            grant,
            at: expired_at.unwrap_or(unix_now),
            end,
        });
    }

    /// All entries, the latest first.
    pub fn latest(&self) -> impl Iterator<Item = &JournalEntry> {
        self.entries.iter().rev()
    }
}
