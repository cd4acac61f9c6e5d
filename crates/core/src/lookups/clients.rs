//! Whose turn it is: what each client has in flight, waits for and has queued.
//!
//! A key is in a client's queue exactly while the client waits for it and it is not in flight, so
//! the limit on outstanding questions bounds the queues too.

use super::Key;
use crate::ids::ClientId;
use std::collections::{BTreeMap, VecDeque};

pub(super) struct Clients {
    max_flying: usize,
    max_outstanding: usize,
    clients: BTreeMap<ClientId, Client>,
    /// Clients with something queued, the next first. May name one whose queue has emptied since.
    turns: VecDeque<ClientId>,
}

#[derive(Default)]
struct Client {
    /// Questions in flight that are charged to it.
    flying: usize,
    /// Questions that it waits for an answer to, charged to it or not.
    outstanding: usize,
    queue: VecDeque<Key>,
    has_turn: bool,
}

impl Clients {
    pub(super) fn new(max_flying: usize, max_outstanding: usize) -> Self {
        Self {
            max_flying,
            max_outstanding,
            clients: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Goes by other limits; what is in flight or queued beyond them stays.
    pub(super) fn limit(&mut self, max_flying: usize, max_outstanding: usize) {
        self.max_flying = max_flying;
        self.max_outstanding = max_outstanding;
    }

    /// Counts one more question of `client`, unless it has too many.
    pub(super) fn admit(&mut self, client: ClientId) -> bool {
        let entry = self.clients.entry(client).or_default();
        let admitted = entry.outstanding < self.max_outstanding;
        if admitted {
            entry.outstanding += 1;
        }
        self.forget_idle(client);
        admitted
    }

    /// Whether a question of `client` would have its turn at once, were there room in all.
    pub(super) fn is_free(&self, client: ClientId) -> bool {
        let is_free = |it: &Client| it.flying < self.max_flying && it.queue.is_empty();
        self.clients.get(&client).is_none_or(is_free)
    }

    /// A question of `client` is answered.
    pub(super) fn answered(&mut self, client: ClientId) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.outstanding = entry.outstanding.saturating_sub(1);
        }
        self.forget_idle(client);
    }

    /// A question that `client` was charged for has come back.
    pub(super) fn landed(&mut self, client: ClientId) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.flying = entry.flying.saturating_sub(1);
        }
        self.forget_idle(client);
    }

    pub(super) fn enqueue(&mut self, client: ClientId, key: Key) {
        let entry = self.clients.entry(client).or_default();
        entry.queue.push_back(key);
        if !entry.has_turn {
            entry.has_turn = true;
            self.turns.push_back(client);
        }
    }

    pub(super) fn dequeue(&mut self, client: ClientId, key: &Key) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.queue.retain(|queued| queued != key);
        }
    }

    /// Takes the next question and charges its client, who then has to wait for all the others.
    pub(super) fn take_turn(&mut self) -> Option<(ClientId, Key)> {
        for _ in 0..self.turns.len() {
            let id = self.turns.pop_front()?;
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let may_start = client.flying < self.max_flying;
            let key = may_start.then(|| client.queue.pop_front()).flatten();
            client.flying += usize::from(key.is_some());
            client.has_turn = !client.queue.is_empty();
            if client.has_turn {
                self.turns.push_back(id);
            }
            if let Some(key) = key {
                return Some((id, key));
            }
            self.forget_idle(id);
        }
        None
    }

    fn forget_idle(&mut self, client: ClientId) {
        let is_idle = |entry: &Client| {
            entry.flying == 0 && entry.outstanding == 0 && !entry.has_turn && entry.queue.is_empty()
        };
        if self.clients.get(&client).is_some_and(is_idle) {
            self.clients.remove(&client);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }
}
