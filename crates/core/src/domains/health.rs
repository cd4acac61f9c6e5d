//! Counters of failures of names and of how long they last, for metrics. They decide nothing.
//!
//! An *incident* of a family begins with the first signal; later signals do not change it. It ends
//! when traffic works again: after [`HealSignal::Unmapped`] when an address is known, after
//! [`HealSignal::Silence`] when a packet comes back, after any signal when a flow is confirmed and
//! no address owes an answer. An incident without a packet for a minute is abandoned and not
//! counted. Packets of confirmed flows do not count as an attempt, except after
//! [`HealSignal::Silence`].

use super::addresses::COUNTED_FOR;
use std::time::{Duration, Instant};

/// Why the DNS must be asked again. Ordered: a later signal includes an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealSignal {
    /// No packet came back from any address.
    Silence,
    /// An address does not answer new flows, while older ones may work.
    Handshake,
    /// The network reports that an address is unreachable.
    Unreachable,
    /// No address is known for the family.
    Unmapped,
}

impl HealSignal {
    /// All signals in order, for counters and metrics.
    pub const ALL: [Self; 4] = [
        Self::Silence,
        Self::Handshake,
        Self::Unreachable,
        Self::Unmapped,
    ];

    /// The value of the `signal` label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Silence => "one_way",
            Self::Handshake => "handshake",
            Self::Unreachable => "unreachable",
            Self::Unmapped => "unmapped",
        }
    }
}

/// Counts since the last [`Domains::take_heals`](super::Domains::take_heals).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealCounts {
    /// How often each signal was raised, indexed as in [`HealSignal::ALL`].
    pub raised: [u64; HealSignal::ALL.len()],
    /// The incidents that ended: first signal and duration. At most as many as one call can end;
    /// take them after each call.
    pub healed: Vec<(HealSignal, Duration)>,
}

/// The current incident of a family.
#[derive(Debug, Default)]
pub(super) struct Health(Option<Incident>);

#[derive(Clone, Copy, Debug)]
struct Incident {
    began_with: HealSignal,
    since: Instant,
    /// When a packet last tried the name.
    tried_at: Instant,
}

impl Health {
    /// The signal that the incident began with.
    pub(super) fn incident(&self) -> Option<HealSignal> {
        self.0.map(|incident| incident.began_with)
    }

    pub(super) fn note_signal(
        &mut self,
        signal: HealSignal,
        counts: &mut HealCounts,
        now: Instant,
    ) {
        counts.raised[signal as usize] += 1;
        self.expire_if_untried(now);
        self.0.get_or_insert(Incident {
            began_with: signal,
            since: now,
            tried_at: now,
        });
    }

    /// Records a packet for the name, of a confirmed flow or not.
    pub(super) fn note_inbound(&mut self, is_confirmed: bool, now: Instant) {
        self.expire_if_untried(now);
        if let Some(incident) = &mut self.0
            && (!is_confirmed || incident.began_with == HealSignal::Silence)
        {
            incident.tried_at = now;
        }
    }

    /// Ends the incident: traffic works.
    pub(super) fn note_healed(&mut self, counts: &mut HealCounts, now: Instant) {
        self.expire_if_untried(now);
        if let Some(Incident {
            began_with, since, ..
        }) = self.0.take()
        {
            counts.healed.push((began_with, now - since));
        }
    }

    fn expire_if_untried(&mut self, now: Instant) {
        let is_expired = |incident: Incident| now - incident.tried_at > COUNTED_FOR;
        if self.0.is_some_and(is_expired) {
            self.0 = None;
        }
    }
}
