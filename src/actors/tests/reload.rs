//! A reload of the settings: the messages to each actor, and what is not cut.

use super::in_virtual_time;
use super::probe::Seen;
use super::samples::{client, open, open_for};
use super::scene::{MAX_CLIENTS, MAX_RESOURCES, Scene};
use crate::actors::dns::UseNameServers;
use crate::config::changes::Step;
use crate::config::{Environment, load};
use crate::messages::dns::LimitLookups;
use crate::messages::nat_table::LimitNatTable;
use crate::messages::portal::{ConnectionAccepted, TolerateOutage};
use crate::messages::supervisor::Child;
use crate::messages::udp::{LimitHandshakes, OfferAddresses};
use crate::reload::{self, LiveSettings, UseSettings};
use std::time::Duration;

/// The settings of a file with this content.
fn settings(more: &str) -> LiveSettings {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let toml = format!("[portal]\nurl = \"ws://h:1\"\nmax_outage = \"7h\"\n{more}");
    std::fs::write(&path, toml).expect("written");
    let environment = Environment::new([("POSTERN__PORTAL__TOKEN", "t")]);
    let config = load(&path, &environment).expect("valid").config;
    let trust = reload::trust(config.dns.ca_file.as_deref()).expect("no file");
    LiveSettings::new(&config, trust)
}

pub(crate) fn use_settings(more: &str, steps: &[Step]) -> UseSettings {
    UseSettings {
        settings: Box::new(settings(more)),
        steps: steps.to_vec(),
    }
}

const ALL: [Step; 10] = [
    Step::NameServers,
    Step::Lookups,
    Step::NatTable,
    Step::Clients,
    Step::Handshakes,
    Step::Addresses,
    Step::Outage,
    Step::Farewell,
    Step::LogFilter,
    Step::NextProcess,
];

#[test]
fn settings_reach_the_actors_concerned_and_their_successors() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        assert!(scene.spawner.settings().is_none());
        let more = "[dns]\nmax_ttl = \"6s\"\nsuffixes = [\"corp.example=10.1.0.53\"]\n\
                    [network]\nstun_servers = [\"192.0.2.1:3478\"]\n\
                    [limits]\nhandshakes_per_second = 7\nflows = 2000\n";
        scene.tell(use_settings(more, &ALL));
        let UseNameServers(servers) = scene.dns.next().await;
        assert_eq!(servers.suffixes.len(), 1);
        let LimitLookups(lookups) = scene.dns.next().await;
        assert_eq!(lookups.max_ttl, Duration::from_secs(6));
        let LimitNatTable(limits) = scene.nat_table.next().await;
        assert_eq!(limits.flows.flows, 2000);
        let LimitHandshakes(per_second) = scene.udp.next().await;
        assert_eq!(per_second, 7);
        let offer: OfferAddresses = scene.udp.next().await;
        assert_eq!(offer.stun_servers.len(), 1);
        let TolerateOutage(outage) = scene.portal.next().await;
        assert_eq!(outage, Duration::from_secs(7 * 3600));
        let made_with = scene.spawner.settings().expect("taken over");
        assert_eq!(made_with.limits.flows, 2000);
        assert_eq!(scene.spawner.started(), [], "no restart");
    });
}

#[test]
fn actors_without_changes_get_no_message() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.tell(use_settings("", &[Step::Lookups]));
        scene.dns.next::<LimitLookups>().await;
        scene.dns.nothing().await;
        scene.nat_table.nothing().await;
        scene.udp.nothing().await;
        scene.portal.nothing().await;
    });
}

fn limits(clients: u8, resources: u8) -> UseSettings {
    let more = format!("[limits]\nclients = {clients}\nresources_per_client = {resources}\n");
    use_settings(&more, &[Step::Clients])
}

#[test]
fn a_lower_client_limit_cuts_no_client_and_a_higher_one_admits_more() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        for number in 1..=MAX_CLIENTS {
            scene.tell(open_for(number, 1));
            scene.accepted().await;
        }
        scene.settle().await;
        scene.tell(limits(1, MAX_RESOURCES));
        scene.tell(open_for(1, 2));
        assert_eq!(scene.accepted().await, "ref-2", "known clients are served");
        scene.tell(open_for(MAX_CLIENTS + 1, 3));
        scene.portal.nothing().await;
        scene.tell(limits(MAX_CLIENTS + 1, MAX_RESOURCES));
        scene.tell(open_for(MAX_CLIENTS + 1, 4));
        assert_eq!(scene.accepted().await, "ref-4");
        let ended = |seen: &Seen| matches!(seen, Seen::DetachPeer(_));
        assert!(!scene.udp.drain().await.iter().any(ended));
    });
}

/// A client keeps its resources, in the present instance of its connection and in the next.
#[test]
fn a_lower_resource_limit_revokes_nothing() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.tell(open(2));
        scene.accepted().await;
        scene.tell(limits(MAX_CLIENTS, 1));
        scene.tell(open(3));
        scene.portal.nothing().await;
        scene.tell(open(2));
        assert_eq!(scene.accepted().await, "ref-2", "it holds that one");
        scene.spawner.kill_connection(client(1));
        scene.settle().await;
        scene.tell(open(2));
        let accepted: ConnectionAccepted = scene.portal.next().await;
        assert_eq!(accepted.reply_ref, "ref-2", "the successor holds it too");
        scene.tell(open(4));
        scene.portal.nothing().await;
        assert_eq!(scene.deaths(Child::Connection(accepted.client, index)), 1);
    });
}
