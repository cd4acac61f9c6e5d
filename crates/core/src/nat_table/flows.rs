//! The flows through proxy IPs: the inside tuple of each outside tuple, and for how long.
//!
//! One table for all clients of a shard. It decides nothing about names (a flow carries its mapping
//! and the epoch of its binding, and returns them) and touches no packets. Nothing is scanned:
//! every call costs the same at 100 flows and at 100,000, except that [`FlowTable::handle_timeout`]
//! and [`FlowTable::remove_client`] pay for the flows that they end.
//!
//! A flow is *unconfirmed* until a packet comes back, then *confirmed*. When it ends it is
//! *remembered* for [`REMEMBERED`], so that late packets are dropped and never passed untranslated
//! (docs/lessons.md 13). Remembered flows use entries of the table, but are evicted first:
//!
//! * the table is full: the oldest remembered flow, else the client's own unconfirmed flow that was
//!   silent longest, else [`DropReason::FlowTableFull`];
//! * the client is at its limit: its own unconfirmed flow that was silent longest, else
//!   [`DropReason::FlowTableFull`].
//!
//! Time is counted in ticks of a second. No flow ends early, and none lasts more than a second too
//! long.

mod binding;
mod key;
mod list;
mod ports;
mod store;
mod wheel;

pub use binding::{Binding, FlowId, FlowLimits, FlowTarget, Lookup, PinnedFlow};
pub use key::{FlowProtocol, Inside, Outside};

use super::ClientSlot;
use crate::packet::{DropReason, TcpFlags};
use key::KeyHasher;
use list::{CLOCK, List, OWNER};
use ports::{Ports, TupleState};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use store::{Node, State, Store};
use wheel::Wheel;

/// All flows of the clients of one shard.
pub struct FlowTable {
    limits: FlowLimits,
    start: Instant,
    tick: u32,
    /// When the next tick begins: until then there is nothing to do.
    next_tick: Instant,
    store: Store,
    wheel: Wheel,
    /// Indexed by [`ClientSlot`].
    clients: Vec<ClientFlows>,
    /// Remembered flows, oldest first.
    remembered: List<CLOCK>,
    live: usize,
    ports: Ports,
}

/// The flows of one client.
struct ClientFlows {
    /// The one silent longest first.
    unconfirmed: List<OWNER>,
    confirmed: List<OWNER>,
    remembered: List<OWNER>,
    live: u32,
}

impl ClientFlows {
    const NONE: Self = Self {
        unconfirmed: List::EMPTY,
        confirmed: List::EMPTY,
        remembered: List::EMPTY,
        live: 0,
    };
}

#[derive(Clone, Copy)]
enum Direction {
    Inbound,
    Outbound,
}

impl FlowTable {
    /// An empty table. `seed` determines ports and hashes.
    #[must_use]
    pub fn new(limits: FlowLimits, seed: [u8; 32], now: Instant) -> Self {
        let mut ports = Ports::new(seed);
        Self {
            limits: limits.possible(),
            start: now,
            tick: 0,
            next_tick: now,
            store: Store::new(KeyHasher::new(|| ports.random_u64())),
            wheel: Wheel::new(),
            clients: Vec::new(),
            remembered: List::EMPTY,
            live: 0,
            ports,
        }
    }

    /// Changes the limits. No flow ends: a table above a lower limit keeps its flows, and a new
    /// flow evicts another or is refused.
    pub fn limit(&mut self, limits: FlowLimits) {
        self.limits = limits.possible();
    }

    /// The live flow of an inside tuple.
    #[inline]
    pub fn find_inside(&mut self, inside: &Inside, now: Instant) -> Option<Binding> {
        self.handle_timeout(now);
        let at = self.store.find_inside(inside)?;
        self.store[at].state.is_live().then(|| self.binding(at))
    }

    /// Looks up an outside tuple: that of a packet from a resource, or of the packet that an ICMP
    /// error quotes.
    #[inline]
    pub fn find_outside(&mut self, outside: &Outside, now: Instant) -> Lookup {
        self.handle_timeout(now);
        match self.store.find_outside(outside) {
            Some(at) if self.store[at].state.is_live() => Lookup::Live(self.binding(at)),
            Some(_) => Lookup::Expired,
            None => Lookup::Unknown,
        }
    }

