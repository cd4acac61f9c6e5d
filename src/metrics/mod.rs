//! What the gateway counts: relaxed atomics, one set for each shard and one for what there is once.
//!
//! Actors add to it, once for a batch and never for a packet. Nobody is asked when the numbers are
//! read, so that they can be read while an actor hangs. Labels are known beforehand: nothing that a
//! client or the portal says becomes one. docs/metrics.md says what each number means.

mod control;
mod counters;
mod exposition;
mod histogram;
pub mod lag;
mod mailboxes;
pub mod process;
mod shard;

use crate::config::ReloadOutcome;
use crate::messages::supervisor::Child;
use crate::shell;
use control::{AllLives, Reload};
pub use control::{DnsMetrics, Joined, PortalMetrics};
pub use counters::{Counter, Gauge, Headcount, LongestTime, Presence, TimeCounter, Volume};
pub use exposition::CONTENT_TYPE;
pub use histogram::Histogram;
use lag::{EventLoop, Lag};
pub use mailboxes::{Mailboxes, Receiver};
use postern_core::DropReason;
use process::Process;
pub use shard::{HandedOver, Portions, ShardMetrics};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardMetrics>>,
    /// What the resolver counts.
    pub dns: DnsMetrics,
    /// What the PortalActor counts.
    pub portal: PortalMetrics,
    /// Clients that the supervisor knows, with a session or without.
    pub clients: Gauge,
    /// Requests of the portal that the supervisor refused.
    pub turned_away: Counter,
    lives: AllLives,
    main_lag: Lag,
    control_lag: Lag,
    admin_lag: Lag,
    shard_lags: Vec<Lag>,
    saves: Counter,
    failed_saves: Counter,
    reloads: [Counter; Reload::ALL.len()],
}

/// What became of the actors of one kind so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifeCounts {
    /// How many died.
    pub deaths: u64,
    /// How many were built anew and have shown that they work.
    pub recoveries: u64,
    /// The time between the two, in all.
    pub recovery: Duration,
    /// The longest of these times.
    pub longest: Duration,
}

impl Default for Metrics {
    /// Of a gateway with one shard that starts now.
    fn default() -> Self {
        Self::new(1, shell::now())
    }
}

impl Metrics {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(shards: usize, now: Instant) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            dns: DnsMetrics::default(),
            portal: PortalMetrics::new(now),
            clients: Gauge::default(),
            turned_away: Counter::default(),
            lives: Default::default(),
            main_lag: Lag::new(now),
            control_lag: Lag::new(now),
            admin_lag: Lag::new(now),
            shard_lags: (0..shards).map(|_| Lag::new(now)).collect(),
            saves: Counter::default(),
            failed_saves: Counter::default(),
            reloads: Default::default(),
        }
    }

    /// For the actors of a shard.
    ///
    /// # Panics
    /// When there is no such shard.
    #[must_use]
    pub fn shard(&self, number: usize) -> Arc<ShardMetrics> {
        Arc::clone(&self.shards[number])
    }

    /// An actor died.
    pub fn count_death(&self, child: Child) {
        self.lives[child.kind()].deaths.add(1);
    }

    /// Its successor works, so long after its death.
    pub fn count_recovery(&self, child: Child, took: Duration) {
        let lives = &self.lives[child.kind()];
        lives.recoveries.add(1);
        lives.recovery.add(took);
        lives.longest.note(took);
    }

    /// An actor answered the watchdog after so long: its mailbox was that far behind.
    pub fn note_answer(&self, child: Child, took: Duration) {
        self.lives[child.kind()].answers.note(took);
    }

    /// The state was saved for the next process, or could not be.
    pub fn count_save(&self, is_saved: bool) {
        match is_saved {
            true => self.saves.add(1),
            false => self.failed_saves.add(1),
        }
    }

    /// The configuration was read again.
    pub fn count_reload(&self, outcome: &ReloadOutcome) {
        self.reloads[Reload::of(outcome) as usize].add(1);
    }

    /// The portal has let us in. We are joined until what is returned is dropped.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Joined {
        Joined::new(self)
    }

    /// Where the lag of an event loop is noted.
    ///
    /// # Panics
    /// When there is no such shard.
    #[must_use]
    pub fn lag(&self, event_loop: EventLoop) -> &Lag {
        match event_loop {
            EventLoop::Main => &self.main_lag,
            EventLoop::Control => &self.control_lag,
            EventLoop::Admin => &self.admin_lag,
            EventLoop::Shard(number) => &self.shard_lags[number],
        }
    }

    /// Deaths and recoveries by kind of actor, as log lines name it.
    #[must_use]
    pub fn lives(&self) -> Vec<(&'static str, LifeCounts)> {
        let counts = self.lives.iter().map(|lives| LifeCounts {
            deaths: lives.deaths.get(),
            recoveries: lives.recoveries.get(),
            recovery: lives.recovery.get(),
            longest: lives.longest.get(),
        });
        Child::KINDS.into_iter().zip(counts).collect()
    }

    /// The reasons that occurred so far, with their counts.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter();
        let counts = all.map(|reason| (reason, self.sum(|shard| shard.drops(reason))));
        counts.filter(|(_, packets)| *packets > 0).collect()
    }

    /// Everything, as it is now, in the OpenMetrics text format; to be served as [`CONTENT_TYPE`].
    #[must_use]
    pub fn page(self: &Arc<Self>) -> String {
        self.render(shell::now(), process::read())
    }

    /// As [`Self::page`], as of `now`, of a process that stands so.
    #[must_use]
    pub fn render(self: &Arc<Self>, now: Instant, process: Option<Process>) -> String {
        exposition::render(self, now, process)
    }

    /// Of all shards.
    fn sum(&self, number: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().map(|shard| number(shard)).sum()
    }
}
