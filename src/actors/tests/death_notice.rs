//! Death notices of actors.

use super::tell_addr;
use super::in_virtual_time;
use super::probe::{Break, Inbox, Probe};
use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId};
use crate::supervision::{DeathNotice, Ping, RunningInstance, launch, report_panics};
use actix::prelude::*;
use futures_util::future::AbortHandle;
use std::io;

#[test]
fn a_panic_is_reported_with_message_and_location() {
    report_panics();
    in_virtual_time(async {
        let mut scene = Scene::new();
        let (probe, _) = scene.launch(7);
        tell_addr(&probe, Break::Panic);
        let (message, location) = scene.panic(7).await;
        assert_eq!(message, "a probe panics");
        let (file, line) = location.rsplit_once(':').expect("file and line");
        assert_eq!(file, "src/actors/tests/probe.rs");
        assert!(line.parse::<u32>().is_ok(), "{line}");
        assert!(!probe.connected());

        // The next panic has its own report.
        let (probe, _) = scene.launch(8);
        tell_addr(&probe, Break::Stop);
        assert_eq!(scene.death(8).await, DeathCause::Stopped);
    });
}

#[test]
fn an_aborted_actor_is_reported_as_stopped() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let (probe, abort) = scene.launch(1);
        tell_addr(&probe, Break::Hang);
        scene.supervisor.nothing().await;
        abort.abort();
        assert_eq!(scene.death(1).await, DeathCause::Stopped);
        probe.send(Ping).await.expect_err("it has stopped");
    });
}

#[test]
fn an_actor_that_fails_to_build_is_reported_as_stopped() {
    report_panics();
    in_virtual_time(async {
        let mut scene = Scene::new();
        let mark = RunningInstance::default();
        let death = scene.notice(1);
        let (probe, _) =
            launch::<Probe>(&Arbiter::current(), (&mark, InstanceId(1)), 1, move |_| {
                drop(death);
                Err(io::Error::other("no such device"))
            });
        assert_eq!(scene.death(1).await, DeathCause::Stopped);
        probe.send(Ping).await.expect_err("it has stopped");

        let death = scene.notice(2);
        launch::<Probe>(&Arbiter::current(), (&mark, InstanceId(1)), 1, move |_| {
            let _death = death;
            panic!("no such device");
        });
        let (message, _) = scene.panic(2).await;
        assert_eq!(message, "no such device");
    });
}

#[test]
fn an_actor_on_an_ended_thread_is_reported_as_stopped() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let thread = Arbiter::new();
        let handle = thread.handle();
        thread.stop();
        thread.join().expect("it ends");
        let mark = RunningInstance::default();
        let death = scene.notice(1);
        launch::<Probe>(&handle, (&mark, InstanceId(1)), 1, move |_| {
            let _death = death;
            Err(io::Error::other("not called"))
        });
        assert_eq!(scene.death(1).await, DeathCause::Stopped);
    });
}

#[test]
fn the_mark_names_the_instance_that_runs_and_none_in_between() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let mark = RunningInstance::default();
        let (death, seen) = (scene.notice(7), mark.clone());
        launch::<Probe>(&Arbiter::current(), (&mark, InstanceId(7)), 1, move |_| {
            assert_eq!(seen.instance(), Some(InstanceId(7)));
            drop(death);
            Err(io::Error::other("seen"))
        });
        assert_eq!(scene.death(7).await, DeathCause::Stopped);
        assert_eq!(mark.instance(), None);
    });
}

#[test]
fn messages_wait_while_the_actor_is_built() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let (probe, _) = scene.launch(1);
        for _ in 0..Probe::MAILBOX {
            probe
                .try_send(Break::Work(std::time::Duration::ZERO))
                .expect("there is room");
        }
        probe.send(Ping).await.expect("it answers");
        scene.supervisor.nothing().await;
    });
}

struct Scene {
    probe: Addr<Probe>,
    supervisor: Inbox,
}

impl Scene {
    fn new() -> Self {
        let (probe, supervisor) = Probe::start();
        Self { probe, supervisor }
    }

    fn notice(&self, instance: u64) -> DeathNotice {
        DeathNotice::new(
            Child::Tun(0),
            InstanceId(instance),
            self.probe.clone().recipient(),
        )
    }

    fn launch(&self, instance: u64) -> (Addr<Probe>, AbortHandle) {
        let (sender, _) = Inbox::new();
        Probe::launch(&sender, &sender, self.notice(instance))
    }

    async fn death(&mut self, instance: u64) -> DeathCause {
        let death: ChildDied = self.supervisor.next().await;
        assert_eq!(
            (death.child, death.instance),
            (Child::Tun(0), InstanceId(instance))
        );
        death.cause
    }

    async fn panic(&mut self, instance: u64) -> (String, String) {
        match self.death(instance).await {
            DeathCause::Panicked(report) => (report.message, report.location),
            DeathCause::Stopped => panic!("it panicked"),
        }
    }
}
