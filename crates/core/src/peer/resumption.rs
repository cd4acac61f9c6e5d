//! How a peer that was rebuilt gets its session back: who calls, how often, on which paths, and
//! what waits meanwhile.
//!
//! The keys of the sessions died with the former peer, and the client does not know it: it would
//! find out after 15 s of silence (WireGuard white paper, section 6.5). So the gateway calls first.
//! The white paper repeats an initiation after 5 s (section 6.4); a client that waits for its
//! answer deserves more haste, so the first repetitions come after 250 ms, 500 ms, 1 s, 2 s and
//! 4 s. The engine's own timer goes on from there, and gives up after 90 s.

use crate::packet::{PacketBatch, Path};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The calls to one client, until it answers.
pub(crate) struct Resumption {
    started: Instant,
    recorded: Path,
    /// Where the client's ICE agent was heard: it may have roamed while nobody listened. Each once,
    /// so that a captured check, sent again from anywhere, costs one initiation for each address.
    heard: Vec<Path>,
    /// The last initiation, and when it was made.
    last: Option<(Instant, Vec<u8>)>,
    /// When to make the next one; `None` once it is up to the engine.
    next: Option<Instant>,
    pause: Duration,
    /// Packets for the client with the time until which they may wait, oldest first.
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
}

impl Resumption {
    /// The first call is due at once.
    pub(crate) fn new(recorded: Path, now: Instant) -> Self {
        Self {
            started: now,
            recorded,
            heard: Vec::new(),
            last: None,
            next: Some(now),
            pause: FIRST_PAUSE,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Whether the next call is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// Whether even the engine has given up.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.started + GIVE_UP_AFTER
    }

    /// An initiation was made. Returns where to send it: to the recorded path and to the one that
    /// was heard last. The client answers the one that reaches it first; the other is a replay.
    pub(crate) fn note_initiation(
        &mut self,
        initiation: &[u8],
        now: Instant,
    ) -> impl Iterator<Item = Path> {
        self.last = Some((now, initiation.to_vec()));
        let next = now + self.pause;
        self.next = (next < self.started + FAST_FOR).then_some(next);
        self.pause *= 2;
        [Some(self.recorded), self.heard.last().copied()]
            .into_iter()
            .flatten()
    }

    /// The client's ICE agent was heard on `path`. Returns what to do about it.
    pub(crate) fn handle_heard(&mut self, path: Path, now: Instant) -> Call {
        let is_known = path == self.recorded || self.heard.contains(&path);
        if is_known || self.heard.len() >= MAX_HEARD {
            return Call::Nothing;
        }
        self.heard.push(path);
        match &self.last {
            // Another one would be one too many: of those under way, the engine remembers two.
            Some((at, initiation)) if now.saturating_duration_since(*at) < FIRST_PAUSE => {
                Call::Repeat(initiation.clone())
            }
            Some(_) | None => Call::Anew,
        }
    }

    /// Keeps a packet for the client. Returns whether there was room, and hope.
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

    /// Drops what waited too long; returns how many.
    pub(crate) fn drop_overdue(&mut self, now: Instant) -> usize {
        let is_overdue = |(until, _): &&(Instant, Vec<u8>)| *until <= now;
        let overdue = self.held.iter().take_while(is_overdue).count();
        for (_, packet) in self.held.drain(..overdue) {
            self.held_bytes -= packet.len();
        }
        overdue
    }

    /// How many packets wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// The packets that wait, in the order in which they came. Ends the resumption.
    pub(crate) fn into_held(self) -> PacketBatch {
        let mut batch = PacketBatch::with_capacity(self.held_bytes);
        for (_, packet) in &self.held {
            batch.push(packet);
        }
        batch
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        let held = self.held.front().map(|(until, _)| *until);
        let timers = [self.next, held].into_iter().flatten();
        timers.fold(self.started + GIVE_UP_AFTER, Instant::min)
    }
}

/// Shows a client that has answered our initiation that the session stands: it seals with the old
/// keys until it hears from us with the new ones, and those are not known here any more.
///
/// The message may get lost, so it is repeated until the client is heard: some times by itself, and
/// after that whenever the client sends what cannot be opened.
pub(crate) struct Proof {
    begun: Instant,
    /// When it was sent last.
    last: Instant,
    repeated: usize,
}

impl Proof {
    /// It was just sent for the first time.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            last: now,
            repeated: 0,
        }
    }

    /// Whether to send it again because it is time to.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|at| at <= now);
        if is_due {
            let since = now.saturating_duration_since(self.begun);
            self.repeated = PROOFS.partition_point(|after| *after <= since);
            self.last = now;
        }
        is_due
    }

    /// Whether to send it again because the client seems not to know of it.
    pub(crate) fn take_wanted(&mut self, now: Instant) -> bool {
        let is_wanted = now.saturating_duration_since(self.last) >= PROOF_PAUSE;
        if is_wanted {
            self.last = now;
        }
        is_wanted
    }

    /// When it is time to send it again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        PROOFS.get(self.repeated).map(|after| self.begun + *after)
    }
}

