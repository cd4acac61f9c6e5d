//! The clients' connections: starting, restarting and ending them.

use super::SupervisorActor;
use super::tree::{ChildState, FRONT, Instance};
use crate::actors::connection::{ConnectionActor, ConnectionOutputs, ConnectionSpec};
use crate::faults::{Fault, FaultKind};
use crate::messages::connection::ConnectionCommand;
use crate::messages::nat_table::{NatTableCommand, NatTableSetup, RouteClient};
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::udp::UdpCommand;
use crate::post::{FOR_CONNECTION, Post};
use crate::shell;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::command::ClientCommand;
use postern_core::connection::ConnectionConfig;
use postern_core::grant::TunnelAddresses;
use postern_core::ids::ClientId;
use postern_core::ledger::{ClientRecord, Ledger};
use postern_core::peer::PeerIndex;
use postern_core::supervision::{RestartPolicy, RestartVerdict, Restarts, WatchPace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct ClientTable {
    known: BTreeMap<ClientId, ClientEntry>,
    /// Connections that were told to stop, each with its last instance.
    retiring: BTreeMap<PeerIndex, InstanceId>,
    /// Deaths of clients' connections within the window of the budget, and the last of them.
    restarts: BTreeMap<ClientId, (Restarts, Instant)>,
    /// Clients that were cut off, each with the end of its quarantine.
    quarantine: BTreeMap<ClientId, Instant>,
    refused_for_capacity: u64,
}

/// A client and its connection.
pub(super) struct ClientEntry {
    pub(super) connection: Addr<ConnectionActor>,
    /// A connection that takes no command for too long is ended.
    commands: Post<ConnectionCommand>,
    /// Counts as recovered when it has a session.
    pub(super) instance: Instance,
    pub(super) index: PeerIndex,
    pub(super) tunnel: TunnelAddresses,
    /// Number of requests passed on to this instance.
    pub(super) opened: u64,
    /// Requests that are not acknowledged yet: if the connection dies, its successor gets them.
    pending: VecDeque<ClientCommand>,
}

/// A connection that is no longer the client's.
pub(super) struct Retired {
    commands: Post<ConnectionCommand>,
    abort: AbortHandle,
}

impl Retired {
    /// Tells the connection to stop; one without room for that is ended at once.
    pub(super) fn stop(self, goodbye: Option<ConnectionCommand>) -> AbortHandle {
        goodbye.into_iter().for_each(|it| self.commands.tell(it));
        self.commands.tell(ConnectionCommand::Stop);
        if self.commands.is_waiting() {
            self.abort.abort();
        }
        self.abort
    }
}

/// A request with what the ledger has for it now; `None` if the portal has revoked it meanwhile.
fn renewed(mut request: ClientCommand, record: &ClientRecord) -> Option<ClientCommand> {
    let (resource, expires_at) = request.grant_mut()?;
    let grant = record.authorizations.grants().get(&resource.id)?;
    resource.filters.clone_from(&grant.resource.filters);
    resource.name.clone_from(&grant.resource.name);
    *expires_at = grant.expires_at;
    Some(request)
}

impl ClientEntry {
    /// The running connection. A dead one will have a successor, which is built from the ledger.
    fn addressee(&self) -> Option<&Addr<ConnectionActor>> {
        self.instance.is_running().then_some(&self.connection)
    }

    fn tell(&self, command: ConnectionCommand) {
        if self.instance.is_running() {
            self.commands.tell(command);
        }
    }

    /// Sends a command of the portal, and keeps it until it is acknowledged.
    fn execute(&mut self, number: u64, command: ClientCommand) {
        if command.awaited_ref().is_some() {
            if self.pending.len() == PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back(command.clone());
        }
        self.opened += u64::from(command.is_grant());
        self.tell(ConnectionCommand::Client(number, command));
    }
}

impl ClientTable {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClientId> {
        self.known.keys().copied()
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&ClientEntry> {
        self.known.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut ClientEntry> {
        self.known.get_mut(&id)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = (ClientId, &Addr<ConnectionActor>)> {
        let all = self.known.iter();
        all.filter_map(|(id, client)| Some((*id, client.addressee()?)))
    }

    pub(super) fn tell_all(&self, command: &ConnectionCommand) {
        self.tell_those(command, |_| true);
    }

    /// As [`Self::tell_all`], only on the shards for which `is_meant` holds.
    pub(super) fn tell_those(&self, command: &ConnectionCommand, is_meant: impl Fn(u8) -> bool) {
        let all = self.known.values();
        for client in all.filter(|client| is_meant(client.index.shard())) {
            client.tell(command.clone());
        }
    }

    /// Sends again what waits. Returns the connections that have taken nothing for too long.
    pub(super) fn resend(&self) -> Vec<Child> {
        let running = self.known.iter().filter(|(_, it)| it.instance.is_running());
        let waiting = running.filter(|(_, it)| it.commands.is_waiting());
        let stuck = waiting.filter(|(_, client)| {
            client.commands.resend();
            client.commands.take_overflow()
        });
        stuck
            .map(|(id, client)| Child::Connection(*id, client.index))
            .collect()
    }

    pub(super) fn shard_of(&self, id: ClientId) -> Option<u8> {
        Some(self.known.get(&id)?.index.shard())
    }

    /// The clients of all shards but this one.
    pub(super) fn routes(&self, shard: u8) -> impl Iterator<Item = RouteClient> {
        let all = self.known.iter().map(|(id, client)| RouteClient {
            client: *id,
            tunnel: client.tunnel,
            shard: client.index.shard(),
        });
        all.filter(move |route| route.shard != shard)
    }

    /// Sends a command of the portal to the connections that it is about.
    pub(super) fn pass_on(&mut self, command: ClientCommand, ledger: &Ledger) {
        let Some(id) = command.client() else {
            for (id, client) in &mut self.known {
                client.execute(ledger.last_command(*id), command.for_client(*id));
            }
            return;
        };
        match self.known.get_mut(&id) {
            Some(client) => client.execute(ledger.last_command(id), command),
            None => tracing::debug!(client = %id, "command for nobody"),
        }
    }

    /// Removes a request that was acknowledged.
    pub(super) fn settle(&mut self, id: ClientId, reply_ref: &str) {
        if let Some(client) = self.known.get_mut(&id) {
            client
                .pending
                .retain(|it| it.awaited_ref() != Some(reply_ref));
        }
    }

    pub(super) fn inject(&self, id: Option<ClientId>, kind: FaultKind) -> Result<(), String> {
        let client = match id {
            Some(id) => self.known.get(&id),
            None => self.known.values().next(),
        };
        let client = client.ok_or("no such client is connected")?;
        let sent = client.connection.try_send(Fault(kind));
        sent.map_err(|error| format!("the connection takes no fault: {error}"))
    }

    /// Returns whether this instance was the last of a connection that was told to stop.
    pub(super) fn note_end(&mut self, index: PeerIndex, instance: InstanceId) -> bool {
        let is_last = self.retiring.get(&index) == Some(&instance);
        if is_last {
            self.retiring.remove(&index);
        }
        is_last
    }

    pub(super) fn child_in(&self, instance: InstanceId) -> Option<Child> {
        let mut all = self.known.iter();
        let (id, client) = all.find(|(_, client)| client.instance.id == instance)?;
        Some(Child::Connection(*id, client.index))
    }

    /// Counts the death of a connection of the client. The count outlives the connection: a goodbye
    /// in between does not reset it.
    pub(super) fn count_death(&mut self, id: ClientId, now: Instant) -> RestartVerdict {
        let within = RestartPolicy::CONNECTION.within;
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) <= within;
        self.restarts.retain(|_, (_, last)| is_recent(last));
        let fresh = || (Restarts::new(RestartPolicy::CONNECTION), now);
        let (restarts, last) = self.restarts.entry(id).or_insert_with(fresh);
        *last = now;
        restarts.handle_death(now)
    }

    fn is_quarantined(&mut self, id: ClientId, now: Instant) -> bool {
        self.quarantine.retain(|_, until| *until > now);
        self.quarantine.contains_key(&id)
    }

    /// The rest of the client's quarantine.
    pub(super) fn cut_off_for(&self, id: ClientId, now: Instant) -> Option<Duration> {
        let until = self.quarantine.get(&id)?;
        until
            .checked_duration_since(now)
            .filter(|rest| !rest.is_zero())
    }

    /// Logged at powers of two: a full gateway refuses many requests a second.
    fn note_refusal(&mut self, limit: usize) {
        self.refused_for_capacity += 1;
        if self.refused_for_capacity.is_power_of_two() {
            tracing::warn!(
                refused = self.refused_for_capacity,
                limit,
                "no room for another client; raise limits.clients or add a gateway"
            );
        }
    }
}

impl SupervisorActor {
    /// Starts a connection for the client unless it has one. Returns whether it has one now. If the
    /// gateway is full, it has none, and the portal tells the client that the gateway is offline.
    pub(super) fn admit(
        &mut self,
        id: ClientId,
        tunnel: TunnelAddresses,
        ctx: &mut Context<Self>,
    ) -> bool {
        let known = self.clients.get(id).map(|client| client.tunnel);
        if known == Some(tunnel) {
            return true;
        }
        let shard = self.clients.shard_of(id);
        if known.is_some() {
            self.end_former(id, ctx);
        }
        if self.stopping {
            return false;
        }
        if self.clients.is_quarantined(id, shell::now()) {
            self.spec.metrics.turned_away.add(1);
            tracing::debug!(client = %id, "refused: its connection died too often");
            return false;
        }
        if let Some(drain) = &mut self.drain {
            tracing::debug!(client = %id, "refused: the gateway is draining");
            drain.note_refusal();
            self.spec.metrics.turned_away.add(1);
            return false;
        }
        let has_room = self.clients.len() < self.spec.max_clients;
        let allocated = has_room.then(|| self.allocate(shard));
        let Some(index) = allocated.flatten() else {
            self.spec.metrics.turned_away.add(1);
            self.clients.note_refusal(self.spec.max_clients);
            return false;
        };
        // A client of the previous process that has not been restored yet.
        let left = self.spec.ledger.client(id);
        let left = left.filter(|record| record.tunnel == tunnel).cloned();
        if left.is_none() {
            self.spec.ledger.remove_client(id);
        }
        self.start_connection((id, index), tunnel, left, ctx);
        true
    }

    /// On the client's previous shard, or on the one with the fewest clients.
    fn allocate(&mut self, shard: Option<u8>) -> Option<PeerIndex> {
        let emptiest = || self.indices.emptiest(self.spec.shards);
        let shard = shard.unwrap_or_else(emptiest);
        self.indices.allocate(shard)
    }

    /// Ends the connection of a client that comes back with another tunnel address.
    fn end_former(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        self.spec.ledger.remove_client(id);
        let Some(former) = self.clients.get(id) else {
            return;
        };
        if former.instance.state == ChildState::Dead {
            return self.remove(id);
        }
        if let Some(former) = self.retire(id) {
            let abort = former.stop(Some(ConnectionCommand::Close));
            // The watchdog no longer watches it.
            ctx.run_later(GOODBYE_TAKES, move |_, _| abort.abort());
        }
    }

    /// Takes over the clients of the previous process.
    pub(super) fn take_over(&mut self, ctx: &mut Context<Self>) {
        let left = self.spec.ledger.clients().map(|(id, _)| (id, None));
        let left: VecDeque<_> = left.take(self.spec.max_clients).collect();
        if !left.is_empty() {
            let clients = left.len();
            tracing::info!(milestone = "taken_over", clients, "clients taken over");
            self.restart_in_batches(left, ctx);
        }
    }

    /// Starts connections from the ledger, in one second at most as many as may handshake. Each
    /// replaces the given instance; a client that has another instance meanwhile is left alone.
    pub(super) fn restart_in_batches(
        &mut self,
        mut waiting: VecDeque<(ClientId, Option<InstanceId>)>,
        ctx: &mut Context<Self>,
    ) {
        if self.stopping {
            return;
        }
        let batch = (self.spec.handshakes_per_second / BATCHES_PER_SECOND).max(1);
        for (id, instance) in waiting.drain(..batch.min(waiting.len())) {
            if self.clients.get(id).map(|client| client.instance.id) == instance {
                self.restart_connection(id, ctx);
            }
        }
        if !waiting.is_empty() {
            ctx.run_later(
                Duration::from_secs(1) / BATCHES_PER_SECOND as u32,
                |actor, ctx| {
                    actor.restart_in_batches(waiting, ctx);
                },
            );
        }
    }

    /// Starts a connection from its ledger record; without one, removes the client.
    pub(super) fn restart_connection(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        let Some(record) = self.spec.ledger.client(id).cloned() else {
            self.remove(id);
            return;
        };
        let index = match self.clients.get(id) {
            Some(client) => client.index,
            None => match self.allocate(None) {
                Some(index) => index,
                None => return,
            },
        };
        let tunnel = record.tunnel;
        self.start_connection((id, index), tunnel, Some(record), ctx);
    }

    /// Starts a connection. One that replaces another gets its unacknowledged requests.
    fn start_connection(
        &mut self,
        (id, index): (ClientId, PeerIndex),
        tunnel: TunnelAddresses,
        record: Option<Arc<ClientRecord>>,
        ctx: &mut Context<Self>,
    ) {
        let shard = index.shard();
        let Some(outputs) = self.outputs(shard, ctx) else {
            return;
        };
        let instance = self.next_instance();
        let child = Child::Connection(id, index);
        self.spec.ledger.note_restored(id);
        let included = self.spec.ledger.last_command(id);
        let granted = record.clone();
        let (connection, abort) = self.spec.spawner.connection(ConnectionSpec {
            client: id,
            config: ConnectionConfig {
                keys: self.spec.keys.clone(),
                index,
                client: tunnel,
                gateway: self.spec.ledger.gateway(),
                max_resources: self.spec.max_resources,
            },
            outputs,
            record,
            included,
            metrics: self.spec.metrics.shard(shard.into()),
            death: DeathNotice::new(child, instance, ctx.address().recipient()),
        });
        let former = self.clients.known.remove(&id);
        if former.is_none() {
            self.route(id, tunnel, shard);
        }
        let mut client = ClientEntry {
            commands: Post::new(connection.clone().recipient(), FOR_CONNECTION),
            connection,
            instance: Instance::new(instance, abort),
            index,
            tunnel,
            opened: 0,
            pending: VecDeque::new(),
        };
        if let Some(former) = former {
            client.instance.died_at = former.instance.died_at;
            let pending = former.pending.into_iter();
            client.pending = match granted {
                Some(granted) => pending.filter_map(|it| renewed(it, &granted)).collect(),
                None => pending.collect(),
            };
        }
        for request in &client.pending {
            client.opened += 1;
            client.tell(ConnectionCommand::Client(included, request.clone()));
        }
        self.clients.known.insert(id, client);
        self.spec.metrics.clients.set(self.clients.len());
        self.watchdog.watch(child, CONNECTION_PACE, shell::now());
        self.watch(ctx);
    }

    fn outputs(&self, number: u8, ctx: &mut Context<Self>) -> Option<ConnectionOutputs> {
        let shard = self.tree.shard(number);
        let front = match number {
            FRONT => None,
            _ => Some(self.tree.front().udp.as_ref()?.inputs.clone()),
        };
        Some(ConnectionOutputs {
            nat_table: shard.nat_table.as_ref()?.inputs.clone(),
            udp: shard.udp.as_ref()?.inputs.clone(),
            front,
            resolve: self.tree.dns.as_ref()?.resolve.clone(),
            news: ctx.address().recipient(),
        })
    }

    /// Removes a client and returns its connection, which is to stop. Its index is released when it
    /// has stopped.
    pub(super) fn retire(&mut self, id: ClientId) -> Option<Retired> {
        let client = self.clients.known.remove(&id)?;
        self.spec.metrics.clients.set(self.clients.len());
        self.watchdog.forget(Child::Connection(id, client.index));
        let last = client.instance.id;
        self.clients.retiring.insert(client.index, last);
        Some(Retired {
            commands: client.commands,
            abort: client.instance.abort,
        })
    }

    /// Removes a client that has a dead connection.
    pub(super) fn remove(&mut self, id: ClientId) {
        if let Some(client) = self.clients.known.remove(&id) {
            self.spec.metrics.clients.set(self.clients.len());
            self.watchdog.forget(Child::Connection(id, client.index));
            self.detach(id, client.index);
            self.indices.release(client.index);
        }
    }

    /// Quarantines a client with a connection that dies repeatedly, for the sake of the others.
    pub(super) fn cut_off(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        tracing::error!(client = %id, "cut off: its connection died too often");
        let until = shell::now() + QUARANTINE;
        self.clients.quarantine.insert(id, until);
        self.spec.ledger.remove_client(id);
        self.remove(id);
        self.save_soon(ctx);
    }

    /// Does for a dead connection what it does itself when it stops.
    pub(super) fn detach(&self, client: ClientId, index: PeerIndex) {
        let shard = self.tree.shard(index.shard());
        let front = (index.shard() != FRONT).then(|| self.tree.front());
        let udps = [Some(shard), front].into_iter().flatten();
        for udp in udps.filter_map(|shard| shard.udp.as_ref()) {
            udp.commands.tell(UdpCommand::Detach(index));
        }
        if let Some(nat_table) = &shard.nat_table {
            nat_table
                .commands
                .tell(NatTableCommand::Detach { client, index });
        }
        // Unless the client has come back meanwhile.
        if self.clients.get(client).is_none() {
            for (_, sibling) in self.tree.siblings(index.shard()) {
                sibling.setup.tell(NatTableSetup::Unroute(client));
            }
        }
    }

    /// Sends the client's shard to all other shards.
    fn route(&self, client: ClientId, tunnel: TunnelAddresses, shard: u8) {
        for (_, sibling) in self.tree.siblings(shard) {
            let route = RouteClient {
                client,
                tunnel,
                shard,
            };
            sibling.setup.tell(NatTableSetup::Route(route));
        }
    }
}

/// Requests of one client that may wait for their acknowledgement; the portal repeats older ones.
const PENDING: usize = 32;
const QUARANTINE: Duration = Duration::from_secs(30);
/// A connection that was told to stop has stopped by then.
const GOODBYE_TAKES: Duration = Duration::from_secs(5);
/// Connections are restarted in batches, to spread their handshakes.
const BATCHES_PER_SECOND: usize = 4;
/// There are many connections, so each is pinged less often.
const CONNECTION_PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(4),
    timeout: Duration::from_millis(1500),
};
