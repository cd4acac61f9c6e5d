//! Cached answers with their expiry. Bounded: a full cache evicts its oldest entry.

use super::{Key, Outcome};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) struct Cache {
    limit: usize,
    entries: BTreeMap<Key, Entry>,
    /// Keys by age, the oldest first.
    ages: BTreeMap<u64, Key>,
    next_age: u64,
}

struct Entry {
    outcome: Outcome,
    expires: Instant,
    age: u64,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: BTreeMap::new(),
            ages: BTreeMap::new(),
            next_age: 0,
        }
    }

    /// The cached outcome, with the remaining time as its TTL.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<Outcome> {
        let entry = self.entries.get(key)?;
        if entry.expires <= now {
            self.remove(key);
            return None;
        }
        let left = entry.expires - now;
        let mut outcome = entry.outcome.clone();
        if let Ok(found) = &mut outcome {
            found.ttl = left;
        }
        Some(outcome)
    }

    /// Caches an outcome, received at `now`, for `ttl`.
    pub(super) fn put(&mut self, key: Key, outcome: Outcome, ttl: Duration, now: Instant) {
        self.remove(&key);
        let age = self.next_age;
        self.next_age += 1;
        self.ages.insert(age, key.clone());
        let entry = Entry {
            outcome,
            expires: now + ttl,
            age,
        };
        self.entries.insert(key, entry);
        while self.entries.len() > self.limit
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.ages.clear();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.ages.remove(&entry.age);
        }
    }
}
