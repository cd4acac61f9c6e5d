//! One family of a mapping: its addresses, the signals that they do not work, and when the DNS may
//! be asked.

use super::addresses::{Addresses, Unanswered};
use super::explain::FamilyFacts;
use super::health::{HealCounts, HealSignal as Signal, Health};
use super::waits::{SETTLED, TRANSIENT, Wait};
use super::{Route, Sent};
use crate::names::{NameFailure, ResolvedAddresses};
use crate::replies::{PACKET_SPAN, PACKETS, Refusal, ReplyTracker};
use rand_chacha::ChaCha8Rng;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A name is in use if a packet for it came within this time.
pub(super) const IN_USE: Duration = Duration::from_secs(10);

/// How an answer relates to the lookup of this mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupSource {
    /// Requested by another client.
    Unrequested,
    /// Possibly from the cache.
    Cached,
    /// Requested past the cache.
    Refreshed,
}

/// The backoffs of lookups, by reason.
#[derive(Debug, Default)]
struct Waits {
    /// After a lookup without an answer.
    transient: Wait,
    /// After a lookup for silence that changed nothing. Reset by any packet that comes back.
    silence: Wait,
    /// After a lookup for any other reason that changed nothing. Reset when a flow is confirmed:
    /// packets of older flows to other addresses prove nothing, and would let every new flow cause
    /// a lookup.
    settled: Wait,
    /// After a failure to renew addresses that are in use.
    background: Wait,
}

#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) addresses: Addresses,
    /// The error of the last lookup, if it failed.
    failure: Option<NameFailure>,
    /// Since when lookups fail or find nothing.
    failing_since: Option<Instant>,
    last_inbound: Option<Instant>,
    replies: ReplyTracker,
    /// The address that answered last.
    heard_from: Option<IpAddr>,
    /// Packets to any address since the last packet from any.
    unanswered: Unanswered,
    /// Whether a packet was sent since the last move to another address.
    is_tried: bool,
    signal: Option<Signal>,
    waits: Waits,
    health: Health,
}

impl Family {
    /// The address of the proxy IP at index `place`. Without an address, this raises the unmapped
    /// signal.
    pub(super) fn route(
        &mut self,
        place: usize,
        last_known_good: Duration,
        counts: &mut HealCounts,
        now: Instant,
    ) -> Route {
        self.addresses.expire(last_known_good, now);
        if let Some(real) = self.addresses.pick(place, now) {
            let epoch = self.addresses.epoch();
            return Route::To { real, epoch };
        }
        self.last_inbound = Some(now);
        self.health.note_inbound(false, now);
        self.raise(Signal::Unmapped, counts, now);
        if self.is_denied() {
            return Route::Unreachable;
        }
        Route::Hold
    }

    /// Whether the DNS denied the name and no earlier address is known.
    pub(super) fn is_denied(&self) -> bool {
        self.addresses.is_empty() && self.failure.is_some_and(NameFailure::is_definite)
    }

    /// Whether a new flow must renew stale addresses in the background (docs/lessons.md 33).
    pub(super) fn wants_renewal(&self, now: Instant) -> bool {
        self.addresses.is_stale(now) && self.waits.background.is_over(now)
    }

    /// Records a packet to `real`. Returns whether a lookup may be due.
    pub(super) fn note_inbound(
        &mut self,
        real: IpAddr,
        sent: Sent,
        counts: &mut HealCounts,
        now: Instant,
    ) -> bool {
        self.last_inbound = Some(now);
        self.health.note_inbound(sent == Sent::Confirmed, now);
        self.is_tried = true;
        self.unanswered.note(now);
        self.replies.note_sent(now);
        if self.addresses.note_inbound(real, sent, now) {
            let is_news = self.signal.is_none() && !self.waits.settled.is_over(now);
            if is_news && sent == Sent::Syn && self.addresses.has_better(now) {
                // The DNS was asked a moment ago, so the next address is tried without another
                // lookup. Only for TCP, which expects answers: a one-way stream would move from
                // address to address.
                self.move_on(now);
                return false;
            }
            return self.raise(Signal::Handshake, counts, now);
        }
        self.unanswered.is(PACKETS, PACKET_SPAN) && self.raise(Signal::Silence, counts, now)
    }

