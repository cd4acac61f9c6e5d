//! SupervisorActor: the parent of all others.
//!
//! Owns: the [`Ledger`], the children and their restart budgets, the watchdog, the state file.
//! Receives: the portal's commands, `ConnectionAccepted`, `CandidatesGathered`,
//! `ConnectionChanged`,
//! `ConnectionClosed`, `NatTableChanged`, `ChildDied`, `Shutdown`, how the world is, and what the
//! operator asks. Emits: commands to connections,
//! `ConfigureInterface`, `ServeNames`, `UseRelays`, acknowledgements, and to everybody the
//! successors of those who died. When its mailbox is full: control messages only, they wait. On
//! death: the process ends with code 70, and the next one takes the clients over.
//!
//! A command of the portal is written into the ledger before the actor that it concerns is told:
//! whoever dies next is built anew from what the portal said last.

mod clients;
mod deaths;
mod diagnosis;
mod drain;
mod health_state;
pub mod links;
mod reload;
mod service;
mod shutdown;
pub mod spawner;
pub mod state_saver;
mod status;
mod tree;

use crate::faults::{FaultKind, InjectFault, Target};
use crate::messages::connection::{
    AddCandidates, AllowAccess, OpenConnection, ReconcileAuthorizations, RemoveCandidates,
    RevokeAccess, SetExpiry, StopConnection, UpdateResource,
};
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted, RequestRelays};
use crate::messages::supervisor::{
    Child, ConnectionChanged, ConnectionClosed, ConnectionFact, GatewayInitialized, InstanceId,
    InterfaceFailed, NatTableChanged, PortalRefused, RelaysChanged, Shutdown, ShutdownMode,
};
use crate::messages::udp::UseRelays;
use crate::metrics::Metrics;
use crate::reload::ReloadReport;
use crate::service_manager::ServiceManager;
use crate::shell::{self, Driven, Wakeup, tell, tell_addr};
use crate::supervision::ExitGuard;
use actix::prelude::*;
use clients::{Clients, Request};
use drain::Drain;
use health_state::HealthState;
use postern_core::diagnosis::Journal;
use postern_core::grant::Relay;
use postern_core::ids::RelayId;
use postern_core::ledger::Ledger;
use postern_core::peer::{GatewayKeys, PeerIndexPool};
use postern_core::supervision::Watchdog;
use spawner::{Place, Spawner};
use state_saver::StateSaver;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tree::Tree;

/// Everything a SupervisorActor is built from.
pub struct SupervisorSpec {
    /// The gateway's key pair.
    pub keys: GatewayKeys,
    /// For the peer indices.
    pub seed: [u8; 32],
    /// Threads of the data path, at least one.
    pub shards: u8,
    /// Clients at one time.
    pub max_clients: usize,
    /// Resources of one client at one time.
    pub max_resources: usize,
    /// How many clients may be shaken hands with in a second.
    pub handshakes_per_second: usize,
    /// Makes the other actors.
    pub spawner: Box<dyn Spawner>,
    /// Empty, or what the former process left.
    pub ledger: Ledger,
    /// For the next process; `None` when it shall find nothing.
    pub state_saver: Option<StateSaver>,
    /// Set when the next process finds the clients connected.
    pub handed_over: Arc<AtomicBool>,
    /// Set every second.
    pub alive: Arc<AtomicBool>,
    /// Where clients reach us, for the operator.
    pub udp_port: u16,
    /// Who started the gateway, and wants to know how it is.
    pub service_manager: ServiceManager,
    /// Shared counters.
    pub metrics: Arc<Metrics>,
}

/// See the module's documentation.
pub struct SupervisorActor {
    spec: SupervisorSpec,
    indices: PeerIndexPool,
    tree: Tree,
    clients: Clients,
    watchdog: Watchdog<Child>,
    health_state: HealthState,
    drain: Option<Drain>,
    journal: Journal,
    lives: InstanceId,
    relays: BTreeMap<(RelayId, SocketAddr), Relay>,
    asked_for_relays: bool,
    is_saving: bool,
    is_examining: bool,
    /// What became of the last attempt to read the configuration again.
    last_reload: Option<ReloadReport>,
    stopping: bool,
    wakeup: Wakeup,
    _exit_guard: ExitGuard,
}

impl SupervisorActor {
    /// Control messages that may wait.
    pub const MAILBOX: usize = 1024;

