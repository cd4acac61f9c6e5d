//! Performs what the core of supervision decides: starts, pings and ends actors, logs their deaths.

use super::{EXIT_BUDGET_SPENT, SupervisorActor};
use crate::messages::connection::ConnectionCommand;
use crate::messages::supervisor::{
    Child, ChildDied, DeathCause, InstanceId, Shutdown, ShutdownMode,
};
use crate::shell::{self, arm};
use crate::supervision::Ping;
use actix::prelude::*;
use postern_core::supervision::{Death, SupervisionEvent};
use std::time::Duration;

impl Handler<ChildDied> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, death: ChildDied, ctx: &mut Context<Self>) {
        let death = Death {
            child: death.child,
            instance: death.instance,
            cause: death.cause,
        };
        let ledger = &mut self.spec.ledger;
        self.supervision.handle_death(death, ledger, shell::now());
        self.perform(ctx);
    }
}

impl SupervisorActor {
    /// Drains the core, then asks for the next wake-up. Called after every mutation of the core.
    pub(super) fn perform(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.supervision.poll_event() {
            match event {
                SupervisionEvent::Start(child, instance) => self.start_child(child, instance, ctx),
                SupervisionEvent::Connect(connection) => self.start_connection(*connection, ctx),
                SupervisionEvent::Pass(index, number, command) => {
                    let command = ConnectionCommand::Client(number, command);
                    self.clients.tell(index, command);
                }
                SupervisionEvent::Ping(child, instance) => self.ping(child, instance, ctx),
                SupervisionEvent::Abort(child) => self.abort(child),
                SupervisionEvent::AskThread(child) => {
                    let busy = self.spec.spawner.busy_with(child.place());
                    let (ledger, now) = (&mut self.spec.ledger, shell::now());
                    self.supervision.handle_stuck(child, busy, ledger, now);
                }
                SupervisionEvent::Deaf(child) => {
                    let client = child.client().map(tracing::field::display);
                    let shard = child.shard();
                    tracing::error!(%child, client, shard, "actor takes no commands and is ended");
                }
                SupervisionEvent::ThreadStuck(child) => {
                    let place = child.place();
                    tracing::error!(%child, ?place, "a thread is stuck and was given up");
                    self.spec.metrics.count_death(child);
                }
                SupervisionEvent::ReplaceThread(place) => {
                    self.spec.spawner.replace_thread(place);
                    // Introduced to a successor, a stuck actor would attach itself to it when it
                    // wakes up.
                    self.tree.forget(place);
                }
                SupervisionEvent::Stop(index, farewell) => self.clients.stop(index, farewell),
                SupervisionEvent::Detach(client, index) => self.detach(client, index),
                SupervisionEvent::Died(child, cause, was_hung) => {
                    self.report_death(child, &cause, was_hung);
                }
                SupervisionEvent::Recovered(child, took) => self.report_recovery(child, took),
                SupervisionEvent::CutOff(client) => {
                    tracing::error!(%client, "cut off: its connection died too often");
                }
                SupervisionEvent::GiveUp(child) => {
                    let shard = child.shard();
                    tracing::error!(%child, shard, "died too often, the process ends");
                    end(EXIT_BUDGET_SPENT, ShutdownMode::HandOver, ctx);
                }
                SupervisionEvent::CountActive => self.count_for_drain(ctx),
                SupervisionEvent::Drained => end(0, ShutdownMode::Goodbye, ctx),
            }
        }
        let clients = self.supervision.clients().len();
        self.spec.metrics.clients.set(clients);
        self.save_soon(ctx);
        let deadline = self.supervision.poll_timeout();
        arm(self, deadline, ctx);
    }

    fn ping(&mut self, child: Child, instance: InstanceId, ctx: &mut Context<Self>) {
        let pings = if let Child::Connection(_, index) = child {
            self.clients.pings(index)
        } else {
            self.tree.pings(child)
        };
        let Some(pings) = pings else { return };
        let asked_at = shell::now();
        let answer = pings.send(Ping).into_actor(self);
        ctx.spawn(answer.map(move |answer, actor, ctx| {
            if answer.is_ok() {
                let now = shell::now();
                let took = now.saturating_duration_since(asked_at);
                actor.spec.metrics.note_answer(child, took);
                actor.supervision.handle_pong(child, instance, now);
                actor.perform(ctx);
            }
        }));
    }

    /// The child's thread drops it the next time it polls it.
    fn abort(&mut self, child: Child) {
        if let Child::Connection(_, index) = child {
            self.clients.abort(index);
        } else if let Some(handle) = self.tree.handles.get(&child) {
            handle.abort.abort();
        }
    }

    /// Logs exactly one line for a death.
    fn report_death(&self, child: Child, cause: &DeathCause, was_hung: bool) {
        self.spec.metrics.count_death(child);
        let (client, shard) = (child.client().map(tracing::field::display), child.shard());
        match cause {
            DeathCause::Panicked(report) => tracing::error!(
                %child,
                client,
                shard,
                panic = report.message,
                at = report.location,
                "actor died"
            ),
            DeathCause::Stopped if was_hung => {
                tracing::error!(%child, client, shard, "actor did not answer and was ended");
            }
            DeathCause::Stopped => tracing::error!(%child, client, shard, "actor stopped unasked"),
        }
    }

    fn report_recovery(&self, child: Child, took: Duration) {
        self.spec.metrics.count_recovery(child, took);
        let (client, shard) = (child.client().map(tracing::field::display), child.shard());
        let after_ms = took.as_millis();
        tracing::info!(%child, client, shard, after_ms, "actor rebuilt");
    }
}

pub(super) fn end(exit_code: i32, mode: ShutdownMode, ctx: &mut Context<SupervisorActor>) {
    ctx.notify(Shutdown { exit_code, mode });
}
