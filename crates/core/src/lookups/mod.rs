//! Lookups: which names are resolved when, for which clients, and how long the answers are valid.
//!
//! Knows no server and sends nothing: it accepts requests for addresses, emits the questions to put
//! to the DNS, and returns each answer to every requester. A name is two questions, one per family,
//! that start, fail and are answered independently (docs/lessons.md 9).
//!
//! * A question is in flight at most once in the whole gateway: later requesters join it. A refresh
//!   bypasses the cache, but joins too. A requester that asks one question for several clients is
//!   answered once.
//! * Addresses are kept for their TTL within limits, definite negatives for a short time, transient
//!   failures only for half a second (docs/lessons.md 7): long enough that a server that fails
//!   fast is not asked the same by every client in turn (RFC 9520, 3.2), not even for a refresh. A
//!   full cache evicts its oldest entry.
//! * When the servers change, late answers of the old ones go to their requesters, but not into the
//!   cache.
//! * A question is charged to the client that started it. Beyond the limits questions wait, and
//!   clients take turns, so that none can starve the rest (docs/lessons.md 22). A client with too
//!   many outstanding questions is answered `Quota` immediately, and so is, after the deadline, a
//!   question that could not start. A question that only warms the cache starts immediately or not
//!   at all.

mod cache;
mod clients;
mod hygiene;
#[cfg(test)]
mod tests;

use crate::ids::ClientId;
use crate::names::{AddressFamily, DomainName, NameAnswer, NameFailure, ResolvedAddresses};
use cache::Cache;
use clients::ClientQueues;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The limits of [`Lookups`]. Each name counts once, although it is two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupsConfig {
    /// Minimum time for which addresses are kept; a shorter TTL is raised to it.
    pub min_ttl: Duration,
    /// Maximum time for which addresses are kept.
    pub max_ttl: Duration,
    /// Time for which a non-existent name or a name without addresses is remembered.
    pub negative_ttl: Duration,
    /// Whether addresses in 64:ff9b::/96 are usable: there is a NAT64 on the path.
    pub nat64: bool,
    /// Names that may be looked up at the same time.
    pub concurrent: usize,
    /// Names that may be looked up at the same time for one client.
    pub per_client: usize,
    /// Names that one client may have waiting beyond those.
    pub queued_per_client: usize,
    /// Names with cached answers.
    pub cached_names: usize,
    /// Maximum duration of a lookup, and of a question's wait for its start.
    pub deadline: Duration,
}

impl Default for LookupsConfig {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(3_600),
            negative_ttl: Duration::from_secs(5),
            nat64: false,
            concurrent: 512,
            per_client: 16,
            queued_per_client: 256,
            cached_names: 10_000,
            deadline: Duration::from_secs(6),
        }
    }
}

/// A request for the addresses of a name, in both families.
#[derive(Clone, Debug)]
pub struct Question<A> {
    /// The name to look up in the DNS.
    pub name: DomainName,
    /// The client to which the lookup is charged.
    pub client: ClientId,
    /// Whether the cache must be bypassed.
    pub refresh: bool,
    /// Returned with each answer; `None` only warms the cache. Equal values are one requester.
    pub requester: Option<A>,
}

/// Addresses as received from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAddresses {
    /// In any order, unfiltered.
    pub ips: Vec<IpAddr>,
    /// The shortest TTL of the records that lead to them.
    pub ttl: Duration,
}

/// Identifies one question in flight. Never reused, so a late answer cannot match a later question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// Actions for the owner of [`Lookups`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupsEvent<A> {
    /// Put this question to the DNS and report the result to [`Lookups::handle_result`].
    Start {
        /// To be passed back with the result.
        lookup: LookupId,
        /// The name of the question.
        name: DomainName,
        /// Selects A or AAAA records.
        family: AddressFamily,
    },
    /// Deliver an answer to its requester.
    Answer {
        /// The value of [`Question::requester`].
        requester: A,
        /// The answer for one family.
        answer: NameAnswer,
    },
}

/// Answers since the counts were last taken. A name is two questions, one for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupCounts {
    /// Questions that were put to the DNS, each with its outcome and duration. Take the counts
    /// after every call, so that the list stays short.
    pub ended: Vec<(Result<(), NameFailure>, Duration)>,
    /// Number of questions answered from the cache.
    pub cached: u64,
    /// Number of requests refused for a quota, and of questions that never started.
    pub refused: u64,
}

type Key = (DomainName, AddressFamily);
type Outcome = Result<ResolvedAddresses, NameFailure>;

/// See the module's documentation. `A` identifies a requester for the owner.
pub struct Lookups<A> {
    config: LookupsConfig,
    now: Option<Instant>,
    cache: Cache,
    clients: ClientQueues,
    /// All questions without an answer yet.
    pending: BTreeMap<Key, Pending<A>>,
    /// By number, so the first entry is due first.
    waiting: BTreeMap<u64, Waiting>,
    in_flight: BTreeMap<LookupId, InFlight<A>>,
    next_number: u64,
    events: VecDeque<LookupsEvent<A>>,
    counts: LookupCounts,
}

