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

use super::flows::{FlowProtocol, Inside, Outside, TcpFlags};
use super::rewrite::{self, Layout};
use super::{ClientSlot, NatTable};
use crate::packet::PacketBatch;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The segments that were shown around lately.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Nothing older than the table lives longer.
    until: Option<Instant>,
    /// By client, outside port and real IP. At most [`MAX_GUESSES`]; beyond that, downloads wait
    /// for their clients.
    guesses: BTreeMap<(ClientSlot, u16, IpAddr), Guess>,
    /// Real IPs that no name of a client leads to, and until when that is believed: most segments
    /// without a flow are of networks, and must not cost a walk over the names each.
    strangers: BTreeMap<(ClientSlot, IpAddr), Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Guess {
    count: u32,
    last: Instant,
}

impl Recovery {
    /// The table takes the place of another one.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until = Some(now + FLOWS_LIVE);
    }

    /// The slot will be another client's.
    pub(super) fn forget(&mut self, client: ClientSlot) {
        self.guesses.retain(|(slot, ..), _| *slot != client);
        self.strangers.retain(|(slot, _), _| *slot != client);
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
        self.until.is_none()
    }

    /// Whether a reset from this port of a client may be its answer to a wrong guess.
    pub(super) fn is_guessed(&self, client: ClientSlot, port: u16, now: Instant) -> bool {
        let of_port = self.guesses.range((client, port, FIRST_IP)..);
        let mut of_port = of_port.take_while(|((slot, at, _), _)| (*slot, *at) == (client, port));
        of_port.any(|(_, guess)| now.saturating_duration_since(guess.last) < ANSWERED_WITHIN)
    }

    fn is_stranger(&self, client: ClientSlot, real: IpAddr, now: Instant) -> bool {
        let until = self.strangers.get(&(client, real));
        until.is_some_and(|until| *until > now)
    }

    fn note_stranger(&mut self, client: ClientSlot, real: IpAddr, now: Instant) {
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.clear();
        }
        self.strangers.insert((client, real), now + STRANGE_FOR);
    }

    /// Whether a segment to this tuple may be shown around.
    fn take(&mut self, outside: &Outside, now: Instant) -> bool {
        if self.guesses.len() >= MAX_GUESSES {
            let is_recent =
                |guess: &Guess| now.saturating_duration_since(guess.last) < FORGET_AFTER;
            self.guesses.retain(|_, guess| is_recent(guess));
        }
        let key = (outside.client, outside.port, outside.real);
        let has_room = self.guesses.len() < MAX_GUESSES;
        match self.guesses.get_mut(&key) {
            None if has_room => {
                self.guesses.insert(
                    key,
                    Guess {
                        count: 1,
                        last: now,
                    },
                );
                true
            }
            Some(guess) => {
                let pause = now.saturating_duration_since(guess.last);
                let is_due = pause >= GUESS_PAUSE && guess.count < MAX_TRIES;
                if is_due || pause >= FORGET_AFTER {
                    guess.count = if is_due { guess.count + 1 } else { 1 };
                    guess.last = now;
                }
                is_due || pause >= FORGET_AFTER
            }
            None => false,
        }
    }
}

impl NatTable {
    /// A segment from a resource belongs to no flow. If it could belong to one from before this
    /// table, the client is shown it as if from each proxy IP that may have been meant. The segment
    /// itself goes on as it is, as it may be of no name at all: the policy knows.
    pub(super) fn show_around(
        &mut self,
        outside: &Outside,
        (bytes, layout, flags): (&[u8], Layout, TcpFlags),
        now: Instant,
    ) {
        let Outside { client, real, .. } = *outside;
        let is_candidate = outside.protocol == FlowProtocol::Tcp && !flags.syn;
        if !is_candidate
            || self.recovery.is_over(now)
            || self.recovery.is_stranger(client, real, now)
        {
            return;
        }
        let proxy_ips = self.domains.proxy_ips_to(client, real, MAX_CANDIDATES);
        if proxy_ips.is_empty() {
            return self.recovery.note_stranger(client, real, now);
        }
        let Some(id) = self.clients.id(client) else {
            return;
        };
        if !self.recovery.take(outside, now) {
            return;
        }
        for proxy in proxy_ips {
            let inside = Inside {
                client,
                protocol: outside.protocol,
                port: outside.port,
                proxy,
            };
            let mut copy = bytes.to_vec();
            let has_another = self.flows.find_inside(&inside, now).is_some();
            if !has_another && rewrite::outbound(&mut copy, layout, &inside).is_ok() {
                self.outbound.push_back((id, PacketBatch::of(&copy)));
            }
        }
    }
}

/// As long as a TCP flow lives in silence (RFC 5382, section 5, REQ-5).
pub(super) const FLOWS_LIVE: Duration = Duration::from_secs(7440);
/// Downloads of a whole office.
const MAX_GUESSES: usize = 16_384;
const MAX_STRANGERS: usize = 4096;
/// Long enough to be cheap, short enough for a name that is announced a moment later.
const STRANGE_FOR: Duration = Duration::from_millis(250);
/// Shorter than a resource waits before it sends again (RFC 6298, section 2.4, in practice 200 ms).
const GUESS_PAUSE: Duration = Duration::from_millis(50);
/// A resource that doubles its wait has tried for half a minute by then.
const MAX_TRIES: u32 = 10;
/// Then the same tuple may be tried again.
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// The longest round trip to a client that resets should be recognised after.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Some names that share an address, with four proxy IPs each.
const MAX_CANDIDATES: usize = 32;
const FIRST_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
