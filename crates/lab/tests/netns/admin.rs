//! Health of the gateway in each of its states, as an operator's tools show it.

use crate::{LIMIT, Trial, WEB, programs};
use postern_lab::dns::mode::Mode;
use postern_lab::playground::component::Component;
use postern_lab::playground::download::LineDownload;
use postern_lab::playground::injector::{ActorFault, ActorKind, Injector};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::milestones::count;
use postern_lab::playground::setup::Setup;
use postern_lab::playground::{Playground, Role};
use serde_json::Value;
use std::process::Output;
use std::time::Duration;
use tokio::time::Instant;

/// Everything that an operator sees at one time.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    live: u16,
    ready: u16,
    status: String,
}

fn seen(live: u16, ready: u16, status: &str) -> Seen {
    Seen {
        live,
        ready,
        status: status.to_owned(),
    }
}

impl Trial {
    /// Runs the gateway's program in its namespace.
    fn operate(&self, arguments: &[&str]) -> Output {
        let mut command = self
            .playground()
            .command(Role::Gateway, programs().gateway());
        let config = self.playground().directory().join("gateway.toml");
        command.args(arguments).arg("--config").arg(config);
        self.playground().run(command, LIMIT).expect("it runs")
    }

    /// Status code and body that a scraper gets over TCP.
    fn get(&self, path: &str) -> (u16, String) {
        let mut curl = self.playground().command(Role::Gateway, "curl");
        let url = format!("http://127.0.0.1:9599{path}");
        curl.args(["-s", "-m", "5", "-w", "\n%{http_code}", &url]);
        let output = self.playground().run(curl, LIMIT).expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a code at the end");
        (code.parse().unwrap_or(0), body.to_owned())
    }

    fn look(&self) -> Seen {
        let (live, _) = self.get("/livez");
        let (ready, body) = self.get("/readyz");
        let report: Value = serde_json::from_str(&body).unwrap_or_default();
        let status = report["status"].as_str().unwrap_or_default().to_owned();
        Seen {
            live,
            ready,
            status,
        }
    }

    #[track_caller]
    fn expect(&self, state: &str, wanted: &Seen) {
        let mut last = None;
        let interrupt = self.playground().interrupt().clone();
        let came = interrupt.until(state, LIMIT, || {
            let now = self.look();
            let is_so = now == *wanted;
            last = Some(now);
            is_so.then_some(())
        });
        assert!(came.is_ok(), "{state}: {last:?} instead of {wanted:?}");
    }

    /// The actor is replaced soon, so one response has to contain everything.
    #[track_caller]
    fn expect_dead(&self, actor: &str) {
        let (live, body) = self.get("/livez");
        let report: Value = serde_json::from_str(&body).unwrap_or_default();
        assert_eq!((live, &report["silent"][0]), (503, &actor.into()), "{body}");
        assert_eq!(report["status"], "not_ready", "{body}");
    }

    /// Exit code and output of `postern health`.
    fn health(&self) -> (Option<i32>, String) {
        let output = self.operate(&["health"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    }
}

/// docs/lessons.md 31: health is true in every state that a gateway passes through.
#[test]
fn health_is_true_in_every_state() {
    let setup = Setup {
        faults: true,
        ..Setup::default()
    };
    let lab = Playground::new().and_then(|playground| Lab::new(playground, &programs(), setup));
    let mut trial = Trial::up(lab);
    trial.start(Component::Web).expect("web");
    trial.start(Component::Names).expect("names");
    trial.start(Component::Relay).expect("relay");
    trial
        .launch(Component::Gateway)
        .expect("starts without its portal");
    trial.expect("before it has joined", &seen(200, 503, "not_ready"));
    let (code, said) = trial.health();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("portal has not been joined"), "{said}");

    trial.start(Component::Portal).expect("portal");
    trial.expect("joined", &seen(200, 200, "ready"));
    assert_eq!(trial.health(), (Some(0), "ready\n".to_owned()));
    trial.start(Component::Client).expect("client");
    trial.expect_page(WEB[0]);

    trial.names().set_mode(Mode::Silent).expect("set");
    trial.expect("without a name server", &seen(200, 503, "not_ready"));
    trial.names().set_mode(Mode::Healthy).expect("set");
    trial.expect("with one again", &seen(200, 200, "ready"));

    let injector = Injector::new(trial.fault_socket());
    injector
        .inflict(ActorKind::Dns, ActorFault::Hang, None)
        .expect("it hangs");
    trial.expect_dead("dns");
    trial.expect("after it was replaced", &seen(200, 200, "ready"));

    trial.kill(Component::Portal);
    trial.expect("without its portal", &seen(200, 200, "degraded"));
    let (code, said) = trial.health();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("degraded: the portal is away"), "{said}");
    trial.start(Component::Portal).expect("portal");
    trial.expect("with it again", &seen(200, 200, "ready"));

