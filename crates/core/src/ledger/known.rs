//! What names resolved to, so that mappings come back at once with the addresses that they had.

use super::record::KnownName;
use crate::ids::UnixTime;
use crate::names::{AddressFamily, DomainName};
use std::collections::{BTreeMap, BTreeSet};

type Key = (DomainName, AddressFamily);

/// At most so many names, by family.
#[derive(Clone, Debug)]
pub(super) struct KnownNames {
    limit: usize,
    by_name: BTreeMap<Key, KnownName>,
    /// The same, the one that was looked up longest ago first.
    by_age: BTreeSet<(UnixTime, Key)>,
}

impl KnownNames {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_name: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &KnownName> {
        self.by_name.values()
    }

    /// Whether another address is known than before.
    pub(super) fn record(&mut self, mut known: KnownName) -> bool {
        known
            .ips
            .retain(|ip| AddressFamily::of(*ip) == known.family);
        known.ips.truncate(MAX_ADDRESSES);
        let former = self.remove(&(known.name.clone(), known.family));
        if known.ips.is_empty() || self.limit == 0 {
            return former.is_some();
        }
        let changed = former.is_none_or(|former| former.ips != known.ips);
        self.make_room();
        self.insert(known);
        changed
    }

    fn insert(&mut self, known: KnownName) {
        let key = (known.name.clone(), known.family);
        self.by_age.insert((known.resolved_at, key.clone()));
        self.by_name.insert(key, known);
    }

    fn remove(&mut self, key: &Key) -> Option<KnownName> {
        let known = self.by_name.remove(key)?;
        self.by_age.remove(&(known.resolved_at, key.clone()));
        Some(known)
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

/// More than a name has proxy IPs of one family, so that each of them leads where it did.
const MAX_ADDRESSES: usize = 64;
