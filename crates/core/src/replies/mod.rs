//! What went out to an address and what came back, in so few words that it may be noted for each
//! packet.

mod refusal;

pub(crate) use refusal::source_port;
pub use refusal::{Refusal, RefusalKind};

use crate::target::Service;
use std::time::{Duration, Instant};

/// The correspondence with an address, or with the addresses of a name in one family.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplyTracker {
    /// When the last packet came back.
    replied_at: Option<Instant>,
    /// Since when nothing came back: the first and the last packet that went out, and how many.
    waiting: Option<(Instant, Instant, u32)>,
    refused: Option<(Instant, Refusal)>,
}

/// [`ReplyTracker`] as they are at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFacts {
    /// How long ago a packet came back.
    pub replied: Option<Duration>,
    /// How long ago the first of the packets went out that nothing came back for.
    pub waiting: Option<Duration>,
    /// How many of these there are.
    pub unanswered: u32,
    /// Between the first and the last of them.
    pub span: Duration,
    /// How long ago somebody refused, and how.
    pub refused: Option<(Duration, Refusal)>,
}

impl ReplyTracker {
    /// A packet went out.
    #[inline]
    pub fn note_sent(&mut self, now: Instant) {
        let (first, _, count) = self.waiting.unwrap_or((now, now, 0));
        self.waiting = Some((first, now, count.saturating_add(1)));
    }

    /// A packet came back.
    #[inline]
    pub fn note_reply(&mut self, now: Instant) {
        self.replied_at = Some(now);
        self.waiting = None;
    }

    /// Somebody refused: an answer, but not the one that was hoped for.
    pub fn note_refusal(&mut self, refused: Refusal, now: Instant) {
        self.refused = Some((now, refused));
        self.waiting = None;
    }

    /// Whether somebody refused and was not forgiven.
    #[inline]
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// This port answers, whatever it did before; without a port, all do.
    pub fn clear_refusal(&mut self, port: Option<u16>) {
        let is_other =
            |refused: Option<u16>| port.is_some() && refused.is_some_and(|it| Some(it) != port);
        self.refused = self.refused.filter(|(_, refused)| is_other(refused.port));
    }

    /// As of now.
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

/// What the correspondence comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStatus {
    /// Nothing went out.
    NothingSent,
    /// Somebody answered.
    Answered {
        /// How long ago.
        ago: Duration,
    },
    /// Somebody refused, and nobody answered after that.
    Refused {
        /// How long ago.
        ago: Duration,
        /// In which way.
        how: RefusalKind,
    },
    /// It is too early to tell.
    Awaited {
        /// Since when.
        since: Duration,
        /// How many packets went out.
        packets: u32,
    },
    /// Nobody answers.
    Unanswered {
        /// Since when.
        since: Duration,
        /// How many packets went out.
        packets: u32,
        /// How long ago somebody answered before that.
        replied: Option<Duration>,
    },
}

impl ReplyFacts {
    /// Nobody answers if three packets over 5 s were not answered, or two over 0.9 s that began
    /// something new: the signals by which names are looked up again. What follows the last answer
    /// of a connection, such as its last acknowledgement, is not waited for. A refusal counts until
    /// somebody answers, or until the port that was asked about does.
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
    /// Whether the packets that are not answered began some time after the last answer.
    fn began_after_idle(&self, since: Duration) -> bool {
        self.replied
            .is_none_or(|replied| replied >= since + PACKET_SPAN)
    }
}

/// As in the rules by which names heal.
const SYNS: u32 = 2;
const SYN_SPAN: Duration = Duration::from_millis(900);
const PACKETS: u32 = 3;
const PACKET_SPAN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;

    const RESET_OF_81: Refusal = Refusal {
        how: RefusalKind::Reset,
        port: Some(81),
    };

    /// What a correspondence comes to, after so many milliseconds.
    fn status_after(
        replies: &ReplyTracker,
        start: Instant,
        millis: u64,
        service: Service,
    ) -> ReplyStatus {
        let now = start + Duration::from_millis(millis);
        replies.facts(now).status(service)
    }

    #[test]
    fn two_packets_a_second_apart_that_nobody_ever_answered_are_silence() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        let nothing = status_after(&replies, start, 0, Service::Any);
        assert_eq!(nothing, ReplyStatus::NothingSent);
        replies.note_sent(start);
        let awaited = ReplyStatus::Awaited {
            since: Duration::from_millis(500),
            packets: 1,
        };
        assert_eq!(status_after(&replies, start, 500, Service::Any), awaited);
        replies.note_sent(start + Duration::from_secs(1));
        let unanswered = ReplyStatus::Unanswered {
            since: Duration::from_secs(2),
            packets: 2,
            replied: None,
        };
        assert_eq!(
            status_after(&replies, start, 2000, Service::Any),
            unanswered
        );
    }

    #[test]
    fn the_last_acknowledgement_of_a_connection_is_not_waited_for() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        replies.note_sent(start);
        replies.note_reply(start);
        replies.note_sent(start);
        let ago = Duration::from_secs(3600);
        let answered = ReplyStatus::Answered { ago };
        assert_eq!(
            status_after(&replies, start, 3_600_000, Service::Any),
            answered
        );
    }

    #[test]
    fn a_host_that_answered_long_ago_is_as_silent_as_one_that_never_did() {
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
        assert_eq!(
            status_after(&replies, start, 62_000, Service::Any),
            unanswered
        );
    }

    #[test]
    fn a_refusal_counts_until_somebody_answers_and_for_its_port_until_that_does() {
        let (mut replies, start) = (ReplyTracker::default(), beginning());
        replies.note_sent(start);
        replies.note_refusal(RESET_OF_81, start);
        let refused = ReplyStatus::Refused {
            ago: Duration::from_secs(3),
            how: RefusalKind::Reset,
        };
        for service in [Service::Any, Service::Port(81), Service::Tcp(81)] {
            assert_eq!(
                status_after(&replies, start, 3000, service),
                refused,
                "{service:?}"
            );
        }
        let nothing = status_after(&replies, start, 3000, Service::Tcp(80));
        assert_eq!(nothing, ReplyStatus::NothingSent);

        replies.clear_refusal(Some(80));
        replies.note_reply(start + Duration::from_secs(2));
        let answered = ReplyStatus::Answered {
            ago: Duration::from_secs(1),
        };
        assert_eq!(status_after(&replies, start, 3000, Service::Any), answered);
        assert_eq!(
            status_after(&replies, start, 3000, Service::Port(81)),
            refused
        );
        replies.clear_refusal(Some(81));
        assert_eq!(
            status_after(&replies, start, 3000, Service::Port(81)),
            answered
        );
    }
}
