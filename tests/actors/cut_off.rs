//! A client whose connection dies again and again is cut off, for a while and alone.

use crate::in_virtual_time;
use crate::probe::Seen;
use crate::samples::{client, open, open_for};
use crate::scene::Scene;
use postern::messages::nat_table::{AttachClient, DetachClient};
use postern::messages::portal::ConnectionAccepted;
use postern::messages::supervisor::{Child, ConnectionClosed};
use postern::messages::udp::DetachPeer;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn the_third_death_within_30_s_detaches_the_client_and_touches_nobody_else() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.connect(open_for(2, 2)).await;
        for _ in 0..2 {
            scene.desk.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
            assert_eq!(scene.desk.started(), [Child::Connection(client(1), index)]);
        }
        scene.settle().await;
        let other = scene.desk.connection(client(2));

        scene.desk.kill_connection(client(1));
        let detached: DetachPeer = scene.udp.next().await;
        assert_eq!(detached.index, index);
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!((detached.client, detached.index), (client(1), index));
        tokio::time::sleep(MS(2000)).await;
        assert_eq!(scene.desk.started(), []);
        scene.portal.nothing().await;
        scene.nat_table.nothing().await;
        assert!(other.connected());
    });
}

#[test]
fn a_goodbye_in_between_forgives_no_death() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        for number in 1..=2 {
            scene.connect(open(number)).await;
            scene.desk.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
            scene.settle().await;
            let closed = ConnectionClosed {
                client: client(1),
                instance: scene.desk.instance(client(1)),
                opened: 0,
            };
            scene.tell(closed);
            tokio::time::sleep(MS(60)).await;
            scene.settle().await;
        }
        scene.connect(open(3)).await;
        scene.desk.kill_connection(client(1));
        tokio::time::sleep(MS(60)).await;
        scene.settle().await;
        scene.tell(open(4));
        scene.portal.nothing().await;
    });
}

#[test]
fn it_is_refused_for_30_s_and_admitted_after() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..3 {
            scene.desk.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
        }
        scene.settle().await;
        tokio::time::sleep(MS(29_000)).await;
        scene.tell(open(2));
        scene.portal.nothing().await;
        scene.nat_table.nothing().await;
        // Others are not refused.
        scene.tell(open_for(2, 3));
        assert_eq!(scene.accepted().await, "ref-3");
        scene.nat_table.next::<AttachClient>().await;

        tokio::time::sleep(MS(1000)).await;
        scene.tell(open(4));
        assert_eq!(scene.accepted().await, "ref-4");
        // Of what it had before, nothing is left.
        let told = scene.nat_table.drain().await;
        assert!(matches!(told[..], [Seen::AttachClient(_)]));
    });
}

#[test]
fn two_deaths_in_any_30_s_are_no_reason() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..5 {
            for _ in 0..2 {
                scene.desk.kill_connection(client(1));
                tokio::time::sleep(MS(60)).await;
            }
            tokio::time::sleep(MS(30_000)).await;
        }
        scene.settle().await;
        scene.tell(open(2));
        scene.portal.next::<ConnectionAccepted>().await;
    });
}
