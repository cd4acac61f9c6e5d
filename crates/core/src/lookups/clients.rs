//! Fair scheduling of questions: for each client those in flight, awaited and queued.
//!
//! A key is in a client's queue exactly while the client waits for it and it is not in flight, so
//! the limit on outstanding questions also bounds the queues.

use super::Key;
use crate::ids::ClientId;
use std::collections::{BTreeMap, VecDeque};

pub(super) struct ClientQueues {
    max_in_flight: usize,
    max_outstanding: usize,
    clients: BTreeMap<ClientId, ClientQueue>,
    /// ClientQueues with queued keys, the next first. May contain a client with a queue emptied
    /// since.
    turns: VecDeque<ClientId>,
}

#[derive(Default)]
struct ClientQueue {
    /// Questions in flight that are charged to it.
    in_flight: usize,
    /// Questions to which it awaits an answer, charged to it or not.
    outstanding: usize,
    queue: VecDeque<Key>,
    has_turn: bool,
}

impl ClientQueues {
    pub(super) fn new(max_in_flight: usize, max_outstanding: usize) -> Self {
        Self {
            max_in_flight,
            max_outstanding,
            clients: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Replaces the limits; questions in flight or queued beyond them stay.
    pub(super) fn limit(&mut self, max_in_flight: usize, max_outstanding: usize) {
        self.max_in_flight = max_in_flight;
        self.max_outstanding = max_outstanding;
    }

    /// Counts one more question of `client`; returns false if it has too many.
    pub(super) fn admit(&mut self, client: ClientId) -> bool {
        let entry = self.clients.entry(client).or_default();
        let admitted = entry.outstanding < self.max_outstanding;
        if admitted {
            entry.outstanding += 1;
        }
        self.forget_idle(client);
        admitted
    }

    /// Whether a question of `client` could start immediately, the global limit aside.
    pub(super) fn is_free(&self, client: ClientId) -> bool {
        let is_free = |it: &ClientQueue| it.in_flight < self.max_in_flight && it.queue.is_empty();
        self.clients.get(&client).is_none_or(is_free)
    }

    /// A question of `client` has been answered.
    pub(super) fn answered(&mut self, client: ClientId) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.outstanding = entry.outstanding.saturating_sub(1);
        }
        self.forget_idle(client);
    }

    /// A question charged to `client` is no longer in flight.
    pub(super) fn finished(&mut self, client: ClientId) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
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

    /// Takes the next question and charges its client, which then waits for all the others.
    pub(super) fn take_turn(&mut self) -> Option<(ClientId, Key)> {
        for _ in 0..self.turns.len() {
            let id = self.turns.pop_front()?;
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let may_start = client.in_flight < self.max_in_flight;
            let key = may_start.then(|| client.queue.pop_front()).flatten();
            client.in_flight += usize::from(key.is_some());
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
        let is_idle = |entry: &ClientQueue| {
            entry.in_flight == 0
                && entry.outstanding == 0
                && !entry.has_turn
                && entry.queue.is_empty()
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
