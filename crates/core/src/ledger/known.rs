//! Resolved addresses of names, so that restored mappings have their former addresses immediately.

use super::record::ResolvedName;
use crate::ids::UnixTime;
use crate::names::{AddressFamily, DomainName};
use std::collections::{BTreeMap, BTreeSet};

type Key = (DomainName, AddressFamily);

/// A limited number of names, by family.
#[derive(Clone, Debug)]
pub(super) struct ResolvedNames {
    limit: usize,
    by_name: BTreeMap<Key, Entry>,
    /// The same entries, the longest ago resolved first.
    by_age: BTreeSet<(UnixTime, Key)>,
}

#[derive(Clone, Debug)]
struct Entry {
    known: ResolvedName,
    /// The time of the last change that counted, so that many small steps add up.
    counted: UnixTime,
}

impl ResolvedNames {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_name: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &ResolvedName> {
        self.by_name.values().map(|entry| &entry.known)
    }

    /// Whether the addresses changed, or were confirmed so much later that saving is worthwhile.
    pub(super) fn record(&mut self, mut known: ResolvedName) -> bool {
        known
            .ips
            .retain(|ip| AddressFamily::of(*ip) == known.family);
        known.ips.truncate(MAX_ADDRESSES);
        let former = self.remove(&(known.name.clone(), known.family));
        if known.ips.is_empty() || self.limit == 0 {
            return former.is_some();
        }
        let same = former.filter(|former| former.known.ips == known.ips);
        let counted = same.map(|former| former.counted);
        let counted = counted.filter(|at| at.0.abs_diff(known.resolved_at.0) <= SAME_AGE);
        self.make_room();
        self.insert(Entry {
            counted: counted.unwrap_or(known.resolved_at),
            known,
        });
        counted.is_none()
    }

    fn insert(&mut self, entry: Entry) {
        let key = (entry.known.name.clone(), entry.known.family);
        self.by_age.insert((entry.known.resolved_at, key.clone()));
        self.by_name.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.by_name.remove(key)?;
        self.by_age.remove(&(entry.known.resolved_at, key.clone()));
        Some(entry)
    }

    fn make_room(&mut self) {
        while self.by_name.len() >= self.limit {
            let Some((_, key)) = self.by_age.pop_first() else {
                return;
            };
            self.by_name.remove(&key);
        }
    }
}

/// Seconds within which a confirmation is not saved.
const SAME_AGE: u64 = 300;
/// More than a name's proxy IPs of one family, so that each of them keeps its address.
const MAX_ADDRESSES: usize = 64;
