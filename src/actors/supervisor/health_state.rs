//! The gateway's health, as far as actors have reported it, and the health check.

use super::SupervisorActor;
use super::perform::end;
use crate::messages::operator::HealthCheck;
use crate::messages::reports::{HealthReport, HealthStatus};
use crate::messages::supervisor::{Child, HealthNews, ShutdownMode};
use crate::shell;
use crate::supervision::Ping;
use actix::prelude::*;
use futures_util::future::join_all;
use postern_core::UnixTime;
use postern_core::health::{HealthFacts, PortalState, Readiness, ResolverState};
use std::time::Duration;
use tokio::time::timeout;

pub(super) struct HealthState {
    pub(super) started_at: UnixTime,
    pub(super) portal: PortalState,
    pub(super) portal_since: UnixTime,
    is_interface_up: bool,
    resolver: ResolverState,
}

impl HealthState {
    /// A process that takes clients over goes on with the grants of the previous one.
    pub(super) fn new(takes_over: bool) -> Self {
        let now = shell::unix_now();
        Self {
            started_at: now,
            portal: match takes_over {
                true => PortalState::Away,
                false => PortalState::NeverJoined,
            },
            portal_since: now,
            is_interface_up: false,
            resolver: ResolverState::default(),
        }
    }

    /// A restarted PortalActor joins again.
    pub(super) fn note_portal_death(&mut self) {
        if self.portal == PortalState::Joined {
            self.set_portal(PortalState::Away);
        }
    }

    pub(super) fn set_portal(&mut self, state: PortalState) {
        self.portal = state;
        self.portal_since = shell::unix_now();
    }
}

impl Handler<HealthNews> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, news: HealthNews, ctx: &mut Context<Self>) {
        match news {
            HealthNews::InterfaceConfigured => self.health_state.is_interface_up = true,
            HealthNews::InterfaceFailed { reason } => {
                tracing::error!(reason, "the tunnel interface cannot be configured");
                end(1, ShutdownMode::Goodbye, ctx);
            }
            HealthNews::Resolver(state) => self.health_state.resolver = state,
        }
    }
}

impl Handler<HealthCheck> for SupervisorActor {
    type Result = ResponseActFuture<Self, HealthReport>;

    fn handle(&mut self, _: HealthCheck, _: &mut Context<Self>) -> Self::Result {
        self.examine()
    }
}

impl SupervisorActor {
    /// Pings every shared actor and judges the gateway's health.
    pub(super) fn examine(&self) -> ResponseActFuture<Self, HealthReport> {
        let all = self.tree.handles.iter().map(|(child, handle)| {
            let is_up = self.supervision.is_running(*child);
            let pings = handle.pings.clone();
            let kind = Child::KINDS[child.kind()];
            async move {
                let answered =
                    is_up && matches!(timeout(PATIENCE, pings.send(Ping)).await, Ok(Ok(())));
                (!answered).then_some(kind)
            }
        });
        let answers = join_all(all.collect::<Vec<_>>());
        Box::pin(answers.into_actor(self).map(|silent, actor, _| {
            let mut silent: Vec<_> = silent.into_iter().flatten().collect();
            // Children of one kind on several shards are neighbours in this order.
            silent.dedup();
            actor.health(silent)
        }))
    }

    fn health(&self, silent: Vec<&'static str>) -> HealthReport {
        let facts = HealthFacts {
            silent,
            portal: self.health_state.portal.clone(),
            is_interface_up: self.health_state.is_interface_up,
            resolver: self.health_state.resolver,
            clients: self.supervision.clients().len(),
            is_draining: self.supervision.drain().is_some(),
            is_stopping: self.stopping,
        };
        let readiness = facts.readiness();
        let troubles = readiness.troubles().iter();
        HealthReport {
            live: facts.silent.is_empty(),
            silent: facts.silent.iter().map(ToString::to_string).collect(),
            status: match readiness {
                Readiness::Ready => HealthStatus::Ready,
                Readiness::Degraded(_) => HealthStatus::Degraded,
                Readiness::NotReady(_) => HealthStatus::NotReady,
            },
            reasons: troubles.map(ToString::to_string).collect(),
        }
    }
}

/// A healthy actor answers within milliseconds; the watchdog has the same patience.
const PATIENCE: Duration = Duration::from_millis(1500);
