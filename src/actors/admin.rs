//! AdminActor: answers the operator.
//!
//! Owns: the tasks that serve HTTP. Receives: nothing but pings. Emits: `HealthCheck`,
//! `GatewayStatus`, `DrainGateway`, `CancelDrain` to the supervisor. When its mailbox is full:
//! nothing is lost. On death: rebuilt on the same sockets; a question that was under way is broken
//! off. A question that panics costs its own task.

use crate::admin::{self, AdminListeners, AdminState};
use crate::faults;
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use tokio::task::JoinSet;

/// Everything an AdminActor is built from.
pub struct AdminSpec {
    /// Shared by all lives.
    pub listeners: AdminListeners,
    /// The sources of all answers.
    pub state: AdminState,
    /// Held until the end.
    pub death: DeathNotice,
}

/// See the module's documentation.
pub struct AdminActor {
    spec: AdminSpec,
    tasks: JoinSet<()>,
}

impl AdminActor {
    /// Pings that may wait.
    pub const MAILBOX: usize = 16;

    /// Which serves as soon as it is started.
    #[must_use]
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
