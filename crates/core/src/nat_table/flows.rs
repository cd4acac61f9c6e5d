//! The flows through proxy IPs: which outside tuple stands for which inside one, and how long.
//!
//! One table for all clients of a shard. It decides nothing about names (a flow carries its mapping
//! and the epoch of its binding, and gives them back) and touches no packets. Nothing is scanned:
//! every call costs the same at 100 flows and at 100,000, except that [`FlowTable::handle_timeout`]
//! and [`FlowTable::remove_client`] cost what they end.
//!
//! A flow is *unconfirmed* until a packet came back, then *confirmed*. When it ends it is
//! *remembered* for [`REMEMBERED`], so that packets which come too late are dropped and never
//! passed untranslated (docs/lessons.md 13). What is remembered takes places of the table, but
//! gives way first:
//!
//! * the table is full: the oldest that is remembered, else the client's own unconfirmed flow that
//!   was silent longest, else [`DropReason::FlowTableFull`];
//! * the client has all the flows it may have: its own unconfirmed flow that was silent longest,
//!   else [`DropReason::FlowTableFull`].
//!
//! Time is counted in ticks of a second. No flow ends before its time, and none lives more than a
//! second beyond it.

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
    /// Indexed by slot.
    clients: Vec<ClientFlows>,
    /// What is remembered of ended flows, oldest first.
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
    /// An empty table. Ports and the places of keys in memory follow from `seed`.
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

    /// Goes by other limits from now on. No flow ends for them: a table that has more than it may
    /// keeps what it has, and a new flow takes the place of another or is refused.
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

    /// What an outside tuple stands for: that of a packet from a resource, or of the packet that an
    /// ICMP error is about.
    #[inline]
    pub fn find_outside(&mut self, outside: &Outside, now: Instant) -> Lookup {
        self.handle_timeout(now);
        match self.store.find_outside(outside) {
            Some(at) if self.store[at].state.is_live() => Lookup::Live(self.binding(at)),
            Some(_) => Lookup::Expired,
            None => Lookup::Unknown,
        }
    }

    /// Makes a flow for an inside tuple, or returns the one that it has.
    ///
    /// It keeps the client's port if that is free at the real IP. A flow that ended and is begun
    /// anew towards the same real IP gets the port it had.
    ///
    /// # Errors
    ///
    /// * [`DropReason::FlowTableFull`]: see the module.
    /// * [`DropReason::PortsExhausted`]: no free port was met.
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

    /// Leads an unconfirmed flow to another real IP; it keeps its port if that is free there. Late
    /// answers from the old one are dropped as those of an ended flow. A confirmed flow stays as it
    /// is (docs/lessons.md 5 and 6).
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

    /// The client opens a connection where it had one: the flow keeps its binding, but has to be
    /// confirmed anew. `None` if it ended.
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

    /// A packet of `flow` goes from the client to the resource. A RST is the last one.
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

    /// A packet of `flow` comes back, a RST for the last time. Returns whether it was the first. An
    /// ICMP error about a flow is no packet of it.
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

    /// Ends a flow before its time; it is remembered.
    pub fn expire(&mut self, flow: FlowId, now: Instant) {
        self.handle_timeout(now);
        if let Some(at) = self.live(flow) {
            self.end(at);
        }
    }

    /// Forgets a flow as if it had never been.
    pub fn remove(&mut self, flow: FlowId) {
        if let Some(at) = self.live(flow) {
            self.end(at);
            self.forget(at);
        }
    }

    /// Forgets a client as if it had never been: its slot may be given to another.
    pub fn remove_client(&mut self, client: ClientSlot) {
        while let Some(at) = self.first_live(client) {
            self.end(at);
        }
        let first = |clients: &[ClientFlows]| clients.get(client.0 as usize)?.remembered.front();
        while let Some(at) = first(&self.clients) {
            self.forget(at);
        }
    }

    /// Ends the flows whose time is over, and forgets what was remembered long enough.
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

    /// When to call [`Self::handle_timeout`] next: a second after the last time at the earliest,
    /// and `None` while there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.remembered.front();
        let forget = oldest.map(|at| self.store.chains[at as usize].due);
        let ticks = [self.wheel.next_due(), forget];
        let tick = ticks.into_iter().flatten().min()?;
        self.start.checked_add(Duration::from_secs(u64::from(tick)))
    }

    /// The number of live flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no live flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The number of live flows of a client.
    #[must_use]
    pub fn len_of(&self, client: ClientSlot) -> usize {
        let client = self.clients.get(client.0 as usize);
        client.map_or(0, |client| client.live as usize)
    }

    /// The number of live flows that a client may have.
    #[must_use]
    pub fn limit_of_client(&self) -> u32 {
        self.limits.flows_per_client
    }

    /// The confirmed flows of a client. A walk.
    pub fn confirmed_of(&self, client: ClientSlot) -> impl Iterator<Item = Binding> {
        let client = self.clients.get(client.0 as usize);
        let first = client.and_then(|client| client.confirmed.front());
        let next = |at: &u32| List::<OWNER>::next(&self.store.chains, *at);
        std::iter::successors(first, next).map(|at| self.binding(at))
    }

    /// The number of ended flows that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.store.len() - self.live
    }

    /// Bytes on the heap, computed from what the table has reserved.
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

    /// Whether [`Self::make_room`] can.
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

    /// Makes others give way, so that one more flow of `client` exceeds no limit.
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

    /// An outside tuple that no live flow has; what was remembered of it is forgotten.
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
                // The client uses the port again: the FINs were of another connection.
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
            // The one way in which a deadline comes nearer.
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

    /// As [`Self::end`], for what the wheel has given back.
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

    /// Remembers the outside tuple that the flow `old` had, at the cost of the oldest that is
    /// remembered. A table full of live flows has no place for it.
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

    /// Frees the place of a remembered flow.
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

/// The tick at which a live flow ends unless packets come. One more than its lifetime, because the
/// last packet may have come late in its tick.
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
/// Nothing came back yet (docs/protocol.md 5.4. RFC 5382, REQ-5 wants 4 minutes for
/// half-open connections; a client that gets no answer has given up before, or its retries prolong
/// this.
const UNCONFIRMED_TICKS: u32 = 60;
/// FIN seen in both directions (docs/protocol.md 5.4: time for the last acknowledgement and
/// its loss.
const CLOSED_TICKS: u32 = 5;
/// How long an ended flow is remembered. Longer than anything on the far side keeps sending to
/// someone who does not answer; RFC 9293, section 3.8.3 lets connections be given up after 100 s.
pub const REMEMBERED: Duration = Duration::from_secs(REMEMBERED_TICKS as u64);
const REMEMBERED_TICKS: u32 = 600;
/// Where counting stops, after 136 years, so that no deadline overflows.
const LAST_TICK: u32 = u32::MAX - 2 * Wheel::REACH_TICKS;

#[cfg(test)]
mod tests;
