//! A supervisor with real connections; all other actors are probes.

use super::samples::{client, resource, tunnel};
use super::seen::{ConnectionAccepted, UseRelays};
use super::spawner::{Inboxes, SpawnerHandle};
use super::tell_addr;
use crate::actors::supervisor::{SupervisorActor, SupervisorSpec};
use crate::config::UseSettings;
use crate::messages::reload::ReloadNews;
use crate::messages::supervisor::ConnectionNews;
use crate::messages::supervisor::PortalNews;
use crate::messages::supervisor::{Child, ConnectionFact, Shutdown, ShutdownMode};
use crate::messages::supervisor::{ChildDied, HealthNews, NatTableChanged};
use crate::messages::udp::AttachPeer;
use crate::metrics::{ActorCounters, Metrics};
use crate::service_manager::ServiceManager;
use actix::prelude::*;
use postern_core::command::ClientCommand;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::ids::ClientId;
use postern_core::ledger::{Ledger, LedgerLimits};
use postern_core::packet::Path;
use postern_core::peer::{GatewayKeys, PeerIndex};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) const MAX_CLIENTS: u8 = 2;
pub(crate) const MAX_RESOURCES: u8 = 4;

/// A supervisor and the actors around it.
pub(crate) struct Scene {
    pub(crate) supervisor: Addr<SupervisorActor>,
    pub(crate) spawner: SpawnerHandle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handed_over: Arc<AtomicBool>,
    inboxes: Inboxes,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut SupervisorSpec)) -> Self {
        let (senders, inboxes) = Inboxes::new();
        let spawner = SpawnerHandle::new(senders);
        let (metrics, handed_over) = <(Arc<Metrics>, Arc<AtomicBool>)>::default();
        let mut spec = SupervisorSpec {
            keys: GatewayKeys::new(GATEWAY_KEY),
            seed: [0; 32],
            shards: 1,
            max_clients: MAX_CLIENTS.into(),
            max_resources: MAX_RESOURCES.into(),
            handshakes_per_second: 100,
            spawner: spawner.spawner(),
            ledger: ledger(),
            state_saver: None,
            handed_over: Arc::clone(&handed_over),
            alive: Arc::default(),
            udp_port: 52_625,
            service_manager: ServiceManager::none(),
            metrics: Arc::clone(&metrics),
        };
        change(&mut spec);
        Self {
            supervisor: SupervisorActor::new(spec).start(),
            spawner,
            metrics,
            handed_over,
            inboxes,
        }
    }

    pub(crate) fn tell(&self, message: impl ForSupervisor) {
        message.send_to(&self.supervisor);
    }

    /// Number of recoveries of a kind.
    pub(crate) fn recoveries(&self, child: Child) -> u64 {
        self.counts(child).recoveries.get()
    }

    /// Number of deaths of a kind.
    pub(crate) fn deaths(&self, child: Child) -> u64 {
        self.counts(child).deaths.get()
    }

    fn counts(&self, child: Child) -> &ActorCounters {
        let mut actors = self.metrics.actors();
        let (kind, counts) = actors.nth(child.kind()).expect("a kind");
        assert_eq!(kind, child.to_string());
        counts
    }

    pub(crate) fn inboxes(&mut self) -> &mut Inboxes {
        &mut self.inboxes
    }

    /// Discards all messages so far, without advancing the clock.
    pub(crate) fn forget(&mut self) {
        self.inboxes.forget();
        self.spawner.started();
    }

    /// Discards all messages so far, once all actors are idle.
    pub(crate) async fn settle(&mut self) {
        self.inboxes.clear().await;
        self.spawner.started();
    }

    /// Connects client 1 with the grant of `open`; returns the index of its connection.
    pub(crate) async fn connect(&mut self, open: ClientCommand) -> PeerIndex {
        self.tell(open);
        let attached: AttachPeer = self.udp.find().await;
        self.settle().await;
        attached.index
    }

    /// Reports a path in use for client 1, in the name of its connection.
    pub(crate) fn use_path(&self) -> Path {
        self.use_path_of(client(1))
    }

    /// Reports a path in use for this client, in the name of its connection.
    pub(crate) fn use_path_of(&self, client: ClientId) -> Path {
        let path = Path::direct(
            "192.0.2.10:52625".parse().expect("literal"),
            "198.51.100.5:4000".parse().expect("literal"),
        );
        self.tell(ConnectionNews {
            client,
            instance: self.spawner.instance(client),
            opened: 1,
            fact: ConnectionFact::PathInUse(path),
        });
        path
    }

    pub(crate) async fn accepted(&mut self) -> String {
        self.portal.next::<ConnectionAccepted>().await.reply_ref
    }

    pub(crate) async fn relays(&mut self) -> Vec<String> {
        let UseRelays(relays) = self.udp.next().await;
        relays.iter().map(|relay| relay.addr.to_string()).collect()
    }
}

impl Deref for Scene {
    type Target = Inboxes;

    fn deref(&self) -> &Inboxes {
        &self.inboxes
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Inboxes {
        &mut self.inboxes
    }
}

pub(crate) const GATEWAY_KEY: [u8; 32] = [2; 32];

pub(crate) fn ledger() -> Ledger {
    Ledger::new(LedgerLimits {
        resources_per_client: MAX_RESOURCES.into(),
        ..LedgerLimits::default()
    })
}

pub(crate) fn initialized(relays: Vec<Relay>) -> PortalNews {
    PortalNews::Initialized(GatewayInit {
        tunnel: tunnel(0),
        relays,
        authorizations: Vec::new(),
    })
}

/// Resource `number` of client 1.
pub(crate) fn revoke(number: u8) -> ClientCommand {
    ClientCommand::Revoke {
        client: client(1),
        resource: resource(number),
    }
}

pub(crate) fn goodbye(exit_code: i32) -> Shutdown {
    Shutdown {
        exit_code,
        mode: ShutdownMode::Goodbye,
    }
}

/// What is told to the supervisor; the portal's commands are wrapped.
pub(crate) trait ForSupervisor {
    fn send_to(self, supervisor: &Addr<SupervisorActor>);
}

impl ForSupervisor for ClientCommand {
    fn send_to(self, supervisor: &Addr<SupervisorActor>) {
        PortalNews::Client(self).send_to(supervisor);
    }
}

macro_rules! for_supervisor {
    ($($message:ty),* $(,)?) => {$(
        impl ForSupervisor for $message {
            fn send_to(self, supervisor: &Addr<SupervisorActor>) {
                tell_addr(supervisor, self);
            }
        }
    )*};
}

for_supervisor! {
    ChildDied,
    ConnectionNews,
    HealthNews,
    NatTableChanged,
    PortalNews,
    ReloadNews,
    Shutdown,
    UseSettings,
}
