//! What becomes of a child that died, or that lives and does not answer.
//!
//! A death costs one actor: its successor is built from its spec and the ledger, at once or, if it
//! dies again and again, after a growing delay. A shared child that spends its budget ends the
//! process; a client's connection that does is cut off alone.

use super::spawner::Place;
use super::tree::{Condition, Tree};
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
        if let Child::Connection(client, index) = death.child {
            self.connection_died((client, index), death.instance, &death.cause, ctx);
        } else {
            self.shared_died(death.child, death.instance, &death.cause, ctx);
        }
    }
}

impl SupervisorActor {
    fn shared_died(
        &mut self,
        child: Child,
        instance: InstanceId,
        cause: &DeathCause,
        ctx: &mut Context<Self>,
    ) {
        let living = self.tree.living.get_mut(&child);
        let Some(living) = living.filter(|it| it.instance == instance && !self.stopping) else {
            return;
        };
        let now = shell::now();
        living.died_at.get_or_insert(now);
        let is_hung = std::mem::replace(&mut living.condition, Condition::Dead) == Condition::Hung;
        self.report_death(child, cause, is_hung);
        self.watchdog.forget(child);
        match self.tree.restarts(child).handle_death(now) {
            RestartVerdict::Restart { after } => later(after, ctx, move |actor, ctx| {
                let current = actor.tree.living.get(&child);
                if !actor.stopping && current.is_some_and(|it| it.instance == instance) {
                    actor.start_child(child, ctx);
                }
            }),
            RestartVerdict::GiveUp => self.give_up(child, ctx),
        }
    }

    fn connection_died(
        &mut self,
        (id, index): (ClientId, PeerIndex),
        instance: InstanceId,
        cause: &DeathCause,
        ctx: &mut Context<Self>,
    ) {
        let child = Child::Connection(id, index);
        if self.clients.note_end(index, instance) {
            if matches!(cause, DeathCause::Panicked(_)) {
                self.report_death(child, cause, false);
                if self.clients.count_death(id, shell::now()) == RestartVerdict::GiveUp {
                    self.cut_off(id, ctx);
                }
            }
            self.detach(id, index);
            self.indices.release(index);
            return;
        }
        let client = self.clients.get_mut(id);
        let Some(client) = client.filter(|it| it.instance == instance && !self.stopping) else {
            return;
        };
        let now = shell::now();
        client.died_at.get_or_insert(now);
        let is_hung = std::mem::replace(&mut client.condition, Condition::Dead) == Condition::Hung;
        let verdict = self.clients.count_death(id, now);
        self.report_death(child, cause, is_hung);
        self.watchdog.forget(child);
        match verdict {
            RestartVerdict::Restart { after } => later(after, ctx, move |actor, ctx| {
                let current = actor.clients.get(id);
                if !actor.stopping && current.is_some_and(|it| it.instance == instance) {
                    actor.revive(id, ctx);
                }
            }),
            RestartVerdict::GiveUp => self.cut_off(id, ctx),
        }
    }

    fn give_up(&mut self, child: Child, ctx: &mut Context<Self>) {
        tracing::error!(%child, shard = child.shard(), "died too often, the process ends");
        ctx.notify(Shutdown {
            exit_code: EXIT_BUDGET_SPENT,
            mode: ShutdownMode::HandOver,
        });
    }

