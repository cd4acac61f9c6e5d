//! A client with a connection that dies repeatedly is cut off, for a while and alone.

use super::in_virtual_time;
use super::samples::{client, open, open_for};
use super::scene::Scene;
use super::seen::{ConnectionAccepted, DetachClient, DetachPeer, Seen};
use crate::messages::nat_table::AttachClient;
use crate::messages::supervisor::Child;
use crate::messages::supervisor::{ConnectionFact, ConnectionNews};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn the_third_death_within_30_s_cuts_off_that_client_only() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.connect(open_for(2, 2)).await;
        for _ in 0..2 {
            scene.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
            assert_eq!(
                scene.spawner.started(),
                [Child::Connection(client(1), index)]
            );
        }
        scene.settle().await;
        let other = scene.spawner.connection(client(2));

        scene.spawner.kill_connection(client(1));
        let detached: DetachPeer = scene.udp.next().await;
        assert_eq!(detached.index, index);
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!((detached.client, detached.index), (client(1), index));
        tokio::time::sleep(MS(2000)).await;
        assert_eq!(scene.spawner.started(), []);
        scene.portal.nothing().await;
        scene.nat_table.nothing().await;
        assert!(other.connected());
    });
}

#[test]
fn a_goodbye_does_not_reset_the_count() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        for number in 1..=2 {
            scene.connect(open(number)).await;
            scene.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
            scene.settle().await;
            let closed = ConnectionNews {
                client: client(1),
                instance: scene.spawner.instance(client(1)),
                opened: 0,
                fact: ConnectionFact::Closed,
            };
            scene.tell(closed);
            tokio::time::sleep(MS(60)).await;
            scene.settle().await;
        }
        scene.connect(open(3)).await;
        scene.spawner.kill_connection(client(1));
        tokio::time::sleep(MS(60)).await;
        scene.settle().await;
        scene.tell(open(4));
        scene.portal.nothing().await;
    });
}

#[test]
fn refuses_the_client_for_30_s_and_admits_it_after() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..3 {
            scene.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
        }
        scene.settle().await;
        tokio::time::sleep(MS(29_000)).await;
        scene.tell(open(2));
        scene.portal.nothing().await;
        scene.nat_table.nothing().await;
        // Other clients are not refused.
        scene.tell(open_for(2, 3));
        assert_eq!(scene.accepted().await, "ref-3");
        scene.nat_table.next::<AttachClient>().await;

        tokio::time::sleep(MS(1000)).await;
        scene.tell(open(4));
        assert_eq!(scene.accepted().await, "ref-4");
        // It has none of its earlier grants.
        let told = scene.nat_table.drain().await;
        assert!(matches!(told[..], [Seen::AttachClient(_)]));
    });
}

#[test]
fn two_deaths_within_30_s_are_tolerated() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..5 {
            for _ in 0..2 {
                scene.spawner.kill_connection(client(1));
                tokio::time::sleep(MS(60)).await;
            }
            tokio::time::sleep(MS(30_000)).await;
        }
        scene.settle().await;
        scene.tell(open(2));
        scene.portal.next::<ConnectionAccepted>().await;
    });
}
