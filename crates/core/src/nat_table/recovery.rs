//! Recovery of connections from before a rebuild of the table.
//!
//! A flow in which the client sends comes back without help: its next packet gets its former
//! outside port, which is the client's own if that was free, and the real IP of its proxy IP. But
//! in a download the resource sends, and a client that receives nothing has nothing to acknowledge:
//! without help both would wait until one of them times out.
//!
//! So a TCP segment without a flow, from an address that names of its client map to, is copied to
//! the client once from each of the proxy IPs that may be meant, usually four. The client's TCP
//! answers one of them with an acknowledgement, which creates the flow, and the others with resets
//! (RFC 9293, 3.5.2), which must not reach the resource: they are dropped. No other protocol
//! reveals its flow by the reaction of the receiver, so UDP and ICMP wait for the client.
//!
//! The segment itself is also forwarded: it may belong to a connection to a network that contains
//! the same address, which the table does not track. If it does not, a client with access to that
//! network resets it, under the real address. That reset is also dropped, for some seconds after
//! the copies. If it was genuine, the resource gets the next one: only an end is delayed, whereas
//! dropping the segment would stall the connections to the network.
//!
//! This applies to the clients of the former table, for a limited time after its end: most
//! connections have sent a packet by then.

use super::flows::{FlowProtocol, Inside, Outside};
use super::rewrite::{self, Layout};
use super::{ClientSlot, NatTable};
use crate::packet::{IpPacket, PacketBatch, PacketMut, TcpFlags, Transport};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The segments that were copied recently.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    until: Option<Instant>,
    /// Until when attached clients count as clients of the former table.
    admits_until: Option<Instant>,
    clients: BTreeMap<ClientSlot, ClientSearch>,
}

/// The attempts for one client. Everything is bounded: any host at an address of a name can send
/// segments.
#[derive(Debug, Default)]
struct ClientSearch {
    /// By outside port and real IP. At most [`MAX_GUESSES`]; further downloads wait for an entry.
    guesses: BTreeMap<(u16, IpAddr), Attempts>,
    /// Real IPs that no name of the client maps to, and until when this is cached: most segments
    /// without a flow belong to networks, and must not each cost a walk over the names.
    unmapped: BTreeMap<IpAddr, Instant>,
    budget: Budget,
}

#[derive(Clone, Copy, Debug)]
struct Attempts {
    count: u32,
    last: Instant,
}

/// Walks over the names and copies of segments, by second.
#[derive(Debug, Default)]
struct Budget {
    ends: Option<Instant>,
    spent: usize,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        if self.ends.is_none_or(|ends| ends <= now) {
            self.ends = Some(now + SECOND);
            self.spent = 0;
        }
        self.spent += 1;
        self.spent <= MAX_WORK
    }
}

impl Recovery {
    fn begin(&mut self, now: Instant) {
        self.until = Some(now + LASTS);
        self.admits_until = Some(now + ADMITS);
    }

    /// Adds an attached client.
    pub(super) fn admit(&mut self, client: ClientSlot) {
        if self.admits_until.is_some() {
            self.clients.entry(client).or_default();
        }
    }

    /// Forgets a client, as its slot is reused.
    pub(super) fn forget(&mut self, client: ClientSlot) {
        self.clients.remove(&client);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.admits_until.or(self.until)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.admits_until.take_if(|until| *until <= now);
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// Whether a reset from this port of a client may answer a wrong copy.
    pub(super) fn is_guessed(&self, client: ClientSlot, port: u16, now: Instant) -> bool {
        let Some(search) = self.clients.get(&client) else {
            return false;
        };
        let of_port = search.guesses.range((port, FIRST_IP)..);
        let mut of_port = of_port.take_while(|((at, _), _)| *at == port);
        of_port.any(|(_, guess)| guess.is_fresh(now))
    }

    /// Whether recovery is over; checked for every packet.
    pub(super) fn is_idle(&self) -> bool {
        self.clients.is_empty()
    }
}

impl Attempts {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < ANSWERED_WITHIN
    }
}

impl ClientSearch {
    fn is_unmapped(&self, real: IpAddr, now: Instant) -> bool {
        let until = self.unmapped.get(&real);
        until.is_some_and(|until| *until > now)
    }

    /// No name maps to the address, so there is nothing to copy.
    fn note_unmapped(&mut self, outside: &Outside, now: Instant) {
        self.guesses.remove(&(outside.port, outside.real));
        if self.unmapped.len() >= MAX_UNMAPPED {
            self.unmapped.clear();
        }
        self.unmapped.insert(outside.real, now + UNMAPPED_FOR);
    }

