//! What a service manager hears, and that it hears nothing from a gateway that does not answer.

use crate::probe::Break;
use crate::samples::open;
use crate::scene::{Scene, goodbye};
use crate::{in_virtual_time, until_exit};
use postern::messages::supervisor::{Child, ConfigurationReloaded, ReloadBegan};
use postern::messages::udp::DetachPeer;
use postern::reload::{ReloadOutcome, ReloadReport};
use postern::service_manager::ServiceManager;
use postern_core::UnixTime;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WATCHDOG: Duration = Duration::from_secs(8);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// Everything that was said, one line each, without the time of a reload.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn manager(&self) -> ServiceManager {
        let Self(lines) = self.clone();
        let notify = move |messages: &[sd_notify::NotifyState<'_>]| {
            let mut lines = lines.lock().expect("nobody panicked");
            let said = messages.iter().map(ToString::to_string);
            lines.extend(said.filter(|line| !line.starts_with("MONOTONIC_USEC=")));
            Ok(())
        };
        ServiceManager::new(Box::new(notify), Some(WATCHDOG))
    }

    /// Since the last time.
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("nobody panicked"))
    }

    fn scene(&self) -> Scene {
        let manager = self.manager();
        Scene::with(|spec| spec.service_manager = manager)
    }
}

fn count(lines: &[String], word: &str) -> usize {
    lines.iter().filter(|line| *line == word).count()
}

/// Booting without a network is normal (docs/lessons.md 21): the portal is not waited for.
///
/// docs/lessons.md 21.
#[test]
fn ready_is_who_answers_whatever_the_portal_does() {
    in_virtual_time(async {
        let heard = Heard::default();
        let scene = heard.scene();
        tokio::time::sleep(MS(10)).await;
        let lines = heard.lines();
        assert_eq!(lines[0], "READY=1");
        assert!(
            lines[1].starts_with("STATUS=not ready, 0 clients: "),
            "{lines:?}"
        );
        assert_eq!(lines[2..], ["WATCHDOG=1"]);
        tokio::time::sleep(2 * WATCHDOG).await;
        let lines = heard.lines();
        let fed = count(&lines, "WATCHDOG=1");
        assert_eq!(lines.len(), fed, "{lines:?}");
        assert!(fed >= 8, "four times in each interval: {fed}");
        drop(scene);
    });
}

#[test]
fn nobody_is_ready_before_all_answer() {
    in_virtual_time(async {
        let heard = Heard::default();
        let scene = heard.scene();
        scene.desk.set_stillborn(Child::Dns, true);
        // A few attempts, far from its budget.
        tokio::time::sleep(MS(1)).await;
        assert!(scene.deaths(Child::Dns) > 0);
        assert_eq!(heard.lines(), [""; 0]);
        scene.desk.set_stillborn(Child::Dns, false);
        tokio::time::sleep(MS(10_000)).await;
        assert_eq!(heard.lines()[0], "READY=1");
    });
}

#[test]
fn the_watchdog_is_not_fed_while_an_actor_hangs_and_is_again_afterwards() {
    in_virtual_time(async {
        let heard = Heard::default();
        let mut scene = heard.scene();
        scene.connect(open(1)).await;
        tokio::time::sleep(WATCHDOG).await;
        for child in [Child::Dns, Child::Udp(0), Child::Portal, Child::Tun(0)] {
            scene.desk.break_child(child, Break::Hang);
            tokio::time::sleep(MS(1)).await;
            heard.lines();
            // The watchdog inside ends it after two and a half seconds at most.
            while scene.desk.started().is_empty() {
                assert_eq!(count(&heard.lines(), "WATCHDOG=1"), 0, "{child}");
                tokio::time::sleep(MS(50)).await;
            }
            tokio::time::sleep(MS(4000)).await;
            assert!(count(&heard.lines(), "WATCHDOG=1") > 0, "{child} is back");
        }
    });
}

#[test]
fn a_reload_is_framed_and_the_end_is_announced() {
    let heard = Heard::default();
    let said = heard.clone();
    let code = until_exit(async move {
        let mut scene = heard.scene();
        scene.connect(open(1)).await;
        tokio::time::sleep(MS(1500)).await;
        let lines = heard.lines();
        let served = lines.iter().filter(|line| line.contains(", 1 clients"));
        assert_eq!(served.count(), 1, "{lines:?}");
        scene.tell(ReloadBegan);
        scene.tell(ConfigurationReloaded(ReloadReport {
            at: UnixTime(1),
            outcome: ReloadOutcome::Unchanged,
        }));
        scene.udp.nothing().await;
        let lines = heard.lines();
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
fn a_reload_before_the_start_is_over_does_not_say_that_it_is() {
    let heard = Heard::default();
    let mut manager = heard.manager();
    manager.note_reload_began();
    manager.note_reloaded();
    assert_eq!(heard.lines(), [""; 0]);
    manager.note_health(false, "not ready");
    assert_eq!(heard.lines(), [""; 0]);
    manager.note_health(true, "ready");
    assert_eq!(heard.lines(), ["READY=1", "STATUS=ready", "WATCHDOG=1"]);
    assert_eq!(ServiceManager::none().interval(), None);
}
