//! The names that clients reach through proxy IPs, and the rules by which they heal.
//!
//! A *mapping* connects a client's name with its proxy IPs and its real addresses. It exists from
//! the moment the proxy IPs are known, resolved or not (docs/lessons.md 1). There is one mapping
//! for each client and name, not for each resource: a client uses the same proxy IPs for all its
//! resources that match a name, so the mapping holds the set of them (docs/lessons.md 18). Each
//! family has its own addresses and its own failures (docs/lessons.md 9).
//!
//! [`Domains`] decides where a new flow goes, holds packets during a lookup, and watches the
//! traffic for signals that the DNS must be asked again:
//!
//! * *unmapped*: a packet for a family without an address;
//! * *one-way*: at least 3 packets over at least 5 s were sent, and none came back from any address
//!   of the family;
//! * *handshake*: 2 SYNs over at least 0.9 s, or 3 other packets of unanswered flows over 5 s, to
//!   one address, and no flow to it was confirmed since the first of them. An old flow that still
//!   works elsewhere hides the one-way signal, but not this one (docs/lessons.md 6);
//! * *unreachable*: an ICMP error reports that an address does not work.
//!
//! Where these rules differ from the obvious, and why:
//!
//! * Any packet that comes back resets the backoff of the one-way signal; only a confirmed flow
//!   resets that of the other signals. Otherwise one working flow would let each failing new flow
//!   cause a lookup (docs/lessons.md 2).
//! * Unanswered handshakes are counted by address, and an address that owes answers is shunned for
//!   30 s when the next one is due. Only moving every proxy IP by one address would swap the two if
//!   one of them is dead.
//! * A definite "no such name" leaves addresses in use for an hour, but immediately removes
//!   addresses that a refresh suspected because they were silent: then two observations agree.
//! * A transient failure is retried after at most 1 s, so that a name heals within 1.5 s after its
//!   DNS server is back.
//!
//! It does not look up a name that is not in use (docs/lessons.md 3), cut a live flow
//! (docs/lessons.md 5: it only answers for new and unanswered flows), forget an address because a
//! lookup failed (docs/lessons.md 7), or translate between families (docs/lessons.md 10).

mod addresses;
mod explain;
mod family;
mod health;
mod held;
mod known;
mod mapping;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod vocabulary;
mod waits;

pub use explain::{AddressFacts, FamilyFacts, MappingFacts};
pub use health::{HealCounts, HealSignal};
pub use known::RestoredName;
pub use slot::{ClientSlot, MappingId};
pub use vocabulary::{
    AssignError, DomainsConfig, DomainsEvent, HeldOutcome, HeldPacket, Route, Sent,
};

use crate::DropReason;
use crate::authorizations::{NameMeaning, ProxiedName};
use crate::names::{AddressFamily, DomainName};
use crate::packet::DropCounts;
use known::AddressRecords;
use mapping::Mapping;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Table;

/// The names of the clients of one shard.
#[derive(Debug)]
pub struct Domains {
    table: Table,
    known: AddressRecords,
    timers: BTreeSet<(Instant, MappingId)>,
    shared: Context,
    now: Instant,
}

/// State shared by all mappings.
#[derive(Debug)]
struct Context {
    config: DomainsConfig,
    rng: ChaCha8Rng,
    events: VecDeque<DomainsEvent>,
    released: VecDeque<HeldPacket>,
    held_packets: usize,
    held_bytes: usize,
    held_by_client: BTreeMap<ClientSlot, usize>,
    drops: DropCounts,
    heals: HealCounts,
}

impl Domains {
    /// Creates a table without names. The same seed gives the same jitter.
    #[must_use]
    pub fn new(config: DomainsConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let hash_key = std::array::from_fn(|_| rng.next_u64());
        Self {
            table: Table::new(hash_key),
            known: AddressRecords::default(),
            timers: BTreeSet::new(),
            shared: Context {
                config,
                rng,
                events: VecDeque::new(),
                released: VecDeque::new(),
                held_packets: 0,
                held_bytes: 0,
                held_by_client: BTreeMap::new(),
                drops: DropCounts::default(),
                heals: HealCounts::default(),
            },
            now,
        }
    }

