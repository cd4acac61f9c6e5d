//! SupervisorActor: the parent of all others.
//!
//! Owns: the list of clients, their actors and indices. Receives: the portal's commands,
//! `ChildDied`, `ConnectionClosed`, `Shutdown`. Emits: commands to connections,
//! `ConfigureInterface`, `ServeNames`, `UseRelays`. When its mailbox is full: control messages
//! only, they wait. On death: the process ends.

use crate::actors::connection::{ConnectionActor, ConnectionOutlets, ConnectionSpec};
use crate::actors::udp::UdpActor;
use crate::messages::connection::{
    AddCandidates, AllowAccess, CloseConnection, OpenConnection, ReconcileAuthorizations,
    RemoveCandidates, RevokeAccess, SetExpiry, StopConnection, UpdateResource,
};
use crate::messages::dns::ServeNames;
use crate::messages::nat_table::DetachClient;
use crate::messages::portal::{LeavePortal, RequestRelays};
use crate::messages::supervisor::{
    Child, ChildDied, ConnectionClosed, GatewayInitialized, InterfaceFailed, PortalRefused,
    RelaysChanged, Shutdown,
};
use crate::messages::tun::ConfigureInterface;
use crate::messages::udp::{DetachPeer, FlushDatagrams, UseRelays};
use crate::metrics::Metrics;
use crate::shell::{DeathNotice, tell, tell_addr};
use actix::dev::ToEnvelope;
use actix::prelude::*;
use futures_util::future::join_all;
use postern_core::connection::ConnectionConfig;
use postern_core::grant::{Relay, TunnelAddresses};
use postern_core::ids::{ClientId, RelayId};
use postern_core::peer::{GatewayKeys, PeerIndex, PeerIndexPool};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Starts a ConnectionActor where it belongs: on the thread of its shard.
pub type StartConnection = Box<dyn Fn(ConnectionSpec) -> Addr<ConnectionActor>>;

/// The shard's actors, as far as the supervisor commands them.
pub struct ShardLinks {
    /// To the TunActor.
    pub interface: Recipient<ConfigureInterface>,
    /// To the UdpActor.
    pub relays: Recipient<UseRelays>,
    /// To the UdpActor.
    pub flush: Recipient<FlushDatagrams>,
    /// What a connection of this shard talks to.
    pub outlets: ConnectionOutlets,
    /// Puts a connection on the shard's thread.
    pub start_connection: StartConnection,
}

/// Everything a SupervisorActor is built from.
pub struct SupervisorSpec {
    /// The gateway's key pair.
    pub keys: GatewayKeys,
    /// For the peer indices.
    pub seed: [u8; 32],
    /// Clients at one time.
    pub max_clients: usize,
    /// Resources of one client at one time.
    pub max_resources: usize,
    /// The shard.
    pub shard: ShardLinks,
    /// To the PortalActor.
    pub leave_portal: Recipient<LeavePortal>,
    /// To the PortalActor.
    pub request_relays: Recipient<RequestRelays>,
    /// To the DnsActor: who answers clients on the gateway's tunnel addresses.
    pub names: Recipient<ServeNames>,
    /// Shared counters.
    pub metrics: Arc<Metrics>,
}

/// See the module's documentation.
pub struct SupervisorActor {
    spec: SupervisorSpec,
    indices: PeerIndexPool,
    clients: BTreeMap<ClientId, Client>,
    gateway: Option<TunnelAddresses>,
    relays: BTreeMap<(RelayId, SocketAddr), Relay>,
    asked_for_relays: bool,
    stopping: bool,
    refused_for_capacity: u64,
}

struct Client {
    connection: Addr<ConnectionActor>,
    index: PeerIndex,
    tunnel: TunnelAddresses,
    opened: u64,
}

impl SupervisorActor {
    /// Control messages that may wait.
    pub const MAILBOX: usize = 1024;

    /// Without clients.
    #[must_use]
    pub fn new(spec: SupervisorSpec) -> Self {
        Self {
            indices: PeerIndexPool::new(spec.seed),
            spec,
            clients: BTreeMap::new(),
            gateway: None,
            relays: BTreeMap::new(),
            asked_for_relays: false,
            stopping: false,
            refused_for_capacity: 0,
        }
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
    }
}

impl Handler<OpenConnection> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, OpenConnection(request): OpenConnection, ctx: &mut Context<Self>) {
        let profile = &request.client;
        if let Some(client) = self.client_for(profile.id, profile.tunnel, ctx) {
            client.opened += 1;
            tell_addr(&client.connection, OpenConnection(request));
        }
        self.ask_for_relays();
    }
}

