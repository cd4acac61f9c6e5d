//! The clients' connections: opening them, building them anew, and giving one up.

use super::SupervisorActor;
use super::tree::{Condition, FRONT};
use crate::actors::connection::{ConnectionActor, ConnectionOutputs, ConnectionSpec};
use crate::faults::{Fault, FaultKind};
use crate::messages::connection::{AllowAccess, CloseConnection, OpenConnection, StopConnection};
use crate::messages::nat_table::{DetachClient, RouteClient, UnrouteClient};
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::udp::DetachPeer;
use crate::shell::{self, tell, tell_addr};
use crate::supervision::DeathNotice;
use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::connection::ConnectionConfig;
use postern_core::grant::{AccessRequest, AuthorizationRequest, TunnelAddresses};
use postern_core::ids::ClientId;
use postern_core::ledger::ClientRecord;
use postern_core::peer::PeerIndex;
use postern_core::supervision::{RestartPolicy, RestartVerdict, Restarts, WatchPace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All clients, by their ids.
#[derive(Default)]
pub(super) struct Clients {
    known: BTreeMap<ClientId, Client>,
    /// Connections that were told to stop, and the life that will have been their last.
    retiring: BTreeMap<PeerIndex, InstanceId>,
    /// Deaths of clients' connections within the window of the budget, and the last of them.
    restarts: BTreeMap<ClientId, (Restarts, Instant)>,
    /// Clients that were cut off, and until when.
    quarantine: BTreeMap<ClientId, Instant>,
    refused_for_capacity: u64,
}

/// A client and its connection.
pub(super) struct Client {
    pub(super) connection: Addr<ConnectionActor>,
    pub(super) abort: AbortHandle,
    pub(super) index: PeerIndex,
    pub(super) tunnel: TunnelAddresses,
    pub(super) instance: InstanceId,
    /// How many requests were passed on to this instance.
    pub(super) opened: u64,
    /// When the connection died, until its successor has a session.
    pub(super) died_at: Option<Instant>,
    pub(super) condition: Condition,
    /// Requests that are not acknowledged yet: whoever dies over them leaves them to its successor.
    pending: VecDeque<Request>,
}

/// What the portal asks for, and waits to hear about.
#[derive(Clone)]
pub(super) enum Request {
    Open(Box<AuthorizationRequest>),
    Allow(Box<AccessRequest>),
}

impl Request {
    fn reply_ref(&self) -> &str {
        match self {
            Self::Open(request) => &request.reply_ref,
            Self::Allow(request) => &request.reply_ref,
        }
    }

    /// Whether an acknowledgement will come.
    fn is_acknowledged(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Allow(request) => request.announced.is_some(),
        }
    }

    /// As the ledger has it now; `None` if the portal has taken it back meanwhile.
    fn renewed(mut self, record: &ClientRecord) -> Option<Self> {
        let (resource, expires_at) = match &mut self {
            Self::Open(request) => (&mut request.resource, &mut request.expires_at),
            Self::Allow(request) => (&mut request.resource, &mut request.expires_at),
        };
        let grant = record.grants.get(&resource.id)?;
        resource.filters.clone_from(&grant.resource.filters);
        resource.name.clone_from(&grant.resource.name);
        *expires_at = grant.expires_at;
        Some(self)
    }

    fn send(self, connection: &Addr<ConnectionActor>) {
        match self {
            Self::Open(request) => tell_addr(connection, OpenConnection(request)),
            Self::Allow(request) => tell_addr(connection, AllowAccess(request)),
        }
    }
}

impl Client {
    /// Where messages go; whoever is not up has a successor soon, who knows all from the ledger.
    fn addressee(&self) -> Option<&Addr<ConnectionActor>> {
        (self.condition == Condition::Up).then_some(&self.connection)
    }
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClientId> {
        self.known.keys().copied()
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.known.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.known.get_mut(&id)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = (ClientId, &Addr<ConnectionActor>)> {
        let all = self.known.iter();
        all.filter_map(|(id, client)| Some((*id, client.addressee()?)))
    }

    pub(super) fn tell_all<M>(&self, message: &M)
    where
        M: Message<Result = ()> + Clone + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        self.tell_those(message, |_| true);
    }

