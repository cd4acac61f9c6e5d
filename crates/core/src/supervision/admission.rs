//! Clients: which are admitted, on which shard, and how their connections begin and end.

use super::child::{Child, Instance, InstanceId, InstanceState};
use super::requests::PendingRequests;
use super::{NewConnection, Supervision, SupervisionEvent as Event, Timer, WatchPace};
use crate::command::ClientCommand;
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use crate::ledger::Ledger;
use crate::peer::PeerIndex;
use std::time::{Duration, Instant};

/// A client that has a connection, or will have one again.
#[derive(Debug)]
pub struct ClientState {
    /// The index of all instances of its connection; says its shard.
    pub index: PeerIndex,
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Counts as recovered when it has a session.
    pub(super) instance: Instance,
    /// Number of grants passed on to this instance.
    passed: u64,
    pending: PendingRequests,
}

impl ClientState {
    fn new(index: PeerIndex, tunnel: TunnelAddresses) -> Self {
        Self {
            index,
            tunnel,
            instance: Instance::default(),
            passed: 0,
            pending: PendingRequests::default(),
        }
    }

    /// Keeps the command until it is acknowledged, and passes it on if the connection runs.
    fn pass(&mut self, number: u64, command: ClientCommand) -> Option<Event> {
        self.pending.push(&command);
        self.passed += u64::from(command.is_grant());
        self.is_running()
            .then(|| Event::Pass(self.index, number, command))
    }

    /// Whether messages reach the connection. A dead one will have a successor, which is built from
    /// the ledger.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.instance.is_running()
    }
}

/// Whether a client still has to be told that its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The connection says goodbye, then stops.
    Due,
    /// The client knows: the connection stops.
    Said,
}

/// How far a connection had come when it reported something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The client that it serves.
    pub client: ClientId,
    /// Its instance: reports of a former one do not count.
    pub instance: InstanceId,
    /// Number of grants that it had handled.
    pub handled: u64,
}

/// Why a client gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The process ends: it starts no connection for a client.
    #[error("the gateway is stopping")]
    Stopping,
    /// Access for a client with tunnel addresses that nothing has told.
    #[error("access for a client without connection")]
    Unknown,
    /// The client is in quarantine.
    #[error("its connection died too often")]
    CutOff,
    /// The gateway drains: it serves the clients that it has.
    #[error("the gateway is draining")]
    Draining,
    /// The gateway has as many clients as it may; the number of requests refused for that.
    #[error("no room for another client; raise limits.clients or add a gateway")]
    Full(u64),
}

impl Supervision {
    /// The portal says something about clients: records it in the ledger, then passes it on. A
    /// grant first gets its client a connection; the portal tells a refused client that the
    /// gateway is offline.
    ///
    /// # Errors
    /// Why the client has no connection.
    pub fn handle_command(
        &mut self,
        mut command: ClientCommand,
        ledger: &mut Ledger,
        now: Instant,
    ) -> Result<(), Refusal> {
        if let ClientCommand::Allow(it) = &mut command {
            // docs/lessons.md 18: it may come before `Authorize`, if the tunnel addresses are
            // known.
            let connected = self.clients.get(&it.client).map(|client| client.tunnel);
            let recorded = ledger.client(it.client).map(|record| record.tunnel);
            it.tunnel = it.tunnel.or(connected).or(recorded);
            let tunnel = it.tunnel.ok_or(Refusal::Unknown)?;
            self.admit(it.client, tunnel, ledger, now)?;
        } else if let ClientCommand::Authorize(it) = &command {
            if self.is_stopping {
                return Err(Refusal::Stopping);
            }
            self.admit(it.client.id, it.client.tunnel, ledger, now)?;
        }
        ledger.record_command(&command);
        if let Some(id) = command.client() {
            if let Some(client) = self.clients.get_mut(&id) {
                let number = ledger.last_command(id);
                self.events.extend(client.pass(number, command));
            }
            return Ok(());
        }
        for (id, client) in &mut self.clients {
            let number = ledger.last_command(*id);
            self.events
                .extend(client.pass(number, command.for_client(*id)));
        }
        Ok(())
    }