    /// Records a packet from `real`.
    pub(super) fn note_outbound(
        &mut self,
        real: IpAddr,
        is_newly_confirmed: bool,
        counts: &mut HealCounts,
        now: Instant,
    ) {
        self.unanswered.reset();
        self.replies.note_reply(now);
        self.heard_from = Some(real);
        self.waits.silence.reset();
        if self.signal == Some(Signal::Silence) {
            self.clear_signal();
        }
        if is_newly_confirmed {
            self.replies.clear_refusal(None);
            self.waits.settled.reset();
            self.addresses.note_confirmed(real);
            let is_proved = match self.signal {
                Some(Signal::Handshake | Signal::Unreachable) => !self.addresses.is_any_silent(),
                Some(Signal::Silence | Signal::Unmapped) | None => false,
            };
            if is_proved {
                self.clear_signal();
            }
        }
        let is_healed = match self.health.incident() {
            Some(Signal::Silence) => self.signal.is_none() && !self.addresses.is_any_silent(),
            Some(Signal::Handshake | Signal::Unreachable | Signal::Unmapped) => {
                is_newly_confirmed && !self.addresses.is_any_silent()
            }
            None => false,
        };
        if is_healed {
            self.health.note_healed(counts, now);
        }
    }

    /// Records an ICMP error about `real`. It ends silence, but proves no health, so no backoff is
    /// reset (docs/lessons.md 2).
    pub(super) fn note_icmp(&mut self, real: IpAddr) {
        self.unanswered.reset();
        self.addresses.note_icmp(real);
        let is_answered = match self.signal {
            Some(Signal::Silence) => true,
            Some(Signal::Handshake) => !self.addresses.is_any_silent(),
            Some(Signal::Unreachable | Signal::Unmapped) | None => false,
        };
        if is_answered {
            self.clear_signal();
        }
    }

    /// Records that `real` is unreachable. Returns whether a lookup may be due.
    pub(super) fn note_unreachable(
        &mut self,
        real: IpAddr,
        counts: &mut HealCounts,
        now: Instant,
    ) -> bool {
        self.note_icmp(real);
        self.addresses.shun(real, now) && self.raise(Signal::Unreachable, counts, now)
    }

    /// `Some` if a lookup is due, with whether it bypasses the cache. A name that is not in use is
    /// not looked up (docs/lessons.md 3).
    pub(super) fn wants_lookup(&mut self, now: Instant) -> Option<bool> {
        let signal = self.signal?;
        let is_in_use = self.last_inbound.is_some_and(|at| now - at <= IN_USE);
        if !is_in_use {
            self.clear_signal();
            return None;
        }
        let is_unasked = signal == Signal::Unmapped && self.failure.is_none();
        self.is_open(signal, now).then_some(!is_unasked)
    }

