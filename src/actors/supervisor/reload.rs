//! New settings, for running actors and for actors that are started later.

use super::SupervisorActor;
use super::tree::FRONT;
use crate::actors::dns::{self, NameServers, UseNameServers};
use crate::config::changes::Step;
use crate::messages::connection::LimitResources;
use crate::messages::dns::LimitLookups;
use crate::messages::nat_table::LimitNatTable;
use crate::messages::portal::TolerateOutage;
use crate::messages::reload::{ConfigurationReloaded, ReloadBegan};
use crate::messages::udp::{LimitHandshakes, OfferAddresses};
use crate::reload::{LiveSettings, UseSettings};
use crate::shell::tell;
use actix::prelude::*;

impl Handler<ReloadBegan> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: ReloadBegan, _: &mut Context<Self>) {
        self.spec.service_manager.note_reload_began();
    }
}

impl Handler<UseSettings> for SupervisorActor {
    type Result = ();

    /// The spawner comes first: an actor that dies in between is built with the new settings.
    fn handle(&mut self, UseSettings { settings, steps }: UseSettings, _: &mut Context<Self>) {
        self.spec.spawner.take_over(&settings);
        for step in steps {
            self.take_step(step, &settings);
        }
    }
}

impl Handler<ConfigurationReloaded> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ConfigurationReloaded, _: &mut Context<Self>) {
        self.spec.service_manager.note_reloaded();
        self.spec.metrics.count_reload(&message.0.outcome);
        self.last_reload = Some(message.0);
    }
}

impl SupervisorActor {
    fn take_step(&mut self, step: Step, settings: &LiveSettings) {
        let tree = &self.tree;
        match step {
            Step::NameServers => {
                if let Some(dns) = &tree.dns {
                    let servers = NameServers::new(&settings.dns, settings.dns_trust.clone());
                    tell(&dns.servers, UseNameServers(servers));
                }
            }
            Step::Lookups => {
                if let Some(dns) = &tree.dns {
                    tell(&dns.limit, LimitLookups(dns::lookups_config(&settings.dns)));
                }
            }
            Step::NatTable => {
                let limit = LimitNatTable(settings.nat_table().divided(self.spec.shards));
                for nat_table in tree.shards.iter().filter_map(|it| it.nat_table.as_ref()) {
                    tell(&nat_table.limit, limit);
                }
            }
            Step::Clients => self.limit_clients(settings),
            Step::Handshakes => self.limit_handshakes(settings.limits.handshakes_per_second),
            Step::Addresses => self.offer_addresses(settings),
            Step::Outage => {
                if let Some(portal) = &tree.portal {
                    tell(&portal.tolerate, TolerateOutage(settings.max_outage));
                }
            }
            // These concern no actor.
            Step::Farewell | Step::LogFilter | Step::NextProcess => {}
        }
    }

    fn limit_clients(&mut self, settings: &LiveSettings) {
        let limits = settings.limits;
        self.spec.max_clients = limits.clients;
        self.spec.max_resources = limits.resources_per_client;
        let ledger = &mut self.spec.ledger;
        ledger.limit(limits.clients, limits.resources_per_client);
        let limit = LimitResources(limits.resources_per_client);
        self.clients.tell_all(&limit);
    }

    fn limit_handshakes(&mut self, per_second: u32) {
        self.spec.handshakes_per_second = usize::try_from(per_second).unwrap_or(usize::MAX);
        let shards = self.tree.shards.iter();
        for udp in shards.filter_map(|shard| shard.udp.as_ref()) {
            tell(&udp.handshakes, LimitHandshakes(per_second.into()));
        }
    }

    /// Every shard needs to know which addresses are ours; one asks for more.
    fn offer_addresses(&self, settings: &LiveSettings) {
        for (number, shard) in (0..).zip(&self.tree.shards) {
            let offer = OfferAddresses {
                list_addresses: settings.list_addresses(),
                stun_servers: match number {
                    FRONT => settings.network.stun_servers.clone(),
                    _ => Vec::new(),
                },
            };
            if let Some(udp) = &shard.udp {
                tell(&udp.offer, offer);
            }
        }
    }
}
