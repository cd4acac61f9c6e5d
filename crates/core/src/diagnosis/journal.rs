//! What was taken from clients lately: the difference between "never allowed" and "no longer".

use crate::grant::TunnelAddresses;
use crate::ids::{ClientId, UnixTime};
use crate::ledger::{EndedGrant, Grant, GrantEnd};
use std::collections::VecDeque;

/// An authorization that a client had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Whose.
    pub client: ClientId,
    /// Where the client was.
    pub tunnel: TunnelAddresses,
    /// What.
    pub grant: Grant,
    /// When it ended.
    pub at: UnixTime,
    /// Why.
    pub end: GrantEnd,
}

/// The last [`JournalEntry`], oldest first. When full, the oldest gives way.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<JournalEntry>,
}

impl Journal {
    /// How many are kept: some hundred bytes each.
    pub const ENTRIES: usize = 1024;

    /// The ledger let go of a grant. One whose time was over has ended by that, whoever cleared it
    /// away, and at that time.
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

    /// All, the latest first.
    pub fn latest(&self) -> impl Iterator<Item = &JournalEntry> {
        self.entries.iter().rev()
    }
}
