//! Lookups: which name is asked for when, for whom, and for how long the answer counts.
//!
//! Knows no server and sends nothing: it is asked by whoever needs addresses, says which question
//! to put to the DNS, and hands the answer to everyone who waits for it. A name is two questions,
//! one per family, that start, fail and are answered on their own (docs/lessons.md 9).
//!
//! * A question is in flight at most once in the whole gateway, whoever asks: later askers join. A
//!   refresh passes over the cache, but joins like the rest. Whoever asks a question twice, for
//!   several clients, is answered once.
//! * Addresses are kept for their TTL within limits, definite negatives for a short time, passing
//!   failures for an instant only (docs/lessons.md 7): long enough that a server that fails fast is
//! not
//!   asked for the same by every client in turn (RFC 9520, section 3.2), not even for a refresh.
//!   When the cache is full the oldest entry gives way.
//! * When the servers change, what the old ones still answer is told to those who asked, and not
//!   kept.
//! * A question is charged to the client that started it. Beyond the limits questions wait, and
//!   clients take turns, so that none can starve the rest (docs/lessons.md 22). A client with too
//! many
//!   questions outstanding is answered `Quota` at once, and so is, after the deadline, a question
//!   whose turn has not come. What only warms the cache starts at once or not at all.

mod cache;
mod clients;
mod hygiene;
#[cfg(test)]
mod tests;

use crate::ids::ClientId;
use crate::names::{AddressFamily, DomainName, NameAnswer, NameFailure, ResolvedAddresses};
use cache::Cache;
use clients::Clients;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The limits of [`Lookups`]. Names count once, although each is two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupsConfig {
    /// Addresses are kept at least this long, whatever their TTL.
    pub min_ttl: Duration,
    /// Addresses are kept no longer than this.
    pub max_ttl: Duration,
    /// How long it is remembered that a name does not exist or has no address.
    pub negative_ttl: Duration,
    /// Whether addresses in 64:ff9b::/96 lead anywhere: there is a NAT64 on the way.
    pub nat64: bool,
    /// Names that are being looked up at one time.
    pub concurrent: usize,
    /// Names that are being looked up at one time on behalf of one client.
    pub per_client: usize,
    /// Names that one client may have waiting beyond those.
    pub queued_per_client: usize,
    /// Names whose answers are kept.
    pub cached_names: usize,
    /// How long a lookup may take, and how long a question waits for its turn.
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

/// Somebody wants the addresses of a name, in both families.
#[derive(Clone, Debug)]
pub struct Question<A> {
    /// What.
    pub name: DomainName,
    /// On whose behalf.
    pub client: ClientId,
    /// Whether an answer from the cache will not do.
    pub refresh: bool,
    /// Given back with each answer; `None` only warms the cache. Equal ones are one asker.
    pub asker: Option<A>,
}

/// Addresses as a server gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAddresses {
    /// In any order, with anything among them.
    pub ips: Vec<IpAddr>,
    /// The shortest TTL on the way to them.
    pub ttl: Duration,
}

/// One question in flight. Never used twice, so a late answer is told from a current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// What the owner must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupsEvent<A> {
    /// Put this question to the DNS and report to [`Lookups::handle_result`].
    Start {
        /// To be reported with the result.
        lookup: LookupId,
        /// What to ask for.
        name: DomainName,
        /// A or AAAA.
        family: AddressFamily,
    },
    /// Tell the asker.
    Answer {
        /// As in [`Question::asker`].
        asker: A,
        /// For one family.
        answer: NameAnswer,
    },
}

/// What was answered since somebody asked last. A name is two questions, one for each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupCounts {
    /// Questions that were put to the DNS: what came of each, and after how long. As many as end
    /// in one call; to be taken after each.
    pub ended: Vec<(Result<(), NameFailure>, Duration)>,
    /// Questions that the cache answered.
    pub cached: u64,
    /// Askers who were refused for their quota, and questions whose turn never came.
    pub refused: u64,
}

type Key = (DomainName, AddressFamily);
type Outcome = Result<ResolvedAddresses, NameFailure>;

/// See the module's documentation. `A` is how the owner knows who asked.
pub struct Lookups<A> {
    config: LookupsConfig,
    now: Option<Instant>,
    cache: Cache,
    clients: Clients,
    /// Every question that somebody waits for.
    pending: BTreeMap<Key, Pending<A>>,
    /// By number, so the first is due first.
    waiting: BTreeMap<u64, Waiting>,
    flying: BTreeMap<LookupId, Flight<A>>,
    next_number: u64,
    events: VecDeque<LookupsEvent<A>>,
    counts: LookupCounts,
}