    /// When [`Self::wants_lookup`] may become `Some`; in the past if no backoff is running.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gates = self.gates(self.signal?);
        gates.iter().filter_map(|wait| wait.until()).max()
    }

    /// Whether all backoffs of a signal are over.
    fn is_open(&self, signal: Signal, now: Instant) -> bool {
        self.gates(signal).iter().all(|wait| wait.is_over(now))
    }

    fn gates(&self, signal: Signal) -> [Wait; 2] {
        let waits = &self.waits;
        match signal {
            Signal::Silence => [waits.transient, waits.silence],
            Signal::Handshake | Signal::Unreachable | Signal::Unmapped => {
                [waits.transient, waits.settled]
            }
        }
    }

    /// Takes over an answer with addresses.
    pub(super) fn resolved(
        &mut self,
        resolved: &ResolvedAddresses,
        asked: LookupSource,
        rng: &mut ChaCha8Rng,
        now: Instant,
    ) {
        (self.failure, self.failing_since) = (None, None);
        self.waits.transient.reset();
        self.waits.background.reset();
        let signal = self.signal;
        let has_waited =
            asked == LookupSource::Refreshed && signal.is_some_and(is_about_an_address);
        if self.addresses.resolve(resolved, now) {
            self.unanswered.reset();
            self.waits = Waits::default();
            self.clear_signal();
        } else if has_waited {
            if signal != Some(Signal::Unreachable) {
                self.move_on(now);
            }
            self.clear_signal();
        }
        if has_waited {
            // Also after new addresses, starting again from the first wait: otherwise a name with
            // different addresses in every answer would be looked up without a pause.
            self.waits.settled.extend(SETTLED, now, rng);
            self.waits.silence = self.waits.settled;
        }
    }

    /// Takes over a denial. Addresses in use stay for an hour; addresses that are also silent are
    /// removed, as two observations agree.
    pub(super) fn denied(
        &mut self,
        failure: NameFailure,
        asked: LookupSource,
        rng: &mut ChaCha8Rng,
        now: Instant,
    ) {
        self.note_failure(failure, now);
        self.waits.transient.reset();
        let is_refreshed = asked == LookupSource::Refreshed;
        if is_refreshed && self.signal.is_some_and(is_about_an_address) {
            self.addresses.clear();
            self.clear_signal();
        }
        if !self.addresses.is_empty() {
            self.addresses.deny(now);
            if asked != LookupSource::Unrequested {
                self.waits.background.extend(SETTLED, now, rng);
            }
            return;
        }
        // Repeated announcements also cause lookups; they do not lengthen the wait of packets.
        let is_repeated = self.signal.is_some() || !self.waits.settled.has_begun();
        if asked != LookupSource::Unrequested && is_repeated && self.waits.settled.is_over(now) {
            self.waits.settled.extend(SETTLED, now, rng);
        }
    }

    /// Records a lookup without an answer. Removes no address (docs/lessons.md 7).
    pub(super) fn failed(
        &mut self,
        failure: NameFailure,
        asked: LookupSource,
        rng: &mut ChaCha8Rng,
        now: Instant,
    ) {
        if asked == LookupSource::Unrequested {
            return;
        }
        self.note_failure(failure, now);
        let signal = self.signal;
        if self.addresses.is_empty() || signal.is_some() {
            self.waits.transient.extend(TRANSIENT, now, rng);
        } else {
            self.waits.background.extend(SETTLED, now, rng);
        }
        let is_silent = matches!(signal, Some(Signal::Silence | Signal::Handshake));
        if is_silent && asked == LookupSource::Refreshed && self.is_tried {
            self.move_on(now);
        }
    }

    fn note_failure(&mut self, failure: NameFailure, now: Instant) {
        let former = self.failure.replace(failure);
        if former.map(NameFailure::is_definite) != Some(failure.is_definite()) {
            self.failing_since = Some(now);
        }
    }

    /// Records a refusal for a diagnosis.
    pub(super) fn note_refusal(&mut self, refused: Refusal, now: Instant) {
        self.replies.note_refusal(refused, now);
    }

    /// The facts for a diagnosis.
    pub(super) fn explain(&self, now: Instant) -> FamilyFacts {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let next_try = self.deadline().filter(|at| *at > now);
        FamilyFacts {
            addresses: self.addresses.explain(now),
            resolved: self.addresses.resolved_at().map(ago),
            failure: self.failure.zip(self.failing_since.map(ago)),
            next_try: next_try.map(|at| at.saturating_duration_since(now)),
            replies: self.replies.facts(now),
            heard_from: self.heard_from,
        }
    }

    fn move_on(&mut self, now: Instant) {
        self.addresses.move_on(now);
        self.unanswered.reset();
        self.is_tried = false;
    }

    /// Returns whether a lookup may be due: the signal is new, or its backoff is over, possibly
    /// early because a packet came back.
    fn raise(&mut self, signal: Signal, counts: &mut HealCounts, now: Instant) -> bool {
        let is_news = self.signal < Some(signal);
        if is_news {
            self.health.note_signal(signal, counts, now);
        }
        let signal = *self
            .signal
            .insert(self.signal.unwrap_or(signal).max(signal));
        is_news || self.is_open(signal, now)
    }

    /// An address is known, from any source: this ends the incidents that began without one.
    pub(super) fn note_known(&mut self, counts: &mut HealCounts, now: Instant) {
        if self.health.incident() == Some(Signal::Unmapped) && !self.addresses.is_empty() {
            self.health.note_healed(counts, now);
        }
    }

    fn clear_signal(&mut self) {
        self.signal = None;
        self.waits.transient.reset();
    }
}

/// Whether the signal suspects an address, as opposed to having none.
fn is_about_an_address(signal: Signal) -> bool {
    match signal {
        Signal::Silence | Signal::Handshake | Signal::Unreachable => true,
        Signal::Unmapped => false,
    }
}