    /// Whether a segment to this tuple may be copied.
    fn take(&mut self, outside: &Outside, now: Instant) -> bool {
        let key = (outside.port, outside.real);
        if let Some(guess) = self.guesses.get_mut(&key) {
            let pause = now.saturating_duration_since(guess.last);
            let is_due = pause >= GUESS_PAUSE && guess.count < MAX_TRIES;
            let is_forgotten = pause >= FORGET_AFTER;
            if is_due || is_forgotten {
                guess.count = if is_forgotten { 1 } else { guess.count + 1 };
                guess.last = now;
            }
            return is_due || is_forgotten;
        }
        if self.guesses.len() >= MAX_GUESSES {
            self.guesses.retain(|_, guess| guess.is_fresh(now));
        }
        let has_room = self.guesses.len() < MAX_GUESSES;
        if has_room {
            let first = Attempts {
                count: 1,
                last: now,
            };
            self.guesses.insert(key, first);
        }
        has_room
    }
}

impl NatTable {
    /// This table replaces another one: helps TCP connections to find their flows for 15 minutes.
    /// It covers the clients that are attached within the first minute.
    pub fn begin_recovery(&mut self, now: Instant) {
        self.recovery.begin(now);
    }

    /// Copies a segment from a resource without a flow to the client, once from each proxy IP that
    /// may be meant, if it can be from before this table, so never a SYN. The segment itself is
    /// forwarded unchanged, as it may be untranslated: the policy decides.
    pub(super) fn copy_to_candidates(
        &mut self,
        outside: &Outside,
        packet: &PacketMut<'_>,
        layout: Layout,
        now: Instant,
    ) {
        let Outside { client, real, .. } = *outside;
        if self.recovery.is_idle() || outside.protocol != FlowProtocol::Tcp {
            return;
        }
        self.recovery.handle_timeout(now);
        let Some(search) = self.recovery.clients.get_mut(&client) else {
            return;
        };
        let is_worth_it =
            !search.is_unmapped(real, now) && search.take(outside, now) && search.budget.spend(now);
        let Some(id) = self.clients.id(client).filter(|_| is_worth_it) else {
            return;
        };
        let proxy_ips = self.domains.proxy_ips_to(client, real, MAX_CANDIDATES);
        if proxy_ips.is_empty() {
            return search.note_unmapped(outside, now);
        }
        let mut segment = packet.bytes.to_vec();
        let segmentation = packet.segmentation;
        let segment = PacketMut {
            bytes: &mut segment,
            segmentation,
        }
        .first()
        .to_vec();
        for proxy in proxy_ips {
            let inside = Inside {
                client,
                protocol: outside.protocol,
                port: outside.port,
                proxy,
            };
            let has_another = self.flows.find_inside(&inside, now).is_some();
            if has_another || !search.budget.spend(now) {
                continue;
            }
            let mut copy = segment.clone();
            if rewrite::outbound(&mut copy, layout, &inside).is_ok() {
                self.outbound.push_back((id, PacketBatch::of(&copy)));
            }
        }
    }

    /// Whether a packet to a network is a client's reset of a segment that belongs to a name: see
    /// the module's documentation.
    pub(super) fn is_reset_of_guess(&self, bytes: &[u8], now: Instant) -> bool {
        if self.recovery.is_idle() {
            return false;
        }
        let Ok(packet) = IpPacket::parse(bytes) else {
            return false;
        };
        let Transport::Tcp { source_port, .. } = packet.transport() else {
            return false;
        };
        let client = self.clients.at(packet.source());
        let search = client.and_then(|client| self.recovery.clients.get(&client));
        let Some(search) = search.filter(|_| TcpFlags::of(&packet).rst) else {
            return false;
        };
        let guess = search.guesses.get(&(source_port, packet.destination()));
        guess.is_some_and(|guess| guess.is_fresh(now))
    }
}

/// A resource that doubles its wait has done most of its retries by then.
const LASTS: Duration = Duration::from_secs(15 * 60);
/// A connection that outlived the former table is attached to this one within some seconds.
const ADMITS: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// For each client: more than its parallel downloads from resources that wait for it.
const MAX_GUESSES: usize = 64;
/// For each client and second.
const MAX_WORK: usize = 256;
/// For each client: the servers of some web pages.
const MAX_UNMAPPED: usize = 256;
/// Long enough to be cheap, short enough for a name that is announced a moment later.
const UNMAPPED_FOR: Duration = Duration::from_millis(250);
/// Shorter than the retransmission timeout of a resource (RFC 6298, 2.4, in practice 200 ms).
const GUESS_PAUSE: Duration = Duration::from_millis(50);
/// A resource that doubles its wait has tried for half a minute by then.
const MAX_TRIES: u32 = 10;
/// Then the same tuple may be tried again.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// The longest round trip after which a reset of the client is recognised.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Sixteen names that share an address, as behind a reverse proxy, with four proxy IPs each.
/// Downloads of names beyond that stall.
const MAX_CANDIDATES: usize = 64;
const FIRST_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
