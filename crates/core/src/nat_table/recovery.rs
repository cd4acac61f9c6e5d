//! How connections that lived before the table was built anew find their flows again.
//!
//! A flow that a client speaks in comes back by itself: its next packet gets the outside port it
//! had, which is the client's own wherever that was free, and the real IP that its proxy IP leads
//! to. But in a download it is the resource that speaks, and a client that hears nothing has
//! nothing to acknowledge: without help both would wait until one of them gives up.
//!
//! So a TCP segment that belongs to no flow, and comes from an address that names of its client
//! lead to, is shown to the client as if from each of the proxy IPs that could have been meant,
//! most often four. The client's TCP answers one of them with an acknowledgement, which makes the
//! flow, and the others with resets (RFC 9293, section 3.5.2), which must not reach the resource:
//! they are dropped. No other packet is told apart by what its receiver makes of it, so UDP and
//! ICMP wait for the client.
//!
//! The segment itself goes on as well: it may be of a connection to a network that the same address
//! is in, of which the table knows nothing. If it is not, a client that may speak to that network
//! resets it, under the real address. That reset is dropped, too, for some seconds after the guess.
//! Should it have been meant, the resource learns of it with the next one: nothing but an end comes
//! late, whereas to drop the segment would stall the connections to the network.
//!
//! All this is for the clients of the former table, soon after its end: most of what could be asked
//! about has spoken by then.

use super::flows::{FlowProtocol, Inside, Outside};
use super::rewrite::{self, Layout};
use super::{ClientSlot, NatTable};
use crate::packet::{IpPacket, PacketBatch, PacketMut, TcpFlags, Transport};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The segments that were shown around lately.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    until: Option<Instant>,
    /// Until when clients count as those of the former table.
    admits_until: Option<Instant>,
    clients: BTreeMap<ClientSlot, ClientSearch>,
}

/// What was tried for one client. Bounded in every way: a stranger may send what he likes from an
/// address that a name leads to.
#[derive(Debug, Default)]
struct ClientSearch {
    /// By outside port and real IP. At most [`MAX_GUESSES`]; beyond that, downloads wait for a
    /// place.
    guesses: BTreeMap<(u16, IpAddr), Attempts>,
    /// Real IPs that no name of the client leads to, and until when that is believed: most segments
    /// without a flow are of networks, and must not cost a walk over the names each.
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

    /// A client was attached.
    pub(super) fn admit(&mut self, client: ClientSlot) {
        if self.admits_until.is_some() {
            self.clients.entry(client).or_default();
        }
    }

    /// The slot will be another client's.
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

    /// Whether a reset from this port of a client may be its answer to a wrong guess.
    pub(super) fn is_guessed(&self, client: ClientSlot, port: u16, now: Instant) -> bool {
        let Some(search) = self.clients.get(&client) else {
            return false;
        };
        let of_port = search.guesses.range((port, FIRST_IP)..);
        let mut of_port = of_port.take_while(|((at, _), _)| *at == port);
        of_port.any(|(_, guess)| guess.is_fresh(now))
    }

    /// Whether no client is searched for at all; every packet asks.
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

    /// No name leads there, so there was nothing to guess.
    fn note_unmapped(&mut self, outside: &Outside, now: Instant) {
        self.guesses.remove(&(outside.port, outside.real));
        if self.unmapped.len() >= MAX_UNMAPPED {
            self.unmapped.clear();
        }
        self.unmapped.insert(outside.real, now + UNMAPPED_FOR);
    }

    /// Whether a segment to this tuple may be shown around.
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
    /// This table takes the place of another one: helps the TCP connections of its clients to find
    /// their flows again, for 15 minutes. Its clients are those that are attached within the first
    /// minute.
    pub fn begin_recovery(&mut self, now: Instant) {
        self.recovery.begin(now);
    }

    /// A segment from a resource belongs to no flow. If it could belong to one from before this
    /// table, the client is shown it as if from each proxy IP that may have been meant. The segment
    /// itself goes on as it is, as it may be of no name at all: the policy knows.
    pub(super) fn show_around(
        &mut self,
        outside: &Outside,
        (packet, layout, flags): (&PacketMut<'_>, Layout, TcpFlags),
        now: Instant,
    ) {
        let Outside { client, real, .. } = *outside;
        if self.recovery.is_idle() || outside.protocol != FlowProtocol::Tcp || flags.syn {
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

    /// Whether a packet to a network is a client's answer to a segment that was not of that network
    /// but of a name: see the module's documentation.
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

/// A resource that doubles its wait has tried most of its times by then.
const LASTS: Duration = Duration::from_secs(15 * 60);
/// A connection that outlived the former table is attached to this one within some seconds.
const ADMITS: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// By client: more than it downloads at a time from resources that wait for it.
const MAX_GUESSES: usize = 64;
/// By client and second.
const MAX_WORK: usize = 256;
/// By client: the servers of some web pages.
const MAX_UNMAPPED: usize = 256;
/// Long enough to be cheap, short enough for a name that is announced a moment later.
const UNMAPPED_FOR: Duration = Duration::from_millis(250);
/// Shorter than a resource waits before it sends again (RFC 6298, section 2.4, in practice 200 ms).
const GUESS_PAUSE: Duration = Duration::from_millis(50);
/// A resource that doubles its wait has tried for half a minute by then.
const MAX_TRIES: u32 = 10;
/// Then the same tuple may be tried again.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// The longest round trip to a client that resets should be recognised after.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Sixteen names that share an address, as behind a reverse proxy, with four proxy IPs each. The
/// downloads of one that is left out stand still.
const MAX_CANDIDATES: usize = 64;
const FIRST_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
