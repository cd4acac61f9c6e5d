//! Packets to an address and replies from it, in a record small enough to be updated for each
//! packet.

mod refusal;

pub(crate) use refusal::source_port;
pub use refusal::{Refusal, RefusalKind};

use crate::target::Service;
use std::time::{Duration, Instant};

/// Packets and replies of one address, or of the addresses of a name in one family.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyTracker {
    /// When the last packet came back.
    replied_at: Option<Instant>,
    /// Packets without a reply since: time of the first, time of the last, count.
    waiting: Option<(Instant, Instant, u32)>,
    refused: Option<(Instant, Refusal)>,
}

/// A snapshot of a [`ReplyTracker`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFacts {
    /// Time since the last packet came back.
    pub replied: Option<Duration>,
    /// Time since the first unanswered packet.
    pub waiting: Option<Duration>,
    /// Number of unanswered packets.
    pub unanswered: u32,
    /// Time between the first and the last unanswered packet.
    pub span: Duration,
    /// The last refusal, and the time since.
    pub refused: Option<(Duration, Refusal)>,
}

impl ReplyTracker {
    /// Records a packet towards the address.
    #[inline]
    pub fn note_sent(&mut self, now: Instant) {
        let (first, _, count) = self.waiting.unwrap_or((now, now, 0));
        self.waiting = Some((first, now, count.saturating_add(1)));
    }

    /// Records a packet from the address.
    #[inline]
    pub fn note_reply(&mut self, now: Instant) {
        self.replied_at = Some(now);
        self.waiting = None;
    }

    /// Records a refusal, which also counts as an answer.
    pub fn note_refusal(&mut self, refused: Refusal, now: Instant) {
        self.refused = Some((now, refused));
        self.waiting = None;
    }

    /// Whether a refusal is recorded that [`Self::clear_refusal`] has not cleared.
    #[inline]
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Clears the refusal of a port that answers now, or any refusal if `port` is `None`.
    pub fn clear_refusal(&mut self, port: Option<u16>) {
        let is_other =
            |refused: Option<u16>| port.is_some() && refused.is_some_and(|it| Some(it) != port);
        self.refused = self.refused.filter(|(_, refused)| is_other(refused.port));
    }

    /// A snapshot of the record at `now`.
    #[must_use]
    pub fn facts(&self, now: Instant) -> ReplyFacts {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let (first, last, count) = self.waiting.unwrap_or((now, now, 0));
        ReplyFacts {
            replied: self.replied_at.map(ago),
            waiting: self.waiting.map(|(first, ..)| ago(first)),
            unanswered: count,
            span: last.saturating_duration_since(first),
            refused: self.refused.map(|(at, how)| (ago(at), how)),
        }
    }
}

/// The conclusion drawn from [`ReplyFacts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStatus {
    /// No packet was sent to the address.
    NothingSent,
    /// The address answered.
    Answered {
        /// Time since the last answer.
        ago: Duration,
    },
    /// The address refused, and has not answered since.
    Refused {
        /// Time since the refusal.
        ago: Duration,
        /// The kind of the refusal.
        how: RefusalKind,
    },
    /// Too few packets to decide.
    Awaited {
        /// Time since the first unanswered packet.
        since: Duration,
        /// Number of unanswered packets.
        packets: u32,
    },
    /// The address does not answer.
    Unanswered {
        /// Time since the first unanswered packet.
        since: Duration,
        /// Number of unanswered packets.
        packets: u32,
        /// Time since the last answer before them.
        replied: Option<Duration>,
    },
}

impl ReplyFacts {
    /// An address does not answer if three packets over 5 s were not answered, or two over 0.9 s
    /// after an idle time: the same signals make a name be looked up again. The last packet of a
    /// connection, such as its last acknowledgement, expects no answer. A refusal counts until the
    /// address answers, or, if `service` names a port, until that port answers.
    #[must_use]
    pub fn status(&self, service: Service) -> ReplyStatus {
        let is_silent = self.unanswered >= PACKETS && self.span >= PACKET_SPAN;
        let is_silent_to_new = self.unanswered >= SYNS && self.span >= SYN_SPAN;
        if let Some(since) = self.waiting
            && (is_silent || is_silent_to_new && self.began_after_idle(since))
        {
            return ReplyStatus::Unanswered {
                since,
                packets: self.unanswered,
                replied: self.replied,
            };
        }
        let refused = self.refused.filter(|(ago, refused)| {
            let is_last = self.replied.is_none_or(|replied| *ago <= replied);
            match (refused.port, service) {
                (Some(port), Service::Port(service) | Service::Tcp(service)) => port == service,
                (Some(_), Service::Udp(_) | Service::Icmp) => false,
                (Some(_) | None, _) => is_last,
            }
        });
        match (refused, self.replied, self.waiting) {
            (Some((ago, refused)), ..) => ReplyStatus::Refused {
                ago,
                how: refused.how,
            },
            (None, Some(ago), _) => ReplyStatus::Answered { ago },
            (None, None, Some(since)) => ReplyStatus::Awaited {
                since,
                packets: self.unanswered,
            },
            (None, None, None) => ReplyStatus::NothingSent,
        }
    }
}

