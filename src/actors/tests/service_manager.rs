//! Messages to the service manager, and their absence while an actor does not answer.

use super::probe::Break;
use super::samples::open;
use super::scene::{Scene, goodbye};
use super::seen::DetachPeer;
use super::{in_virtual_time, until_exit};
use crate::messages::reload::ReloadNews;
use crate::messages::reload::{ReloadOutcome, ReloadReport};
use crate::messages::supervisor::Child;
use crate::service_manager::ServiceManager;
use postern_core::UnixTime;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WATCHDOG: Duration = Duration::from_secs(8);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// All messages, one line each, without the time of a reload.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn manager(&self) -> ServiceManager {
        let Self(lines) = self.clone();
        let notify = move |messages: &[sd_notify::NotifyState<'_>]| {
            let mut lines = lines.lock().expect("not poisoned");
            let said = messages.iter().map(ToString::to_string);
            lines.extend(said.filter(|line| !line.starts_with("MONOTONIC_USEC=")));
            Ok(())
        };
        ServiceManager::new(Box::new(notify), Some(WATCHDOG))
    }

    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }

    fn scene(&self) -> Scene {
        let manager = self.manager();
        Scene::with(|spec| spec.service_manager = manager)
    }
}

fn count(lines: &[String], word: &str) -> usize {
    lines.iter().filter(|line| *line == word).count()
}

/// docs/lessons.md 21: booting without a network is normal, so ready does not wait for the portal.
#[test]
fn is_ready_without_the_portal() {
    in_virtual_time(async {
        let recorder = Recorder::default();
        let scene = recorder.scene();
        tokio::time::sleep(MS(10)).await;
        let lines = recorder.lines();
        assert_eq!(lines[0], "READY=1");
        assert!(
            lines[1].starts_with("STATUS=not ready, 0 clients: "),
            "{lines:?}"
        );
        assert_eq!(lines[2..], ["WATCHDOG=1"]);
        tokio::time::sleep(2 * WATCHDOG).await;
        let lines = recorder.lines();
        let fed = count(&lines, "WATCHDOG=1");
        assert_eq!(lines.len(), fed, "{lines:?}");
        assert!(fed >= 8, "four times in each interval: {fed}");
        drop(scene);
    });
}

#[test]
fn is_not_ready_before_all_actors_answer() {
    in_virtual_time(async {
        let recorder = Recorder::default();
        let scene = recorder.scene();
        scene.spawner.set_unbuildable(Child::Dns, true);
        // A few attempts, far below its budget.
        tokio::time::sleep(MS(1)).await;
        assert!(scene.deaths(Child::Dns) > 0);
        assert_eq!(recorder.lines(), [""; 0]);
        scene.spawner.set_unbuildable(Child::Dns, false);
        tokio::time::sleep(MS(10_000)).await;
        assert_eq!(recorder.lines()[0], "READY=1");
    });
}

#[test]
fn pings_the_service_manager_only_while_all_actors_answer() {
    in_virtual_time(async {
        let recorder = Recorder::default();
        let mut scene = recorder.scene();
        scene.connect(open(1)).await;
        tokio::time::sleep(WATCHDOG).await;
        for child in [Child::Dns, Child::Udp(0), Child::Portal, Child::Tun(0)] {
            scene.spawner.break_child(child, Break::Hang);
            tokio::time::sleep(MS(1)).await;
            recorder.lines();
            // The watchdog ends it after two and a half seconds at most.
            while scene.spawner.started().is_empty() {
                assert_eq!(count(&recorder.lines(), "WATCHDOG=1"), 0, "{child}");
                tokio::time::sleep(MS(50)).await;
            }
            tokio::time::sleep(MS(4000)).await;
            assert!(
                count(&recorder.lines(), "WATCHDOG=1") > 0,
                "{child} is back"
            );
        }
    });
}

#[test]
fn announces_reloads_and_the_shutdown() {
    let recorder = Recorder::default();
    let said = recorder.clone();
    let code = until_exit(async move {
        let mut scene = recorder.scene();
        scene.connect(open(1)).await;
        tokio::time::sleep(MS(1500)).await;
        let lines = recorder.lines();
        let served = lines.iter().filter(|line| line.contains(", 1 clients"));
        assert_eq!(served.count(), 1, "{lines:?}");
        scene.tell(ReloadNews::Began);
        scene.tell(ReloadNews::Done(ReloadReport {
            at: UnixTime(1),
            outcome: ReloadOutcome::Unchanged,
        }));
        scene.udp.nothing().await;
        let lines = recorder.lines();
        let framed = ["RELOADING=1", "READY=1"];
        assert!(lines.windows(2).any(|pair| pair == framed), "{lines:?}");
        scene.tell(goodbye(0));
        scene.udp.next::<DetachPeer>().await;
    });
    assert_eq!(code, 0);
    let lines = said.lines();
    let end = ["STOPPING=1", "STATUS=stopping"];
    assert!(lines.ends_with(&end.map(str::to_owned)), "{lines:?}");
}

#[test]
fn a_reload_during_startup_does_not_announce_ready() {
    let recorder = Recorder::default();
    let mut manager = recorder.manager();
    manager.note_reload_began();
    manager.note_reloaded();
    assert_eq!(recorder.lines(), [""; 0]);
    manager.note_health(false, "not ready");
    assert_eq!(recorder.lines(), [""; 0]);
    manager.note_health(true, "ready");
    assert_eq!(recorder.lines(), ["READY=1", "STATUS=ready", "WATCHDOG=1"]);
    assert_eq!(ServiceManager::none().interval(), None);
}
