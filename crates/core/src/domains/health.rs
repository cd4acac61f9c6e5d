//! What went wrong with names and how long it lasted, for whoever watches the gateway. Decides
//! nothing.
//!
//! A *incident* of a family begins with the first signal, whatever signals follow. It ends when
//! traffic works again: one that began without an address when an address is known, one that began
//! with silence when a packet comes back, every one when a flow is confirmed and no address owes
//! an answer. One that was given up, because for a minute nobody tried, counts nowhere: packets of
//! flows that were answered are no try, unless it is they who meet silence.

use super::addresses::COUNTED_FOR;
use std::time::{Duration, Instant};

/// Why the DNS should be asked. Ordered: a later one covers an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealSignal {
    /// Nothing came back from any address.
    Silence,
    /// New flows are not answered by an address, whatever older ones say.
    Handshake,
    /// The network says that an address cannot be reached.
    Unreachable,
    /// There is no address.
    Unmapped,
}

impl HealSignal {
    /// All, in order, for counters and metrics.
    pub const ALL: [Self; 4] = [
        Self::Silence,
        Self::Handshake,
        Self::Unreachable,
        Self::Unmapped,
    ];

    /// What metrics call it.
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

/// What was noticed since somebody asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealCounts {
    /// How often each signal was raised, by its place in [`HealSignal::ALL`].
    pub raised: [u64; HealSignal::ALL.len()],
    /// The signals that troubles began with which are over, and how long these lasted. As many as
    /// one call can end; to be taken after each.
    pub healed: Vec<(HealSignal, Duration)>,
}

/// The incident of a family, if it has one.
#[derive(Debug, Default)]
pub(super) struct Health(Option<Incident>);

#[derive(Clone, Copy, Debug)]
struct Incident {
    began_with: HealSignal,
    since: Instant,
    /// When somebody last tried.
    tried_at: Instant,
}

impl Health {
    /// What the incident began with.
    pub(super) fn incident(&self) -> Option<HealSignal> {
        self.0.map(|incident| incident.began_with)
    }

    /// A signal was raised.
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

    /// A packet for the name comes: of a flow that was answered, or not.
    pub(super) fn note_inbound(&mut self, is_confirmed: bool, now: Instant) {
        self.expire_if_untried(now);
        if let Some(incident) = &mut self.0
            && (!is_confirmed || incident.began_with == HealSignal::Silence)
        {
            incident.tried_at = now;
        }
    }

    /// Traffic works.
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