    /// Which starts its children when it is started.
    #[must_use]
    pub fn new(spec: SupervisorSpec) -> Self {
        // Should it die itself, the next process finds the last state that was saved.
        let is_kept = spec.state_saver.is_some();
        let handed_over = is_kept.then(|| Arc::clone(&spec.handed_over));
        let takes_over = spec.ledger.clients().len() > 0;
        let shards = spec.shards;
        Self {
            indices: PeerIndexPool::new(spec.seed),
            health_state: HealthState::new(takes_over),
            drain: None,
            journal: Journal::default(),
            spec,
            tree: Tree::new(shards),
            clients: Clients::default(),
            watchdog: Watchdog::new(),
            lives: InstanceId::default(),
            relays: BTreeMap::new(),
            asked_for_relays: false,
            is_saving: false,
            is_examining: false,
            last_reload: None,
            stopping: false,
            wakeup: Wakeup::default(),
            _exit_guard: ExitGuard {
                exit_code: EXIT_BUDGET_SPENT,
                handed_over,
            },
        }
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    /// The portal comes last: clients that are taken over do not wait for it.
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
        let alive = Arc::clone(&self.spec.alive);
        alive.store(true, Ordering::Relaxed);
        ctx.run_interval(HEARTBEAT, move |_, _| alive.store(true, Ordering::Relaxed));
        ctx.run_interval(state_saver::RENEW_EVERY, |actor, _| actor.save());
        ctx.run_later(state_saver::SUSPICIOUS, |actor, _| actor.trust_state());
        self.start_child(Child::Admin, ctx);
        for shard in 0..self.spec.shards {
            for child in Tree::at(Place::Shard(shard)) {
                self.start_child(child, ctx);
            }
        }
        self.start_child(Child::Dns, ctx);
        self.take_over(ctx);
        self.start_child(Child::Portal, ctx);
        self.report_to_service_manager(ctx);
        self.save_soon(ctx);
    }
}

impl Driven for SupervisorActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.handle_timeout(shell::now());
        self.watch(ctx);
    }
}

impl Handler<OpenConnection> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, OpenConnection(request): OpenConnection, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let profile = &request.client;
        let id = profile.id;
        if self.admit(id, profile.tunnel, ctx) {
            self.spec.ledger.record_authorization(&request);
            self.clients.pass_on_request(id, Request::Open(request));
            self.save_soon(ctx);
        }
        self.ask_for_relays();
    }
}

impl Handler<AllowAccess> for SupervisorActor {
    type Result = ();

    /// docs/lessons.md 18: it may come before its client's `OpenConnection`, if it says enough to
    /// go on.
    fn handle(&mut self, AllowAccess(mut request): AllowAccess, ctx: &mut Context<Self>) {
        let id = request.client;
        let connected = self.clients.get(id).map(|client| client.tunnel);
        let recorded = self.spec.ledger.client(id).map(|record| record.tunnel);
        request.tunnel = request.tunnel.or(connected).or(recorded);
        let is_known = request
            .tunnel
            .is_some_and(|tunnel| self.admit(id, tunnel, ctx));
        if !is_known {
            tracing::debug!(client = %id, "access for a client without connection");
            return;
        }
        self.spec.ledger.record_access(&request);
        self.clients.pass_on_request(id, Request::Allow(request));
        self.save_soon(ctx);
    }
}

impl Handler<AddCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: AddCandidates, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        ledger.add_candidates(message.client, &message.candidates);
        self.clients.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<RemoveCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RemoveCandidates, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        ledger.remove_candidates(message.client, &message.candidates);
        self.clients.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<RevokeAccess> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RevokeAccess, ctx: &mut Context<Self>) {
        self.spec.ledger.revoke(message.client, message.resource);
        self.clients.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<SetExpiry> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: SetExpiry, ctx: &mut Context<Self>) {
        self.spec.ledger.set_expiry(message.0);
        self.clients.pass_on(message.0.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<UpdateResource> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: UpdateResource, ctx: &mut Context<Self>) {
        self.spec.ledger.update_resource(&message.0);
        self.clients.tell_all(&message);
        self.save_soon(ctx);
    }
}

impl Handler<GatewayInitialized> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, GatewayInitialized(init): GatewayInitialized, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        ledger.reconcile(init.tunnel, &init.authorizations);
        self.configure(init.tunnel);
        self.relays.clear();
        self.add_relays(init.relays);
        for (id, connection) in self.clients.connections() {
            let of_client = init
                .authorizations
                .iter()
                .filter(|entry| entry.client == id);
            let reconcile = ReconcileAuthorizations {
                gateway: init.tunnel,
                authorizations: of_client.copied().collect(),
            };
            tell_addr(connection, reconcile);
        }
        self.save_soon(ctx);
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

impl Handler<ConnectionAccepted> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionAccepted, _: &mut Context<Self>) {
        self.clients.settle(message.client, &message.reply_ref);
        if let Some(portal) = &self.tree.portal {
            tell(&portal.accepted, message);
        }
    }
}

