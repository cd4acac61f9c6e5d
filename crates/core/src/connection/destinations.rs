//! Times of the last packets to and from each untranslated address; those of names are tracked by
//! the mappings.
//!
//! It reports no packet that did not come. It records recent addresses only: an address in the same
//! slot replaces the earlier one.
//!
//! Cost: packets of a batch between the same two addresses as the previous one are compared and
//! counted; only the first of such a run computes its slot, by one multiplication. Nothing is
//! searched, moved or allocated except the table itself, once.

use crate::authorizations::ranges;
use crate::nat_table::ClientSlot;
use crate::nat_table::rewrite::IcmpError;
use crate::packet::{IpPacket, Transport};
use crate::replies::{Refusal, ReplyFacts, ReplyTracker, source_port};
use std::net::IpAddr;
use std::time::Instant;

/// The addresses that a client exchanges packets with.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// Empty until the first packet, then [`SLOTS`] of them.
    slots: Vec<Option<(IpAddr, ReplyTracker)>>,
    /// The slot of the last packet.
    last: usize,
}

impl Destinations {
    /// Records a packet to `to`.
    #[inline]
    pub(super) fn note_sent(&mut self, to: IpAddr, now: Instant) {
        if !ranges::is_proxy(to) {
            self.place(to).note_sent(now);
        }
    }

    /// Records a packet from a resource.
    #[inline]
    pub(super) fn note_back(&mut self, packet: &IpPacket<'_>, now: Instant) {
        if ranges::is_proxy(packet.source()) {
            return;
        }
        if packet.transport() == Transport::IcmpError {
            return self.note_error(packet, now);
        }
        let replies = self.place(packet.source());
        if let Some(refused) = Refusal::by_reset(packet) {
            return replies.note_refusal(refused, now);
        }
        if replies.is_refused() {
            replies.clear_refusal(source_port(packet));
        }
        replies.note_reply(now);
    }

    /// Errors are rare, and may come from any router on the path.
    fn note_error(&mut self, packet: &IpPacket<'_>, now: Instant) {
        let Ok(Some(error)) = IcmpError::parse(ClientSlot(0), packet) else {
            return;
        };
        let refused = Refusal::from(error.kind());
        self.place(error.about().real).note_refusal(refused, now);
    }

    /// The record of an address; `None` if there is none.
    pub(super) fn seen(&self, ip: IpAddr, now: Instant) -> Option<ReplyFacts> {
        let (known, replies) = self.slots.get(index(ip))?.as_ref()?;
        (*known == ip).then(|| replies.facts(now))
    }

    #[inline]
    fn place(&mut self, ip: IpAddr) -> &mut ReplyTracker {
        let is_same = |place: &Option<(IpAddr, ReplyTracker)>| {
            place.as_ref().is_some_and(|(known, _)| *known == ip)
        };
        if !self.slots.get(self.last).is_some_and(is_same) {
            if self.slots.is_empty() {
                self.slots.resize(SLOTS, None);
            }
            self.last = index(ip);
            let place = &mut self.slots[self.last];
            if !is_same(place) {
                *place = Some((ip, ReplyTracker::default()));
            }
        }
        let place = &mut self.slots[self.last];
        &mut place.get_or_insert((ip, ReplyTracker::default())).1
    }
}

/// Neighbours get different slots. A client can only make its own addresses collide.
fn index(ip: IpAddr) -> usize {
    let bits = match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            (bits as u64) ^ (bits >> 64) as u64
        }
    };
    // Fibonacci hashing: the upper bits of the product are the best mixed.
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// About 13 KiB for a client that uses any.
const SLOTS: usize = 128;