    /// Creates a flow for an inside tuple, or returns the existing one.
    ///
    /// It keeps the client's port if that is free at the real IP. A flow that ended and starts
    /// again to the same real IP gets its former port.
    ///
    /// # Errors
    ///
    /// * [`DropReason::FlowTableFull`]: see the module.
    /// * [`DropReason::PortsExhausted`]: no free port was found.
    /// * [`DropReason::Untranslatable`]: the real IP is not of the proxy IP's family.
    pub fn open(
        &mut self,
        inside: Inside,
        target: FlowTarget,
        now: Instant,
    ) -> Result<Binding, DropReason> {
        self.open_or_find(inside, target, None, now)
    }

    /// As [`Self::open`], with this outside port if it is free at the real IP.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_at(
        &mut self,
        inside: Inside,
        target: FlowTarget,
        port: u16,
        now: Instant,
    ) -> Result<Binding, DropReason> {
        self.open_or_find(inside, target, Some(port), now)
    }

    fn open_or_find(
        &mut self,
        inside: Inside,
        target: FlowTarget,
        port: Option<u16>,
        now: Instant,
    ) -> Result<Binding, DropReason> {
        self.handle_timeout(now);
        require_one_family(&inside, target.real)?;
        let former = self.store.find_inside(&inside);
        if let Some(at) = former.filter(|at| self.store[*at].state.is_live()) {
            return Ok(self.binding(at));
        }
        self.require_room(inside.client)?;
        let former_outside = former.map(|at| self.store[at].outside());
        let former_port = former_outside.filter(|outside| outside.real == target.real);
        let port = port.or(former_port.map(|outside| outside.port));
        let outside = self.choose_outside(&inside, target.real, port)?;
        if let Some(at) = self.store.find_inside(&inside) {
            self.store.unindex_inside(at);
        }
        self.make_room(inside.client);
        let node = Node::new(inside, outside, &target, self.tick);
        let at = self.store.insert(node, self.limits.flows as usize);
        self.store.index_inside(at);
        let due = deadline(&self.store[at]);
        self.wheel.file(&mut self.store.chains, at, due);
        let client = client_of(&mut self.clients, inside.client);
        client.unconfirmed.push_back(&mut self.store.chains, at);
        client.live += 1;
        self.live += 1;
        Ok(self.binding(at))
    }

    /// Moves an unconfirmed flow to another real IP; it keeps its port if that is free there. Late
    /// answers from the former address are dropped as those of an ended flow. A confirmed flow
    /// stays as it is (docs/lessons.md 5 and 6).
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and the flow stays as it is; [`DropReason::ExpiredFlow`] if it ended.
    pub fn rebind(
        &mut self,
        flow: FlowId,
        real: IpAddr,
        epoch: u32,
        now: Instant,
    ) -> Result<Binding, DropReason> {
        self.handle_timeout(now);
        let at = self.live(flow).ok_or(DropReason::ExpiredFlow)?;
        let old = self.store[at];
        require_one_family(&old.inside(), real)?;
        if old.state == State::Confirmed {
            return Ok(self.binding(at));
        }
        if old.outside().real != real {
            let outside = self.choose_outside(&old.inside(), real, Some(old.outside().port))?;
            self.store.readdress(at, outside);
            self.remember(old);
        }
        self.store[at].epoch = epoch;
        Ok(self.binding(at))
    }

    /// The client opens a connection on the tuple of an earlier one: the flow keeps its binding,
    /// but becomes unconfirmed. `None` if it ended.
    pub fn reopen(&mut self, flow: FlowId, now: Instant) -> Option<Binding> {
        self.handle_timeout(now);
        let at = self.live(flow)?;
        let node = &mut self.store[at];
        if node.state == State::Confirmed {
            node.state = State::Unconfirmed;
            node.last_packet = self.tick;
            (node.fin_inbound, node.fin_outbound) = (false, false);
            let due = deadline(node);
            let client = client_of(&mut self.clients, self.store[at].inside().client);
            client.confirmed.remove(&mut self.store.chains, at);
            client.unconfirmed.push_back(&mut self.store.chains, at);
            self.wheel.take(&mut self.store.chains, at);
            self.wheel.file(&mut self.store.chains, at, due);
        }
        Some(self.binding(at))
    }

    /// A packet of `flow` goes from the client to the resource. A RST ends the flow.
    #[inline]
    pub fn note_inbound(&mut self, flow: FlowId, flags: TcpFlags, now: Instant) {
        self.handle_timeout(now);
        let Some(at) = self.live(flow) else { return };
        let node = &mut self.store[at];
        let was_silent = node.last_packet != self.tick;
        node.last_packet = self.tick;
        if was_silent && node.state == State::Unconfirmed {
            let client = client_of(&mut self.clients, node.inside().client);
            client.unconfirmed.remove(&mut self.store.chains, at);
            client.unconfirmed.push_back(&mut self.store.chains, at);
        }
        self.note_flags(at, flags, Direction::Inbound);
    }

    /// A packet of `flow` comes back; a RST ends the flow. Returns whether it was the first. ICMP
    /// errors about a flow do not count as its packets.
    #[inline]
    pub fn note_outbound(&mut self, flow: FlowId, flags: TcpFlags, now: Instant) -> bool {
        self.handle_timeout(now);
        let Some(at) = self.live(flow) else {
            return false;
        };
        let node = &mut self.store[at];
        node.last_packet = self.tick;
        let is_first = node.state == State::Unconfirmed;
        if is_first {
            node.state = State::Confirmed;
            let client = client_of(&mut self.clients, node.inside().client);
            client.unconfirmed.remove(&mut self.store.chains, at);
            client.confirmed.push_back(&mut self.store.chains, at);
        }
        self.note_flags(at, flags, Direction::Outbound);
        is_first
    }

    /// Ends a flow early; it is remembered.
    pub fn expire(&mut self, flow: FlowId, now: Instant) {
        self.handle_timeout(now);
        if let Some(at) = self.live(flow) {
            self.end(at);
        }
    }

    /// Removes a flow without remembering it.
    pub fn remove(&mut self, flow: FlowId) {
        if let Some(at) = self.live(flow) {
            self.end(at);
            self.forget(at);
        }
    }

    /// Removes all state of a client; its slot may be reused.
    pub fn remove_client(&mut self, client: ClientSlot) {
        while let Some(at) = self.first_live(client) {
            self.end(at);
        }
        let first = |clients: &[ClientFlows]| clients.get(client.0 as usize)?.remembered.front();
        while let Some(at) = first(&self.clients) {
            self.forget(at);
        }
    }

    /// Ends flows that are due, and removes those remembered long enough.
    #[inline]
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.advance(now);
        }
    }

    #[cold]
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_secs();
        let tick = u32::try_from(elapsed).unwrap_or(LAST_TICK).min(LAST_TICK);
        let next_tick = self
            .start
            .checked_add(Duration::from_secs(elapsed.saturating_add(1)));
        self.next_tick = next_tick.unwrap_or(now);
        if tick > self.tick {
            self.tick = tick;
            self.turn_wheel();
            self.forget_old();
        }
    }

    /// When to call [`Self::handle_timeout`] next: at least a second after the last time, and
    /// `None` while the table is empty.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.remembered.front();
        let forget = oldest.map(|at| self.store.chains[at as usize].due);
        let ticks = [self.wheel.next_due(), forget];
        let tick = ticks.into_iter().flatten().min()?;
        self.start.checked_add(Duration::from_secs(u64::from(tick)))
    }

    /// Number of live flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no live flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Number of live flows of a client.
    #[must_use]
    pub fn len_of(&self, client: ClientSlot) -> usize {
        let client = self.clients.get(client.0 as usize);
        client.map_or(0, |client| client.live as usize)
    }

    /// Limit of live flows of a client.
    #[must_use]
    pub fn limit_of_client(&self) -> u32 {
        self.limits.flows_per_client
    }

    /// The confirmed flows of a client, by iteration.
    pub fn confirmed_of(&self, client: ClientSlot) -> impl Iterator<Item = Binding> {
        let client = self.clients.get(client.0 as usize);
        let first = client.and_then(|client| client.confirmed.front());
        let next = |at: &u32| List::<OWNER>::next(&self.store.chains, *at);
        std::iter::successors(first, next).map(|at| self.binding(at))
    }

    /// Number of remembered flows.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.store.len() - self.live
    }

    /// Bytes on the heap, computed from the reserved capacity.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.store.heap_bytes()
            + self.wheel.heap_bytes()
            + self.clients.capacity() * size_of::<ClientFlows>()
    }

    #[inline]
    fn live(&self, flow: FlowId) -> Option<u32> {
        let node = self.store.get(flow.at)?;
        let is_it = node.generation == flow.generation && node.state.is_live();
        is_it.then_some(flow.at)
    }

    fn first_live(&self, client: ClientSlot) -> Option<u32> {
        let client = self.clients.get(client.0 as usize)?;
        client.unconfirmed.front().or(client.confirmed.front())
    }

    #[inline]
    fn binding(&self, at: u32) -> Binding {
        let node = &self.store[at];
        let generation = node.generation;
        Binding {
            flow: FlowId { at, generation },
            inside: node.inside(),
            outside: node.outside(),
            mapping: node.mapping,
            epoch: node.epoch,
            confirmed: node.state == State::Confirmed,
        }
    }

    /// Whether [`Self::make_room`] can succeed.
    fn require_room(&self, client: ClientSlot) -> Result<(), DropReason> {
        let has_unconfirmed = (self.clients.get(client.0 as usize))
            .is_some_and(|client| !client.unconfirmed.is_empty());
        let may_have_more = self.len_of(client) < self.limits.flows_per_client as usize;
        let has_place = self.store.len() < self.limits.flows as usize;
        let has_room = may_have_more && (has_place || !self.remembered.is_empty());
        match has_room || has_unconfirmed {
            true => Ok(()),
            false => Err(DropReason::FlowTableFull),
        }
    }

    /// Evicts flows so that one more flow of `client` exceeds no limit.
    fn make_room(&mut self, client: ClientSlot) {
        let silent_longest = |clients: &[ClientFlows]| {
            let client = clients.get(client.0 as usize)?;
            client.unconfirmed.front()
        };
        if self.len_of(client) >= self.limits.flows_per_client as usize
            && let Some(at) = silent_longest(&self.clients)
        {
            self.end(at);
        }
        if self.store.len() < self.limits.flows as usize {
            return;
        }
        if let Some(at) = self.remembered.front() {
            self.forget(at);
        } else if let Some(at) = silent_longest(&self.clients) {
            self.end(at);
            self.forget(at);
        }
    }

    /// An outside tuple that no live flow has; a remembered flow on it is removed.
    fn choose_outside(
        &mut self,
        inside: &Inside,
        real: IpAddr,
        former: Option<u16>,
    ) -> Result<Outside, DropReason> {
        let outside = |port| Outside {
            client: inside.client,
            protocol: inside.protocol,
            port,
            real,
        };
        let store = &self.store;
        let state_of = |port| match store.find_outside(&outside(port)).map(|at| &store[at]) {
            None => TupleState::Free,
            Some(node) if node.state == State::Remembered => TupleState::Remembered(node.inside()),
            Some(_) => TupleState::Live,
        };
        let port = self.ports.choose(inside, former, state_of);
        let outside = outside(port.ok_or(DropReason::PortsExhausted)?);
        if let Some(at) = self.store.find_outside(&outside) {
            self.forget(at);
        }
        Ok(outside)
    }

    #[inline]
    fn note_flags(&mut self, at: u32, flags: TcpFlags, direction: Direction) {
        if flags == TcpFlags::default() {
            return;
        }
        let node = &mut self.store[at];
        match direction {
            Direction::Inbound => {
                // The client reuses the port: the FINs were of the earlier connection.
                if flags.syn {
                    (node.fin_inbound, node.fin_outbound) = (false, false);
                }
                node.fin_inbound |= flags.fin;
            }
            Direction::Outbound => node.fin_outbound |= flags.fin,
        }
        if flags.rst {
            self.end(at);
        } else if flags.fin && node.fin_inbound && node.fin_outbound {
            // The only case in which a deadline moves closer.
            let due = deadline(node);
            self.wheel.take(&mut self.store.chains, at);
            self.wheel.file(&mut self.store.chains, at, due);
        }
    }

    fn turn_wheel(&mut self) {
        while let Some(at) = self.wheel.pop_due(&mut self.store.chains, self.tick) {
            let due = deadline(&self.store[at]);
            if due <= self.tick {
                self.retire(at);
            } else {
                // Packets came since it was filed.
                self.wheel.file(&mut self.store.chains, at, due);
            }
        }
    }

    fn forget_old(&mut self) {
        while let Some(at) = self.remembered.front() {
            if self.store.chains[at as usize].due > self.tick {
                break;
            }
            self.forget(at);
        }
    }

    /// Turns a live flow into a remembered one.
    fn end(&mut self, at: u32) {
        self.wheel.take(&mut self.store.chains, at);
        self.retire(at);
    }

    /// As [`Self::end`], for a flow that the wheel has returned.
    fn retire(&mut self, at: u32) {
        let node = &mut self.store[at];
        let was_confirmed = node.state == State::Confirmed;
        node.state = State::Remembered;
        let client = client_of(&mut self.clients, node.inside().client);
        let list = match was_confirmed {
            true => &mut client.confirmed,
            false => &mut client.unconfirmed,
        };
        list.remove(&mut self.store.chains, at);
        client.live -= 1;
        self.live -= 1;
        self.enqueue_remembered(at);
    }

    /// Remembers the outside tuple of the flow `old`, in place of the oldest remembered one. A
    /// table full of live flows has no room for it.
    fn remember(&mut self, mut old: Node) {
        if self.store.len() >= self.limits.flows as usize {
            let Some(oldest) = self.remembered.front() else {
                return;
            };
            self.forget(oldest);
        }
        old.state = State::Remembered;
        let at = self.store.insert(old, self.limits.flows as usize);
        self.enqueue_remembered(at);
    }

    fn enqueue_remembered(&mut self, at: u32) {
        let chains = &mut self.store.chains;
        chains[at as usize].due = self.tick + REMEMBERED_TICKS;
        self.remembered.push_back(chains, at);
        let slot = self.store[at].inside().client;
        let client = client_of(&mut self.clients, slot);
        client.remembered.push_back(&mut self.store.chains, at);
    }

    /// Frees the entry of a remembered flow.
    fn forget(&mut self, at: u32) {
        let chains = &mut self.store.chains;
        self.remembered.remove(chains, at);
        let slot = self.store[at].inside().client;
        let client = client_of(&mut self.clients, slot);
        client.remembered.remove(&mut self.store.chains, at);
        self.store.free(at);
    }
}

