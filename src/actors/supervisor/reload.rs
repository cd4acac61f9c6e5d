//! New settings, for running actors and for actors that are started later.

use super::SupervisorActor;
use crate::config::{LimitsConfig, UseSettings};
use crate::messages::connection::ConnectionCommand;
use crate::messages::reload::ReloadNews;
use actix::prelude::*;

impl Handler<ReloadNews> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, news: ReloadNews, _: &mut Context<Self>) {
        match news {
            ReloadNews::Began => self.spec.service_manager.note_reload_began(),
            ReloadNews::Done(report) => {
                self.spec.service_manager.note_reloaded();
                self.spec.metrics.count_reload(&report.outcome);
                self.last_reload = Some(report);
            }
        }
    }
}

impl Handler<UseSettings> for SupervisorActor {
    type Result = ();

    /// The spawner comes first: an actor that dies in between is built with the new settings.
    fn handle(&mut self, message: UseSettings, _: &mut Context<Self>) {
        self.spec.spawner.take_over(&message.after);
        self.limit_clients(&message.after.config.limits);
        let shards = self.tree.shards.iter();
        let of_shards = shards.flat_map(|shard| {
            let nat_table = shard.nat_table.as_ref().map(|links| &links.settings);
            let udp = shard.udp.as_ref().map(|links| &links.settings);
            nat_table.into_iter().chain(udp)
        });
        let dns = self.tree.dns.as_ref().map(|links| &links.settings);
        let portal = self.tree.portal.as_ref().map(|links| &links.settings);
        for settings in dns.into_iter().chain(portal).chain(of_shards) {
            settings.tell(message.clone());
        }
    }
}

impl SupervisorActor {
    fn limit_clients(&mut self, limits: &LimitsConfig) {
        let per_second = limits.handshakes_per_second;
        self.spec.max_clients = limits.clients;
        let per_second = usize::try_from(per_second).unwrap_or(usize::MAX);
        self.supervision.limit(limits.clients, per_second);
        let per_client = limits.resources_per_client;
        let former = std::mem::replace(&mut self.spec.max_resources, per_client);
        self.spec.ledger.limit(limits.clients, per_client);
        if former != per_client {
            self.tell_all(&ConnectionCommand::LimitResources(per_client));
        }
    }
}
