//! Deaths of children, and children that do not answer.
//!
//! A death costs one actor: its successor is built from its spec and the ledger, immediately or, if
//! it dies repeatedly, after a growing delay. A shared child that spends its restart budget ends
//! the process; a client's connection that does is cut off alone.

use super::spawner::Place;
use super::tree::{ChildState, Instance, Tree};
use super::{EXIT_BUDGET_SPENT, SupervisorActor};
use crate::messages::supervisor::{
    Child, ChildDied, DeathCause, InstanceId, Shutdown, ShutdownMode,
};
use crate::shell::{self, Driven, arm};
use crate::supervision::Ping;
use actix::prelude::*;
use postern_core::ids::ClientId;
use postern_core::peer::PeerIndex;
use postern_core::supervision::{RestartVerdict, WatchdogEvent};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

impl Handler<ChildDied> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, death: ChildDied, ctx: &mut Context<Self>) {
        let ChildDied {
            child,
            instance,
            cause,
        } = death;
        if let Child::Connection(client, index) = child
            && self.clients.note_end(index, instance)
        {
            return self.retired_died((client, index), &cause, ctx);
        }
        let stopping = self.stopping;
        let dead = self.instance_mut(child);
        let Some(dead) = dead.filter(|it| it.id == instance && !stopping) else {
            return;
        };
        let now = shell::now();
        let was_hung = dead.note_death(now);
        self.report_death(child, &cause, was_hung);
        self.watchdog.forget(child);
        match self.count_death(child, now) {
            RestartVerdict::Restart { after } => later(after, ctx, move |actor, ctx| {
                let current = actor.instance_mut(child).map(|it| it.id);
                if !actor.stopping && current == Some(instance) {
                    actor.restart(child, ctx);
                }
            }),
            RestartVerdict::GiveUp => self.give_up(child, ctx),
        }
    }
}

impl SupervisorActor {
    /// A connection that was told to stop has stopped, or panicked on the way.
    fn retired_died(
        &mut self,
        (client, index): (ClientId, PeerIndex),
        cause: &DeathCause,
        ctx: &mut Context<Self>,
    ) {
        if matches!(cause, DeathCause::Panicked(_)) {
            let child = Child::Connection(client, index);
            self.report_death(child, cause, false);
            if self.count_death(child, shell::now()) == RestartVerdict::GiveUp {
                self.cut_off(client, ctx);
            }
        }
        self.detach(client, index);
        self.indices.release(index);
    }

    fn instance_mut(&mut self, child: Child) -> Option<&mut Instance> {
        match child.client() {
            Some(id) => Some(&mut self.clients.get_mut(id)?.instance),
            None => Some(&mut self.tree.children.get_mut(&child)?.instance),
        }
    }

    fn count_death(&mut self, child: Child, now: Instant) -> RestartVerdict {
        match child.client() {
            Some(id) => self.clients.count_death(id, now),
            None => self.tree.restarts(child).handle_death(now),
        }
    }

    fn restart(&mut self, child: Child, ctx: &mut Context<Self>) {
        match child.client() {
            Some(id) => self.restart_connection(id, ctx),
            None => self.start_child(child, ctx),
        }
    }