type Askers<A> = Vec<(ClientId, Option<A>)>;

struct Pending<A> {
    askers: Askers<A>,
    /// Its number in `waiting`; `None` once it is in flight.
    waits: Option<u64>,
}

struct Waiting {
    key: Key,
    deadline: Instant,
}

struct Flight<A> {
    key: Key,
    client: ClientId,
    since: Instant,
    deadline: Instant,
    /// Who waits for it alone: the servers have changed since it began.
    outdated: Option<Askers<A>>,
}

impl<A: PartialEq> Lookups<A> {
    /// Nothing is cached, nothing in flight.
    #[must_use]
    pub fn new(config: LookupsConfig) -> Self {
        let (flying, outstanding) = per_client(&config);
        Self {
            cache: Cache::new(config.cached_names.saturating_mul(FAMILIES)),
            clients: Clients::new(flying, outstanding),
            config,
            now: None,
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            flying: BTreeMap::new(),
            next_number: 0,
            events: VecDeque::new(),
            counts: LookupCounts::default(),
        }
    }

    /// Goes by other limits from now on; only the number of cached names stays. What is in flight
    /// or waits goes on, and what is cached keeps the time it was given.
    pub fn use_config(&mut self, config: LookupsConfig, now: Instant) {
        let now = self.at(now);
        self.config = config;
        let (flying, outstanding) = per_client(&config);
        self.clients.limit(flying, outstanding);
        self.start_waiting(now);
    }

    /// Answers from the cache, joins a question that is pending, or starts one. The asker is
    /// answered exactly once per family, and once for equal questions that wait together.
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

    /// What became of a question in flight. Ignored when its deadline has passed.
    pub fn handle_result(
        &mut self,
        lookup: LookupId,
        result: Result<FoundAddresses, NameFailure>,
        now: Instant,
    ) {
        let now = self.at(now);
        let Some(flight) = self.flying.get(&lookup) else {
            return;
        };
        let (_, family) = flight.key;
        let outcome = result.and_then(|found| self.usable(found, family));
        self.land(lookup, &outcome, now);
        self.start_waiting(now);
    }

    /// Gives up on what is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.at(now);
        while let Some((&lookup, flight)) = self.flying.first_key_value()
            && flight.deadline <= now
        {
            self.land(lookup, &Err(NameFailure::Timeout), now);
        }
        // Whoever can start now must not be turned away.
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

    /// When something becomes overdue.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let flying = self.flying.values().next().map(|flight| flight.deadline);
        let waiting = self.waiting.values().next().map(|waiting| waiting.deadline);
        flying.into_iter().chain(waiting).min()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<LookupsEvent<A>> {
        self.events.pop_front()
    }

    /// What was answered since the last call.
    pub fn take_counts(&mut self) -> LookupCounts {
        std::mem::take(&mut self.counts)
    }

    /// Forgets what was answered, and what is being answered: the servers have changed, and others
    /// may say otherwise.
    pub fn forget_answers(&mut self) {
        self.cache.clear();
        for flight in self.flying.values_mut().filter(|it| it.outdated.is_none()) {
            let pending = self.pending.remove(&flight.key);
            flight.outdated = Some(pending.map(|it| it.askers).unwrap_or_default());
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
            // To a refresh it is the only answer that it gets.
            let from_cache = !question.refresh;
            self.counts.cached += 1;
            self.answer(question.asker.clone(), &key, &outcome, from_cache);
        } else if question.asker.is_none() && !self.can_start(&key, question.client) {
            // It would have to wait, and nobody waits for it.
        } else if self.clients.admit(question.client) {
            self.wait(question.client, question.asker.clone(), key, now);
        } else {
            let quota = Err(NameFailure::Quota);
            self.counts.refused += 1;
            self.answer(question.asker.clone(), &key, &quota, false);
        }
    }

    /// Whether a question would be in flight at once, and is not yet.
    fn can_start(&self, key: &Key, client: ClientId) -> bool {
        let has_room = self.flying.len() < self.config.concurrent.saturating_mul(FAMILIES);
        has_room && !self.pending.contains_key(key) && self.clients.is_free(client)
    }

