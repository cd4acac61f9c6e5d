//! Deaths of children, and children that do not answer.

use super::child::{Child, Death, DeathCause, Instance, InstanceId, InstanceState, Place};
use super::restarts::{RestartPolicy, RestartVerdict, Restarts};
use super::{Account, Supervision, SupervisionEvent as Event, Timer, WatchdogEvent};
use crate::ledger::Ledger;
use std::time::{Duration, Instant};

impl Supervision {
    /// An instance of a child is gone.
    pub fn handle_death(&mut self, death: Death, ledger: &mut Ledger, now: Instant) {
        let (child, instance, cause) = (death.child, death.instance, death.cause);
        if let Child::Connection(client, index) = child
            && self.retiring.get(&index) == Some(&instance)
        {
            // It was told to stop, and may have panicked on the way.
            self.retiring.remove(&index);
            if matches!(cause, DeathCause::Panicked(_)) {
                self.emit(Event::Died(child, cause, false));
                if self.count_death(child, now) == RestartVerdict::GiveUp {
                    self.cut_off(client, ledger, now);
                }
            }
            return self.release(client, index);
        }
        let is_stopping = self.is_stopping;
        let dead = self.instance_mut(child);
        let Some(dead) = dead.filter(|it| it.id == instance && !is_stopping) else {
            return;
        };
        let was_hung = dead.end(InstanceState::Dead, now);
        self.emit(Event::Died(child, cause, was_hung));
        self.watchdog.forget(child);
        match self.count_death(child, now) {
            RestartVerdict::GiveUp => self.give_up(child, ledger, now),
            RestartVerdict::Restart {
                after: Duration::ZERO,
            } => self.restart(child, ledger, now),
            RestartVerdict::Restart { after } => {
                let timer = Timer::Restart(child, instance);
                self.timers.insert((now + after, timer));
            }
        }
    }

    /// An instance answered a ping.
    pub fn handle_pong(&mut self, child: Child, instance: InstanceId, now: Instant) {
        let current = self.instance_mut(child);
        let Some(current) = current.filter(|it| it.id == instance && it.is_running()) else {
            return;
        };
        // A connection has recovered when it has a session.
        let died_at = current.died_at.take_if(|_| child.client().is_none());
        self.watchdog.handle_pong(child, now);
        if let Some(died_at) = died_at {
            self.note_recovery(child, died_at, now);
        }
    }

    /// A child has taken no commands for so long that some were dropped: ends it. Its successor
    /// learns from the ledger what they said.
    pub fn handle_deaf(&mut self, child: Child, now: Instant) {
        if self.is_running(child) && !self.is_stopping {
            self.emit(Event::Deaf(child));
            self.end_hung(child, now);
        }
    }

    /// Answers [`AskThread`](Event::AskThread) with the instance that the thread is busy with:
    /// replaces the thread and restarts every child on it. The death counts for the one that is
    /// stuck, not for the first one that was noticed.
    pub fn handle_stuck(
        &mut self,
        noticed: Child,
        busy: Option<InstanceId>,
        ledger: &mut Ledger,
        now: Instant,
    ) {
        // Its thread may have been replaced for another child meanwhile.
        let noticed_state = self.instance(noticed).map(|it| it.state);
        if noticed_state != Some(InstanceState::Hung) || self.is_stopping {
            return;
        }
        let place = noticed.place();
        let culprit = busy.and_then(|busy| self.child_in(busy)).unwrap_or(noticed);
        self.emit(Event::ThreadStuck(culprit));
        let is_over = self.count_death(culprit, now) == RestartVerdict::GiveUp;
        if is_over && culprit.client().is_none() {
            return self.give_up(culprit, ledger, now);
        }
        self.emit(Event::ReplaceThread(place));
        self.abandon(place, now);
        if is_over {
            self.give_up(culprit, ledger, now);
        }
        self.start_all(place, now);
        self.restart_portion(ledger, now);
    }

    pub(super) fn note_recovery(&mut self, child: Child, died_at: Instant, now: Instant) {
        let took = now.saturating_duration_since(died_at);
        self.emit(Event::Recovered(child, took));
    }