impl ReplyFacts {
    /// Whether the unanswered packets began some time after the last answer.
    fn began_after_idle(&self, since: Duration) -> bool {
        self.replied
            .is_none_or(|replied| replied >= since + PACKET_SPAN)
    }
}

/// Unanswered handshakes are silence: number of SYNs …
pub(crate) const SYNS: u32 = 2;
/// … and their minimum span. The first retransmission comes after 1 s (RFC 6298, 2.1).
pub(crate) const SYN_SPAN: Duration = Duration::from_millis(900);
/// Unanswered packets are silence: number of packets …
pub(crate) const PACKETS: u32 = 3;
/// … and their minimum span.
pub(crate) const PACKET_SPAN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;

    const RESET_OF_81: Refusal = Refusal {
        how: RefusalKind::Reset,
        port: Some(81),
    };

    /// The status `millis` after `start`.
    fn status(
        replies: &ReplyTracker,
        start: Instant,
        millis: u64,
        service: Service,
    ) -> ReplyStatus {
        let now = start + Duration::from_millis(millis);
        replies.facts(now).status(service)
    }

    #[test]
    fn two_unanswered_packets_a_second_apart_are_silence() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        let nothing = status(&replies, start, 0, Service::Any);
        assert_eq!(nothing, ReplyStatus::NothingSent);
        replies.note_sent(start);
        let awaited = ReplyStatus::Awaited {
            since: Duration::from_millis(500),
            packets: 1,
        };
        assert_eq!(status(&replies, start, 500, Service::Any), awaited);
        replies.note_sent(start + Duration::from_secs(1));
        let unanswered = ReplyStatus::Unanswered {
            since: Duration::from_secs(2),
            packets: 2,
            replied: None,
        };
        assert_eq!(status(&replies, start, 2000, Service::Any), unanswered);
    }

    #[test]
    fn the_last_acknowledgement_of_a_connection_expects_no_answer() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        replies.note_sent(start);
        replies.note_reply(start);
        replies.note_sent(start);
        let ago = Duration::from_secs(3600);
        let answered = ReplyStatus::Answered { ago };
        assert_eq!(status(&replies, start, 3_600_000, Service::Any), answered);
    }

    #[test]
    fn a_host_that_answered_long_ago_counts_as_silent() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        replies.note_reply(start);
        for seconds in [60, 61] {
            replies.note_sent(start + Duration::from_secs(seconds));
        }
        let unanswered = ReplyStatus::Unanswered {
            since: Duration::from_secs(2),
            packets: 2,
            replied: Some(Duration::from_secs(62)),
        };
        assert_eq!(status(&replies, start, 62_000, Service::Any), unanswered);
    }

    #[test]
    fn a_refusal_counts_until_the_host_or_its_port_answers() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        replies.note_sent(start);
        replies.note_refusal(RESET_OF_81, start);
        let refused = ReplyStatus::Refused {
            ago: Duration::from_secs(3),
            how: RefusalKind::Reset,
        };
        for service in [Service::Any, Service::Port(81), Service::Tcp(81)] {
            assert_eq!(
                status(&replies, start, 3000, service),
                refused,
                "{service:?}"
            );
        }
        let nothing = status(&replies, start, 3000, Service::Tcp(80));
        assert_eq!(nothing, ReplyStatus::NothingSent);

        replies.clear_refusal(Some(80));
        replies.note_reply(start + Duration::from_secs(2));
        let answered = ReplyStatus::Answered {
            ago: Duration::from_secs(1),
        };
        assert_eq!(status(&replies, start, 3000, Service::Any), answered);
        assert_eq!(status(&replies, start, 3000, Service::Port(81)), refused);
        replies.clear_refusal(Some(81));
        assert_eq!(status(&replies, start, 3000, Service::Port(81)), answered);
    }
}