    let output = trial.operate(&["drain", "--grace", "1h", "--no-wait"]);
    assert!(output.status.success(), "{output:?}");
    trial.expect("draining", &seen(200, 503, "not_ready"));
    let output = trial.operate(&["drain", "--cancel"]);
    assert!(output.status.success(), "{output:?}");
    trial.expect("after it was called off", &seen(200, 200, "ready"));
}

#[test]
fn the_status_shows_the_client_and_its_traffic() {
    let trial = Trial::start();
    trial.expect_page(WEB[0]);
    let output = trial.operate(&["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["health"]["status"], "ready");
    assert_eq!(status["portal"]["state"], "joined");
    let client = &status["client_list"][0];
    assert_eq!(client["has_session"], true);
    for direction in ["inbound", "outbound"] {
        let bytes = client[direction]["bytes"].as_u64().expect("a number");
        assert!(bytes > 300, "{client}");
    }
    let resources = client["resources"].as_array().expect("a list");
    assert!(!resources.is_empty(), "{client}");
    let table = String::from_utf8(trial.operate(&["status"]).stdout).expect("text");
    for word in ["ready", "joined", client["id"].as_str().expect("an id")] {
        assert!(table.contains(word), "{table}");
    }
}

/// Over TCP the gateway can neither be changed nor does it name its clients.
#[test]
fn draining_is_refused_over_tcp() {
    let trial = Trial::start();
    let mut curl = trial.playground().command(Role::Gateway, "curl");
    let url = "http://127.0.0.1:9599/drain?grace=0s";
    curl.args(["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]);
    curl.args(["-X", "POST", url]);
    let output = trial.playground().run(curl, LIMIT).expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "404");
    let (code, page) = trial.get("/metrics");
    assert_eq!(code, 200);
    assert!(page.contains("postern_dropped_packets_total"), "{page}");
    let (code, _) = trial.get("/status");
    assert_eq!(code, 200, "loopback is this host");
}

/// New clients are refused, a download continues, and the end is orderly.
#[test]
fn a_draining_gateway_keeps_running_downloads() {
    let mut trial = Trial::start();
    let drip = LineDownload::start(trial.playground(), WEB[0], 120).expect("curl starts");
    drip.wait_more(trial.playground(), 10, LIMIT)
        .expect("it flows");
    let goodbyes = count(&trial.client_milestones(), "goodbye");
    let begun = Instant::now();
    let output = trial.operate(&["drain", "--grace", "4s"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.contains("1 clients, 1 of them active"), "{said}");
    assert!(said.ends_with("drained: the gateway has ended\n"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(4), "{said}");
    assert!(drip.lines() > 150, "it was cut at once: {}", drip.lines());
    let mut gateway = trial.take_gateway().expect("ran");
    let status = gateway.wait_end(LIMIT).expect("ends");
    assert_eq!(status.code(), Some(0));
    trial
        .wait_client_milestone("goodbye", goodbyes, LIMIT)
        .expect("the client hears it");
}