impl Handler<CandidatesGathered> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: CandidatesGathered, _: &mut Context<Self>) {
        if let Some(portal) = &self.tree.portal {
            tell(&portal.gathered, message);
        }
    }
}

impl Handler<ConnectionChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionChanged, ctx: &mut Context<Self>) {
        let ConnectionChanged {
            client,
            instance,
            opened,
            fact,
        } = message;
        let Some(known) = self
            .clients
            .get_mut(client)
            .filter(|it| it.instance == instance)
        else {
            return;
        };
        let ledger = &mut self.spec.ledger;
        match fact {
            ConnectionFact::NameAnnounced(name) => ledger.record_name(client, name),
            ConnectionFact::PathInUse(path) => ledger.record_path(client, path),
            // A further grant that is on its way may bring another transport.
            ConnectionFact::TransportLost if known.opened == opened => {
                ledger.forget_transport(client);
            }
            ConnectionFact::TransportLost => {}
            ConnectionFact::SessionEstablished => {
                if let Some(died_at) = known.died_at.take() {
                    let child = Child::Connection(client, known.index);
                    self.note_recovery(child, died_at);
                }
            }
        }
        self.save_soon(ctx);
    }
}

impl Handler<NatTableChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, news: NatTableChanged, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        match news {
            NatTableChanged::NameLearned(known) => ledger.record_known(known),
            NatTableChanged::FlowPinned(client, flow) => ledger.record_pin(client, flow),
            NatTableChanged::FlowUnpinned(client, key) => ledger.forget_pin(client, key),
        }
        self.save_soon(ctx);
    }
}

impl Handler<ConnectionClosed> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionClosed, ctx: &mut Context<Self>) {
        let current = self.clients.get(message.client);
        let is_meant = current.is_some_and(|client| {
            client.instance == message.instance && client.opened == message.opened
        });
        if is_meant && let Some(connection) = self.retire(message.client) {
            self.spec.ledger.remove_client(message.client);
            tell_addr(&connection, StopConnection);
            self.save_soon(ctx);
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
        ctx.notify(Shutdown {
            exit_code: 1,
            mode: ShutdownMode::Goodbye,
        });
    }
}

impl Handler<PortalRefused> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: PortalRefused, ctx: &mut Context<Self>) {
        tracing::error!(reason = message.reason, "the portal refuses this gateway");
        ctx.notify(Shutdown {
            exit_code: 1,
            mode: ShutdownMode::Goodbye,
        });
    }
}

impl Handler<InjectFault> for SupervisorActor {
    type Result = Result<(), String>;

    fn handle(&mut self, message: InjectFault, ctx: &mut Context<Self>) -> Self::Result {
        let InjectFault { target, kind } = message;
        let child = match target {
            Target::Supervisor => {
                crate::faults::inject(kind, "supervisor", ctx);
                return Ok(());
            }
            Target::Portal => Child::Portal,
            Target::Dns => Child::Dns,
            Target::NatTable(shard) => Child::NatTable(shard),
            Target::Tun(shard) => Child::Tun(shard),
            Target::Udp(shard) => Child::Udp(shard),
            Target::Admin => Child::Admin,
            Target::Connection(client) => return self.clients.inject(client, kind),
        };
        self.inject(child, kind)
    }
}

impl SupervisorActor {
    fn inject(&self, child: Child, kind: FaultKind) -> Result<(), String> {
        let living = self.tree.living.get(&child);
        let living = living.ok_or_else(|| format!("{child} is not there just now"))?;
        let sent = living.handle.faults.try_send(crate::faults::Fault(kind));
        sent.map_err(|error| format!("{child} takes no fault: {error}"))
    }

    fn add_relays(&mut self, relays: Vec<Relay>) {
        for relay in relays {
            self.relays.insert((relay.id.clone(), relay.addr), relay);
        }
        self.spec.metrics.portal.set_relays(self.relays.len());
        self.tell_relays();
    }

    fn tell_relays(&self) {
        if let Some(udp) = &self.tree.front().udp {
            let all = self.relays.values().cloned().collect();
            tell(&udp.relays, UseRelays(all));
        }
    }

    /// Once for each time that none is left: the portal sends those it has, at once or when one
    /// comes.
    fn ask_for_relays(&mut self) {
        let none_left = self.relays.is_empty();
        if none_left
            && !self.asked_for_relays
            && let Some(portal) = &self.tree.portal
        {
            tell(&portal.request_relays, RequestRelays);
        }
        self.asked_for_relays = none_left;
    }
}

/// The budget of a part is spent: the container starts the process anew.
const EXIT_BUDGET_SPENT: i32 = 70;
/// How often the supervisor shows that its own thread is not stuck.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);
