//! Draining: new clients are refused, the others may finish, then the process ends.
//!
//! The gateway stays joined, because revocations still count. A refused client gets no answer; when
//! it asks again two seconds later, the portal leads it to another gateway.

use super::SupervisorActor;
use crate::messages::operator::{CancelDrain, DrainGateway};
use crate::messages::reports::DrainReport;
use crate::shell;
use actix::prelude::*;
use postern_core::supervision::is_active;
use std::time::Duration;

impl Handler<DrainGateway> for SupervisorActor {
    type Result = ResponseActFuture<Self, DrainReport>;

    fn handle(
        &mut self,
        DrainGateway { grace }: DrainGateway,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let clients = self.supervision.clients().len();
        tracing::info!(grace_s = grace.as_secs(), clients, "draining");
        self.supervision.handle_drain(grace, shell::now());
        self.perform(ctx);
        let counted = self.count_active();
        Box::pin(counted.map(|active, actor, _| {
            actor.supervision.note_active(active);
            actor.drain_report().unwrap_or_default()
        }))
    }
}

impl Handler<CancelDrain> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: CancelDrain, ctx: &mut Context<Self>) {
        if let Some(drain) = self.supervision.cancel_drain() {
            tracing::info!(refused = drain.refused, "draining was called off");
            self.perform(ctx);
        }
    }
}

impl SupervisorActor {
    /// The progress; `None` while the gateway is not draining.
    pub(super) fn drain_report(&self) -> Option<DrainReport> {
        let drain = self.supervision.drain()?;
        let remaining = drain.ends_at.saturating_duration_since(shell::now());
        Some(DrainReport {
            ends_at: shell::unix_now().0 + rounded_up(remaining),
            remaining: rounded_up(remaining),
            clients: self.supervision.clients().len(),
            active: drain.active,
            refused: drain.refused,
        })
    }

    pub(super) fn count_for_drain(&mut self, ctx: &mut Context<Self>) {
        let counted = self.count_active();
        ctx.spawn(counted.map(|active, actor, ctx| {
            actor.supervision.handle_active(active, shell::now());
            actor.perform(ctx);
        }));
    }

    fn count_active(&self) -> impl ActorFuture<Self, Output = usize> + use<> {
        let described = self.describe_clients(usize::MAX).into_actor(self);
        described.map(|described, _, _| {
            let active = |(_, stats): &&(_, Option<_>)| is_active(stats.as_ref());
            described.iter().filter(active).count()
        })
    }
}

/// Rounded up, so that the last second is reported as 1.
fn rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