impl Handler<AllowAccess> for SupervisorActor {
    type Result = ();

    /// Lesson 18: it may come before its client's `OpenConnection`, if it says enough to go on.
    fn handle(&mut self, AllowAccess(request): AllowAccess, ctx: &mut Context<Self>) {
        let known = match request.tunnel {
            Some(tunnel) => self.client_for(request.client, tunnel, ctx),
            None => self.clients.get_mut(&request.client),
        };
        let Some(client) = known else {
            tracing::debug!(client = %request.client, "access for a client without connection");
            return;
        };
        client.opened += 1;
        tell_addr(&client.connection, AllowAccess(request));
    }
}

impl Handler<AddCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: AddCandidates, _: &mut Context<Self>) {
        self.pass_on(message.client, message);
    }
}

impl Handler<RemoveCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RemoveCandidates, _: &mut Context<Self>) {
        self.pass_on(message.client, message);
    }
}

impl Handler<RevokeAccess> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RevokeAccess, _: &mut Context<Self>) {
        self.pass_on(message.client, message);
    }
}

impl Handler<SetExpiry> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: SetExpiry, _: &mut Context<Self>) {
        self.pass_on(message.0.client, message);
    }
}

impl Handler<UpdateResource> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: UpdateResource, _: &mut Context<Self>) {
        for client in self.clients.values() {
            tell_addr(&client.connection, message.clone());
        }
    }
}

impl Handler<GatewayInitialized> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, GatewayInitialized(init): GatewayInitialized, _: &mut Context<Self>) {
        self.gateway = Some(init.tunnel);
        tell(&self.spec.shard.interface, ConfigureInterface(init.tunnel));
        tell(&self.spec.names, ServeNames(init.tunnel));
        self.relays.clear();
        self.add_relays(init.relays);
        for (id, client) in &self.clients {
            let of_client = init
                .authorizations
                .iter()
                .filter(|entry| entry.client == *id);
            let reconcile = ReconcileAuthorizations {
                gateway: init.tunnel,
                authorizations: of_client.copied().collect(),
            };
            tell_addr(&client.connection, reconcile);
        }
    }
}

impl Handler<RelaysChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RelaysChanged, _: &mut Context<Self>) {
        self.relays
            .retain(|(id, _), _| !message.disconnected.contains(id));
        self.add_relays(message.connected);
        self.ask_for_relays();
    }
}

impl Handler<ConnectionClosed> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionClosed, _: &mut Context<Self>) {
        let current = self.clients.get(&message.client);
        let is_meant = current
            .is_some_and(|client| client.index == message.index && client.opened == message.opened);
        if is_meant && let Some(client) = self.clients.remove(&message.client) {
            tell_addr(&client.connection, StopConnection);
        }
    }
}

impl Handler<ChildDied> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, death: ChildDied, ctx: &mut Context<Self>) {
        let was_asked_to = self.stopping || matches!(death.child, Child::Connection(..));
        if death.panicked || !was_asked_to {
            tracing::error!(child = %death.child, panicked = death.panicked, "actor died");
        }
        match death.child {
            Child::Connection(client, index) => self.bury(client, index, death.panicked),
            Child::Portal | Child::Dns | Child::NatTable | Child::Tun | Child::Udp => {
                ctx.notify(Shutdown {
                    exit_code: EXIT_CHILD_DIED,
                });
            }
        }
    }
}

impl Handler<InterfaceFailed> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: InterfaceFailed, ctx: &mut Context<Self>) {
        tracing::error!(
            reason = message.reason,
            "the tunnel interface cannot be configured"
        );
        ctx.notify(Shutdown { exit_code: 1 });
    }
}

impl Handler<PortalRefused> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: PortalRefused, ctx: &mut Context<Self>) {
        tracing::error!(reason = message.reason, "the portal refuses this gateway");
        ctx.notify(Shutdown { exit_code: 1 });
    }
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Shutdown { exit_code }: Shutdown, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        tracing::info!(clients = self.clients.len(), exit_code, "stopping");
        let connections = self
            .clients
            .values()
            .map(|client| client.connection.clone());
        let goodbyes = say_goodbye(connections.collect());
        let flush = self.spec.shard.flush.clone();
        let leave = self.spec.leave_portal.clone();
        let farewell = async move {
            // Whoever does not answer in time is not waited for: the process must end within 2 s.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbyes).await;
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush.send(FlushDatagrams)).await;
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, leave.send(LeavePortal)).await;
        };
        ctx.spawn(farewell.into_actor(self).map(move |(), actor, _| {
            actor.report_drops();
            tracing::info!("goodbye");
            System::current().stop_with_code(exit_code);
        }));
    }
}

