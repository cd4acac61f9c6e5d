//! Who lives and does not answer is ended and replaced; who is only slow is left alone.

use crate::in_virtual_time;
use crate::probe::{Break, Probe};
use crate::samples::{client, open, open_for};
use crate::scene::Scene;
use crate::spawner::SHARED;
use postern::actors::supervisor::spawner::Place;
use postern::messages::nat_table::AttachClient;
use postern::messages::portal::ConnectionAccepted;
use postern::messages::supervisor::Child;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_shared_child_that_hangs_is_replaced_within_three_seconds() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for child in SHARED {
            let hung = scene.desk.probe(child);
            scene.desk.break_child(child, Break::Hang);
            tokio::time::sleep(MS(3000)).await;
            assert_eq!(scene.desk.started(), [child]);
            assert!(!hung.connected());
            assert_eq!(scene.deaths(child), 1);
            assert_eq!(scene.recoveries(child), 1);
        }
        assert_eq!(scene.desk.replaced(), []);
    });
}

#[test]
fn a_connection_that_hangs_is_replaced_within_six_seconds_and_answers_what_it_was_asked() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.desk.set_stuck(client(1), true);
        scene.tell(open(1));
        scene.portal.nothing().await;
        scene.tell(open_for(2, 2));
        assert_eq!(scene.accepted().await, "ref-2");
        scene.desk.set_stuck(client(1), false);
        let other = scene.desk.connection(client(2));
        scene.forget();

        let limit = MS(6000);
        let accepted: ConnectionAccepted = scene.portal.next_within(limit).await;
        assert_eq!(accepted.reply_ref, "ref-1");
        let attached: AttachClient = scene.nat_table.next().await;
        let hung = Child::Connection(client(1), attached.index);
        assert_eq!(scene.desk.started(), [hung]);
        assert_eq!(scene.deaths(hung), 1);
        assert!(other.connected());
        assert_eq!(scene.desk.replaced(), []);
    });
}

#[test]
fn who_works_through_a_full_mailbox_is_left_alone() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        let busy = scene.desk.probe(Child::NatTable(0));
        // More than the mailbox takes, all the time, and less than a second's work.
        for _ in 0..Probe::MAILBOX + 10 {
            let busy = busy.clone();
            actix_rt::spawn(async move { while busy.send(Break::Work(MS(8))).await.is_ok() {} });
        }
        tokio::time::sleep(MS(10)).await;
        // Each sender may send once, whatever the mailbox holds.
        let room = std::iter::repeat_with(|| busy.try_send(Break::Work(MS(1))));
        assert!(room.take_while(Result::is_ok).count() <= 1);
        tokio::time::sleep(MS(20_000)).await;
        assert_eq!(scene.desk.started(), []);
        assert!(busy.connected());
    });
}

#[test]
fn where_ending_does_not_help_the_thread_is_replaced_and_all_who_lived_on_it() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.desk.set_thread_stuck();
        let index = scene.connect(open(1)).await;
        scene.desk.break_child(Child::Udp(0), Break::Hang);
        tokio::time::sleep(MS(3500)).await;
        assert_eq!(scene.desk.replaced(), [Place::Shard(0)]);
        let connection = Child::Connection(client(1), index);
        let all = [Child::Tun(0), Child::NatTable(0), Child::Udp(0), connection];
        assert_eq!(scene.desk.started(), all);
        // The others had nothing to do with it.
        assert_eq!(scene.deaths(Child::Udp(0)), 1);
        assert_eq!(scene.deaths(Child::Tun(0)), 0);

        scene.desk.thread_comes_round();
        tokio::time::sleep(MS(10_000)).await;
        assert_eq!(scene.desk.started(), []);
        assert_eq!(scene.desk.replaced(), [Place::Shard(0)]);
        assert_eq!(scene.deaths(connection), 0);
    });
}

#[test]
fn a_client_that_blocks_the_thread_is_charged_for_it_whoever_is_noticed_first() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        let connection = Child::Connection(client(1), index);
        for _ in 0..3 {
            scene.desk.set_thread_stuck();
            // The life that is stuck is the client's; the TunActor is the first who is missed.
            scene.desk.break_child(Child::Tun(0), Break::Stop);
            tokio::time::sleep(MS(100)).await;
            scene.desk.break_child(Child::Tun(0), Break::Hang);
            scene.desk.set_busy_with(scene.desk.instance(client(1)));
            tokio::time::sleep(MS(3500)).await;
        }
        assert_eq!(scene.desk.replaced(), [Place::Shard(0); 3]);
        assert_eq!(scene.deaths(connection), 3);
        // The third is one too many.
        scene.desk.started();
        tokio::time::sleep(MS(1000)).await;
        assert_eq!(scene.desk.started(), []);
        scene.settle().await;
        scene.tell(open(2));
        scene.portal.nothing().await;
    });
}

#[test]
fn a_thread_of_control_that_is_stuck_does_not_touch_the_data_path() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.desk.set_thread_stuck();
        scene.connect(open(1)).await;
        scene.desk.break_child(Child::Dns, Break::Hang);
        tokio::time::sleep(MS(3500)).await;
        assert_eq!(scene.desk.replaced(), [Place::Control]);
        assert_eq!(scene.desk.started(), [Child::Dns, Child::Portal]);
    });
}

#[test]
fn connections_that_wait_for_their_turn_on_the_new_thread_are_not_called_hung() {
    const CLIENTS: u8 = 50;
    in_virtual_time(async {
        let scene = Scene::with(|spec| {
            spec.max_clients = CLIENTS.into();
            // Four in a second: it takes more than twelve.
            spec.handshakes_per_second = 4;
        });
        scene.desk.set_thread_stuck();
        for number in 1..=CLIENTS {
            scene.tell(open_for(number, 1));
            scene.desk.set_stuck(client(number), true);
        }
        // By now, all have been started, and none has ever answered.
        tokio::time::sleep(MS(1)).await;
        for number in 1..=CLIENTS {
            scene.desk.set_stuck(client(number), false);
        }
        let shared = SHARED.len();
        assert_eq!(scene.desk.started().len(), shared + usize::from(CLIENTS));
        scene.desk.break_child(Child::Tun(0), Break::Hang);
        tokio::time::sleep(MS(30_000)).await;
        assert_eq!(scene.desk.replaced(), [Place::Shard(0)]);
        assert_eq!(scene.desk.started().len(), 3 + usize::from(CLIENTS));
    });
}
