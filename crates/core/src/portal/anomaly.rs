//! Reports of unusable messages from the portal, once for each kind; they never end the connection.
//!
//! The memory of reports is bounded; when it is full, nothing new is reported.

use std::collections::BTreeSet;

/// A kind of protocol deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnomalyKind {
    /// A text frame that is not a message.
    UnreadableFrame,
    /// A binary frame; ignored.
    BinaryFrame,
    /// An unknown event; ignored.
    UnknownEvent,
    /// An event with an unusable payload; ignored.
    WrongPayload,
    /// An event that was used except for some of its list entries.
    PartlyUnreadable,
    /// The portal could not process a message of the gateway.
    ErrorReply,
    /// A `disconnect` with an unknown reason; ignored, because the portal closes the socket itself
    /// if it has to.
    UnknownDisconnect,
    /// `phx_error`: an internal error of the portal.
    PortalError,
    /// More messages waited for the reply to a join than the limit permits; the newest was dropped.
    QueueFull,
    /// More candidates arose during an outage than the limit permits; the newest was dropped.
    TooManyHeld,
    /// A client uses an old form that is answered but leads to no working access.
    TooOldClient,
}

/// One report. Never quotes payloads: they contain keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// The kind of deviation.
    pub kind: AnomalyKind,
    /// The event or reason concerned, printable and at most 64 characters; may be empty.
    pub about: String,
    /// Further details in words; may be empty.
    pub detail: String,
}

/// Lets each pair of kind and subject pass once.
#[derive(Debug, Default)]
pub(super) struct AnomalyFilter {
    reported: BTreeSet<(AnomalyKind, String)>,
}

impl AnomalyFilter {
    /// The report to make, or `None` when it was made before or the memory is full.
    pub(super) fn report(
        &mut self,
        kind: AnomalyKind,
        about: &str,
        detail: String,
    ) -> Option<Anomaly> {
        let about: String = about
            .chars()
            .take(64)
            .flat_map(char::escape_default)
            .take(64)
            .collect();
        if self.reported.len() >= MAX_REPORTS || !self.reported.insert((kind, about.clone())) {
            return None;
        }
        Some(Anomaly {
            kind,
            about,
            detail,
        })
    }
}

/// Reports per process; far more than there are known events.
const MAX_REPORTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_subject_is_reported_once() {
        let mut filter = AnomalyFilter::default();
        let mut report = |kind, about| filter.report(kind, about, String::new()).is_some();
        assert!(report(AnomalyKind::UnknownEvent, "a"));
        assert!(!report(AnomalyKind::UnknownEvent, "a"));
        assert!(report(AnomalyKind::UnknownEvent, "b"));
        assert!(report(AnomalyKind::WrongPayload, "a"));
    }

    #[test]
    fn reports_are_bounded_and_printable() {
        let mut filter = AnomalyFilter::default();
        let long = "\n\u{1b}".repeat(500);
        let anomaly = filter
            .report(AnomalyKind::UnknownEvent, &long, String::new())
            .unwrap();
        assert!(anomaly.about.len() <= 64 && anomaly.about.chars().all(|c| c.is_ascii_graphic()));
        let reported = (0..1_000)
            .filter(|n| {
                filter
                    .report(AnomalyKind::UnknownEvent, &n.to_string(), String::new())
                    .is_some()
            })
            .count();
        assert_eq!(reported, MAX_REPORTS - 1);
    }
}