    /// One line, and no more.
    fn report_death(&self, child: Child, cause: &DeathCause, is_hung: bool) {
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
            DeathCause::Stopped if is_hung => {
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

    /// Does what the watchdog wants, then asks for the next wake-up.
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

    fn pings(&self, child: Child) -> Option<(InstanceId, Recipient<Ping>)> {
        if let Child::Connection(id, _) = child {
            let client = self.clients.get(id)?;
            let pings = client.connection.clone().recipient();
            return (client.condition == Condition::Up).then_some((client.instance, pings));
        }
        let living = self.tree.living.get(&child)?;
        let pings = living.handle.pings.clone();
        (living.condition == Condition::Up).then_some((living.instance, pings))
    }

    fn answered(&mut self, child: Child, instance: InstanceId, ctx: &mut Context<Self>) {
        if self
            .pings(child)
            .is_none_or(|(current, _)| current != instance)
        {
            return;
        }
        self.watchdog.handle_pong(child, shell::now());
        let living = self.tree.living.get_mut(&child);
        // A connection has recovered when it has a session.
        if let Some(died_at) = living.and_then(|living| living.died_at.take()) {
            self.note_recovery(child, died_at);
        }
        self.watch(ctx);
    }

    /// Ends an actor that does not answer. If that does not help, its thread is stuck.
    fn end_hung(&mut self, child: Child, ctx: &mut Context<Self>) {
        let Some(instance) = self.abort(child) else {
            return;
        };
        ctx.run_later(ABORT_TAKES, move |actor, ctx| {
            if actor.hung_instance(child) == Some(instance) && !actor.stopping {
                actor.replace_thread(child, ctx);
            }
        });
    }

    /// The child is dropped as soon as its thread comes round to it.
    fn abort(&mut self, child: Child) -> Option<InstanceId> {
        let now = shell::now();
        if let Child::Connection(id, _) = child {
            let client = self.clients.get_mut(id)?;
            client.condition = Condition::Hung;
            client.died_at.get_or_insert(now);
            client.abort.abort();
            return Some(client.instance);
        }
        let living = self.tree.living.get_mut(&child)?;
        living.condition = Condition::Hung;
        living.died_at.get_or_insert(now);
        living.handle.abort.abort();
        Some(living.instance)
    }

    fn hung_instance(&self, child: Child) -> Option<InstanceId> {
        let (condition, instance) = if let Child::Connection(id, _) = child {
            let client = self.clients.get(id)?;
            (client.condition, client.instance)
        } else {
            let living = self.tree.living.get(&child)?;
            (living.condition, living.instance)
        };
        (condition == Condition::Hung).then_some(instance)
    }

    /// Builds everybody anew who lived on a thread that is stuck. Charged is whose code is stuck,
    /// not who was noticed first.
    fn replace_thread(&mut self, noticed: Child, ctx: &mut Context<Self>) {
        let place = Place::of(noticed);
        let busy = self.spec.spawner.busy_with(place);
        let culprit = busy
            .and_then(|instance| self.child_in(instance))
            .unwrap_or(noticed);
        tracing::error!(child = %culprit, ?place, "a thread is stuck and was given up");
        self.spec.metrics.count_death(culprit);
        let now = shell::now();
        if let Child::Connection(id, _) = culprit {
            if self.clients.count_death(id, now) == RestartVerdict::GiveUp {
                self.cut_off(id, ctx);
            }
        } else if self.tree.restarts(culprit).handle_death(now) == RestartVerdict::GiveUp {
            return self.give_up(culprit, ctx);
        }
        self.spec.spawner.replace_thread(place);
        // Whoever is stuck must hear of no successor: he would attach himself to it when he wakes.
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
        self.revive_in_portions(waiting, ctx);
    }

    fn child_in(&self, instance: InstanceId) -> Option<Child> {
        let mut shared = self.tree.living.iter();
        let shared = shared.find(|(_, living)| living.instance == instance);
        shared
            .map(|(child, _)| *child)
            .or_else(|| self.clients.child_in(instance))
    }

    /// Ends all connections of a shard. Each begins a new life at once, so that no late word of the
    /// former counts, although it is some time until that life is built.
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
            let instance = self.next_instance();
            if let Some(client) = self.clients.get_mut(id) {
                client.abort.abort();
                client.died_at.get_or_insert(now);
                client.instance = instance;
                client.condition = Condition::Dead;
                self.watchdog.forget(Child::Connection(id, client.index));
                ended.push_back((id, Some(instance)));
            }
        }
        ended
    }
}

/// At once if there is nothing to wait for.
fn later<A: Driven>(
    after: Duration,
    ctx: &mut Context<A>,
    work: impl FnOnce(&mut A, &mut Context<A>) + 'static,
) {
    if after.is_zero() {
        // In a turn of its own: whoever calls is in the middle of something.
        ctx.spawn(actix::fut::ready(()).map(move |(), actor: &mut A, ctx| work(actor, ctx)));
    } else {
        ctx.run_later(after, work);
    }
}

/// An actor that is not stuck on its thread is gone by then.
const ABORT_TAKES: Duration = Duration::from_millis(500);