    /// A connection acknowledged a request.
    pub fn handle_acknowledgement(&mut self, id: ClientId, reply_ref: &str) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.pending.settle(reply_ref);
        }
    }

    /// A connection has a session: if it replaces a dead one, the client has recovered.
    pub fn handle_session(&mut self, id: ClientId, now: Instant) {
        if let Some(client) = self.clients.get_mut(&id)
            && let Some(died_at) = client.instance.died_at.take()
        {
            let child = Child::Connection(id, client.index);
            self.note_recovery(child, died_at, now);
        }
    }

    /// A connection has nothing left to serve: stops it, unless more requests have been passed on
    /// to it.
    pub fn handle_closed(&mut self, at: Progress, ledger: &mut Ledger, now: Instant) {
        if self.has_handled_all(at) {
            self.end(at.client, Farewell::Said, ledger, now);
        }
    }

    /// Whether the instance is its client's present one.
    #[must_use]
    pub fn is_current(&self, at: Progress) -> bool {
        let client = self.clients.get(&at.client);
        client.is_some_and(|client| client.instance.id == at.instance)
    }

    /// Whether the instance is its client's present one, and no further request is on its way.
    #[must_use]
    pub fn has_handled_all(&self, at: Progress) -> bool {
        let client = self.clients.get(&at.client);
        self.is_current(at) && client.is_some_and(|client| client.passed == at.handled)
    }

    /// A client that has a connection, or will have one again.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&ClientState> {
        self.clients.get(&id)
    }

    /// All clients in the order of their ids.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = (ClientId, &ClientState)> {
        self.clients.iter().map(|(id, client)| (*id, client))
    }

    /// The rest of the client's quarantine.
    #[must_use]
    pub fn cut_off_for(&self, id: ClientId, now: Instant) -> Option<Duration> {
        let rest = self.quarantine.get(&id)?.checked_duration_since(now);
        rest.filter(|rest| !rest.is_zero())
    }

    fn admit(
        &mut self,
        id: ClientId,
        tunnel: TunnelAddresses,
        ledger: &mut Ledger,
        now: Instant,
    ) -> Result<(), Refusal> {
        let known = self
            .clients
            .get(&id)
            .map(|it| (it.tunnel, it.index.shard()));
        match known {
            Some((former, _)) if former == tunnel => return Ok(()),
            Some(_) => self.end(id, Farewell::Due, ledger, now),
            None => {}
        }
        if self.is_stopping {
            return Err(Refusal::Stopping);
        }
        self.quarantine.retain(|_, until| *until > now);
        if self.quarantine.contains_key(&id) {
            return Err(Refusal::CutOff);
        }
        if let Some(drain) = &mut self.drain {
            drain.refused += 1;
            return Err(Refusal::Draining);
        }
        let has_room = self.clients.len() < self.config.max_clients;
        let shard = known.map(|(_, shard)| shard);
        let index = has_room.then(|| self.allocate(shard)).flatten();
        let Some(index) = index else {
            self.refused += 1;
            return Err(Refusal::Full(self.refused));
        };
        // A client of the previous process that has not been restored yet.
        let left = ledger.client(id);
        if left.is_none_or(|record| record.tunnel != tunnel) {
            ledger.remove_client(id);
        }
        self.connect(id, ClientState::new(index, tunnel), ledger, now);
        Ok(())
    }

    /// On the client's previous shard, or on the one with the fewest clients.
    fn allocate(&mut self, shard: Option<u8>) -> Option<PeerIndex> {
        let emptiest = || self.indices.emptiest(self.config.shards);
        let shard = shard.unwrap_or_else(emptiest);
        self.indices.allocate(shard)
    }

    /// Starts a connection from its ledger record; without one, removes the client.
    pub(super) fn restart_connection(&mut self, id: ClientId, ledger: &mut Ledger, now: Instant) {
        let Some(tunnel) = ledger.client(id).map(|record| record.tunnel) else {
            if let Some((_, client)) = self.forget(id) {
                self.release(id, client.index);
            }
            return;
        };
        let client = self.clients.remove(&id).or_else(|| {
            let index = self.allocate(None)?;
            Some(ClientState::new(index, tunnel))
        });
        if let Some(client) = client {
            self.connect(id, client, ledger, now);
        }
    }

    /// Starts a connection from the client's record, if it has one. One that replaces another gets
    /// its unacknowledged requests.
    fn connect(
        &mut self,
        id: ClientId,
        mut client: ClientState,
        ledger: &mut Ledger,
        now: Instant,
    ) {
        ledger.note_restored(id);
        let included = ledger.last_command(id);
        let record = ledger.client(id).cloned();
        let index = client.index;
        let is_first = client.instance.id == InstanceId::default();
        let requests = record.as_ref().map(|it| client.pending.renew(it));
        let requests = requests.unwrap_or_default();
        let instance = self.next_instance();
        client.instance.begin(instance);
        client.passed = requests.len() as u64;
        self.clients.insert(id, client);
        self.waiting.remove(&id);
        self.watchdog
            .watch(Child::Connection(id, index), CONNECTION_PACE, now);
        self.emit(Event::Connect(Box::new(NewConnection {
            client: id,
            index,
            instance,
            record,
            included,
            is_first,
        })));
        let requests = requests.into_iter();
        self.events
            .extend(requests.map(|it| Event::Pass(index, included, it)));
    }

    /// Ends a client with all its records. The index of a connection that has to stop first is
    /// released when it has stopped.
    fn end(&mut self, id: ClientId, farewell: Farewell, ledger: &mut Ledger, now: Instant) {
        ledger.remove_client(id);
        let Some((child, client)) = self.forget(id) else {
            return;
        };
        let (index, last) = (client.index, client.instance.id);
        if client.instance.state == InstanceState::Dead {
            return self.release(id, index);
        }
        self.retiring.insert(index, last);
        // The watchdog no longer watches it.
        let timer = Timer::Stopped(child, last);
        self.timers.insert((now + GOODBYE_TAKES, timer));
        self.emit(Event::Stop(index, farewell));
    }

    fn forget(&mut self, id: ClientId) -> Option<(Child, ClientState)> {
        let client = self.clients.remove(&id)?;
        self.waiting.remove(&id);
        let child = Child::Connection(id, client.index);
        self.watchdog.forget(child);
        Some((child, client))
    }

    /// The last instance with this index is gone.
    pub(super) fn release(&mut self, id: ClientId, index: PeerIndex) {
        self.indices.release(index);
        self.emit(Event::Detach(id, index));
    }

    /// Quarantines a client with a connection that dies repeatedly, for the sake of the others.
    pub(super) fn cut_off(&mut self, id: ClientId, ledger: &mut Ledger, now: Instant) {
        self.quarantine.insert(id, now + QUARANTINE);
        self.emit(Event::CutOff(id));
        self.end(id, Farewell::Due, ledger, now);
    }
}

const QUARANTINE: Duration = Duration::from_secs(30);
/// A connection that was told to stop has stopped by then, or is ended.
const GOODBYE_TAKES: Duration = Duration::from_secs(5);
/// There are many connections, so each is pinged less often.
const CONNECTION_PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(4),
    timeout: Duration::from_millis(1500),
};
