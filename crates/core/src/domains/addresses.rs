//! The real addresses of a name in one family: the address of each proxy IP, and the shunned ones.

use super::explain::AddressFacts;
use super::{MAX_ADDRESSES, Sent};
use crate::names::ResolvedAddresses;
use crate::replies::{PACKET_SPAN, PACKETS, SYN_SPAN, SYNS};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an address is shunned after an ICMP error about it, or after it did not answer.
pub(super) const SHUN_FOR: Duration = Duration::from_secs(30);

/// How long good addresses stay in use after a definite "no such name".
///
/// A zone that was loaded empty by mistake is repaired within the hour. After a longer time the
/// address may belong to another host, which must not get the client's packets.
pub(super) const DENIED_FOR: Duration = Duration::from_secs(60 * 60);

/// A gap after which the count of unanswered packets starts again, because the client has given up
/// the earlier attempts: the lifetime of a flow without an answer.
pub(super) const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Packets without an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered {
    count: u32,
    /// Time of the first and of the last.
    span: Option<(Instant, Instant)>,
}

impl Unanswered {
    pub(super) fn note(&mut self, now: Instant) {
        let (first, count) = match self.span {
            Some((first, last)) if now - last <= COUNTED_FOR => (first, self.count),
            Some(_) | None => (now, 0),
        };
        self.count = count.saturating_add(1);
        self.span = Some((first, now));
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is(&self, count: u32, over: Duration) -> bool {
        let lasted = |(first, last): (Instant, Instant)| last - first >= over;
        self.count >= count && self.span.is_some_and(lasted)
    }
}

#[derive(Clone, Debug)]
struct Address {
    ip: IpAddr,
    shunned_until: Option<Instant>,
    /// SYNs of unconfirmed flows since a flow was last confirmed.
    syns: Unanswered,
    /// Other packets of unconfirmed flows.
    others: Unanswered,
}

impl Address {
    fn new(ip: IpAddr) -> Self {
        Self {
            ip,
            shunned_until: None,
            syns: Unanswered::default(),
            others: Unanswered::default(),
        }
    }

    fn is_shunned(&self, now: Instant) -> bool {
        self.shunned_until.is_some_and(|until| until > now)
    }

    fn is_silent(&self) -> bool {
        self.syns.is(SYNS, SYN_SPAN) || self.others.is(PACKETS, PACKET_SPAN)
    }

    fn forget_unanswered(&mut self) {
        self.syns.reset();
        self.others.reset();
    }
}

/// The addresses of one family. Empty if none is known, or none is still valid.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// As the DNS named them, without duplicates: sorted, or in the order from before a rebuild.
    /// The order decides the address of each proxy IP, so it does not change while the set stays
    /// the same.
    list: Vec<Address>,
    offset: usize,
    epoch: u32,
    /// When the DNS last named them.
    resolved_at: Option<Instant>,
    fresh_until: Option<Instant>,
    /// When the DNS first denied them after that.
    denied_at: Option<Instant>,
}

impl Addresses {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Increases whenever unconfirmed flows must look up their address again.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn raise_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The address of the proxy IP at index `place` of its family: round robin from the offset,
    /// without the shunned addresses. If all are shunned, all are used.
    pub(super) fn pick(&self, place: usize, now: Instant) -> Option<IpAddr> {
        let count = self.list.len();
        let at = |step: usize| &self.list[(place + self.offset + step) % count];
        let good = (0..count).map(at).find(|it| !it.is_shunned(now));
        good.or_else(|| (count > 0).then(|| at(0))).map(|it| it.ip)
    }

    pub(super) fn contains(&self, real: IpAddr) -> bool {
        self.list.iter().any(|it| it.ip == real)
    }

    /// All, in the order of the proxy IPs, ignoring shunning.
    pub(super) fn order(&self) -> Vec<IpAddr> {
        let (after, before) = self.list.split_at(self.offset);
        before.iter().chain(after).map(|it| it.ip).collect()
    }

    pub(super) fn resolved_at(&self) -> Option<Instant> {
        self.resolved_at
    }

    /// All, in the order of the proxy IPs, for a diagnosis.
    pub(super) fn explain(&self, now: Instant) -> Vec<AddressFacts> {
        let (after, before) = self.list.split_at(self.offset.min(self.list.len()));
        let all = before.iter().chain(after);
        let facts = |it: &Address| AddressFacts {
            ip: it.ip,
            shunned_for: it
                .shunned_until
                .and_then(|until| until.checked_duration_since(now)),
            owes_answer: it.is_silent(),
        };
        all.map(facts).collect()
    }

    /// Takes over addresses that were valid at `resolved_at`. They are stale, so the next flow
    /// triggers a lookup.
    pub(super) fn restore(&mut self, ips: &[IpAddr], resolved_at: Instant, now: Instant) {
        self.list = ips.iter().copied().map(Address::new).collect();
        self.offset = 0;
        (self.resolved_at, self.fresh_until) = (Some(resolved_at), Some(now));
        self.denied_at = None;
        self.raise_epoch();
    }