impl SupervisorActor {
    /// The connection that a request is for, started if need be. `None` when there is no room for
    /// it; the portal then tells the client that the gateway is offline.
    fn client_for(
        &mut self,
        id: ClientId,
        tunnel: TunnelAddresses,
        ctx: &mut Context<Self>,
    ) -> Option<&mut Client> {
        let moved = self
            .clients
            .get(&id)
            .is_some_and(|client| client.tunnel != tunnel);
        if moved && let Some(former) = self.clients.remove(&id) {
            tell_addr(&former.connection, CloseConnection);
            tell_addr(&former.connection, StopConnection);
        }
        if !self.clients.contains_key(&id) {
            let client = self.start_client(id, tunnel, ctx)?;
            self.clients.insert(id, client);
        }
        self.clients.get_mut(&id)
    }

    fn start_client(
        &mut self,
        client: ClientId,
        tunnel: TunnelAddresses,
        ctx: &mut Context<Self>,
    ) -> Option<Client> {
        if self.stopping {
            return None;
        }
        let has_room = self.clients.len() < self.spec.max_clients;
        let Some(index) = has_room
            .then(|| self.indices.allocate(ONLY_SHARD))
            .flatten()
        else {
            self.note_refusal();
            return None;
        };
        let connection = (self.spec.shard.start_connection)(ConnectionSpec {
            client,
            config: ConnectionConfig {
                keys: self.spec.keys.clone(),
                index,
                client: tunnel,
                gateway: self.gateway,
                max_resources: self.spec.max_resources,
            },
            outlets: self.spec.shard.outlets.clone(),
            closed: ctx.address().recipient(),
            metrics: Arc::clone(&self.spec.metrics),
            death: DeathNotice::new(Child::Connection(client, index), ctx.address().recipient()),
        });
        Some(Client {
            connection,
            index,
            tunnel,
            opened: 0,
        })
    }

    /// Said when it begins and then ever more rarely: a full gateway is refused many times a
    /// second.
    fn note_refusal(&mut self) {
        self.refused_for_capacity += 1;
        if self.refused_for_capacity.is_power_of_two() {
            tracing::warn!(
                refused = self.refused_for_capacity,
                limit = self.spec.max_clients,
                "no room for another client; raise limits.clients or add a gateway"
            );
        }
    }

    fn pass_on<M>(&self, client: ClientId, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        ConnectionActor: Handler<M>,
        Context<ConnectionActor>: ToEnvelope<ConnectionActor, M>,
    {
        match self.clients.get(&client) {
            Some(known) => tell_addr(&known.connection, message),
            None => tracing::debug!(%client, "message for an unknown client"),
        }
    }

    fn add_relays(&mut self, relays: Vec<Relay>) {
        for relay in relays {
            self.relays.insert((relay.id.clone(), relay.addr), relay);
        }
        let all = self.relays.values().cloned().collect();
        tell(&self.spec.shard.relays, UseRelays(all));
    }

    /// Once for each time that none is left: the portal sends those it has, at once or when one
    /// comes.
    fn ask_for_relays(&mut self) {
        let none_left = self.relays.is_empty();
        if none_left && !self.asked_for_relays {
            tell(&self.spec.request_relays, RequestRelays);
        }
        self.asked_for_relays = none_left;
    }

    /// The index is free once the actor is gone for sure, together with all that it had attached. A
    /// connection that panicked could not detach anything itself.
    fn bury(&mut self, client: ClientId, index: PeerIndex, panicked: bool) {
        self.indices.release(index);
        if !panicked {
            return;
        }
        let outlets = &self.spec.shard.outlets;
        tell(&outlets.detach_peer, DetachPeer { index });
        tell(&outlets.detach_client, DetachClient { client, index });
        if self
            .clients
            .get(&client)
            .is_some_and(|current| current.index == index)
        {
            self.clients.remove(&client);
        }
    }

    fn report_drops(&self) {
        for (reason, packets) in self.spec.metrics.drops() {
            tracing::info!(?reason, packets, "dropped");
        }
    }
}

/// In portions that fit the mailbox of the UdpActor, to which each goodbye goes.
async fn say_goodbye(connections: Vec<Addr<ConnectionActor>>) {
    for portion in connections.chunks(UdpActor::MAILBOX / 2) {
        join_all(
            portion
                .iter()
                .map(|connection| connection.send(CloseConnection)),
        )
        .await;
    }
}

/// This version runs one shard.
const ONLY_SHARD: u8 = 0;
/// An actor that nobody rebuilds is gone: the container starts the process anew.
const EXIT_CHILD_DIED: i32 = 70;
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
