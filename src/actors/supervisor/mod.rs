//! SupervisorActor: the parent of all other actors.
//!
//! Owns: the [`Ledger`], the children and their restart budgets, the watchdog, the state file.
//! Receives: the portal's commands, `ConnectionAccepted`, `CandidatesGathered`,
//! `ConnectionChanged`, `ConnectionClosed`, `NatTableChanged`, `ChildDied`, `Shutdown`, changes of
//! the gateway's health, and the operator's questions. Emits: commands to connections,
//! `ConfigureInterface`, `ServeNames`, `UseRelays`, acknowledgements, and to all actors the
//! addresses of restarted ones. When its mailbox is full: control messages wait. On death: the
//! process ends with code 70, and the next one takes the clients over.
//!
//! The supervisor writes a command of the portal into the ledger before it passes it on, so that
//! every restarted actor is built from the portal's last word.

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
use crate::messages::reload::ReloadReport;
use crate::messages::supervisor::{
    Child, ConnectionChanged, ConnectionClosed, ConnectionFact, GatewayInitialized, InstanceId,
    InterfaceFailed, NatTableChanged, PortalRefused, RelaysChanged, Shutdown, ShutdownMode,
};
use crate::messages::udp::UseRelays;
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;
use crate::shell::{self, Driven, Wakeup, tell, tell_addr};
use crate::supervision::ExitGuard;
use actix::prelude::*;
use clients::{ClientTable, Request};
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

pub struct SupervisorSpec {
    pub keys: GatewayKeys,
    pub seed: [u8; 32],
    /// Number of threads of the data path, at least 1.
    pub shards: u8,
    pub max_clients: usize,
    /// Limit for each client.
    pub max_resources: usize,
    /// WireGuard handshakes that the gateway answers per second.
    pub handshakes_per_second: usize,
    pub spawner: Box<dyn Spawner>,
    /// Empty, or that of the previous process.
    pub ledger: Ledger,
    /// `None` if the state is not saved for the next process.
    pub state_saver: Option<StateSaver>,
    /// Set if the next process will find the clients connected.
    pub handed_over: Arc<AtomicBool>,
    pub alive: Arc<AtomicBool>,
    pub udp_port: u16,
    pub service_manager: ServiceManager,
    pub metrics: Arc<Metrics>,
}

pub struct SupervisorActor {
    spec: SupervisorSpec,
    indices: PeerIndexPool,
    tree: Tree,
    clients: ClientTable,
    watchdog: Watchdog<Child>,
    health_state: HealthState,
    drain: Option<Drain>,
    journal: Journal,
    last_instance: InstanceId,
    relays: BTreeMap<(RelayId, SocketAddr), Relay>,
    asked_for_relays: bool,
    is_saving: bool,
    is_examining: bool,
    last_reload: Option<ReloadReport>,
    stopping: bool,
    wakeup: Wakeup,
    _exit_guard: ExitGuard,
}

impl SupervisorActor {
    /// Control messages that may wait.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: SupervisorSpec) -> Self {
        // If the supervisor itself dies, the next process finds the last saved state.
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
            clients: ClientTable::default(),
            watchdog: Watchdog::new(),
            last_instance: InstanceId::default(),
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

    /// Starts the portal last: restored clients do not wait for it.
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
            self.confirm(id);
            self.save_soon(ctx);
        }
        self.ask_for_relays();
    }
}

impl Handler<AllowAccess> for SupervisorActor {
    type Result = ();

    /// docs/lessons.md 18: it may come before its client's `OpenConnection`, if the tunnel
    /// addresses are known.
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
        self.confirm(id);
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
        let client = message.client;
        self.spec.ledger.revoke(client, message.resource);
        self.clients.pass_on(client, message);
        self.confirm(client);
        self.save_soon(ctx);
    }
}

impl Handler<SetExpiry> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: SetExpiry, ctx: &mut Context<Self>) {
        let client = message.0.client;
        self.spec.ledger.set_expiry(message.0);
        self.clients.pass_on(client, message);
        self.confirm(client);
        self.save_soon(ctx);
    }
}

impl Handler<UpdateResource> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: UpdateResource, ctx: &mut Context<Self>) {
        self.spec.ledger.update_resource(&message.0);
        self.clients.tell_all(&message);
        self.confirm_all();
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
        self.confirm_all();
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
            .filter(|it| it.instance.id == instance)
        else {
            return;
        };
        let ledger = &mut self.spec.ledger;
        match fact {
            ConnectionFact::Authorizations(included, authorizations) => {
                let published = (included, authorizations);
                ledger.record_authorizations(client, published, shell::unix_now());
            }
            ConnectionFact::PathInUse(path) => ledger.record_path(client, path),
            // If a further grant is on its way, it may bring another transport.
            ConnectionFact::TransportLost if known.opened == opened => {
                ledger.forget_transport(client);
            }
            ConnectionFact::TransportLost => {}
            ConnectionFact::SessionEstablished => {
                if let Some(died_at) = known.instance.died_at.take() {
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

    fn handle(&mut self, change: NatTableChanged, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        match change {
            NatTableChanged::NameLearned(known) => ledger.record_known(known),
            NatTableChanged::PinsChanged(client, pins) => ledger.record_pins(client, pins),
        }
        self.save_soon(ctx);
    }
}

impl Handler<ConnectionClosed> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionClosed, ctx: &mut Context<Self>) {
        let current = self.clients.get(message.client);
        let is_meant = current.is_some_and(|client| {
            client.instance.id == message.instance && client.opened == message.opened
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
        let entry = self.tree.children.get(&child);
        let entry = entry.ok_or_else(|| format!("{child} is not there just now"))?;
        let sent = entry.handle.faults.try_send(crate::faults::Fault(kind));
        sent.map_err(|error| format!("{child} takes no fault: {error}"))
    }

    fn add_relays(&mut self, relays: Vec<Relay>) {
        for relay in relays {
            self.relays.insert((relay.id, relay.addr), relay);
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

    /// Asks once each time that no relay is left: the portal sends those it has, immediately or
    /// when one joins.
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

/// A child has spent its restart budget, or the supervisor panicked: the service manager restarts
/// the process.
const EXIT_BUDGET_SPENT: i32 = 70;
/// How often the supervisor shows the heartbeat that its thread is not stuck.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);
