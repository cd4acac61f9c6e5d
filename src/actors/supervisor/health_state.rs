//! What the supervisor was told about the world, and how the gateway is.

use super::SupervisorActor;
use super::tree::Condition;
use crate::admin::reports::{HealthReport, HealthStatus};
use crate::messages::operator::HealthCheck;
use crate::messages::supervisor::{
    Child, InterfaceConfigured, PortalStateChanged, ResolverStateChanged,
};
use crate::shell;
use crate::supervision::Ping;
use actix::prelude::*;
use futures_util::future::join_all;
use postern_core::UnixTime;
use postern_core::health::{HealthFacts, PortalState, Readiness, ResolverState};
use std::time::Duration;
use tokio::time::timeout;

/// See the module's documentation.
pub(super) struct HealthState {
    pub(super) started_at: UnixTime,
    pub(super) portal: PortalState,
    pub(super) portal_since: UnixTime,
    is_interface_up: bool,
    resolver: ResolverState,
}

impl HealthState {
    /// A process that takes clients over goes on with what the portal said to the former one.
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

    /// Its successor joins anew.
    pub(super) fn note_portal_death(&mut self) {
        if self.portal == PortalState::Joined {
            self.set_portal(PortalState::Away);
        }
    }

    fn set_portal(&mut self, state: PortalState) {
        self.portal = state;
        self.portal_since = shell::unix_now();
    }
}

impl Handler<PortalStateChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, PortalStateChanged(state): PortalStateChanged, _: &mut Context<Self>) {
        self.health_state.set_portal(state);
    }
}

impl Handler<InterfaceConfigured> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: InterfaceConfigured, _: &mut Context<Self>) {
        self.health_state.is_interface_up = true;
    }
}

impl Handler<ResolverStateChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, ResolverStateChanged(state): ResolverStateChanged, _: &mut Context<Self>) {
        self.health_state.resolver = state;
    }
}

impl Handler<HealthCheck> for SupervisorActor {
    type Result = ResponseActFuture<Self, HealthReport>;

    fn handle(&mut self, _: HealthCheck, _: &mut Context<Self>) -> Self::Result {
        self.examine()
    }
}

impl SupervisorActor {
    /// Asks every shared actor to answer, and judges.
    pub(super) fn examine(&self) -> ResponseActFuture<Self, HealthReport> {
        let all = self.tree.living.iter().map(|(child, living)| {
            let is_up = living.condition == Condition::Up;
            let pings = living.handle.pings.clone();
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
            // The same on several shards: the children stand in this order.
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
            clients: self.clients.len(),
            is_draining: self.drain.is_some(),
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

/// An actor that is well answers within milliseconds; the watchdog is as patient.
const PATIENCE: Duration = Duration::from_millis(1500);
