//! Which actors run, for which clients, and what becomes of one that dies or hangs.
//!
//! [`Supervision`] is told what happened (a request for a client, a death, an answer to a ping, a
//! stuck thread, the time) and asked what to do (start this, end that, pass this on, replace a
//! thread, give up). It decides on admission, shards, restarts, quarantine and draining; it starts
//! nothing and knows no address. The actors of the data path are outside: `src/actors/supervisor`
//! performs the events in order.
//!
//! A death costs one actor: its successor is started immediately or, if it dies repeatedly, after a
//! growing delay. A shared child that spends its restart budget ends the process; a client's
//! connection that does is cut off alone. A child has at most one instance that runs, and a
//! [`PeerIndex`] is free again only when the last instance that used it is gone, or dead with its
//! thread.

mod admission;
mod child;
mod deaths;
mod drain;
mod requests;
mod restarts;
#[cfg(test)]
mod tests;
mod watchdog;
#[cfg(test)]
mod watchdog_tests;

pub use admission::{ClientState, Farewell, Progress, Refusal};
pub use child::{Child, Death, DeathCause, InstanceId, PanicReport, Place};
pub use drain::{Drain, is_active};
pub use restarts::{RestartPolicy, RestartVerdict, Restarts};
pub use watchdog::{WatchPace, Watchdog, WatchdogEvent};

use crate::command::ClientCommand;
use crate::ids::ClientId;
use crate::ledger::{ClientRecord, Ledger};
use crate::peer::{PeerIndex, PeerIndexPool};
use SupervisionEvent as Event;
use child::Instance;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The size of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct SupervisionConfig {
    /// Number of threads of the data path, at least 1.
    pub shards: u8,
    /// Further clients are refused.
    pub max_clients: usize,
    /// WireGuard handshakes that the gateway answers per second; connections that are restored
    /// together begin no more.
    pub handshakes_per_second: usize,
}

/// What the owner must do, in order.
#[derive(Clone, Debug)]
pub enum SupervisionEvent {
    /// Start a shared child, and introduce it to the others.
    Start(Child, InstanceId),
    /// Start a client's connection.
    Connect(Box<NewConnection>),
    /// Pass a command, with its number, on to a running connection.
    Pass(PeerIndex, u64, ClientCommand),
    /// Ping the child; the answer goes to [`Supervision::handle_pong`].
    Ping(Child, InstanceId),
    /// End the child from outside: its thread drops it the next time it polls it.
    Abort(Child),
    /// The child was ended and is still there. Tell [`Supervision::handle_stuck`] at once which
    /// instance its thread runs.
    AskThread(Child),
    /// A child took no commands and is ended; for the log.
    Deaf(Child),
    /// The thread of this child does not return: it is the culprit.
    ThreadStuck(Child),
    /// Abandon the thread and start later children on a new one.
    ReplaceThread(Place),
    /// Stop a running connection.
    Stop(PeerIndex, Farewell),
    /// A connection is gone: do for it what it does itself when it stops.
    Detach(ClientId, PeerIndex),
    /// A child died; for the log. `true` if the watchdog had ended it.
    Died(Child, DeathCause, bool),
    /// A child works again, so long after its death; for the log.
    Recovered(Child, Duration),
    /// A client's connection died too often: the client is refused for a while. For the log.
    CutOff(ClientId),
    /// A shared child died too often: end the process, and leave the clients to the next one.
    GiveUp(Child),
    /// Count the clients with traffic for [`Supervision::handle_active`].
    CountActive,
    /// The drain is over: end the process.
    Drained,
}

/// A connection to start.
#[derive(Clone, Debug)]
pub struct NewConnection {
    /// The client, on the shard in the index.
    pub client: ClientId,
    /// Unique until the event [`SupervisionEvent::Detach`].
    pub index: PeerIndex,
    /// The number of this instance.
    pub instance: InstanceId,
    /// What to restore it from.
    pub record: Option<Arc<ClientRecord>>,
    /// Number of the last command that the record includes.
    pub included: u64,
    /// Whether the client had no connection before.
    pub is_first: bool,
}

/// See the module's documentation.
pub struct Supervision {
    config: SupervisionConfig,
    indices: PeerIndexPool,
    watchdog: Watchdog<Child>,
    last_instance: InstanceId,
    shared: BTreeMap<Child, Instance>,
    /// At most as many as the config allows, or were left by the previous process.
    clients: BTreeMap<ClientId, ClientState>,
    /// Connections that were told to stop, each with its last instance. They hold their indices.
    retiring: BTreeMap<PeerIndex, InstanceId>,
    /// Clients with connections that are restarted in portions.
    waiting: BTreeSet<ClientId>,
    next_portion: Option<Instant>,
    /// The deaths within the windows of the budgets.
    restarts: BTreeMap<Account, Restarts>,
    /// Clients that were cut off, each with the end of its quarantine.
    quarantine: BTreeMap<ClientId, Instant>,
    refused: u64,
    drain: Option<Drain>,
    is_stopping: bool,
    /// At most one for each death, each hung child and each stopped connection of the last seconds.
    timers: BTreeSet<(Instant, Timer)>,
    events: VecDeque<SupervisionEvent>,
}

