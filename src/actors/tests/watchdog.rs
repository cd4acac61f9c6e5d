//! The watchdog replaces actors that do not answer, and leaves slow ones alone.

use super::in_virtual_time;
use super::probe::{Break, Probe};
use super::samples::{client, open, open_for};
use super::scene::Scene;
use super::seen::ConnectionAccepted;
use super::spawner::SHARED;
use crate::actors::supervisor::spawner::Place;
use crate::messages::nat_table::AttachClient;
use crate::messages::supervisor::Child;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn replaces_a_hung_shared_child_within_three_seconds() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for child in SHARED {
            let hung = scene.spawner.probe(child);
            scene.spawner.break_child(child, Break::Hang);
            tokio::time::sleep(MS(3000)).await;
            assert_eq!(scene.spawner.started(), [child]);
            assert!(!hung.connected());
            assert_eq!(scene.deaths(child), 1);
            assert_eq!(scene.recoveries(child), 1);
        }
        assert_eq!(scene.spawner.replaced(), []);
    });
}

#[test]
fn replaces_a_hung_connection_within_six_seconds_and_keeps_its_requests() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.spawner.set_stuck(client(1), true);
        scene.tell(open(1));
        scene.portal.nothing().await;
        scene.tell(open_for(2, 2));
        assert_eq!(scene.accepted().await, "ref-2");
        scene.spawner.set_stuck(client(1), false);
        let other = scene.spawner.connection(client(2));
        scene.forget();

        let limit = MS(6000);
        let accepted: ConnectionAccepted = scene.portal.next_within(limit).await;
        assert_eq!(accepted.reply_ref, "ref-1");
        let attached: AttachClient = scene.nat_table.next().await;
        let hung = Child::Connection(client(1), attached.index);
        assert_eq!(scene.spawner.started(), [hung]);
        assert_eq!(scene.deaths(hung), 1);
        assert!(other.connected());
        assert_eq!(scene.spawner.replaced(), []);
    });
}

#[test]
fn leaves_a_busy_actor_alone() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        let busy = scene.spawner.probe(Child::NatTable(0));
        // More than the mailbox holds at any time, and less than a second's work.
        for _ in 0..Probe::MAILBOX + 10 {
            let busy = busy.clone();
            actix_rt::spawn(async move { while busy.send(Break::Work(MS(8))).await.is_ok() {} });
        }
        tokio::time::sleep(MS(10)).await;
        // actix lets each sender exceed a full mailbox by one.
        let room = std::iter::repeat_with(|| busy.try_send(Break::Work(MS(1))));
        assert!(room.take_while(Result::is_ok).count() <= 1);
        tokio::time::sleep(MS(20_000)).await;
        assert_eq!(scene.spawner.started(), []);
        assert!(busy.connected());
    });
}

#[test]
fn replaces_a_stuck_thread_and_restarts_its_actors() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.spawner.set_thread_stuck();
        let index = scene.connect(open(1)).await;
        scene.spawner.break_child(Child::Udp(0), Break::Hang);
        tokio::time::sleep(MS(3500)).await;
        assert_eq!(scene.spawner.replaced(), [Place::Shard(0)]);
        let connection = Child::Connection(client(1), index);
        let all = [Child::Tun(0), Child::NatTable(0), Child::Udp(0), connection];
        assert_eq!(scene.spawner.started(), all);
        // The deaths count for no other actor.
        assert_eq!(scene.deaths(Child::Udp(0)), 1);
        assert_eq!(scene.deaths(Child::Tun(0)), 0);

        scene.spawner.thread_comes_round();
        tokio::time::sleep(MS(10_000)).await;
        assert_eq!(scene.spawner.started(), []);
        assert_eq!(scene.spawner.replaced(), [Place::Shard(0)]);
        assert_eq!(scene.deaths(connection), 0);
    });
}

#[test]
fn charges_the_client_that_blocks_the_thread() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        let connection = Child::Connection(client(1), index);
        for _ in 0..3 {
            scene.spawner.set_thread_stuck();
            // The stuck instance is the client's; the TunActor's silence is noticed first.
            scene.spawner.break_child(Child::Tun(0), Break::Stop);
            tokio::time::sleep(MS(100)).await;
            scene.spawner.break_child(Child::Tun(0), Break::Hang);
            scene
                .spawner
                .set_busy_with(scene.spawner.instance(client(1)));
            tokio::time::sleep(MS(3500)).await;
        }
        assert_eq!(scene.spawner.replaced(), [Place::Shard(0); 3]);
        assert_eq!(scene.deaths(connection), 3);
        // The third exceeds the budget.
        scene.spawner.started();
        tokio::time::sleep(MS(1000)).await;
        assert_eq!(scene.spawner.started(), []);
        scene.settle().await;
        scene.tell(open(2));
        scene.portal.nothing().await;
    });
}

#[test]
fn a_stuck_control_thread_does_not_affect_the_data_path() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.spawner.set_thread_stuck();
        scene.connect(open(1)).await;
        scene.spawner.break_child(Child::Dns, Break::Hang);
        tokio::time::sleep(MS(3500)).await;
        assert_eq!(scene.spawner.replaced(), [Place::Control]);
        assert_eq!(scene.spawner.started(), [Child::Dns, Child::Portal]);
    });
}

#[test]
fn connections_that_wait_for_their_batch_do_not_count_as_hung() {
    const CLIENTS: u8 = 50;
    in_virtual_time(async {
        let scene = Scene::with(|spec| {
            spec.max_clients = CLIENTS.into();
            // Four per second: it takes more than twelve seconds.
            spec.handshakes_per_second = 4;
        });
        scene.spawner.set_thread_stuck();
        for number in 1..=CLIENTS {
            scene.tell(open_for(number, 1));
            scene.spawner.set_stuck(client(number), true);
        }
        // By now all have been started, and none has answered yet.
        tokio::time::sleep(MS(1)).await;
        for number in 1..=CLIENTS {
            scene.spawner.set_stuck(client(number), false);
        }
        let shared = SHARED.len();
        assert_eq!(scene.spawner.started().len(), shared + usize::from(CLIENTS));
        scene.spawner.break_child(Child::Tun(0), Break::Hang);
        tokio::time::sleep(MS(30_000)).await;
        assert_eq!(scene.spawner.replaced(), [Place::Shard(0)]);
        assert_eq!(scene.spawner.started().len(), 3 + usize::from(CLIENTS));
    });
}
