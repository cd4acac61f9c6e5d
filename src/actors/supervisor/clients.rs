//! The clients' connections: starting them, reaching them, and taking them out.

use super::SupervisorActor;
use crate::actors::connection::{ConnectionActor, ConnectionOutputs, ConnectionSpec};
use crate::faults::{Fault, FaultKind};
use crate::messages::connection::ConnectionCommand;
use crate::messages::nat_table::{NatTableCommand, NatTableSetup, RouteClient};
use crate::messages::supervisor::Child;
use crate::messages::udp::UdpCommand;
use crate::post::{FOR_CONNECTION, Post};
use crate::supervision::{DeathNotice, Ping};
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::connection::ConnectionConfig;
use postern_core::ids::ClientId;
use postern_core::peer::PeerIndex;
use postern_core::supervision::{FRONT, Farewell, NewConnection, Refusal};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The connections that were started and are neither gone nor ended from outside.
#[derive(Default)]
pub(super) struct ConnectionTable {
    handles: BTreeMap<PeerIndex, ConnectionHandle>,
    /// Connections with commands that wait for room; each is looked at again until none does.
    waiting: RefCell<BTreeSet<PeerIndex>>,
}

struct ConnectionHandle {
    client: ClientId,
    connection: Addr<ConnectionActor>,
    /// A connection that takes no command for too long is ended.
    commands: Post<ConnectionCommand>,
    abort: AbortHandle,
}

impl ConnectionTable {
    pub(super) fn get(&self, index: PeerIndex) -> Option<&Addr<ConnectionActor>> {
        self.handles.get(&index).map(|handle| &handle.connection)
    }

    pub(super) fn pings(&self, index: PeerIndex) -> Option<Recipient<Ping>> {
        Some(self.get(index)?.clone().recipient())
    }

    pub(super) fn tell(&self, index: PeerIndex, command: ConnectionCommand) {
        if let Some(handle) = self.handles.get(&index) {
            handle.commands.tell(command);
            if handle.commands.is_waiting() {
                self.waiting.borrow_mut().insert(index);
            }
        }
    }

    /// A connection without room for the command is ended at once.
    pub(super) fn stop(&mut self, index: PeerIndex, farewell: Farewell) {
        if farewell == Farewell::Due {
            self.tell(index, ConnectionCommand::Close);
        }
        self.tell(index, ConnectionCommand::Stop);
        let handle = self.handles.get(&index);
        if handle.is_some_and(|it| it.commands.is_waiting()) {
            self.abort(index);
        }
    }

    /// A stuck actor must not learn its successors' addresses: it is no longer reached.
    pub(super) fn abort(&mut self, index: PeerIndex) {
        if let Some(handle) = self.handles.remove(&index) {
            handle.abort.abort();
        }
    }

    /// Sends again what waits. Returns the connections that have taken nothing for too long.
    pub(super) fn resend(&self) -> Vec<Child> {
        let mut deaf = Vec::new();
        self.waiting.borrow_mut().retain(|index| {
            let Some(handle) = self.handles.get(index) else {
                return false;
            };
            handle.commands.resend();
            if handle.commands.take_overflow() {
                deaf.push(Child::Connection(handle.client, *index));
            }
            handle.commands.is_waiting()
        });
        deaf
    }
}

impl SupervisorActor {
    pub(super) fn report_refusal(&self, client: ClientId, refusal: Refusal) {
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

    pub(super) fn tell_all(&self, command: &ConnectionCommand) {
        self.tell_those(command, |_| true);
    }

    /// As [`Self::tell_all`], only on the shards for which `is_meant` holds.
    pub(super) fn tell_those(&self, command: &ConnectionCommand, is_meant: impl Fn(u8) -> bool) {
        let all = self.supervision.clients();
        let meant = all.filter(|(_, it)| it.is_running() && is_meant(it.index.shard()));
        for (_, client) in meant {
            self.clients.tell(client.index, command.clone());
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
        let (connection, abort) = self.spec.spawner.connection(ConnectionSpec {
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
            included: it.included,
            metrics: self.spec.metrics.shard(shard.into()),
            death: DeathNotice::new(child, it.instance, ctx.address().recipient()),
        });
        let handle = ConnectionHandle {
            client,
            commands: Post::new(connection.clone().recipient(), FOR_CONNECTION),
            connection,
            abort,
        };
        self.clients.handles.insert(index, handle);
        if it.is_first {
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

    /// Does for a connection that is gone what it does itself when it stops.
    pub(super) fn detach(&mut self, client: ClientId, index: PeerIndex) {
        self.clients.handles.remove(&index);
        let shard = self.tree.shard(index.shard());
        let front = (index.shard() != FRONT).then(|| self.tree.front());
        let udps = [Some(shard), front].into_iter().flatten();
        for udp in udps.filter_map(|shard| shard.udp.as_ref()) {
            udp.commands.tell(UdpCommand::Detach(index));
        }
        if let Some(nat_table) = &shard.nat_table {
            let detach = NatTableCommand::Detach { client, index };
            nat_table.commands.tell(detach);
        }
        // Unless the client has come back meanwhile.
        if self.supervision.client(client).is_none() {
            for (_, sibling) in self.tree.siblings(index.shard()) {
                sibling.setup.tell(NatTableSetup::Unroute(client));
            }
        }
    }
}