    /// Changes the limits. Entries above a lower limit stay until they are next touched.
    pub fn use_config(&mut self, config: DomainsConfig) {
        self.shared.config = config;
    }

    // ---- Names of clients

    /// Takes over what a name of a client means from now on. An announcement, repeated or not,
    /// starts a lookup through the cache, at most once a second.
    ///
    /// The proxy IPs lead to this name alone, also if one led to another before: an outdated id is
    /// no longer current, and its held packets are dropped.
    ///
    /// A client that waits for a DomainStatus gets `Active` immediately (docs/lessons.md 1), and
    /// `Inactive` later if the DNS denies the name.
    ///
    /// # Errors
    ///
    /// See [`AssignError`].
    pub fn handle_name(
        &mut self,
        client: ClientSlot,
        meaning: &NameMeaning,
        now: Instant,
    ) -> Result<(), AssignError> {
        let now = self.clock(now);
        let known = self.table.by_name(client, &meaning.name);
        let (id, proxied) = match (known, &meaning.proxied) {
            (known, None) => {
                known.into_iter().for_each(|id| self.remove(id));
                return Ok(());
            }
            (Some(id), Some(proxied)) => (id, proxied),
            (None, Some(proxied)) => {
                self.make_room(client, now)?;
                let mapping = Mapping::new(client, proxied.clone(), now);
                let id = self.table.insert(mapping);
                self.claim(id, now);
                (id, proxied)
            }
        };
        self.take_over(id, proxied);
        if let Some(mapping) = self.table.get_mut(id) {
            mapping.answer(meaning.announced_for, &mut self.shared, now);
            self.arm(id);
        }
        Ok(())
    }

    /// Removes the names of a client for which `is_held` does not hold.
    pub fn retain_names(&mut self, client: ClientSlot, is_held: impl Fn(&DomainName) -> bool) {
        for id in self.table.of_client(client).collect::<Vec<_>>() {
            let name = self.table.get(id).map(Mapping::name);
            if name.is_some_and(|name| !is_held(name)) {
                self.remove(id);
            }
        }
    }