fn client_of(clients: &mut Vec<ClientFlows>, slot: ClientSlot) -> &mut ClientFlows {
    let at = slot.0 as usize;
    if at >= clients.len() {
        clients.resize_with(at + 1, || ClientFlows::NONE);
    }
    &mut clients[at]
}

fn require_one_family(inside: &Inside, real: IpAddr) -> Result<(), DropReason> {
    match inside.proxy.is_ipv4() == real.is_ipv4() {
        true => Ok(()),
        false => Err(DropReason::Untranslatable),
    }
}

/// The tick at which a live flow ends without further packets: one more than its lifetime, because
/// the last packet may have come late in its tick.
fn deadline(node: &Node) -> u32 {
    let lifetime = match (node.state, node.inside().protocol) {
        (State::Confirmed, FlowProtocol::Tcp) if node.fin_inbound && node.fin_outbound => {
            CLOSED_TICKS
        }
        (State::Confirmed, FlowProtocol::Tcp) => TCP_TICKS,
        (State::Confirmed, FlowProtocol::Udp | FlowProtocol::Echo) => DATAGRAM_TICKS,
        (State::Unconfirmed | State::Free | State::Remembered, _) => UNCONFIRMED_TICKS,
    };
    node.last_packet + lifetime + 1
}

/// RFC 5382, REQ-5: at least 2 hours 4 minutes.
const TCP_TICKS: u32 = 7440;
/// RFC 4787, REQ-5: at least 2 minutes. RFC 5508, REQ-2: at least 1 minute for ICMP queries.
const DATAGRAM_TICKS: u32 = 120;
/// Unconfirmed flows (docs/protocol.md 5.4). RFC 5382, REQ-5 asks for 4 minutes for half-open
/// connections; a client without an answer gives up earlier, or its retries prolong the flow.
const UNCONFIRMED_TICKS: u32 = 60;
/// FIN seen in both directions (docs/protocol.md 5.4): time for the last acknowledgement and its
/// loss.
const CLOSED_TICKS: u32 = 5;
/// How long an ended flow is remembered. Longer than a remote host keeps sending without an answer;
/// RFC 9293, 3.8.3 allows it to abandon a connection after 100 s.
pub const REMEMBERED: Duration = Duration::from_secs(REMEMBERED_TICKS as u64);
const REMEMBERED_TICKS: u32 = 600;
/// Where counting stops, after 136 years, so that no deadline overflows.
const LAST_TICK: u32 = u32::MAX - 2 * Wheel::REACH_TICKS;

#[cfg(test)]
mod tests;