    /// Takes over the addresses of a DNS answer. Returns whether the set changed.
    pub(super) fn resolve(&mut self, resolved: &ResolvedAddresses, now: Instant) -> bool {
        self.resolved_at = Some(now);
        self.fresh_until = Some(now + resolved.ttl);
        self.denied_at = None;
        let named: BTreeSet<IpAddr> = resolved.ips.iter().copied().collect();
        let ips: BTreeSet<IpAddr> = named.into_iter().take(MAX_ADDRESSES).collect();
        if self.list.len() == ips.len() && self.list.iter().all(|it| ips.contains(&it.ip)) {
            return false;
        }
        let old = std::mem::take(&mut self.list);
        let shunned = |ip| old.iter().find(|it| it.ip == ip)?.shunned_until;
        let carried_over = |ip: &IpAddr| Address {
            shunned_until: shunned(*ip),
            ..Address::new(*ip)
        };
        self.list = ips.iter().map(carried_over).collect();
        self.offset = 0;
        self.raise_epoch();
        true
    }

    /// Records that the DNS denied the name.
    pub(super) fn deny(&mut self, now: Instant) {
        self.denied_at.get_or_insert(now);
    }

    /// Removes addresses that the DNS has not named for `last_known_good`, or has denied for an
    /// hour.
    pub(super) fn expire(&mut self, last_known_good: Duration, now: Instant) {
        let is_past = |since: Option<Instant>, limit| since.is_some_and(|at| now - at >= limit);
        if is_past(self.resolved_at, last_known_good) || is_past(self.denied_at, DENIED_FOR) {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.offset = 0;
        (self.resolved_at, self.fresh_until, self.denied_at) = (None, None, None);
        self.raise_epoch();
    }

    /// Whether the TTL of the addresses is over.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| until <= now)
    }

    /// Counts a packet to `real`; returns whether that address owes an answer.
    pub(super) fn note_inbound(&mut self, real: IpAddr, sent: Sent, now: Instant) -> bool {
        let Some(address) = self.of(real) else {
            return false;
        };
        match sent {
            Sent::Syn => address.syns.note(now),
            Sent::Unconfirmed => address.others.note(now),
            Sent::Confirmed => return false,
        }
        address.is_silent()
    }

    /// A flow to `real` is confirmed: the address works, so its record is cleared.
    pub(super) fn note_confirmed(&mut self, real: IpAddr) {
        if let Some(address) = self.of(real) {
            *address = Address::new(real);
        }
    }

    /// An ICMP error answered for `real`.
    pub(super) fn note_icmp(&mut self, real: IpAddr) {
        if let Some(address) = self.of(real) {
            address.forget_unanswered();
        }
    }

    /// Whether any address owes an answer.
    pub(super) fn is_any_silent(&self) -> bool {
        self.list.iter().any(Address::is_silent)
    }

    /// Whether an address is neither shunned nor owes an answer.
    pub(super) fn has_better(&self, now: Instant) -> bool {
        let is_better = |it: &Address| !it.is_shunned(now) && !it.is_silent();
        self.list.iter().any(is_better)
    }

    /// `real` is unreachable. Returns whether it is one of these addresses.
    pub(super) fn shun(&mut self, real: IpAddr, now: Instant) -> bool {
        let Some(address) = self.of(real) else {
            return false;
        };
        let is_news = !address.is_shunned(now);
        address.shunned_until = Some(now + SHUN_FOR);
        address.forget_unanswered();
        let is_rotating = self.rotate_if_all_shunned(now);
        if is_news || is_rotating {
            self.raise_epoch();
        }
        true
    }

    /// Moves to the next address: shuns those that owe an answer; if none does, every proxy IP
    /// moves by one address. (If they always moved, and one of two addresses were dead, they would
    /// only swap.)
    pub(super) fn move_on(&mut self, now: Instant) {
        let mut is_any_shunned = false;
        for address in &mut self.list {
            if address.is_silent() {
                address.shunned_until = Some(now + SHUN_FOR);
                is_any_shunned = true;
            }
            address.forget_unanswered();
        }
        let is_rotated = self.rotate_if_all_shunned(now);
        if !is_any_shunned && !is_rotated {
            self.rotate();
        }
        self.raise_epoch();
    }

    fn rotate_if_all_shunned(&mut self, now: Instant) -> bool {
        let is_due = self.list.len() > 1 && self.list.iter().all(|it| it.is_shunned(now));
        if is_due {
            self.rotate();
        }
        is_due
    }

    fn rotate(&mut self) {
        self.offset = (self.offset + 1) % self.list.len().max(1);
    }

    fn of(&mut self, real: IpAddr) -> Option<&mut Address> {
        self.list.iter_mut().find(|it| it.ip == real)
    }
}