type Requesters<A> = Vec<(ClientId, Option<A>)>;

struct Pending<A> {
    requesters: Requesters<A>,
    /// Its number in `waiting`; `None` while in flight.
    waits: Option<u64>,
}

struct Waiting {
    key: Key,
    deadline: Instant,
}

struct InFlight<A> {
    key: Key,
    client: ClientId,
    since: Instant,
    deadline: Instant,
    /// Its only requesters, if the servers have changed since it began.
    outdated: Option<Requesters<A>>,
}

impl<A: PartialEq> Lookups<A> {
    /// An empty cache and no questions in flight.
    #[must_use]
    pub fn new(config: LookupsConfig) -> Self {
        let (in_flight, outstanding) = per_client(&config);
        Self {
            cache: Cache::new(config.cached_names.saturating_mul(FAMILIES)),
            clients: ClientQueues::new(in_flight, outstanding),
            config,
            now: None,
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_number: 0,
            events: VecDeque::new(),
            counts: LookupCounts::default(),
        }
    }

    /// Replaces the limits, except the number of cached names. Questions in flight or waiting
    /// continue, and cached answers keep their expiry.
    pub fn use_config(&mut self, config: LookupsConfig, now: Instant) {
        let now = self.at(now);
        self.config = config;
        let (in_flight, outstanding) = per_client(&config);
        self.clients.limit(in_flight, outstanding);
        self.start_waiting(now);
    }

    /// Answers from the cache, joins a pending question, or starts one. The requester is answered
    /// exactly once per family, and once for equal questions that wait together.
    pub fn handle_question(&mut self, question: Question<A>, now: Instant)
    where
        A: Clone,
    {
        let now = self.at(now);
        for family in AddressFamily::ALL {
            self.ask(&question, family, now);
            self.start_waiting(now);
        }
    }

    /// Handles the result of a question in flight. Ignored after the question's deadline.
    pub fn handle_result(
        &mut self,
        lookup: LookupId,
        result: Result<FoundAddresses, NameFailure>,
        now: Instant,
    ) {
        let now = self.at(now);
        let Some(flight) = self.in_flight.get(&lookup) else {
            return;
        };
        let (_, family) = flight.key;
        let outcome = result.and_then(|found| self.usable(found, family));
        self.finish(lookup, &outcome, now);
        self.start_waiting(now);
    }