    /// Joins the askers of a question; one that is not in flight also gets into the client's own
    /// queue, so that it starts as soon as any of its askers has a turn.
    fn wait(&mut self, client: ClientId, asker: Option<A>, key: Key, now: Instant) {
        if !self.pending.contains_key(&key) {
            let number = self.number();
            let deadline = now + self.config.deadline;
            let waiting = Waiting {
                key: key.clone(),
                deadline,
            };
            self.waiting.insert(number, waiting);
            let pending = Pending {
                askers: Vec::new(),
                waits: Some(number),
            };
            self.pending.insert(key.clone(), pending);
        }
        let pending = self.pending.get_mut(&key).expect("inserted if missing");
        let is_first =
            pending.waits.is_some() && pending.askers.iter().all(|(other, _)| *other != client);
        pending.askers.push((client, asker));
        if is_first {
            self.clients.enqueue(client, key);
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        let limit = self.config.concurrent.saturating_mul(FAMILIES);
        while self.flying.len() < limit {
            let Some((client, key)) = self.clients.take_turn() else {
                return;
            };
            self.leave_queues(&key);
            let lookup = LookupId(self.number());
            let (name, family) = key.clone();
            let deadline = now + self.config.deadline;
            let flight = Flight {
                key,
                client,
                since: now,
                deadline,
                outdated: None,
            };
            self.flying.insert(lookup, flight);
            self.events.push_back(LookupsEvent::Start {
                lookup,
                name,
                family,
            });
        }
    }

    /// The question waits no longer.
    fn leave_queues(&mut self, key: &Key) {
        let Some(pending) = self.pending.get_mut(key) else {
            return;
        };
        if let Some(number) = pending.waits.take() {
            self.waiting.remove(&number);
        }
        for (client, _) in &pending.askers {
            self.clients.dequeue(*client, key);
        }
    }

    /// Ends a flight.
    fn land(&mut self, lookup: LookupId, outcome: &Outcome, now: Instant) {
        let Some(flight) = self.flying.remove(&lookup) else {
            return;
        };
        self.clients.landed(flight.client);
        let plain = outcome.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.counts.ended.push((plain, now - flight.since));
        if let Some(askers) = flight.outdated {
            self.answer_each(askers, &flight.key, outcome);
            return;
        }
        let ttl = match outcome {
            Ok(found) => found.ttl,
            Err(failure) if failure.is_definite() => self.config.negative_ttl,
            Err(_) => FRESH,
        };
        let key = flight.key;
        self.cache.put(key.clone(), outcome.clone(), ttl, now);
        self.answer_all(&key, outcome);
    }

    fn answer_all(&mut self, key: &Key, outcome: &Outcome) {
        if let Some(pending) = self.pending.remove(key) {
            self.answer_each(pending.askers, key, outcome);
        }
    }

    /// Whoever asks for a thousand clients is told once.
    fn answer_each(&mut self, askers: Askers<A>, key: &Key, outcome: &Outcome) {
        let mut told = Vec::new();
        for (client, asker) in askers {
            self.clients.answered(client);
            if !told.contains(&asker) {
                told.push(asker);
            }
        }
        for asker in told {
            self.answer(asker, key, outcome, false);
        }
    }

    fn answer(&mut self, asker: Option<A>, key: &Key, outcome: &Outcome, from_cache: bool) {
        let Some(asker) = asker else { return };
        let (name, family) = key;
        let answer = NameAnswer {
            name: name.clone(),
            family: *family,
            outcome: outcome.clone(),
            from_cache,
        };
        self.events
            .push_back(LookupsEvent::Answer { asker, answer });
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

/// Whether nobody could say.
fn is_passing(outcome: &Outcome) -> bool {
    outcome
        .as_ref()
        .is_err_and(|failure| !failure.is_definite())
}

/// Questions that one client may have in flight, and outstanding in all.
fn per_client(config: &LookupsConfig) -> (usize, usize) {
    let outstanding = config.per_client.saturating_add(config.queued_per_client);
    (
        config.per_client.saturating_mul(FAMILIES),
        outstanding.saturating_mul(FAMILIES),
    )
}

/// How long a passing failure counts.
const FRESH: Duration = Duration::from_millis(500);
/// A name is a question for A records and one for AAAA records.
const FAMILIES: usize = 2;