    /// Removes a client with all its names.
    pub fn remove_client(&mut self, client: ClientSlot) {
        for id in self.table.of_client(client).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    // ---- Queries of the data path

    /// The mapping of a client's proxy IP, by one hash table lookup.
    #[must_use]
    pub fn find(&self, client: ClientSlot, proxy_ip: IpAddr) -> Option<MappingId> {
        self.table.by_proxy(client, proxy_ip)
    }

    /// Increases whenever unconfirmed flows of the family must query their route again: addresses
    /// or proxy IPs changed, or the next address is due.
    #[must_use]
    pub fn epoch(&self, id: MappingId, family: AddressFamily) -> Option<u32> {
        self.table.get(id).map(|mapping| mapping.epoch(family))
    }

    /// Where a packet of a new or unconfirmed flow goes.
    ///
    /// [`Route::Hold`] and [`Route::Unreachable`] count as a packet for a name without an address
    /// (the unmapped signal), so do not report it by [`Self::note_inbound`]. A mapping that is not
    /// current gives [`Route::Unreachable`].
    pub fn route(&mut self, id: MappingId, proxy_ip: IpAddr, now: Instant) -> Route {
        let now = self.clock(now);
        let Some(mapping) = self.table.get_mut(id) else {
            return Route::Unreachable;
        };
        let epochs = mapping.epochs();
        let route = mapping.route(proxy_ip, &mut self.shared, now);
        match route {
            Route::To { .. } => {}
            Route::Hold | Route::Unreachable => {
                self.report_if_moved(id, epochs);
                self.arm(id);
            }
        }
        route
    }

    /// Holds a packet until its outcome is known (see [`Self::poll_released`]), for at most
    /// [`DomainsConfig::hold_for`].
    ///
    /// # Errors
    ///
    /// [`DropReason::HoldFull`] beyond the limits, [`DropReason::Unmapped`] if the mapping is not
    /// current, [`DropReason::MalformedIp`] if it is no IP packet. The caller counts it.
    pub fn hold(&mut self, id: MappingId, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        let now = self.clock(now);
        let mapping = self.table.get_mut(id).ok_or(DropReason::Unmapped)?;
        mapping.hold(packet, &mut self.shared, now)?;
        self.arm(id);
        Ok(())
    }

    // ---- Reports of the data path

    /// A flow to `real` begins: stale addresses are looked up in the background, through the cache,
    /// while they stay in use (docs/lessons.md 33).
    pub fn note_new_flow(&mut self, id: MappingId, real: IpAddr, now: Instant) {
        let now = self.clock(now);
        if let Some(mapping) = self.table.get_mut(id) {
            mapping.note_new_flow(AddressFamily::of(real), &mut self.shared, now);
            self.arm(id);
        }
    }

    /// A packet goes to `real`. Call it for each packet or super-packet of the mapping.
    pub fn note_inbound(&mut self, id: MappingId, real: IpAddr, sent: Sent, now: Instant) {
        let now = self.clock(now);
        let Some(mapping) = self.table.get_mut(id) else {
            return;
        };
        mapping.used_at = now;
        let epochs = mapping.epochs();
        let family = mapping.family(AddressFamily::of(real));
        if family.note_inbound(real, sent, &mut self.shared.heals, now) {
            mapping.settle(&mut self.shared, now);
            self.arm(id);
        } else if mapping.epochs() != epochs {
            self.report_if_moved(id, epochs);
        }
    }

    /// A packet of a flow came from `real`, a RST included. `newly_confirmed`: it is the first of
    /// its flow, as is a RST that refuses a handshake.
    pub fn note_outbound(
        &mut self,
        id: MappingId,
        real: IpAddr,
        newly_confirmed: bool,
        now: Instant,
    ) {
        let now = self.clock(now);
        if let Some(mapping) = self.table.get_mut(id) {
            mapping.used_at = now;
            let family = mapping.family(AddressFamily::of(real));
            family.note_outbound(real, newly_confirmed, &mut self.shared.heals, now);
        }
    }

    /// An ICMP error reports that `real` is unreachable: it is shunned for 30 s, and a lookup may
    /// start. The error is no silence, so the one-way signal starts from zero (docs/lessons.md 2).
    pub fn note_unreachable(&mut self, id: MappingId, real: IpAddr, now: Instant) {
        let now = self.clock(now);
        let Some(mapping) = self.table.get_mut(id) else {
            return;
        };
        let epochs = mapping.epochs();
        let family = mapping.family(AddressFamily::of(real));
        if family.note_unreachable(real, &mut self.shared.heals, now) {
            mapping.settle(&mut self.shared, now);
            self.arm(id);
        }
        self.report_if_moved(id, epochs);
    }

    /// Another ICMP error about a flow to `real`: an answer, but no proof of health.
    pub fn note_answer_by_icmp(&mut self, id: MappingId, real: IpAddr, now: Instant) {
        self.clock(now);
        if let Some(mapping) = self.table.get_mut(id) {
            let family = mapping.family(AddressFamily::of(real));
            family.note_icmp(real);
        }
    }

    // ---- Time and results

    /// Starts lookups that are due, and fails lookups and packets that waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock(now);
        self.known.handle_timeout(now);
        while let Some(timer) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let (_, id) = timer;
            self.timers.remove(&timer);
            if let Some(mapping) = self.table.get_mut(id) {
                mapping.armed = None;
                let epochs = mapping.epochs();
                mapping.handle_timeout(&mut self.shared, now);
                self.report_if_moved(id, epochs);
            }
            self.arm(id);
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.known.poll_timeout()).min()
    }

    /// The next action for the owner.
    pub fn poll_event(&mut self) -> Option<DomainsEvent> {
        self.shared.events.pop_front()
    }

    /// The next held packet with a known outcome, in order of arrival within its family.
    pub fn poll_released(&mut self) -> Option<HeldPacket> {
        self.shared.released.pop_front()
    }

    /// Held packets that were dropped with their mapping since the last call, as
    /// [`DropReason::Unmapped`].
    pub fn take_drops(&mut self) -> DropCounts {
        std::mem::take(&mut self.shared.drops)
    }

    /// Signals and ended incidents since the last call.
    pub fn take_heals(&mut self) -> HealCounts {
        std::mem::take(&mut self.shared.heals)
    }

    /// Number of mappings of all clients.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.table.len()
    }

    /// Number of held packets of all mappings.
    #[must_use]
    pub fn held_packets(&self) -> usize {
        self.shared.held_packets
    }

    /// Total bytes of the held packets.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.shared.held_bytes
    }

    // ---- Internals

    /// Evicts an unused name if a limit is reached.
    fn make_room(&mut self, client: ClientSlot, now: Instant) -> Result<(), AssignError> {
        let config = self.shared.config;
        if self.table.count_of_client(client) >= config.mappings_per_client {
            let idle = self.longest_unused(client);
            let idle = idle.filter(|(used_at, _)| now - *used_at >= EVICTED_AFTER);
            let (_, id) = idle.ok_or(AssignError::ClientFull(config.mappings_per_client))?;
            self.remove(id);
        }
        if self.table.len() >= config.mappings {
            let unused = self.draw_unused(now);
            self.remove(unused.ok_or(AssignError::Full(config.mappings))?);
        }
        Ok(())
    }

    /// An unused name of any client, by a few random draws: an exact order by last use would cost
    /// time for each packet.
    fn draw_unused(&mut self, now: Instant) -> Option<MappingId> {
        let draws = (0..DRAWS).map(|_| self.shared.rng.next_u32());
        let drawn = draws.filter_map(|random| self.table.draw(random));
        let unused = drawn.filter(|mapping| now - mapping.used_at >= EVICTED_AFTER);
        unused
            .min_by_key(|mapping| mapping.used_at)
            .map(|mapping| mapping.id)
    }

    /// A walk over the names of one client, only when that client is at its limit.
    fn longest_unused(&self, client: ClientSlot) -> Option<(Instant, MappingId)> {
        let ids = self.table.of_client(client);
        ids.filter_map(|id| Some((self.table.get(id)?.used_at, id)))
            .min()
    }

    /// Takes over the proxy IPs and the resources of a name.
    fn take_over(&mut self, id: MappingId, proxied: &Arc<ProxiedName>) {
        let Some(mapping) = self.table.get_mut(id) else {
            return;
        };
        let (client, gone) = (mapping.client, mapping.take_over(proxied));
        self.table.forget_proxies(id, client, &gone);
        for ip in &proxied.proxy_ips {
            let former = self.table.index_proxy(id, client, *ip);
            former.into_iter().for_each(|former| self.remove(former));
        }
    }

    fn remove(&mut self, id: MappingId) {
        let Some(mapping) = self.table.remove(id) else {
            return;
        };
        if !self.table.has_name(mapping.name()) {
            self.known.forget(mapping.name());
        }
        if let Some(at) = mapping.armed {
            self.timers.remove(&(at, id));
        }
        let (packets, bytes) = mapping.held();
        self.shared.note_unheld(mapping.client, packets, bytes);
        let drops = &mut self.shared.drops;
        drops.count_many(DropReason::Unmapped, packets);
    }

    /// Sets the timer of a mapping if it is due earlier than before. A later deadline lets the old
    /// timer fire once too early, which costs less than moving it for each packet.
    fn arm(&mut self, id: MappingId) {
        let Some(mapping) = self.table.get_mut(id) else {
            return;
        };
        let Some(deadline) = mapping.deadline() else {
            return;
        };
        if mapping.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        if let Some(armed) = mapping.armed.replace(deadline) {
            self.timers.remove(&(armed, id));
        }
        self.timers.insert((deadline, id));
    }

    /// Keeps time from going backwards.
    fn clock(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }
}

/// Addresses of a name in use, per family; four proxy IPs cannot map to more at a time.
const MAX_ADDRESSES: usize = 32;
/// A flow lasts 2 h 4 min without a packet (RFC 5382, 5, REQ-5); after that no flow can depend on
/// an unused name.
const EVICTED_AFTER: Duration = Duration::from_secs(7440);
/// If half of the names are unused, all draws miss once in four billion times.
const DRAWS: usize = 32;
