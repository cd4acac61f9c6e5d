//! A reload of the settings: which actors receive them, and what is not cut.

use super::in_virtual_time;
use super::samples::{client, open, open_for};
use super::scene::{MAX_CLIENTS, MAX_RESOURCES, Scene};
use super::seen::{ConnectionAccepted, Seen};
use crate::actors::{dns, nat_table};
use crate::config::{Environment, LiveSettings, UseSettings, load};
use crate::messages::supervisor::Child;
use crate::reload::check;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a file with this content.
pub(crate) fn settings(more: &str) -> Arc<LiveSettings> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let toml = format!("[portal]\nurl = \"ws://h:1\"\nmax_outage = \"7h\"\n{more}");
    std::fs::write(&path, toml).expect("written");
    let environment = Environment::new([("POSTERN__PORTAL__TOKEN", "t")]);
    let config = load(&path, &environment).expect("valid").config;
    Arc::new(check(config).expect("no file"))
}

pub(crate) fn use_settings(more: &str) -> UseSettings {
    UseSettings {
        before: settings(""),
        after: settings(more),
    }
}

#[test]
fn every_actor_receives_the_settings_and_successors_are_built_with_them() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        assert!(scene.spawner.settings().is_none());
        let more = "[dns]\nmax_ttl = \"6s\"\nsuffixes = [\"corp.example=10.1.0.53\"]\n\
                    [network]\nstun_servers = [\"192.0.2.1:3478\"]\n\
                    [limits]\nhandshakes_per_second = 7\nflows = 2000\n\
                    [tunnel]\nshards = 1\n";
        scene.tell(use_settings(more));
        let UseSettings { after, .. } = scene.dns.next().await;
        assert_eq!(after.config.dns.suffixes.len(), 1);
        let lookups = dns::lookups_config(&after.config.dns);
        assert_eq!(lookups.max_ttl, Duration::from_secs(6));
        let UseSettings { after, .. } = scene.nat_table.next().await;
        assert_eq!(nat_table::shard_config(&after).flows.flows, 2000);
        let UseSettings { after, .. } = scene.udp.next().await;
        assert_eq!(after.config.limits.handshakes_per_second, 7);
        assert_eq!(after.config.network.stun_servers.len(), 1);
        let UseSettings { after, .. } = scene.portal.next().await;
        let max_outage = after.config.portal.max_outage;
        assert_eq!(max_outage, Duration::from_secs(7 * 3600));
        let made_with = scene.spawner.settings().expect("taken over");
        assert_eq!(made_with.config.limits.flows, 2000);
        assert_eq!(scene.spawner.started(), [], "no actor was rebuilt");
    });
}

#[test]
fn each_actor_receives_the_settings_once() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.tell(use_settings("[dns]\nmax_ttl = \"6s\"\n"));
        scene.dns.next::<UseSettings>().await;
        scene.dns.nothing().await;
        scene.nat_table.next::<UseSettings>().await;
        scene.nat_table.nothing().await;
        scene.udp.next::<UseSettings>().await;
        scene.udp.nothing().await;
        scene.portal.next::<UseSettings>().await;
        scene.portal.nothing().await;
    });
}

fn limits(clients: u8, resources: u8) -> UseSettings {
    use_settings(&format!(
        "[limits]\nclients = {clients}\nresources_per_client = {resources}\n"
    ))
}

impl Scene {
    async fn limit(&mut self, limits: UseSettings) {
        self.tell(limits);
        self.portal.next::<UseSettings>().await;
    }
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
        scene.limit(limits(1, MAX_RESOURCES)).await;
        scene.tell(open_for(1, 2));
        assert_eq!(scene.accepted().await, "ref-2", "known clients are served");
        scene.tell(open_for(MAX_CLIENTS + 1, 3));
        scene.portal.nothing().await;
        scene.limit(limits(MAX_CLIENTS + 1, MAX_RESOURCES)).await;
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
        scene.limit(limits(MAX_CLIENTS, 1)).await;
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
        assert_eq!(scene.deaths(Child::Connection(client(1), index)), 1);
    });
}
