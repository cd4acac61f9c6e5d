//! SupervisorActor: the parent of all other actors.
//!
//! Owns: the [`Ledger`], the children by the decisions of [`Supervision`], the state file.
//! Receives: `PortalNews`, `ConnectionNews`, `NatTableChanged`, `HealthNews`, `ChildDied`,
//! `ReloadNews`, `UseSettings`, `Shutdown`, `InjectFault`, and the operator's questions. Emits: to
//! each child its commands, and to all actors the addresses of restarted ones. When its mailbox is
//! full: news waits at the senders, the PortalActor joins again if too much waits; only notices of
//! death are taken beyond the limit. When a child's mailbox is full: commands wait in order and
//! are sent again every 100 ms; a child that has no room for too long is ended and rebuilt from
//! the ledger. On death: the process ends with code 70, and the next one takes the clients over.
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
mod waiting;

use crate::faults::{FaultKind, InjectFault, Target};
use crate::messages::portal::PortalCommand;
use crate::messages::reload::ReloadReport;
use crate::messages::supervisor::{
    Child, ConnectionFact, ConnectionNews, NatTableChanged, PortalNews, ShutdownMode,
};
use crate::messages::udp::UdpSetup;
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;
use crate::shell::{self, Driven, Wakeup};
use crate::supervision::ExitGuard;
use actix::prelude::*;
use clients::ConnectionTable;
use health_state::HealthState;
use postern_core::command::ClientCommand;
use postern_core::diagnosis::Journal;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::health::PortalState;
use postern_core::ids::RelayId;
use postern_core::ledger::Ledger;
use postern_core::peer::GatewayKeys;
use postern_core::supervision::{Progress, Supervision, SupervisionConfig};
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
        ctx.run_interval(waiting::RESEND_EVERY, Self::resend);
        ctx.run_interval(state_saver::RENEW_EVERY, |actor, _| actor.save());
        ctx.run_later(state_saver::SUSPICIOUS, |actor, _| actor.trust_state());
        let clients = self.spec.ledger.clients().len().min(self.spec.max_clients);
        if clients > 0 {
            tracing::info!(milestone = "taken_over", clients, "clients taken over");
        }
        let ledger = &mut self.spec.ledger;
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
        let ledger = &mut self.spec.ledger;
        self.supervision.handle_timeout(ledger, shell::now());
        self.perform(ctx);
    }
}

impl Handler<PortalNews> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, news: PortalNews, ctx: &mut Context<Self>) {
        match news {
            PortalNews::Joined => self.health_state.set_portal(PortalState::Joined),
            PortalNews::Left => self.health_state.set_portal(PortalState::Away),
            PortalNews::Refused { reason } => {
                tracing::error!(reason, "the portal refuses this gateway");
                perform::end(1, ShutdownMode::Goodbye, ctx);
            }
            PortalNews::Initialized(init) => self.initialize(init, ctx),
            PortalNews::RelaysChanged {
                disconnected,
                connected,
            } => {
                self.relays.retain(|(id, _), _| !disconnected.contains(id));
                self.add_relays(connected);
                self.ask_for_relays();
            }
            PortalNews::Client(command) => self.execute(command, ctx),
        }
    }
}

impl Handler<ConnectionNews> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, news: ConnectionNews, ctx: &mut Context<Self>) {
        let client = news.client;
        let at = Progress {
            client,
            instance: news.instance,
            handled: news.opened,
        };
        let ledger = &mut self.spec.ledger;
        match news.fact {
            // The portal waits for them, whatever has become of the connection.
            ConnectionFact::Accepted { reply_ref } => {
                self.supervision.handle_acknowledgement(client, &reply_ref);
                return self.tell_portal(PortalCommand::Acknowledge { reply_ref });
            }
            ConnectionFact::CandidatesGathered(candidates) => {
                return self.tell_portal(PortalCommand::SignalCandidates { client, candidates });
            }
            ConnectionFact::Authorizations(..)
            | ConnectionFact::PathInUse(_)
            | ConnectionFact::TransportLost
            | ConnectionFact::SessionEstablished
            | ConnectionFact::Closed
                if !self.supervision.is_current(at) =>
            {
                return;
            }
            ConnectionFact::Authorizations(included, authorizations) => {
                let now = shell::unix_now();
                ledger.record_authorizations(client, included, authorizations, now);
            }
            ConnectionFact::PathInUse(path) => ledger.record_path(client, path),
            // If a further grant is on its way, it may bring another transport.
            ConnectionFact::TransportLost if self.supervision.has_handled_all(at) => {
                ledger.forget_transport(client);
            }
            ConnectionFact::TransportLost => {}
            ConnectionFact::SessionEstablished => {
                self.supervision.handle_session(client, shell::now());
            }
            ConnectionFact::Closed => {
                self.supervision.handle_closed(at, ledger, shell::now());
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
            NatTableChanged::PinsChanged(client, pins) => ledger.record_pins(client, pins),
        }
        self.save_soon(ctx);
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
    /// A command of the portal: the core admits its client and records it, then passes it on.
    fn execute(&mut self, command: ClientCommand, ctx: &mut Context<Self>) {
        let client = command.client();
        let is_authorization = matches!(command, ClientCommand::Authorize(_));
        let (ledger, now) = (&mut self.spec.ledger, shell::now());
        let result = self.supervision.handle_command(command, ledger, now);
        if let (Err(refusal), Some(client)) = (result, client) {
            self.report_refusal(client, refusal);
        }
        self.perform(ctx);
        if is_authorization && !self.stopping {
            self.ask_for_relays();
        }
    }

    fn initialize(&mut self, init: GatewayInit, ctx: &mut Context<Self>) {
        let reconcile = ClientCommand::Reconcile {
            gateway: init.tunnel,
            granted: init.authorizations,
        };
        self.execute(reconcile, ctx);
        self.configure(init.tunnel);
        self.relays.clear();
        self.add_relays(init.relays);
    }

    fn tell_portal(&self, command: PortalCommand) {
        if let Some(portal) = &self.tree.portal {
            portal.commands.tell(command);
        }
    }

    /// Ends the process, with goodbyes.
    fn inject(&self, child: Child, kind: FaultKind) -> Result<(), String> {
        let handle = self.tree.handles.get(&child);
        let handle = handle.ok_or_else(|| format!("{child} is not there just now"))?;
        let sent = handle.faults.try_send(crate::faults::Fault(kind));
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
            udp.setup.tell(UdpSetup::UseRelays(all));
        }
    }

    /// Asks once each time that no relay is left: the portal sends those it has, immediately or
    /// when one joins.
    fn ask_for_relays(&mut self) {
        let none_left = self.relays.is_empty();
        if none_left && !self.asked_for_relays {
            self.tell_portal(PortalCommand::RequestRelays);
        }
        self.asked_for_relays = none_left;
    }
}

/// A child has spent its restart budget, or the supervisor panicked: the service manager restarts
/// the process.
const EXIT_BUDGET_SPENT: i32 = 70;
/// How often the supervisor shows the heartbeat that its thread is not stuck.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);
