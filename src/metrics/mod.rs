//! The gateway's counters: relaxed atomics, one set for each shard and one for the process.
//!
//! Actors add to them once per batch, never per packet. Reading involves no actor, so the numbers
//! can be read while one hangs. The set of labels is fixed: no data of a client or the portal
//! becomes a label. docs/metrics.md explains each number.

mod control;
mod counters;
mod exposition;
mod histogram;
pub mod lag;
mod mailboxes;
pub mod process;
mod shard;

use crate::messages::reload::ReloadOutcome;
use crate::messages::supervisor::Child;
use crate::shell;
pub use control::{ActorCounters, DnsMetrics, Joined, PortalMetrics};
use control::{RELOADS, reload_index};
use counters::{Counter, Gauge, Volume};
pub use exposition::CONTENT_TYPE;
use lag::{EventLoop, Lag};
pub use mailboxes::Receiver;
use postern_core::DropReason;
use process::Process;
use shard::BatchCounters;
pub use shard::ShardMetrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardMetrics>>,
    pub dns: DnsMetrics,
    pub portal: PortalMetrics,
    /// Clients that the supervisor knows, with a session or without.
    pub clients: Gauge,
    /// Requests of the portal that the supervisor refused.
    pub turned_away: Counter,
    /// Indexed by [`Child::kind`].
    actors: [ActorCounters; Child::KINDS.len()],
    main_lag: Lag,
    control_lag: Lag,
    admin_lag: Lag,
    shard_lags: Vec<Lag>,
    saves: Counter,
    failed_saves: Counter,
    reloads: [Counter; RELOADS.len()],
}

impl Default for Metrics {
    /// For a gateway with one shard that starts now.
    fn default() -> Self {
        Self::new(1, shell::now())
    }
}

impl Metrics {
    pub fn new(shards: usize, now: Instant) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            dns: DnsMetrics::default(),
            portal: PortalMetrics::new(now),
            clients: Gauge::default(),
            turned_away: Counter::default(),
            actors: Default::default(),
            main_lag: Lag::new(now),
            control_lag: Lag::new(now),
            admin_lag: Lag::new(now),
            shard_lags: (0..shards).map(|_| Lag::new(now)).collect(),
            saves: Counter::default(),
            failed_saves: Counter::default(),
            reloads: Default::default(),
        }
    }

    /// # Panics
    /// If the gateway has no such shard.
    pub fn shard(&self, number: usize) -> Arc<ShardMetrics> {
        Arc::clone(&self.shards[number])
    }

    pub fn count_death(&self, child: Child) {
        self.actors[child.kind()].deaths.add(1);
    }

    /// Counts a restarted actor that works, `took` after the death of its predecessor.
    pub fn count_recovery(&self, child: Child, took: Duration) {
        let actors = &self.actors[child.kind()];
        actors.recoveries.add(1);
        actors.recovery.add(took);
        actors.longest.note(took);
    }

    /// Notes how long an actor took to answer the watchdog: the delay of its mailbox.
    pub fn note_answer(&self, child: Child, took: Duration) {
        self.actors[child.kind()].answers.note(took);
    }

    pub fn count_save(&self, is_saved: bool) {
        match is_saved {
            true => self.saves.add(1),
            false => self.failed_saves.add(1),
        }
    }

    pub fn count_reload(&self, outcome: &ReloadOutcome) {
        self.reloads[reload_index(outcome)].add(1);
    }

    /// Counts the gateway as joined until the returned guard is dropped.
    pub fn join(self: &Arc<Self>) -> Joined {
        Joined::new(self)
    }

    /// # Panics
    /// If the gateway has no such shard.
    pub fn lag(&self, event_loop: EventLoop) -> &Lag {
        match event_loop {
            EventLoop::Main => &self.main_lag,
            EventLoop::Control => &self.control_lag,
            EventLoop::Admin => &self.admin_lag,
            EventLoop::Shard(number) => &self.shard_lags[number],
        }
    }

    /// The counters of each kind of actor.
    pub fn actors(&self) -> impl Iterator<Item = (&'static str, &ActorCounters)> {
        Child::KINDS.into_iter().zip(&self.actors)
    }

    /// The reasons that occurred, with their counts.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter();
        let counts = all.map(|reason| (reason, self.sum(|shard| shard.drops(reason))));
        counts.filter(|(_, packets)| *packets > 0).collect()
    }

    /// All numbers in the OpenMetrics text format; to be served as [`CONTENT_TYPE`].
    pub fn page(self: &Arc<Self>) -> String {
        self.render(shell::now(), process::read())
    }

    /// As [`Self::page`], with a given clock and process.
    pub fn render(self: &Arc<Self>, now: Instant, process: Option<Process>) -> String {
        exposition::render(self, now, process)
    }

    fn sum(&self, number: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards.iter().map(|shard| number(shard)).sum()
    }
}