/// What a death counts for. The count of a client outlives its connection: a goodbye in between
/// does not reset it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Shared(Child),
    Client(ClientId),
}

/// A timer for an instance; void if the child has another one by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// When to restart a dead child.
    Restart(Child, InstanceId),
    /// When the thread of a hung child must have dropped it.
    Dropped(Child, InstanceId),
    /// When a connection that was told to stop must have stopped.
    Stopped(Child, InstanceId),
}

impl Supervision {
    /// A gateway without children. Peer indices are drawn from `seed`.
    #[must_use]
    pub fn new(config: SupervisionConfig, seed: [u8; 32]) -> Self {
        Self {
            config,
            indices: PeerIndexPool::new(seed),
            watchdog: Watchdog::new(),
            last_instance: InstanceId::default(),
            shared: BTreeMap::new(),
            clients: BTreeMap::new(),
            retiring: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next_portion: None,
            restarts: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            refused: 0,
            drain: None,
            is_stopping: false,
            timers: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts everything, and takes over the clients in the ledger. The portal comes last: restored
    /// clients do not wait for it.
    pub fn handle_start(&mut self, ledger: &mut Ledger, now: Instant) {
        self.start(Child::Admin, now);
        for shard in 0..self.config.shards {
            self.start_all(Place::Shard(shard), now);
        }
        self.start(Child::Dns, now);
        let left = ledger.clients().take(self.config.max_clients);
        self.waiting.extend(left.map(|(id, _)| id));
        self.restart_portion(ledger, now);
        self.start(Child::Portal, now);
    }

    /// Starts nothing from now on.
    pub fn handle_stop(&mut self) {
        self.is_stopping = true;
        self.waiting.clear();
    }

    /// Changes the limits; no client is cut.
    pub fn limit(&mut self, max_clients: usize, handshakes_per_second: usize) {
        self.config.max_clients = max_clients;
        self.config.handshakes_per_second = handshakes_per_second;
    }

    /// Restarts, pings and ends what is due.
    pub fn handle_timeout(&mut self, ledger: &mut Ledger, now: Instant) {
        self.watch(now);
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            self.handle_timer(timer, ledger, now);
        }
        self.restart_portion(ledger, now);
        self.count_active(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let portion = self.next_portion.filter(|_| !self.waiting.is_empty());
        let count = self.drain.map(|drain| drain.next_count);
        let all = [self.watchdog.poll_timeout(), timer, portion, count];
        all.into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<SupervisionEvent> {
        self.events.pop_front()
    }

    /// Whether messages may be sent to the child.
    #[must_use]
    pub fn is_running(&self, child: Child) -> bool {
        self.instance(child).is_some_and(Instance::is_running)
    }

    fn instance(&self, child: Child) -> Option<&Instance> {
        if let Child::Connection(id, index) = child {
            let client = self.clients.get(&id).filter(|it| it.index == index)?;
            return Some(&client.instance);
        }
        self.shared.get(&child)
    }

    fn instance_mut(&mut self, child: Child) -> Option<&mut Instance> {
        if let Child::Connection(id, index) = child {
            let client = self.clients.get_mut(&id).filter(|it| it.index == index)?;
            return Some(&mut client.instance);
        }
        self.shared.get_mut(&child)
    }

    fn next_instance(&mut self) -> InstanceId {
        self.last_instance.0 += 1;
        self.last_instance
    }

    fn start(&mut self, child: Child, now: Instant) {
        let id = self.next_instance();
        self.shared.entry(child).or_default().begin(id);
        self.watchdog.watch(child, SHARED_PACE, now);
        self.emit(Event::Start(child, id));
        self.emit(Event::Ping(child, id));
    }

    fn start_all(&mut self, place: Place, now: Instant) {
        for child in place.children() {
            self.start(child, now);
        }
    }

    /// Restarts connections, in one second at most as many as may handshake.
    fn restart_portion(&mut self, ledger: &mut Ledger, now: Instant) {
        if self.waiting.is_empty() || self.next_portion.is_some_and(|at| now < at) {
            return;
        }
        self.next_portion = Some(now + Duration::from_secs(1) / PORTIONS_PER_SECOND);
        let per_second = self.config.handshakes_per_second;
        for _ in 0..(per_second / PORTIONS_PER_SECOND as usize).max(1) {
            if let Some(id) = self.waiting.pop_first() {
                self.restart_connection(id, ledger, now);
            }
        }
    }

    fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }
}

/// The shard that receives what names no other.
pub const FRONT: u8 = 0;
/// Connections are restarted in portions, to spread their handshakes.
const PORTIONS_PER_SECOND: u32 = 4;
/// A shared child that does not answer is replaced within three seconds.
const SHARED_PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(1),
    timeout: Duration::from_millis(1500),
};