/// What to send to a client that was heard.
pub(crate) enum Call {
    /// It is being called there already.
    Nothing,
    /// This initiation, once more.
    Repeat(Vec<u8>),
    /// A new initiation.
    Anew,
}

/// When a proof is repeated, counted from the first.
const PROOFS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];
/// A client's packets on their way must not cost a message each.
const PROOF_PAUSE: Duration = Duration::from_millis(100);
/// Longer than most round trips.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// After that, the engine's own pace of 5 s is good enough.
const FAST_FOR: Duration = Duration::from_secs(10);
/// WireGuard white paper, section 6.1: REKEY-ATTEMPT-TIME.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// A client has a few addresses of each family.
const MAX_HEARD: usize = 8;
/// Some round trips' worth of acknowledgements, or one initial window.
const MAX_HELD_PACKETS: usize = 32;
const MAX_HELD_BYTES: usize = 64 << 10;
/// What comes later than that has been sent again already (RFC 6298, section 2.1).
const HOLD_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;

    fn path(port: u16) -> Path {
        Path {
            local: ([192, 0, 2, 10], 52625).into(),
            remote: ([198, 51, 100, 5], port).into(),
        }
    }

    #[test]
    fn it_calls_at_once_then_less_and_less_often_and_leaves_the_rest_to_the_engine() {
        let start = beginning();
        let mut resumption = Resumption::new(path(1), start);
        let mut calls = Vec::new();
        while let Some(at) = resumption.next {
            assert!(resumption.is_due(at));
            let _ = resumption.note_initiation(b"", at);
            calls.push((at - start).as_millis());
        }
        assert_eq!(calls, [0, 250, 750, 1750, 3750, 7750]);
        assert!(!resumption.is_over(start + Duration::from_secs(89)));
        assert!(resumption.is_over(resumption.deadline()));
    }

    #[test]
    fn a_path_that_is_heard_is_called_once_and_not_without_end() {
        let start = beginning();
        let mut resumption = Resumption::new(path(1), start);
        let _ = resumption.note_initiation(b"first", start);
        let heard = |resumption: &mut Resumption, port, after: u64| {
            resumption.handle_heard(path(port), start + Duration::from_millis(after))
        };
        assert!(matches!(heard(&mut resumption, 1, 0), Call::Nothing));
        assert!(matches!(heard(&mut resumption, 2, 9), Call::Repeat(it) if it == b"first"));
        assert!(matches!(heard(&mut resumption, 2, 9), Call::Nothing));
        assert!(matches!(heard(&mut resumption, 3, 250), Call::Anew));
        let paths: Vec<_> = resumption.note_initiation(b"second", start).collect();
        assert_eq!(paths, [path(1), path(3)]);
        let calls = (10..200).map(|port| heard(&mut resumption, port, 999));
        let calls = calls.filter(|call| !matches!(call, Call::Nothing)).count();
        assert_eq!(calls, MAX_HEARD - 2);
    }

    #[test]
    fn few_packets_wait_and_not_for_long() {
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