    /// As [`Self::tell_all`], only on those shards.
    pub(super) fn tell_those<M>(&self, message: &M, is_meant: impl Fn(u8) -> bool)
    where
        M: Message<Result = ()> + Clone + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        let all = self.known.values();
        let meant = all.filter(|client| is_meant(client.index.shard()));
        for connection in meant.filter_map(Client::addressee) {
            tell_addr(connection, message.clone());
        }
    }

    /// Where a client lives.
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

    pub(super) fn pass_on<M>(&self, id: ClientId, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        match self.known.get(&id).and_then(Client::addressee) {
            Some(connection) => tell_addr(connection, message),
            None => tracing::debug!(client = %id, "message for nobody"),
        }
    }

    pub(super) fn pass_on_request(&mut self, id: ClientId, request: Request) {
        let Some(client) = self.known.get_mut(&id) else {
            return;
        };
        if request.is_acknowledged() {
            if client.pending.len() == PENDING {
                client.pending.pop_front();
            }
            client.pending.push_back(request.clone());
        }
        client.opened += 1;
        if let Some(connection) = client.addressee() {
            request.send(connection);
        }
    }

    /// A request was acknowledged.
    pub(super) fn settle(&mut self, id: ClientId, reply_ref: &str) {
        if let Some(client) = self.known.get_mut(&id) {
            client.pending.retain(|it| it.reply_ref() != reply_ref);
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

    /// The connection with this index is gone for good. Returns whether it was on its way out.
    pub(super) fn note_end(&mut self, index: PeerIndex, instance: InstanceId) -> bool {
        let is_last = self.retiring.get(&index) == Some(&instance);
        if is_last {
            self.retiring.remove(&index);
        }
        is_last
    }

    pub(super) fn child_in(&self, instance: InstanceId) -> Option<Child> {
        let mut all = self.known.iter();
        let (id, client) = all.find(|(_, client)| client.instance == instance)?;
        Some(Child::Connection(*id, client.index))
    }

    /// A connection of the client died. The count outlives the connection: a client that says
    /// goodbye in between is not forgiven.
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

    /// For how long the client is not served.
    pub(super) fn cut_off_for(&self, id: ClientId, now: Instant) -> Option<Duration> {
        let until = self.quarantine.get(&id)?;
        until
            .checked_duration_since(now)
            .filter(|rest| !rest.is_zero())
    }

    /// Said when it begins and then ever more rarely: a full gateway is refused many times a
    /// second.
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
    /// Whether there is a connection that a request can be passed on to; started if need be. There
    /// is none when there is no room for it; the portal then tells the client that the gateway is
    /// offline.
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
            self.make_room(id, ctx);
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
        // One that a former process left, and whose turn has not come yet.
        let left = self.spec.ledger.client(id);
        let left = left.filter(|record| record.tunnel == tunnel).cloned();
        if left.is_none() {
            self.spec.ledger.remove_client(id);
        }
        self.start_connection((id, index), tunnel, left, ctx);
        true
    }

    /// On the shard where the client has been, or where the fewest are.
    fn allocate(&mut self, shard: Option<u8>) -> Option<PeerIndex> {
        let emptiest = || self.indices.emptiest(self.spec.shards);
        let shard = shard.unwrap_or_else(emptiest);
        self.indices.allocate(shard)
    }

    /// A client comes back with another tunnel address: its former connection ends.
    fn make_room(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        self.spec.ledger.remove_client(id);
        let Some(former) = self.clients.get(id) else {
            return;
        };
        if former.condition == Condition::Dead {
            return self.bury(id);
        }
        let abort = former.abort.clone();
        if let Some(former) = self.retire(id) {
            tell_addr(&former, CloseConnection);
            tell_addr(&former, StopConnection);
        }
        // Nobody looks after it any more, should it hang.
        ctx.run_later(GOODBYE_TAKES, move |_, _| abort.abort());
    }

    /// Takes the clients over that the former process left, as many at a time as may shake hands.
    pub(super) fn take_over(&mut self, ctx: &mut Context<Self>) {
        let left = self.spec.ledger.clients().map(|(id, _)| (id, None));
        let left: VecDeque<_> = left.take(self.spec.max_clients).collect();
        if !left.is_empty() {
            let clients = left.len();
            tracing::info!(milestone = "taken_over", clients, "clients taken over");
            self.revive_in_portions(left, ctx);
        }
    }

    /// Builds connections from the ledger, not more in a second than may shake hands with us. Each
    /// takes the place of this instance; one that has come to another meanwhile is left alone.
    pub(super) fn revive_in_portions(
        &mut self,
        mut waiting: VecDeque<(ClientId, Option<InstanceId>)>,
        ctx: &mut Context<Self>,
    ) {
        if self.stopping {
            return;
        }
        let portion = (self.spec.handshakes_per_second / PORTIONS_PER_SECOND).max(1);
        for (id, instance) in waiting.drain(..portion.min(waiting.len())) {
            if self.clients.get(id).map(|client| client.instance) == instance {
                self.revive(id, ctx);
            }
        }
        if !waiting.is_empty() {
            ctx.run_later(
                Duration::from_secs(1) / PORTIONS_PER_SECOND as u32,
                |actor, ctx| {
                    actor.revive_in_portions(waiting, ctx);
                },
            );
        }
    }

    /// Builds one connection from the ledger; without a record there is nothing to be built.
    pub(super) fn revive(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        let Some(record) = self.spec.ledger.client(id).cloned() else {
            self.bury(id);
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

    /// Starts a connection, or its successor, which inherits what is not acknowledged.
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
            metrics: self.spec.metrics.shard(shard.into()),
            death: DeathNotice::new(child, instance, ctx.address().recipient()),
        });
        let former = self.clients.known.remove(&id);
        if former.is_none() {
            self.route(id, tunnel, shard);
        }
        let mut client = Client {
            connection,
            abort,
            index,
            tunnel,
            instance,
            opened: 0,
            died_at: None,
            condition: Condition::Up,
            pending: VecDeque::new(),
        };
        if let Some(former) = former {
            client.died_at = former.died_at;
            let pending = former.pending.into_iter();
            client.pending = match granted {
                Some(granted) => pending.filter_map(|it| it.renewed(&granted)).collect(),
                None => pending.collect(),
            };
        }
        for request in &client.pending {
            client.opened += 1;
            request.clone().send(&client.connection);
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
            gathered: ctx.address().recipient(),
            accepted: ctx.address().recipient(),
            news: ctx.address().recipient(),
            closed: ctx.address().recipient(),
        })
    }

    /// Takes a client out, whose connection is to stop. Its index is free when that has happened.
    pub(super) fn retire(&mut self, id: ClientId) -> Option<Addr<ConnectionActor>> {
        let client = self.clients.known.remove(&id)?;
        self.spec.metrics.clients.set(self.clients.len());
        self.watchdog.forget(Child::Connection(id, client.index));
        self.clients.retiring.insert(client.index, client.instance);
        Some(client.connection)
    }

    /// A client whose connection is dead and will not be built anew.
    pub(super) fn bury(&mut self, id: ClientId) {
        if let Some(client) = self.clients.known.remove(&id) {
            self.spec.metrics.clients.set(self.clients.len());
            self.watchdog.forget(Child::Connection(id, client.index));
            self.detach(id, client.index);
            self.indices.release(client.index);
        }
    }

    /// Gives a client up whose connection dies again and again, so that the others have peace.
    pub(super) fn cut_off(&mut self, id: ClientId, ctx: &mut Context<Self>) {
        tracing::error!(client = %id, "cut off: its connection died too often");
        let until = shell::now() + QUARANTINE;
        self.clients.quarantine.insert(id, until);
        self.spec.ledger.remove_client(id);
        self.bury(id);
        self.save_soon(ctx);
    }

    /// A connection that died could not detach anything itself.
    pub(super) fn detach(&self, client: ClientId, index: PeerIndex) {
        let shard = self.tree.shard(index.shard());
        let front = (index.shard() != FRONT).then(|| self.tree.front());
        let udps = [Some(shard), front].into_iter().flatten();
        for udp in udps.filter_map(|shard| shard.udp.as_ref()) {
            tell(&udp.inputs.detach, DetachPeer { index });
        }
        if let Some(nat_table) = &shard.nat_table {
            tell(&nat_table.inputs.detach, DetachClient { client, index });
        }
        // Unless it has come back meanwhile.
        if self.clients.get(client).is_none() {
            for (_, sibling) in self.tree.siblings(index.shard()) {
                tell(&sibling.unroute, UnrouteClient(client));
            }
        }
    }

    /// All other shards learn where the client lives.
    fn route(&self, client: ClientId, tunnel: TunnelAddresses, shard: u8) {
        for (_, sibling) in self.tree.siblings(shard) {
            let route = RouteClient {
                client,
                tunnel,
                shard,
            };
            tell(&sibling.route, route);
        }
    }
}

/// Requests of one client that may wait for their acknowledgement; older ones the portal repeats.
const PENDING: usize = 32;
/// For so long a client that was cut off is not served.
const QUARANTINE: Duration = Duration::from_secs(30);
/// A connection that was told to end has done so by then.
const GOODBYE_TAKES: Duration = Duration::from_secs(5);
/// Clients that are taken over come in portions.
const PORTIONS_PER_SECOND: usize = 4;
/// Connections are many, so each is looked after less often.
const CONNECTION_PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(4),
    timeout: Duration::from_millis(1500),
};
