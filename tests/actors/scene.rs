//! A supervisor with real connections; everybody else is a probe.

use crate::nursery::{Inboxes, NurseryDesk};
use crate::probe::Inbox;
use crate::samples::{client, resource, tunnel};
use actix::prelude::*;
use postern::actors::supervisor::{SupervisorActor, SupervisorSpec};
use postern::messages::connection::RevokeAccess;
use postern::messages::portal::ConnectionAccepted;
use postern::messages::supervisor::{Farewell, GatewayInitialized, Shutdown};
use postern::messages::udp::UseRelays;
use postern::metrics::Metrics;
use postern::shell::tell_addr;
use postern_core::grant::{GatewayInit, Relay};
use postern_core::ledger::{Ledger, LedgerLimits};
use postern_core::peer::GatewayKeys;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) const MAX_CLIENTS: u8 = 2;
pub(crate) const MAX_RESOURCES: u8 = 4;

/// A supervisor and everybody around it.
pub(crate) struct Scene {
    pub(crate) supervisor: Addr<SupervisorActor>,
    pub(crate) desk: NurseryDesk,
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
        let desk = NurseryDesk::new(trays);
        let (metrics, handed_over) = <(Arc<Metrics>, Arc<AtomicBool>)>::default();
        let mut spec = SupervisorSpec {
            keys: GatewayKeys::new(GATEWAY_KEY),
            seed: [0; 32],
            max_clients: MAX_CLIENTS.into(),
            max_resources: MAX_RESOURCES.into(),
            handshakes_per_second: 100,
            nursery: desk.nursery(),
            ledger: ledger(),
            keeper: None,
            handed_over: Arc::clone(&handed_over),
            alive: Arc::default(),
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
        farewell: Farewell::Goodbye,
    }
}
