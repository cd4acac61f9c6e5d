//! The clients' connections: starting them, reaching them, and taking them out.

use super::SupervisorActor;
use crate::actors::connection::{ConnectionActor, ConnectionOutputs, ConnectionSpec};
use crate::faults::{Fault, FaultKind};
use crate::messages::connection::{AllowAccess, CloseConnection, OpenConnection, StopConnection};
use crate::messages::nat_table::{DetachClient, RouteClient, UnrouteClient};
use crate::messages::supervisor::Child;
use crate::messages::udp::DetachPeer;
use crate::shell::{self, tell, tell_addr};
use crate::supervision::{DeathNotice, Ping};
use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::connection::ConnectionConfig;
use postern_core::ids::ClientId;
use postern_core::peer::PeerIndex;
use postern_core::supervision::{ClientRequest, FRONT, Farewell, NewConnection, Refusal};
use std::collections::BTreeMap;

/// The addresses of the connections that were started and are neither gone nor ended from outside.
#[derive(Default)]
pub(super) struct ConnectionTable(BTreeMap<PeerIndex, (Addr<ConnectionActor>, AbortHandle)>);

impl ConnectionTable {
    pub(super) fn get(&self, index: PeerIndex) -> Option<&Addr<ConnectionActor>> {
        self.0.get(&index).map(|(connection, _)| connection)
    }

    pub(super) fn pings(&self, index: PeerIndex) -> Option<Recipient<Ping>> {
        Some(self.get(index)?.clone().recipient())
    }

    pub(super) fn send(&self, index: PeerIndex, request: ClientRequest) {
        let Some(connection) = self.get(index) else {
            return;
        };
        match request {
            ClientRequest::Open(request) => tell_addr(connection, OpenConnection(request)),
            ClientRequest::Allow(request) => tell_addr(connection, AllowAccess(request)),
        }
    }

    pub(super) fn stop(&self, index: PeerIndex, farewell: Farewell) {
        let Some(connection) = self.get(index) else {
            return;
        };
        if farewell == Farewell::Due {
            tell_addr(connection, CloseConnection);
        }
        tell_addr(connection, StopConnection);
    }

    /// A stuck actor must not learn its successors' addresses: it is no longer reached.
    pub(super) fn abort(&mut self, index: PeerIndex) {
        if let Some((_, abort)) = self.0.remove(&index) {
            abort.abort();
        }
    }
}

impl SupervisorActor {
    /// The portal grants a client something.
    pub(super) fn grant(&mut self, request: ClientRequest, ctx: &mut Context<Self>) {
        let client = request.client();
        let (ledger, now) = (&mut self.spec.ledger, shell::now());
        let granted = self.supervision.handle_request(request, ledger, now);
        if let Err(refusal) = granted {
            self.report_refusal(client, refusal);
        }
        self.perform(ctx);
    }

    fn report_refusal(&self, client: ClientId, refusal: Refusal) {
        match refusal {
            Refusal::Stopping | Refusal::Unknown => {}
            Refusal::CutOff | Refusal::Draining => self.spec.metrics.turned_away.add(1),
            Refusal::Full(refused) => {
                self.spec.metrics.turned_away.add(1);
                // A full gateway refuses many requests a second.
                if refused.is_power_of_two() {
                    let limit = self.spec.max_clients;
                    tracing::warn!(refused, limit, "{refusal}");
                }
            }
        }
        tracing::debug!(%client, "refused: {refusal}");
    }

    /// The client's connection, if it runs. A dead one will have a successor, which is built from
    /// the ledger.
    pub(super) fn connection(&self, id: ClientId) -> Option<&Addr<ConnectionActor>> {
        let client = self.supervision.client(id)?;
        self.clients
            .get(client.index)
            .filter(|_| client.is_running())
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = (ClientId, &Addr<ConnectionActor>)> {
        let all = self.supervision.clients();
        all.filter_map(|(id, _)| Some((id, self.connection(id)?)))
    }

    pub(super) fn tell_all<M>(&self, message: &M)
    where
        M: Message<Result = ()> + Clone + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        self.tell_those(message, |_| true);
    }

    /// As [`Self::tell_all`], only on the shards for which `is_meant` holds.
    pub(super) fn tell_those<M>(&self, message: &M, is_meant: impl Fn(u8) -> bool)
    where
        M: Message<Result = ()> + Clone + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        let all = self.supervision.clients();
        let meant = all.filter(|(_, it)| it.is_running() && is_meant(it.index.shard()));
        for connection in meant.filter_map(|(_, client)| self.clients.get(client.index)) {
            tell_addr(connection, message.clone());
        }
    }

    pub(super) fn pass_on<M>(&self, id: ClientId, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        match self.connection(id) {
            Some(connection) => tell_addr(connection, message),
            None => tracing::debug!(client = %id, "message for nobody"),
        }
    }

    pub(super) fn inject_into_connection(
        &self,
        id: Option<ClientId>,
        kind: FaultKind,
    ) -> Result<(), String> {
        let mut all = self.supervision.clients();
        let client = match id {
            Some(id) => self.supervision.client(id),
            None => all.next().map(|(_, client)| client),
        };
        let connection = client.and_then(|client| self.clients.get(client.index));
        let connection = connection.ok_or("no such client is connected")?;
        let sent = connection.try_send(Fault(kind));
        sent.map_err(|error| format!("the connection takes no fault: {error}"))
    }

    pub(super) fn start_connection(&mut self, it: NewConnection, ctx: &mut Context<Self>) {
        let NewConnection { client, index, .. } = it;
        let shard = index.shard();
        let known = self.supervision.client(client).map(|known| known.tunnel);
        let (Some(tunnel), Some(outputs)) = (known, self.outputs(shard, ctx)) else {
            return;
        };
        let child = Child::Connection(client, index);
        let started = self.spec.spawner.connection(ConnectionSpec {
            client,
            config: ConnectionConfig {
                keys: self.spec.keys.clone(),
                index,
                client: tunnel,
                gateway: self.spec.ledger.gateway(),
                max_resources: self.spec.max_resources,
            },
            outputs,
            record: it.record,
            metrics: self.spec.metrics.shard(shard.into()),
            death: DeathNotice::new(child, it.instance, ctx.address().recipient()),
        });
        self.clients.0.insert(index, started);
        if it.is_first {
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
            changed: ctx.address().recipient(),
            closed: ctx.address().recipient(),
        })
    }

    /// Does for a connection that is gone what it does itself when it stops.
    pub(super) fn detach(&mut self, client: ClientId, index: PeerIndex) {
        self.clients.0.remove(&index);
        let shard = self.tree.shard(index.shard());
        let front = (index.shard() != FRONT).then(|| self.tree.front());
        let udps = [Some(shard), front].into_iter().flatten();
        for udp in udps.filter_map(|shard| shard.udp.as_ref()) {
            tell(&udp.inputs.detach, DetachPeer { index });
        }
        if let Some(nat_table) = &shard.nat_table {
            tell(&nat_table.inputs.detach, DetachClient { client, index });
        }
        // Unless the client has come back meanwhile.
        if self.supervision.client(client).is_none() {
            for (_, sibling) in self.tree.siblings(index.shard()) {
                tell(&sibling.unroute, UnrouteClient(client));
            }
        }
    }
}
