//! Which children no longer answer: stuck, not dead.
//!
//! A child is asked once in its interval, or more rarely where there are many: a crowd is asked in
//! groups, ten a second, so that it wakes nobody more often.
//!
//! Each child is asked in turn and has to answer within its patience. Half of it is one check, all
//! of it the second; a check that comes late says more about the supervisor than about the child
//! (its thread was busy, or the machine slept), so that from there on every child that owes an
//! answer has its whole patience again. A child is only called hung for time in which its answer
//! could have been delivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How often a child is asked, and how long it may take to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchPace {
    /// From one question to the next.
    pub interval: Duration,
    /// From a question to its answer.
    pub patience: Duration,
}

/// What the owner must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogEvent<C> {
    /// Ask this child for a sign of life, to be handed to [`Watchdog::handle_pong`].
    Ping(C),
    /// It did not answer and is watched no longer: replace it.
    Hung(C),
}

/// See the module's documentation. Holds one entry for each watched child; every call takes time
/// logarithmic in their number for each child that it concerns.
#[derive(Debug)]
pub struct Watchdog<C> {
    children: BTreeMap<C, Watched>,
    /// Each child once, at the time of its next step.
    due: BTreeSet<(Instant, C)>,
    /// At most two for each child.
    events: VecDeque<WatchdogEvent<C>>,
    /// How many children were ever watched: spreads their first questions over the interval.
    watched: u32,
    /// When the supervisor was last seen to be late.
    stalled_at: Option<Instant>,
    /// The first and the latest `now` that were seen.
    began: Option<Instant>,
    clock: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    pace: WatchPace,
    due: Instant,
    /// Since when it owes an answer.
    asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Instant,
    is_checked: bool,
}

impl<C: Ord + Copy> Default for Watchdog<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Ord + Copy> Watchdog<C> {
    /// Watches nobody.
    #[must_use]
    pub fn new() -> Self {
        Self {
            children: BTreeMap::new(),
            due: BTreeSet::new(),
            events: VecDeque::new(),
            watched: 0,
            stalled_at: None,
            began: None,
            clock: None,
        }
    }

    /// Watches `child`, which owes nothing yet, even if it was watched before. It is asked first
    /// within one interval; children that come together are asked one after another.
    pub fn watch(&mut self, child: C, pace: WatchPace, now: Instant) {
        let now = self.advance(now);
        self.forget(child);
        // Multiples of the golden ratio fall evenly however many there are (Knuth, volume 3,
        // section 6.4); the first one is zero.
        let fraction = f64::from(self.watched.wrapping_mul(GOLDEN_RATIO)) / 2_f64.powi(32);
        self.watched = self.watched.wrapping_add(1);
        let watched = Watched {
            pace,
            due: now + pace.interval.mul_f64(1.0 - fraction),
            asked: None,
        };
        self.schedule(child, watched);
    }

    /// The child is gone, or about to be replaced.
    pub fn forget(&mut self, child: C) {
        if self.remove(child) {
            let is_other = |event: &WatchdogEvent<C>| match event {
                WatchdogEvent::Ping(other) | WatchdogEvent::Hung(other) => *other != child,
            };
            self.events.retain(is_other);
        }
    }

    /// The child answered. One that owes no answer may say so as often as it likes.
    pub fn handle_pong(&mut self, child: C, now: Instant) {
        let now = self.advance(now);
        let Some(mut watched) = self.children.get(&child).copied() else {
            return;
        };
        let Some(asked) = watched.asked.take() else {
            return;
        };
        let share = SHARE.saturating_mul(u32::try_from(self.children.len()).unwrap_or(u32::MAX));
        let due = match share > watched.pace.interval {
            true => self.with_its_group(asked.since + share),
            false => asked.since + watched.pace.interval,
        };
        watched.due = due.max(now + SHORTEST_STEP);
        self.schedule(child, watched);
    }

    /// Asks the children whose turn it is and finds those that did not answer.
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

    /// The next event.
    pub fn poll_event(&mut self) -> Option<WatchdogEvent<C>> {
        self.events.pop_front()
    }

    fn step(&mut self, child: C, mut watched: Watched, now: Instant) {
        let half = watched.pace.patience / 2;
        let asked = match watched.asked {
            None => {
                self.events.push_back(WatchdogEvent::Ping(child));
                Asked::at(now)
            }
            Some(asked) => match self.stalled_at.filter(|at| *at > asked.since) {
                Some(stalled_at) => Asked::at(stalled_at),
                None if asked.is_checked => {
                    self.remove(child);
                    self.events.push_back(WatchdogEvent::Hung(child));
                    return;
                }
                None => Asked {
                    is_checked: true,
                    ..asked
                },
            },
        };
        let wait = match asked.is_checked {
            true => watched.pace.patience,
            false => half,
        };
        watched.asked = Some(asked);
        watched.due = (asked.since + wait).max(now + SHORTEST_STEP);
        self.schedule(child, watched);
    }

    /// The next time from `due` on at which a group is asked.
    fn with_its_group(&self, due: Instant) -> Instant {
        let began = self.began.unwrap_or(due);
        let since = due.saturating_duration_since(began).as_nanos();
        let groups = since.div_ceil(GROUP_EVERY.as_nanos());
        // As many as u32 holds come within thirteen years.
        began + GROUP_EVERY.saturating_mul(u32::try_from(groups).unwrap_or(u32::MAX))
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
        self.began.get_or_insert(now);
        now
    }
}

impl Asked {
    fn at(since: Instant) -> Self {
        Self {
            since,
            is_checked: false,
        }
    }
}

impl WatchPace {
    /// How late a step may come. Less than half the patience, so that no call makes both checks.
    fn tolerance(&self) -> Duration {
        self.patience / 4
    }
}

/// 2^32 divided by the golden ratio.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;
/// From one question to the next, whomever it is put to, on the average.
const SHARE: Duration = Duration::from_millis(5);
/// From one group of a crowd to the next.
const GROUP_EVERY: Duration = Duration::from_millis(100);
/// No child is looked at twice in one call, however short its times are.
const SHORTEST_STEP: Duration = Duration::from_millis(1);