    fn give_up(&mut self, child: Child, ctx: &mut Context<Self>) {
        if let Some(id) = child.client() {
            return self.cut_off(id, ctx);
        }
        tracing::error!(%child, shard = child.shard(), "died too often, the process ends");
        ctx.notify(Shutdown {
            exit_code: EXIT_BUDGET_SPENT,
            mode: ShutdownMode::HandOver,
        });
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

    pub(super) fn note_recovery(&self, child: Child, died_at: Instant) {
        let took = shell::now().saturating_duration_since(died_at);
        self.spec.metrics.count_recovery(child, took);
        let (client, shard) = (child.client().map(tracing::field::display), child.shard());
        let after_ms = took.as_millis();
        tracing::info!(%child, client, shard, after_ms, "actor rebuilt");
    }

    // ---- The watchdog

    /// Handles the watchdog's events, then re-arms the timer.
    pub(super) fn watch(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.watchdog.poll_event() {
            match event {
                WatchdogEvent::Ping(child) => self.ping(child, ctx),
                WatchdogEvent::Hung(child) => self.end_hung(child, ctx),
            }
        }
        let deadline = self.watchdog.poll_timeout();
        arm(self, deadline, ctx);
    }

    pub(super) fn ping(&mut self, child: Child, ctx: &mut Context<Self>) {
        let Some((instance, pings)) = self.pings(child) else {
            return;
        };
        let asked_at = shell::now();
        let answer = pings.send(Ping).into_actor(self);
        ctx.spawn(answer.map(move |answer, actor, ctx| {
            if answer.is_ok() {
                let took = shell::now().saturating_duration_since(asked_at);
                actor.spec.metrics.note_answer(child, took);
                actor.answered(child, instance, ctx);
            }
        }));
    }

    /// The child's instance and its mailbox for pings, if it runs.
    fn pings(&self, child: Child) -> Option<(InstanceId, Recipient<Ping>)> {
        let (instance, pings) = if let Some(id) = child.client() {
            let client = self.clients.get(id)?;
            (&client.instance, client.connection.clone().recipient())
        } else {
            let entry = self.tree.children.get(&child)?;
            (&entry.instance, entry.handle.pings.clone())
        };
        instance.is_running().then_some((instance.id, pings))
    }

    fn answered(&mut self, child: Child, instance: InstanceId, ctx: &mut Context<Self>) {
        let current = self.pings(child).map(|(current, _)| current);
        if current != Some(instance) {
            return;
        }
        self.watchdog.handle_pong(child, shell::now());
        let entry = self.tree.children.get_mut(&child);
        // A connection has recovered when it has a session.
        if let Some(died_at) = entry.and_then(|entry| entry.instance.died_at.take()) {
            self.note_recovery(child, died_at);
        }
        self.watch(ctx);
    }

    /// Ends an actor that does not answer. If it is still there after that, its thread is stuck.
    pub(super) fn end_hung(&mut self, child: Child, ctx: &mut Context<Self>) {
        let Some(instance) = self.abort(child) else {
            return;
        };
        ctx.run_later(ABORT_TAKES, move |actor, ctx| {
            let current = actor.instance_mut(child);
            let is_stuck =
                current.is_some_and(|it| it.id == instance && it.state == ChildState::Hung);
            if is_stuck && !actor.stopping {
                actor.replace_thread(child, ctx);
            }
        });
    }

    /// The child's thread drops it the next time it polls it.
    fn abort(&mut self, child: Child) -> Option<InstanceId> {
        let instance = self.instance_mut(child)?;
        instance.state = ChildState::Hung;
        instance.died_at.get_or_insert(shell::now());
        instance.abort.abort();
        Some(instance.id)
    }

    /// Replaces a stuck thread and restarts every actor on it. The death counts for the actor that
    /// is stuck, not for the first one that was noticed.
    fn replace_thread(&mut self, noticed: Child, ctx: &mut Context<Self>) {
        let place = Place::of(noticed);
        let busy = self.spec.spawner.busy_with(place);
        let culprit = busy
            .and_then(|instance| self.child_in(instance))
            .unwrap_or(noticed);
        tracing::error!(child = %culprit, ?place, "a thread is stuck and was given up");
        self.spec.metrics.count_death(culprit);
        let now = shell::now();
        if self.count_death(culprit, now) == RestartVerdict::GiveUp {
            self.give_up(culprit, ctx);
            if culprit.client().is_none() {
                return;
            }
        }
        self.spec.spawner.replace_thread(place);
        // Introduced to a successor, a stuck actor would attach itself to it when it wakes up.
        self.tree.forget(place);
        let waiting = match place {
            Place::Control | Place::Admin => VecDeque::new(),
            Place::Shard(shard) => self.end_connections(shard, now),
        };
        let shared = Tree::at(place);
        for child in &shared {
            self.abort(*child);
        }
        for child in shared {
            self.start_child(child, ctx);
        }
        self.restart_in_batches(waiting, ctx);
    }

    fn child_in(&self, instance: InstanceId) -> Option<Child> {
        let mut shared = self.tree.children.iter();
        let shared = shared.find(|(_, entry)| entry.instance.id == instance);
        shared
            .map(|(child, _)| *child)
            .or_else(|| self.clients.child_in(instance))
    }

    /// Ends all connections of a shard. Each gets its next instance id here, although it is started
    /// later, so that late messages of the ended one do not count.
    fn end_connections(
        &mut self,
        shard: u8,
        now: Instant,
    ) -> VecDeque<(ClientId, Option<InstanceId>)> {
        let all = self.clients.ids();
        let all: Vec<_> = all
            .filter(|id| self.clients.shard_of(*id) == Some(shard))
            .collect();
        let mut ended = VecDeque::with_capacity(all.len());
        for id in all {
            let next = self.next_instance();
            if let Some(client) = self.clients.get_mut(id) {
                client.instance.abort.abort();
                client.instance.note_death(now);
                client.instance.id = next;
                self.watchdog.forget(Child::Connection(id, client.index));
                ended.push_back((id, Some(next)));
            }
        }
        ended
    }
}

/// Runs `work` after a delay, or in the next turn of the event loop: the caller is in the middle of
/// something.
fn later<A: Driven>(
    after: Duration,
    ctx: &mut Context<A>,
    work: impl FnOnce(&mut A, &mut Context<A>) + 'static,
) {
    if after.is_zero() {
        ctx.spawn(actix::fut::ready(()).map(move |(), actor: &mut A, ctx| work(actor, ctx)));
    } else {
        ctx.run_later(after, work);
    }
}

/// An actor on a thread that is not stuck is gone by then.
const ABORT_TAKES: Duration = Duration::from_millis(500);
