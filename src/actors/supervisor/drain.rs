//! Draining: new clients are refused, the others may finish, then the process ends.
//!
//! The gateway stays joined, because revocations still count. A refused client gets no answer; when
//! it asks again two seconds later, the portal leads it to another gateway.

use super::SupervisorActor;
use crate::messages::operator::{CancelDrain, DrainGateway};
use crate::messages::reports::DrainReport;
use crate::messages::supervisor::{Shutdown, ShutdownMode};
use crate::shell;
use actix::prelude::*;
use postern_core::connection::ConnectionStats;
use std::time::{Duration, Instant};

pub(super) struct Drain {
    ends_at: Instant,
    refused: u64,
    /// Clients with recent traffic, as counted last.
    active: usize,
    timer: SpawnHandle,
}

impl Drain {
    pub(super) fn note_refusal(&mut self) {
        self.refused += 1;
    }
}

impl Handler<DrainGateway> for SupervisorActor {
    type Result = ResponseActFuture<Self, DrainReport>;

    fn handle(
        &mut self,
        DrainGateway { grace }: DrainGateway,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let ends_at = shell::now() + grace.min(LONGEST_GRACE);
        tracing::info!(
            grace_s = grace.as_secs(),
            clients = self.clients.len(),
            "draining"
        );
        match &mut self.drain {
            Some(drain) => drain.ends_at = ends_at,
            None => {
                let timer = ctx.run_interval(LOOK_EVERY, |actor, ctx| actor.look_at_drain(ctx));
                self.drain = Some(Drain {
                    ends_at,
                    refused: 0,
                    active: self.clients.len(),
                    timer,
                });
            }
        }
        let counted = self.count_active();
        Box::pin(counted.map(|(), actor, _| actor.drain_report().unwrap_or_default()))
    }
}

impl Handler<CancelDrain> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: CancelDrain, ctx: &mut Context<Self>) {
        if let Some(drain) = self.drain.take() {
            ctx.cancel_future(drain.timer);
            tracing::info!(refused = drain.refused, "draining was called off");
        }
    }
}

impl SupervisorActor {
    /// The progress; `None` while the gateway is not draining.
    pub(super) fn drain_report(&self) -> Option<DrainReport> {
        let drain = self.drain.as_ref()?;
        let remaining = drain.ends_at.saturating_duration_since(shell::now());
        Some(DrainReport {
            ends_at: shell::unix_now().0 + rounded_up(remaining),
            remaining: rounded_up(remaining),
            clients: self.clients.len(),
            active: drain.active,
            refused: drain.refused,
        })
    }

    fn look_at_drain(&mut self, ctx: &mut Context<Self>) {
        let counted = self.count_active();
        ctx.spawn(counted.map(|(), actor, ctx| {
            let is_over = |drain: &Drain| drain.active == 0 || drain.ends_at <= shell::now();
            if actor.drain.as_ref().is_some_and(is_over) {
                let mode = ShutdownMode::Goodbye;
                ctx.notify(Shutdown { exit_code: 0, mode });
            }
        }));
    }

    /// A client counts as active if its connection does not answer.
    fn count_active(&self) -> impl ActorFuture<Self, Output = ()> + use<> {
        let described = self.describe_clients(usize::MAX).into_actor(self);
        described.map(|described, actor: &mut Self, _| {
            if let Some(drain) = &mut actor.drain {
                let stats = described.iter().map(|(_, stats)| stats.as_ref());
                drain.active = stats.filter(|stats| is_active(*stats)).count();
            }
        })
    }
}

/// Rounded up, so that the last second is reported as 1.
fn rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn is_active(stats: Option<&ConnectionStats>) -> bool {
    let Some(stats) = stats else { return true };
    let directions = [stats.inbound, stats.outbound];
    let last = directions.into_iter().filter_map(|it| it.last_before).min();
    last.is_some_and(|before| before < QUIET)
}

/// How often the remaining clients are counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A client without traffic for this long has nothing under way that could not continue at another
/// gateway.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// A year, so that no sum of times overflows.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);
