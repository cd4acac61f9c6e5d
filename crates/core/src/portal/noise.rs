//! What the portal said that we could not use: reported once for each kind, never answered by
//! leaving.
//!
//! The memory of what was reported is bounded; when it is full, nothing new is reported.

use std::collections::BTreeSet;

/// A kind of deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoiseKind {
    /// A text frame that is not a message.
    UnreadableFrame,
    /// A binary frame; ignored.
    BinaryFrame,
    /// An event that we do not know; ignored.
    UnknownEvent,
    /// An event whose payload we cannot use; ignored.
    WrongPayload,
    /// An event that was used but for some of the lines of its lists.
    PartlyUnreadable,
    /// The portal could not process something that we sent.
    ErrorReply,
    /// Told to disconnect for a reason that we do not know; ignored, the portal closes if it means
    /// it.
    UnknownDisconnect,
    /// `phx_error`: something broke inside the portal.
    PortalError,
    /// More messages waited for the answer to a join than there is room for; the newest was
    /// dropped.
    QueueFull,
    /// More candidates came up during an outage than there is room for; the newest was dropped.
    TooManyHeld,
    /// A client speaks a form that is answered and then leads nowhere.
    TooOldClient,
}

/// One report. Says what, never quotes payloads: they carry keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Which kind.
    pub kind: NoiseKind,
    /// The event or reason it is about, printable and at most 64 characters; may be empty.
    pub about: String,
    /// What is wrong, in words; may be empty.
    pub detail: String,
}

/// Lets each pair of kind and subject pass once.
#[derive(Debug, Default)]
pub(super) struct NoiseFilter {
    reported: BTreeSet<(NoiseKind, String)>,
}

impl NoiseFilter {
    /// The report to make, or `None` when it was made before or the memory is full.
    pub(super) fn report(&mut self, kind: NoiseKind, about: &str, detail: String) -> Option<Noise> {
        let about: String = about
            .chars()
            .take(64)
            .flat_map(char::escape_default)
            .take(64)
            .collect();
        if self.reported.len() >= MAX_REPORTS || !self.reported.insert((kind, about.clone())) {
            return None;
        }
        Some(Noise {
            kind,
            about,
            detail,
        })
    }
}

/// Reports in the life of a process; far more than there are known events.
const MAX_REPORTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_subject_is_reported_once() {
        let mut filter = NoiseFilter::default();
        let mut report = |kind, about| filter.report(kind, about, String::new()).is_some();
        assert!(report(NoiseKind::UnknownEvent, "a"));
        assert!(!report(NoiseKind::UnknownEvent, "a"));
        assert!(report(NoiseKind::UnknownEvent, "b"));
        assert!(report(NoiseKind::WrongPayload, "a"));
    }

    #[test]
    fn the_memory_is_bounded_and_what_is_reported_is_printable() {
        let mut filter = NoiseFilter::default();
        let long = "\n\u{1b}".repeat(500);
        let noise = filter
            .report(NoiseKind::UnknownEvent, &long, String::new())
            .unwrap();
        assert!(noise.about.len() <= 64 && noise.about.chars().all(|c| c.is_ascii_graphic()));
        let reported = (0..1_000)
            .filter(|n| {
                filter
                    .report(NoiseKind::UnknownEvent, &n.to_string(), String::new())
                    .is_some()
            })
            .count();
        assert_eq!(reported, MAX_REPORTS - 1);
    }
}
