//! AdminActor: answers the operator.
//!
//! Owns: the tasks that serve HTTP. Receives: only pings. Emits: `HealthCheck`, `GatewayStatus`,
//! `DrainGateway`, `CancelDrain` to the supervisor. When its mailbox is full: nothing is lost. On
//! death: rebuilt on the same sockets; requests under way are broken off. A panic in a request ends
//! only the request's task.

use crate::admin::{self, AdminListeners, AdminState};
use crate::faults;
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use tokio::task::JoinSet;

pub struct AdminSpec {
    pub listeners: AdminListeners,
    pub state: AdminState,
    #[expect(dead_code, reason = "its drop notifies the supervisor")]
    pub death: DeathNotice,
}

pub struct AdminActor {
    spec: AdminSpec,
    tasks: JoinSet<()>,
}

impl AdminActor {
    pub const MAILBOX: usize = 16;

    pub fn new(spec: AdminSpec) -> Self {
        Self {
            spec,
            tasks: JoinSet::new(),
        }
    }
}

supervised!(AdminActor, "admin");

impl Actor for AdminActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("admin");
        match admin::serve(&self.spec.listeners, &self.spec.state) {
            Ok(tasks) => self.tasks = tasks,
            Err(error) => {
                tracing::error!(%error, "nobody can ask the gateway how it is");
                ctx.stop();
            }
        }
    }
}
