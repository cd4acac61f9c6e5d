//! Finds children that no longer answer: hung, not dead.
//!
//! Each child is pinged once per interval, less often if there are many: a large number of children
//! is pinged in groups, ten per second, which limits the number of wake-ups.
//!
//! A child has to answer within its timeout. It is checked after half of it and at its end. A late
//! check indicates a delay of the supervisor rather than of the child (its thread was busy, or the
//! machine was suspended), so it restarts the whole timeout of every child that owes an answer. A
//! child is only reported as hung for time in which its answer could have been delivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How often a child is pinged, and how long it may take to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPace {
    /// Time from one ping to the next.
    pub interval: Duration,
    /// Maximum time from a ping to its answer.
    pub timeout: Duration,
}

/// Actions for the owner of a [`Watchdog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogEvent<C> {
    /// Ping this child; its answer goes to [`Watchdog::handle_pong`].
    Ping(C),
    /// The child did not answer and is no longer watched: replace it.
    Hung(C),
}

/// See the module's documentation. Holds one entry per watched child; every call takes logarithmic
/// time for each child that it concerns.
#[derive(Debug)]
pub struct Watchdog<C> {
    children: BTreeMap<C, Watched>,
    /// Each child once, with the time of its next step.
    due: BTreeSet<(Instant, C)>,
    /// At most two events per child.
    events: VecDeque<WatchdogEvent<C>>,
    /// Number of children ever watched: spreads their first pings over the interval.
    watched: u32,
    /// When the supervisor was last late.
    stalled_at: Option<Instant>,
    /// The first and the latest `now` of all calls.
    started: Option<Instant>,
    clock: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    pace: WatchPace,
    due: Instant,
    /// The unanswered ping, if there is one.
    pending: Option<PendingPing>,
}

#[derive(Clone, Copy, Debug)]
struct PendingPing {
    since: Instant,
    is_checked: bool,
}

impl<C: Ord + Copy> Default for Watchdog<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Ord + Copy> Watchdog<C> {
    /// A watchdog without children.
    #[must_use]
    pub fn new() -> Self {
        Self {
            children: BTreeMap::new(),
            due: BTreeSet::new(),
            events: VecDeque::new(),
            watched: 0,
            stalled_at: None,
            started: None,
            clock: None,
        }
    }

    /// Watches `child`, which owes no answer yet, even if it was watched before. Its first ping
    /// follows within one interval; children added together are pinged one after another.
    pub fn watch(&mut self, child: C, pace: WatchPace, now: Instant) {
        let now = self.advance(now);
        self.forget(child);
        // Multiples of the golden ratio are evenly distributed for any count (Knuth, The Art of
        // Computer Programming, volume 3, 6.4); the first one is zero.
        let fraction = f64::from(self.watched.wrapping_mul(GOLDEN_RATIO)) / 2_f64.powi(32);
        self.watched = self.watched.wrapping_add(1);
        let watched = Watched {
            pace,
            due: now + pace.interval.mul_f64(1.0 - fraction),
            pending: None,
        };
        self.schedule(child, watched);
    }

    /// Stops watching a child that has ended or is about to be replaced.
    pub fn forget(&mut self, child: C) {
        if self.remove(child) {
            let is_other = |event: &WatchdogEvent<C>| match event {
                WatchdogEvent::Ping(other) | WatchdogEvent::Hung(other) => *other != child,
            };
            self.events.retain(is_other);
        }
    }

    /// The child answered. Further answers without a ping are ignored.
    pub fn handle_pong(&mut self, child: C, now: Instant) {
        let now = self.advance(now);
        let Some(mut watched) = self.children.get(&child).copied() else {
            return;
        };
        let Some(pending) = watched.pending.take() else {
            return;
        };
        let spacing =
            MEAN_PING_GAP.saturating_mul(u32::try_from(self.children.len()).unwrap_or(u32::MAX));
        let due = match spacing > watched.pace.interval {
            true => self.align_to_group(pending.since + spacing),
            false => pending.since + watched.pace.interval,
        };
        watched.due = due.max(now + MIN_STEP);
        self.schedule(child, watched);
    }

    /// Pings the children that are due and finds those that did not answer.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        while let Some((due, child)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            let Some(watched) = self.children.get(&child).copied() else {
                self.due.remove(&(due, child));
                continue;
            };
            if now.duration_since(due) > watched.pace.tolerance() {
                self.stalled_at = Some(now);
            }
            self.step(child, watched, now);
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next action for the owner.
    pub fn poll_event(&mut self) -> Option<WatchdogEvent<C>> {
        self.events.pop_front()
    }

    fn step(&mut self, child: C, mut watched: Watched, now: Instant) {
        let half = watched.pace.timeout / 2;
        let pending = match watched.pending {
            None => {
                self.events.push_back(WatchdogEvent::Ping(child));
                PendingPing::at(now)
            }
            Some(pending) => match self.stalled_at.filter(|at| *at > pending.since) {
                Some(stalled_at) => PendingPing::at(stalled_at),
                None if pending.is_checked => {
                    self.remove(child);
                    self.events.push_back(WatchdogEvent::Hung(child));
                    return;
                }
                None => PendingPing {
                    is_checked: true,
                    ..pending
                },
            },
        };
        let wait = match pending.is_checked {
            true => watched.pace.timeout,
            false => half,
        };
        watched.pending = Some(pending);
        watched.due = (pending.since + wait).max(now + MIN_STEP);
        self.schedule(child, watched);
    }

    /// The first time at or after `due` at which a group is pinged.
    fn align_to_group(&self, due: Instant) -> Instant {
        let started = self.started.unwrap_or(due);
        let since = due.saturating_duration_since(started).as_nanos();
        let groups = since.div_ceil(GROUP_INTERVAL.as_nanos());
        // A u32 counts the groups of thirteen years.
        started + GROUP_INTERVAL.saturating_mul(u32::try_from(groups).unwrap_or(u32::MAX))
    }

    fn remove(&mut self, child: C) -> bool {
        let Some(watched) = self.children.remove(&child) else {
            return false;
        };
        self.due.remove(&(watched.due, child))
    }

    fn schedule(&mut self, child: C, watched: Watched) {
        if let Some(former) = self.children.insert(child, watched) {
            self.due.remove(&(former.due, child));
        }
        self.due.insert((watched.due, child));
    }

    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(now);
        self.started.get_or_insert(now);
        now
    }
}

impl PendingPing {
    fn at(since: Instant) -> Self {
        Self {
            since,
            is_checked: false,
        }
    }
}

impl WatchPace {
    /// How late a step may be. Less than half the timeout, so that no call makes both checks.
    fn tolerance(&self) -> Duration {
        self.timeout / 4
    }
}

/// 2^32 divided by the golden ratio.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;
/// Mean time between two pings, over all children.
const MEAN_PING_GAP: Duration = Duration::from_millis(5);
/// Time between two groups of pings.
const GROUP_INTERVAL: Duration = Duration::from_millis(100);
/// Prevents a second step of one child in the same call, however short its times are.
const MIN_STEP: Duration = Duration::from_millis(1);
