//! Restores the session of a rebuilt peer: when and on which paths the gateway initiates
//! handshakes, and which packets wait meanwhile.
//!
//! The session keys were lost with the former peer, and the client does not know it: it would
//! detect it after 15 s of silence (WireGuard paper, 6.5). So the gateway initiates. The paper
//! repeats an initiation after 5 s (6.4); because the client has traffic waiting, the first
//! repetitions follow after 250 ms, 500 ms, 1 s, 2 s and 4 s. The engine's own timer continues from
//! there, and ends after 90 s.

use crate::packet::{PacketBatch, Path};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The initiations to one client, until it answers.
pub(crate) struct Resumption {
    started: Instant,
    recorded: Path,
    /// Paths on which the client's ICE agent was heard: it may have roamed during the restart. Each
    /// is listed once, so that a captured check, replayed from anywhere, costs one initiation per
    /// address.
    heard: Vec<Path>,
    /// The last initiation, with the time of its creation.
    last: Option<(Instant, Vec<u8>)>,
    /// When to create the next one; `None` once the engine's timer takes over.
    next: Option<Instant>,
    pause: Duration,
    /// Packets for the client, each with the time until which it may wait, oldest first.
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
}

impl Resumption {
    /// The first initiation is due immediately.
    pub(crate) fn new(recorded: Path, now: Instant) -> Self {
        Self {
            started: now,
            recorded,
            heard: Vec::new(),
            last: None,
            next: Some(now),
            pause: FIRST_RETRY_AFTER,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Whether the next initiation is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// Whether the engine's own attempts have ended too.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.started + REKEY_ATTEMPT_TIME
    }

    /// Records a new initiation. Returns where to send it: to the recorded path and to the one
    /// heard last. The client answers the copy that arrives first; the other is a replay.
    pub(crate) fn note_initiation(
        &mut self,
        initiation: &[u8],
        now: Instant,
    ) -> impl Iterator<Item = Path> {
        self.last = Some((now, initiation.to_vec()));
        let next = now + self.pause;
        self.next = (next < self.started + FAST_RETRIES_FOR).then_some(next);
        self.pause *= 2;
        [Some(self.recorded), self.heard.last().copied()]
            .into_iter()
            .flatten()
    }

    /// The client's ICE agent was heard on `path`. Returns what to send there.
    pub(crate) fn handle_heard(&mut self, path: Path, now: Instant) -> HeardAction {
        let is_known = path == self.recorded || self.heard.contains(&path);
        if is_known || self.heard.len() >= MAX_HEARD {
            return HeardAction::None;
        }
        self.heard.push(path);
        match &self.last {
            // A further initiation would be too many: the engine remembers two pending ones.
            Some((at, initiation)) if now.saturating_duration_since(*at) < FIRST_RETRY_AFTER => {
                HeardAction::Resend(initiation.clone())
            }
            Some(_) | None => HeardAction::Initiate,
        }
    }

    /// Holds a packet for the client. Returns false if the buffer is full or the fast attempts have
    /// ended.
    pub(crate) fn hold(&mut self, packet: &[u8], now: Instant) -> bool {
        let has_room = self.held.len() < MAX_HELD_PACKETS
            && self.held_bytes + packet.len() <= MAX_HELD_BYTES
            && self.next.is_some();
        if has_room {
            self.held_bytes += packet.len();
            self.held.push_back((now + HOLD_FOR, packet.to_vec()));
        }
        has_room
    }

    /// Drops packets that have waited too long; returns their number.
    pub(crate) fn drop_overdue(&mut self, now: Instant) -> usize {
        let is_overdue = |(until, _): &&(Instant, Vec<u8>)| *until <= now;
        let overdue = self.held.iter().take_while(is_overdue).count();
        for (_, packet) in self.held.drain(..overdue) {
            self.held_bytes -= packet.len();
        }
        overdue
    }

    /// The number of packets that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// The waiting packets in order of arrival. Ends the resumption.
    pub(crate) fn into_held(self) -> PacketBatch {
        let mut batch = PacketBatch::with_capacity(self.held_bytes);
        for (_, packet) in &self.held {
            batch.push(packet);
        }
        batch
    }

    /// When the next action is due.
    pub(crate) fn deadline(&self) -> Instant {
        let held = self.held.front().map(|(until, _)| *until);
        let timers = [self.next, held].into_iter().flatten();
        timers.fold(self.started + REKEY_ATTEMPT_TIME, Instant::min)
    }
}

/// Confirms the new session to a client that has answered our initiation: the client seals with the
/// old keys, which are lost, until it receives a message sealed with the new ones.
///
/// The message can get lost, so it is repeated until the client uses the session: a few times by
/// timer, later on each undecryptable message of the client.
pub(crate) struct KeyConfirmation {
    begun: Instant,
    /// When it was last sent.
    last: Instant,
    repeated: usize,
}

impl KeyConfirmation {
    /// Starts when the first confirmation has been sent.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            last: now,
            repeated: 0,
        }
    }

    /// Whether to send it again because the timer has expired.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|at| at <= now);
        if is_due {
            let since = now.saturating_duration_since(self.begun);
            self.repeated = CONFIRMATION_DELAYS.partition_point(|after| *after <= since);
            self.last = now;
        }
        is_due
    }

    /// Whether to send it again because the client still uses the old keys.
    pub(crate) fn take_requested(&mut self, now: Instant) -> bool {
        let is_requested = now.saturating_duration_since(self.last) >= CONFIRMATION_PAUSE;
        if is_requested {
            self.last = now;
        }
        is_requested
    }

    /// When the timer expires next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        CONFIRMATION_DELAYS
            .get(self.repeated)
            .map(|after| self.begun + *after)
    }
}