    pub(super) fn handle_timer(&mut self, timer: Timer, ledger: &mut Ledger, now: Instant) {
        match timer {
            Timer::Restart(child, instance) => {
                let current = self.instance(child).map(|it| it.id);
                if !self.is_stopping && current == Some(instance) {
                    self.restart(child, ledger, now);
                }
            }
            Timer::Dropped(child, instance) => {
                let is_meant = |it: &Instance| it.id == instance && it.state == InstanceState::Hung;
                if !self.is_stopping && self.instance(child).is_some_and(is_meant) {
                    self.emit(Event::AskThread(child));
                }
            }
            Timer::Stopped(child, instance) => {
                if let Child::Connection(_, index) = child
                    && self.retiring.get(&index) == Some(&instance)
                {
                    self.emit(Event::Abort(child));
                }
            }
        }
    }

    /// Pings the children that are due, and ends those that did not answer. If one is still there
    /// after that, its thread is stuck.
    pub(super) fn watch(&mut self, now: Instant) {
        self.watchdog.handle_timeout(now);
        while let Some(event) = self.watchdog.poll_event() {
            match event {
                WatchdogEvent::Ping(child) => {
                    if let Some(id) = self.instance(child).map(|it| it.id) {
                        self.emit(Event::Ping(child, id));
                    }
                }
                WatchdogEvent::Hung(child) => self.end_hung(child, now),
            }
        }
    }

    pub(super) fn end_hung(&mut self, child: Child, now: Instant) {
        if let Some(instance) = self.instance_mut(child) {
            instance.end(InstanceState::Hung, now);
            let timer = Timer::Dropped(child, instance.id);
            self.timers.insert((now + ABORT_TAKES, timer));
            self.emit(Event::Abort(child));
        }
    }

    fn count_death(&mut self, child: Child, now: Instant) -> RestartVerdict {
        let (account, policy) = match child.client() {
            Some(id) => (Account::Client(id), RestartPolicy::CONNECTION),
            None => (Account::Shared(child), RestartPolicy::SHARED),
        };
        self.restarts.retain(|_, restarts| !restarts.is_over(now));
        let restarts = self.restarts.entry(account);
        restarts
            .or_insert_with(|| Restarts::new(policy))
            .handle_death(now)
    }

    fn restart(&mut self, child: Child, ledger: &mut Ledger, now: Instant) {
        match child.client() {
            Some(id) => self.restart_connection(id, ledger, now),
            None => self.start(child, now),
        }
    }

    fn give_up(&mut self, child: Child, ledger: &mut Ledger, now: Instant) {
        match child.client() {
            Some(id) => self.cut_off(id, ledger, now),
            None => self.emit(Event::GiveUp(child)),
        }
    }

    fn child_in(&self, instance: InstanceId) -> Option<Child> {
        let shared = self.shared.iter().map(|(child, it)| (*child, it.id));
        let connections = self.clients.iter();
        let connections =
            connections.map(|(id, it)| (Child::Connection(*id, it.index), it.instance.id));
        let mut all = shared.chain(connections);
        all.find(|(_, id)| *id == instance).map(|(child, _)| child)
    }

    /// Ends everything on a thread. Each connection gets its next instance id here, although it is
    /// started later, so that late messages of the ended one do not count.
    fn abandon(&mut self, place: Place, now: Instant) {
        for child in place.children() {
            if let Some(instance) = self.shared.get_mut(&child) {
                instance.end(InstanceState::Hung, now);
                self.events.push_back(Event::Abort(child));
            }
        }
        for (id, client) in &mut self.clients {
            let child = Child::Connection(*id, client.index);
            if child.place() == place {
                self.last_instance.0 += 1;
                client.instance.end(InstanceState::Dead, now);
                client.instance.id = self.last_instance;
                self.watchdog.forget(child);
                self.waiting.insert(*id);
                self.events.push_back(Event::Abort(child));
            }
        }
    }
}

/// An actor on a thread that is not stuck is gone by then.
const ABORT_TAKES: Duration = Duration::from_millis(500);
