//! A supervisor with real connections; everybody else is a probe.

use crate::samples::{client, resource, tunnel};
use crate::spawner::{Inboxes, SpawnerDesk};
use actix::prelude::*;
use postern::actors::supervisor::{SupervisorActor, SupervisorSpec};
use postern::messages::connection::{OpenConnection, RevokeAccess};
use postern::messages::portal::ConnectionAccepted;
use postern::messages::supervisor::{
    Child, ConnectionChanged, ConnectionFact, GatewayInitialized, Shutdown, ShutdownMode,
};
use postern::messages::udp::{AttachPeer, UseRelays};
use postern::metrics::{LifeCounts, Metrics};
use postern::service_manager::ServiceManager;
use postern::shell::tell_addr;
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

/// A supervisor and everybody around it.
pub(crate) struct Scene {
    pub(crate) supervisor: Addr<SupervisorActor>,
    pub(crate) desk: SpawnerDesk,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handed_over: Arc<AtomicBool>,
    inboxes: Inboxes,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// With something else in the spec.
    pub(crate) fn with(change: impl FnOnce(&mut SupervisorSpec)) -> Self {
        let (trays, inboxes) = Inboxes::new();
        let desk = SpawnerDesk::new(trays);
        let (metrics, handed_over) = <(Arc<Metrics>, Arc<AtomicBool>)>::default();
        let mut spec = SupervisorSpec {
            keys: GatewayKeys::new(GATEWAY_KEY),
            seed: [0; 32],
            shards: 1,
            max_clients: MAX_CLIENTS.into(),
            max_resources: MAX_RESOURCES.into(),
            handshakes_per_second: 100,
            spawner: desk.spawner(),
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
            desk,
            metrics,
            handed_over,
            inboxes,
        }
    }

    pub(crate) fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        SupervisorActor: Handler<M>,
    {
        tell_addr(&self.supervisor, message);
    }

    /// How many of a kind have recovered.
    pub(crate) fn recoveries(&self, child: Child) -> u64 {
        self.lives(child).recoveries
    }

    /// How many of a kind have died.
    pub(crate) fn deaths(&self, child: Child) -> u64 {
        self.lives(child).deaths
    }

    fn lives(&self, child: Child) -> LifeCounts {
        let (kind, counts) = self.metrics.lives()[child.kind()];
        assert_eq!(kind, child.to_string());
        counts
    }

    pub(crate) fn inboxes(&mut self) -> &mut Inboxes {
        &mut self.inboxes
    }

    /// Forgets all that happened so far, in no time.
    pub(crate) fn forget(&mut self) {
        self.inboxes.forget();
        self.desk.started();
    }

    /// Forgets all that happened so far, once everybody is idle.
    pub(crate) async fn settle(&mut self) {
        self.inboxes.clear().await;
        self.desk.started();
    }

    /// Client 1 with what `open` grants it, and the index of its connection.
    pub(crate) async fn connect(&mut self, open: OpenConnection) -> PeerIndex {
        self.tell(open);
        let attached: AttachPeer = self.udp.find().await;
        self.settle().await;
        attached.index
    }

    /// Datagrams to client 1 go this way, says its connection.
    pub(crate) fn use_path(&self) -> Path {
        self.use_path_of(client(1))
    }

    /// Datagrams to this client go this way, says its connection.
    pub(crate) fn use_path_of(&self, client: ClientId) -> Path {
        let path = Path {
            local: "192.0.2.10:52625".parse().expect("literal"),
            remote: "198.51.100.5:4000".parse().expect("literal"),
        };
        self.tell(ConnectionChanged {
            client,
            instance: self.desk.instance(client),
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

pub(crate) fn initialized(relays: Vec<Relay>) -> GatewayInitialized {
    GatewayInitialized(GatewayInit {
        tunnel: tunnel(0),
        relays,
        authorizations: Vec::new(),
    })
}

/// Resource `number` of client 1.
pub(crate) fn revoke(number: u8) -> RevokeAccess {
    RevokeAccess {
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
