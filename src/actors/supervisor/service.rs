//! Reports the gateway's health to the service manager that started it.

use super::SupervisorActor;
use crate::messages::reports::HealthReport;
use actix::prelude::*;

impl SupervisorActor {
    /// Starts reporting, if there is a service manager.
    pub(super) fn report_to_service_manager(&mut self, ctx: &mut Context<Self>) {
        if let Some(interval) = self.spec.service_manager.interval() {
            self.look_at_health(ctx);
            ctx.run_interval(interval, |actor, ctx| actor.look_at_health(ctx));
        }
    }

    /// Runs a health check, unless the previous one is still running.
    fn look_at_health(&mut self, ctx: &mut Context<Self>) {
        if self.stopping || std::mem::replace(&mut self.is_examining, true) {
            return;
        }
        let examined = self.examine();
        ctx.spawn(examined.map(|health, actor, _| {
            actor.is_examining = false;
            if !actor.stopping {
                let line = status_line(&health, actor.supervision.clients().len());
                let manager = &mut actor.spec.service_manager;
                manager.note_health(health.live, &line);
            }
        }));
    }
}

/// The status line that the service manager shows: the troubles without their remedies.
fn status_line(health: &HealthReport, clients: usize) -> String {
    let status = health.status.word().replace('_', " ");
    let mut line = format!("{status}, {clients} clients");
    for (index, reason) in health.reasons.iter().enumerate() {
        line += if index == 0 { ": " } else { "; " };
        line += reason.split([':', ';']).next().unwrap_or_default();
    }
    line
}
