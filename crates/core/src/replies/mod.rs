//! What went out to an address and what came back, in so few words that it may be noted for each
//! packet.

mod refusal;

pub(crate) use refusal::source_port;
pub use refusal::{Refusal, Refused};

use crate::target::Asked;
use std::time::{Duration, Instant};

/// The correspondence with an address, or with the addresses of a name in one family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replies {
    /// When the last packet came back.
    replied_at: Option<Instant>,
    /// Since when nothing came back: the first and the last packet that went out, and how many.
    waiting: Option<(Instant, Instant, u32)>,
    refused: Option<(Instant, Refused)>,
}

/// [`Replies`] as they are at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepliesSeen {
    /// How long ago a packet came back.
    pub replied: Option<Duration>,
    /// How long ago the first of the packets went out that nothing came back for.
    pub waiting: Option<Duration>,
    /// How many of these there are.
    pub unanswered: u32,
    /// Between the first and the last of them.
    pub span: Duration,
    /// How long ago somebody refused, and how.
    pub refused: Option<(Duration, Refused)>,
}

impl Replies {
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
    pub fn note_refusal(&mut self, refused: Refused, now: Instant) {
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
    pub fn forgive(&mut self, port: Option<u16>) {
        let is_other =
            |refused: Option<u16>| port.is_some() && refused.is_some_and(|it| Some(it) != port);
        self.refused = self.refused.filter(|(_, refused)| is_other(refused.port));
    }

    /// As of now.
    #[must_use]
    pub fn seen(&self, now: Instant) -> RepliesSeen {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let (first, last, count) = self.waiting.unwrap_or((now, now, 0));
        RepliesSeen {
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
pub enum Correspondence {
    /// Nothing went out.
    Nothing,
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
        how: Refusal,
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

impl RepliesSeen {
    /// Nobody answers if three packets over 5 s were not answered, or two over 0.9 s that began
    /// something new: the signals by which names are looked up again. What follows the last answer
    /// of a connection, such as its last acknowledgement, is not waited for. A refusal counts until
    /// somebody answers, or until the port that was asked about does.
    #[must_use]
    pub fn correspondence(&self, asked: Asked) -> Correspondence {
        let is_silent = self.unanswered >= PACKETS && self.span >= PACKET_SPAN;
        let is_silent_to_new = self.unanswered >= SYNS && self.span >= SYN_SPAN;
        if let Some(since) = self.waiting
            && (is_silent || is_silent_to_new && self.is_begun_anew(since))
        {
            return Correspondence::Unanswered {
                since,
                packets: self.unanswered,
                replied: self.replied,
            };
        }
        let refused = self.refused.filter(|(ago, refused)| {
            let is_last = self.replied.is_none_or(|replied| *ago <= replied);
            match (refused.port, asked) {
                (Some(port), Asked::Port(asked) | Asked::Tcp(asked)) => port == asked,
                (Some(_), Asked::Udp(_) | Asked::Icmp) => false,
                (Some(_) | None, _) => is_last,
            }
        });
        match (refused, self.replied, self.waiting) {
            (Some((ago, refused)), ..) => Correspondence::Refused {
                ago,
                how: refused.how,
            },
            (None, Some(ago), _) => Correspondence::Answered { ago },
            (None, None, Some(since)) => Correspondence::Awaited {
                since,
                packets: self.unanswered,
            },
            (None, None, None) => Correspondence::Nothing,
        }
    }
}

impl RepliesSeen {
    /// Whether the packets that are not answered began some time after the last answer.
    fn is_begun_anew(&self, since: Duration) -> bool {
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

    const RESET_OF_81: Refused = Refused {
        how: Refusal::Reset,
        port: Some(81),
    };

    /// What a correspondence comes to, after so many milliseconds.
    fn comes_to(replies: &Replies, start: Instant, millis: u64, asked: Asked) -> Correspondence {
        let now = start + Duration::from_millis(millis);
        replies.seen(now).correspondence(asked)
    }

    #[test]
    fn two_packets_a_second_apart_that_nobody_ever_answered_are_silence() {
        let (mut replies, start) = (Replies::default(), beginning());
        let nothing = comes_to(&replies, start, 0, Asked::Any);
        assert_eq!(nothing, Correspondence::Nothing);
        replies.note_sent(start);
        let awaited = Correspondence::Awaited {
            since: Duration::from_millis(500),
            packets: 1,
        };
        assert_eq!(comes_to(&replies, start, 500, Asked::Any), awaited);
        replies.note_sent(start + Duration::from_secs(1));
        let unanswered = Correspondence::Unanswered {
            since: Duration::from_secs(2),
            packets: 2,
            replied: None,
        };
        assert_eq!(comes_to(&replies, start, 2000, Asked::Any), unanswered);
    }

    #[test]
    fn the_last_acknowledgement_of_a_connection_is_not_waited_for() {
        let (mut replies, start) = (Replies::default(), beginning());
        replies.note_sent(start);
        replies.note_reply(start);
        replies.note_sent(start);
        let ago = Duration::from_secs(3600);
        let answered = Correspondence::Answered { ago };
        assert_eq!(comes_to(&replies, start, 3_600_000, Asked::Any), answered);
    }

    #[test]
    fn a_host_that_answered_long_ago_is_as_silent_as_one_that_never_did() {
        let (mut replies, start) = (Replies::default(), beginning());
        replies.note_reply(start);
        for seconds in [60, 61] {
            replies.note_sent(start + Duration::from_secs(seconds));
        }
        let unanswered = Correspondence::Unanswered {
            since: Duration::from_secs(2),
            packets: 2,
            replied: Some(Duration::from_secs(62)),
        };
        assert_eq!(comes_to(&replies, start, 62_000, Asked::Any), unanswered);
    }

    #[test]
    fn a_refusal_counts_until_somebody_answers_and_for_its_port_until_that_does() {
        let (mut replies, start) = (Replies::default(), beginning());
        replies.note_sent(start);
        replies.note_refusal(RESET_OF_81, start);
        let refused = Correspondence::Refused {
            ago: Duration::from_secs(3),
            how: Refusal::Reset,
        };
        for asked in [Asked::Any, Asked::Port(81), Asked::Tcp(81)] {
            assert_eq!(comes_to(&replies, start, 3000, asked), refused, "{asked:?}");
        }
        let nothing = comes_to(&replies, start, 3000, Asked::Tcp(80));
        assert_eq!(nothing, Correspondence::Nothing);

        replies.forgive(Some(80));
        replies.note_reply(start + Duration::from_secs(2));
        let answered = Correspondence::Answered {
            ago: Duration::from_secs(1),
        };
        assert_eq!(comes_to(&replies, start, 3000, Asked::Any), answered);
        assert_eq!(comes_to(&replies, start, 3000, Asked::Port(81)), refused);
        replies.forgive(Some(81));
        assert_eq!(comes_to(&replies, start, 3000, Asked::Port(81)), answered);
    }
}