/// The initiation to send to a client that was heard.
pub(crate) enum HeardAction {
    /// None: one was already sent there.
    None,
    /// The last initiation, again.
    Resend(Vec<u8>),
    /// A new initiation, to all paths.
    Initiate,
}

/// When a confirmation is repeated, after the first one.
const CONFIRMATION_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];
/// Minimum interval, so that not every stale packet of the client costs a message.
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(100);
/// Longer than most round trips.
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(250);
/// After that, the engine's own interval of 5 s suffices.
const FAST_RETRIES_FOR: Duration = Duration::from_secs(10);
/// REKEY-ATTEMPT-TIME (WireGuard paper, 6.1).
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// A client has only a few addresses per family.
const MAX_HEARD: usize = 8;
/// The acknowledgements of a few round trips, or one initial window.
const MAX_HELD_PACKETS: usize = 32;
const MAX_HELD_BYTES: usize = 64 << 10;
/// Later packets have already been retransmitted (RFC 6298, 2.1).
const HOLD_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;

    fn path(port: u16) -> Path {
        Path::direct(
            ([192, 0, 2, 10], 52625).into(),
            ([198, 51, 100, 5], port).into(),
        )
    }

    #[test]
    fn it_initiates_at_once_then_backs_off_and_leaves_the_rest_to_the_engine() {
        let start = beginning();
        let mut resumption = Resumption::new(path(1), start);
        let mut initiations = Vec::new();
        while let Some(at) = resumption.next {
            assert!(resumption.is_due(at));
            let _ = resumption.note_initiation(b"", at);
            initiations.push((at - start).as_millis());
        }
        assert_eq!(initiations, [0, 250, 750, 1750, 3750, 7750]);
        assert!(!resumption.is_over(start + Duration::from_secs(89)));
        assert!(resumption.is_over(resumption.deadline()));
    }

    #[test]
    fn each_heard_path_is_tried_once_and_their_number_is_bounded() {
        let start = beginning();
        let mut resumption = Resumption::new(path(1), start);
        let _ = resumption.note_initiation(b"first", start);
        let heard = |resumption: &mut Resumption, port, after: u64| {
            resumption.handle_heard(path(port), start + Duration::from_millis(after))
        };
        assert!(matches!(heard(&mut resumption, 1, 0), HeardAction::None));
        assert!(matches!(heard(&mut resumption, 2, 9), HeardAction::Resend(it) if it == b"first"));
        assert!(matches!(heard(&mut resumption, 2, 9), HeardAction::None));
        assert!(matches!(
            heard(&mut resumption, 3, 250),
            HeardAction::Initiate
        ));
        let paths: Vec<_> = resumption.note_initiation(b"second", start).collect();
        assert_eq!(paths, [path(1), path(3)]);
        let initiations = (10..200).map(|port| heard(&mut resumption, port, 999));
        let initiations = initiations
            .filter(|action| !matches!(action, HeardAction::None))
            .count();
        assert_eq!(initiations, MAX_HEARD - 2);
    }

    #[test]
    fn held_packets_are_bounded_in_number_and_time() {
        let start = beginning();
        let mut resumption = Resumption::new(path(1), start);
        let later = start + Duration::from_millis(100);
        assert!(resumption.hold(&[1; 100], start));
        let held = (0..100).filter(|_| resumption.hold(&[2; 1400], later));
        assert_eq!(held.count(), MAX_HELD_PACKETS - 1);
        assert_eq!(resumption.drop_overdue(start + HOLD_FOR), 1);
        assert!(!resumption.hold(&vec![3; MAX_HELD_BYTES], later));
        assert!(resumption.hold(&[3; 40], later));
        let waiting = resumption.into_held();
        assert_eq!(waiting.len(), MAX_HELD_PACKETS);
        assert_eq!(waiting.iter().last(), Some(&[3; 40][..]));
    }
}
