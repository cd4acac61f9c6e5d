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
mod diagnosis;
mod drain;
mod health_state;
pub mod links;
mod perform;
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
    RevokeAccess, SetExpiry, UpdateResource,
};
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted, RequestRelays};
use crate::messages::reload::ReloadReport;
use crate::messages::supervisor::{
    Child, ConnectionChanged, ConnectionClosed, ConnectionFact, GatewayInitialized,
    InterfaceFailed, NatTableChanged, PortalRefused, RelaysChanged, Shutdown, ShutdownMode,
};
use crate::messages::udp::UseRelays;
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;
use crate::shell::{self, Driven, Wakeup, tell, tell_addr};
use crate::supervision::ExitGuard;
use actix::prelude::*;
use clients::ConnectionTable;
use health_state::HealthState;
use postern_core::diagnosis::Journal;
use postern_core::grant::Relay;
use postern_core::ids::RelayId;
use postern_core::ledger::Ledger;
use postern_core::peer::GatewayKeys;
use postern_core::supervision::{ClientRequest, Progress, Supervision, SupervisionConfig};
use spawner::Spawner;
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
    supervision: Supervision,
    tree: Tree,
    clients: ConnectionTable,
    health_state: HealthState,
    journal: Journal,
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
        let config = SupervisionConfig {
            shards,
            max_clients: spec.max_clients,
            handshakes_per_second: spec.handshakes_per_second,
        };
        Self {
            supervision: Supervision::new(config, spec.seed),
            health_state: HealthState::new(takes_over),
            journal: Journal::default(),
            spec,
            tree: Tree::new(shards),
            clients: ConnectionTable::default(),
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

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
        let alive = Arc::clone(&self.spec.alive);
        alive.store(true, Ordering::Relaxed);
        ctx.run_interval(HEARTBEAT, move |_, _| alive.store(true, Ordering::Relaxed));
        ctx.run_interval(state_saver::RENEW_EVERY, |actor, _| actor.save());
        ctx.run_later(state_saver::SUSPICIOUS, |actor, _| actor.trust_state());
        let clients = self.spec.ledger.clients().len().min(self.spec.max_clients);
        if clients > 0 {
            tracing::info!(milestone = "taken_over", clients, "clients taken over");
        }
        let ledger = &self.spec.ledger;
        self.supervision.handle_start(ledger, shell::now());
        self.perform(ctx);
        self.report_to_service_manager(ctx);
    }
}

impl Driven for SupervisorActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        let ledger = &self.spec.ledger;
        self.supervision.handle_timeout(ledger, shell::now());
        self.perform(ctx);
    }
}

impl Handler<OpenConnection> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, OpenConnection(request): OpenConnection, ctx: &mut Context<Self>) {
        self.grant(ClientRequest::Open(request), ctx);
        self.ask_for_relays();
    }
}

impl Handler<AllowAccess> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, AllowAccess(request): AllowAccess, ctx: &mut Context<Self>) {
        self.grant(ClientRequest::Allow(request), ctx);
    }
}

impl Handler<AddCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: AddCandidates, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        ledger.add_candidates(message.client, &message.candidates);
        self.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<RemoveCandidates> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RemoveCandidates, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        ledger.remove_candidates(message.client, &message.candidates);
        self.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<RevokeAccess> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: RevokeAccess, ctx: &mut Context<Self>) {
        self.spec.ledger.revoke(message.client, message.resource);
        self.pass_on(message.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<SetExpiry> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: SetExpiry, ctx: &mut Context<Self>) {
        self.spec.ledger.set_expiry(message.0);
        self.pass_on(message.0.client, message);
        self.save_soon(ctx);
    }
}

impl Handler<UpdateResource> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: UpdateResource, ctx: &mut Context<Self>) {
        self.spec.ledger.update_resource(&message.0);
        self.tell_all(&message);
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
        for (id, connection) in self.connections() {
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
        let reply_ref = &message.reply_ref;
        self.supervision
            .handle_acknowledgement(message.client, reply_ref);
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
        let client = message.client;
        let at = Progress {
            client,
            instance: message.instance,
            handled: message.opened,
        };
        if !self.supervision.is_current(at) {
            return;
        }
        let ledger = &mut self.spec.ledger;
        match message.fact {
            ConnectionFact::NameAnnounced(name) => ledger.record_name(client, name),
            ConnectionFact::PathInUse(path) => ledger.record_path(client, path),
            // If a further grant is on its way, it may bring another transport.
            ConnectionFact::TransportLost if self.supervision.has_handled_all(at) => {
                ledger.forget_transport(client);
            }
            ConnectionFact::TransportLost => {}
            ConnectionFact::SessionEstablished => {
                self.supervision.handle_session(client, shell::now());
            }
        }
        self.perform(ctx);
    }
}

impl Handler<NatTableChanged> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, change: NatTableChanged, ctx: &mut Context<Self>) {
        let ledger = &mut self.spec.ledger;
        match change {
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
        let at = Progress {
            client: message.client,
            instance: message.instance,
            handled: message.opened,
        };
        let ledger = &mut self.spec.ledger;
        self.supervision.handle_closed(at, ledger, shell::now());
        self.perform(ctx);
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
            Target::Connection(client) => return self.inject_into_connection(client, kind),
        };
        self.inject(child, kind)
    }
}

impl SupervisorActor {
    fn inject(&self, child: Child, kind: FaultKind) -> Result<(), String> {
        let handle = self.tree.handles.get(&child);
        let handle = handle.ok_or_else(|| format!("{child} is not there just now"))?;
        let sent = handle.faults.try_send(crate::faults::Fault(kind));
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