    /// Ends questions that are overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.at(now);
        while let Some((&lookup, flight)) = self.in_flight.first_key_value()
            && flight.deadline <= now
        {
            self.finish(lookup, &Err(NameFailure::Timeout), now);
        }
        // Questions that can start now must not be refused.
        self.start_waiting(now);
        while let Some((_, waiting)) = self.waiting.first_key_value()
            && waiting.deadline <= now
        {
            let key = waiting.key.clone();
            self.counts.refused += 1;
            self.leave_queues(&key);
            self.answer_all(&key, &Err(NameFailure::Quota));
        }
    }

    /// When the next question becomes overdue.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let in_flight = self.in_flight.values().next().map(|flight| flight.deadline);
        let waiting = self.waiting.values().next().map(|waiting| waiting.deadline);
        in_flight.into_iter().chain(waiting).min()
    }

    /// The next action for the owner.
    pub fn poll_event(&mut self) -> Option<LookupsEvent<A>> {
        self.events.pop_front()
    }

    /// The counts since the last call.
    pub fn take_counts(&mut self) -> LookupCounts {
        std::mem::take(&mut self.counts)
    }

    /// Clears the cache and detaches questions in flight: the servers have changed, and the new
    /// ones may answer differently.
    pub fn forget_answers(&mut self) {
        self.cache.clear();
        for flight in self
            .in_flight
            .values_mut()
            .filter(|it| it.outdated.is_none())
        {
            let pending = self.pending.remove(&flight.key);
            flight.outdated = Some(pending.map(|it| it.requesters).unwrap_or_default());
        }
    }

    fn ask(&mut self, question: &Question<A>, family: AddressFamily, now: Instant)
    where
        A: Clone,
    {
        let key = (question.name.clone(), family);
        let cached = self.cache.get(&key, now);
        let cached = cached.filter(|outcome| !question.refresh || is_passing(outcome));
        if let Some(mut outcome) = cached {
            if let Ok(found) = &mut outcome {
                found.ttl = found.ttl.max(self.config.min_ttl);
            }
            // A refresh gets no second answer: it must not take this one for outdated.
            let from_cache = !question.refresh;
            self.counts.cached += 1;
            self.answer(question.requester.clone(), &key, &outcome, from_cache);
        } else if question.requester.is_none() && !self.can_start(&key, question.client) {
            // It would have to wait, and has no requester.
        } else if self.clients.admit(question.client) {
            self.wait(question.client, question.requester.clone(), key, now);
        } else {
            let quota = Err(NameFailure::Quota);
            self.counts.refused += 1;
            self.answer(question.requester.clone(), &key, &quota, false);
        }
    }

    /// Whether a question would be in flight immediately, and is not yet.
    fn can_start(&self, key: &Key, client: ClientId) -> bool {
        let has_room = self.in_flight.len() < self.config.concurrent.saturating_mul(FAMILIES);
        has_room && !self.pending.contains_key(key) && self.clients.is_free(client)
    }

    /// Adds a requester to a question. If the question is not in flight, it also enters the
    /// requesting client's queue, so that it starts as soon as any of its clients has a turn.
    fn wait(&mut self, client: ClientId, requester: Option<A>, key: Key, now: Instant) {
        if !self.pending.contains_key(&key) {
            let number = self.number();
            let deadline = now + self.config.deadline;
            let waiting = Waiting {
                key: key.clone(),
                deadline,
            };
            self.waiting.insert(number, waiting);
            let pending = Pending {
                requesters: Vec::new(),
                waits: Some(number),
            };
            self.pending.insert(key.clone(), pending);
        }
        let pending = self.pending.get_mut(&key).expect("inserted if missing");
        let is_first =
            pending.waits.is_some() && pending.requesters.iter().all(|(other, _)| *other != client);
        pending.requesters.push((client, requester));
        if is_first {
            self.clients.enqueue(client, key);
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        let limit = self.config.concurrent.saturating_mul(FAMILIES);
        while self.in_flight.len() < limit {
            let Some((client, key)) = self.clients.take_turn() else {
                return;
            };
            self.leave_queues(&key);
            let lookup = LookupId(self.number());
            let (name, family) = key.clone();
            let deadline = now + self.config.deadline;
            let flight = InFlight {
                key,
                client,
                since: now,
                deadline,
                outdated: None,
            };
            self.in_flight.insert(lookup, flight);
            self.events.push_back(LookupsEvent::Start {
                lookup,
                name,
                family,
            });
        }
    }

    /// Removes a question from the queues.
    fn leave_queues(&mut self, key: &Key) {
        let Some(pending) = self.pending.get_mut(key) else {
            return;
        };
        if let Some(number) = pending.waits.take() {
            self.waiting.remove(&number);
        }
        for (client, _) in &pending.requesters {
            self.clients.dequeue(*client, key);
        }
    }

    /// Ends a question in flight.
    fn finish(&mut self, lookup: LookupId, outcome: &Outcome, now: Instant) {
        let Some(flight) = self.in_flight.remove(&lookup) else {
            return;
        };
        self.clients.finished(flight.client);
        let plain = outcome.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.counts.ended.push((plain, now - flight.since));
        if let Some(requesters) = flight.outdated {
            self.answer_each(requesters, &flight.key, outcome);
            return;
        }
        let ttl = match outcome {
            Ok(found) => found.ttl,
            Err(failure) if failure.is_definite() => self.config.negative_ttl,
            Err(_) => TRANSIENT_TTL,
        };
        let key = flight.key;
        self.cache.put(key.clone(), outcome.clone(), ttl, now);
        self.answer_all(&key, outcome);
    }

    fn answer_all(&mut self, key: &Key, outcome: &Outcome) {
        if let Some(pending) = self.pending.remove(key) {
            self.answer_each(pending.requesters, key, outcome);
        }
    }

    /// Answers each requester once, even if it asks for a thousand clients.
    fn answer_each(&mut self, requesters: Requesters<A>, key: &Key, outcome: &Outcome) {
        let mut answered = Vec::new();
        for (client, requester) in requesters {
            self.clients.answered(client);
            if !answered.contains(&requester) {
                answered.push(requester);
            }
        }
        for requester in answered {
            self.answer(requester, key, outcome, false);
        }
    }

    fn answer(&mut self, requester: Option<A>, key: &Key, outcome: &Outcome, from_cache: bool) {
        let Some(requester) = requester else { return };
        let (name, family) = key;
        let answer = NameAnswer {
            name: name.clone(),
            family: *family,
            outcome: outcome.clone(),
            from_cache,
        };
        self.events
            .push_back(LookupsEvent::Answer { requester, answer });
    }

    fn usable(&self, found: FoundAddresses, family: AddressFamily) -> Outcome {
        let ips = hygiene::usable(found.ips, family, self.config.nat64);
        if ips.is_empty() {
            return Err(NameFailure::NoData);
        }
        let ttl = found.ttl.min(self.config.max_ttl).max(self.config.min_ttl);
        Ok(ResolvedAddresses { ips, ttl })
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn at(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |last| last.max(now));
        self.now = Some(now);
        now
    }
}

/// Whether the failure is transient: no authority answered.
fn is_passing(outcome: &Outcome) -> bool {
    outcome
        .as_ref()
        .is_err_and(|failure| !failure.is_definite())
}

/// Questions that one client may have in flight, and outstanding in total.
fn per_client(config: &LookupsConfig) -> (usize, usize) {
    let outstanding = config.per_client.saturating_add(config.queued_per_client);
    (
        config.per_client.saturating_mul(FAMILIES),
        outstanding.saturating_mul(FAMILIES),
    )
}

/// How long a transient failure is cached.
const TRANSIENT_TTL: Duration = Duration::from_millis(500);
/// A name is a question for A records and one for AAAA records.
const FAMILIES: usize = 2;
