//! `postern why` on the gateway's host, about everything that can fail.

use crate::names::{expect_page_of, fetch_name};
use crate::{LIMIT, Trial, WEB, programs};
use postern_core::diagnosis::Report;
use postern_lab::dns::mode::Mode;
use postern_lab::playground::Role;
use postern_lab::playground::faults::{HostFault, inflict};
use postern_lab::playground::network::{CLIENT_TUNNEL_V4, NAME_SERVER_V4, WEB_V4, WEBS_V4};
use postern_lab::playground::scene::{APP, LATE, MISSING};
use postern_lab::playground::setup::{CLIENT, DENIED_PORT, RESOURCE_V4, RESOURCE_V6, WEB_PORT};
use postern_lab::playground::traffic::{Families, fetch, url};
use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

/// Time for two SYNs of the kernel.
const TWO_SYNS: Duration = Duration::from_millis(2500);

impl Trial {
    fn ask(&self, client: &str, target: &str, options: &[&str]) -> Output {
        let mut command = self
            .playground()
            .command(Role::Gateway, programs().gateway());
        let config = self.playground().directory().join("gateway.toml");
        command.arg("why").arg("--config").arg(config);
        command.args(options).args([client, target]);
        let output = self.playground().run(command, LIMIT);
        output.expect("the program runs")
    }

    fn report(&self, client: &str, target: &str) -> Report {
        let output = self.ask(client, target, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Repeats the question until this is the cause; returns the output for a person, and the exit
    /// code.
    #[track_caller]
    fn expect_cause(&self, client: &str, target: &str, code: &str) -> (String, Option<i32>) {
        let mut last = String::new();
        let found = self.playground().interrupt().until(code, LIMIT, || {
            let report = self.report(client, target);
            let cause = serde_json::to_value(&report.cause).expect("a plain value");
            last = format!("{cause}: {}", report.verdict);
            (cause["code"] == code).then_some(())
        });
        found.unwrap_or_else(|error| panic!("{error}; it says {last}"));
        let output = self.ask(client, target, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        show(client, target, &text);
        (text, output.status.code())
    }

    /// As [`Self::expect_cause`] for the client, about traffic that does not work.
    #[track_caller]
    fn expect_broken(&self, target: &str, code: &str) -> String {
        let client = CLIENT_TUNNEL_V4.to_string();
        let (text, exit) = self.expect_cause(&client, target, code);
        assert!(text.starts_with("broken: "), "{text}");
        assert!(text.contains("\nWhat to do: "), "{text}");
        assert_eq!(exit, Some(1));
        // Independent of the line breaks.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Opens a page at the client that must not come.
    fn try_page(&self, address: impl Into<IpAddr>, port: u16) {
        let url = url(address.into(), port, "/");
        let fetched = fetch(self.playground(), Role::Client, &url, TWO_SYNS);
        assert!(!fetched.expect("curl runs").is_page(), "{url}");
    }

    fn try_name(&self, name: &str) {
        let url = format!("http://{name}/");
        let fetched = fetch(self.playground(), Role::Client, &url, TWO_SYNS);
        assert!(!fetched.expect("curl runs").is_page(), "{url}");
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the harness captures it; --no-capture shows what people are shown"
)]
fn show(client: &str, target: &str, text: &str) {
    eprintln!("$ postern why {client} {target}\n{text}");
}

/// docs/lessons.md 32: working traffic is reported as such, and untried traffic as untried.
#[test]
fn working_and_untried_traffic_are_reported_as_such() {
    let trial = Trial::start();
    let client = CLIENT_TUNNEL_V4.to_string();
    let (text, exit) = trial.expect_cause(&client, "10.20.0.100", "no_such_client");
    assert!(
        text.starts_with(&format!("broken: No client \"{client}\" is known here")),
        "{text}"
    );
    assert_eq!(exit, Some(1));

    trial.expect_page(WEB[0]);
    expect_page_of(&trial, APP, Families::V4);
    let id = trial.control().ids().expect("the portal answers")[CLIENT].clone();
    let page = format!("{WEB_V4}:{WEB_PORT}");
    for (called, target) in [(&client[..], &page[..]), (&id, APP), (&id[..8], APP)] {
        let (text, exit) = trial.expect_cause(called, target, "works");
        assert!(
            text.starts_with("works: It works: the last reply came "),
            "{text}"
        );
        assert!(
            !text.contains('✗') && !text.contains("What to do"),
            "{text}"
        );
        assert_eq!(exit, Some(0));
    }
    let (text, exit) = trial.expect_cause(&client, "10.20.0.9", "nothing_sent");
    assert!(
        text.starts_with("unproven: Nothing stands in the way"),
        "{text}"
    );
    assert_eq!(exit, Some(1));

    let output = trial.ask(&client, "https://app.lab.example/", &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("10.20.0.7:443"), "{said}");
}

#[test]
fn reasons_for_missing_permission_are_distinguished() {
    let trial = Trial::start();
    trial.expect_page(WEB[0]);
    trial.expect_page(WEB[1]);
    let text = trial.expect_broken("192.0.2.77", "not_authorized");
    assert!(text.contains("it holds \"office-v4\""), "{text}");
    let text = trial.expect_broken(LATE, "not_authorized");
    assert!(text.contains("DNS resource that covers"), "{text}");
    let text = trial.expect_broken(&format!("{WEB_V4}:{DENIED_PORT}"), "filtered");
    assert!(text.contains("permits tcp 80, udp 7, icmp"), "{text}");
    trial.expect_broken("100.64.0.9", "tunnel_range");

    trial
        .withdraw_policy(RESOURCE_V4)
        .expect("the portal revokes");
    let text = trial.expect_broken(&WEB_V4.to_string(), "revoked");
    assert!(text.contains("\"office-v4\""), "{text}");
    let expire = trial.control().set_expiry(CLIENT, RESOURCE_V6, 1);
    expire.expect("the portal sends it");
    trial.expect_broken(&WEB[1].to_string(), "expired");
}

#[test]
fn faults_of_a_name_are_distinguished() {
    let trial = Trial::start();
    expect_page_of(&trial, "one.wild.lab.example", Families::V4);
    let text = trial.expect_broken("two.wild.lab.example", "name_not_announced");
    assert!(text.contains("a hosts file"), "{text}");
    trial.expect_broken("100.127.255.254", "no_name");

    trial.try_name(MISSING);
    trial.expect_broken(MISSING, "no_such_name");

    trial.names().set_mode(Mode::Silent).expect("set");
    trial.try_name(LATE);
    let text = trial.expect_broken(LATE, "dns_not_answering");
    assert!(text.contains("DNS server does not answer"), "{text}");
    trial.names().set_mode(Mode::Healthy).expect("set");
    // The name was looked up again while in use, and works at its next use.
    fetch_name(&trial, LATE, Families::V4);
    trial.expect_cause(&CLIENT_TUNNEL_V4.to_string(), LATE, "works");
}

#[test]
fn faults_of_a_host_are_distinguished() {
    let trial = Trial::start();
    trial.expect_page(WEB[0]);
    let [_, silent, unreachable, ..] = WEBS_V4;
    inflict(trial.playground(), silent.into(), HostFault::Silent).expect("inflicted");
    trial.try_page(silent, WEB_PORT);
    let text = trial.expect_broken(&format!("{silent}:80"), "unanswered");
    assert!(text.contains("a route back to the gateway"), "{text}");

    inflict(
        trial.playground(),
        unreachable.into(),
        HostFault::Unreachable,
    )
    .expect("inflicted");
    trial.try_page(unreachable, WEB_PORT);
    let text = trial.expect_broken(&unreachable.to_string(), "refused");
    assert!(text.contains("cannot be reached (ICMP)"), "{text}");

    // No program listens there.
    trial.try_page(NAME_SERVER_V4, WEB_PORT);
    let text = trial.expect_broken(&format!("{NAME_SERVER_V4}:80"), "refused");
    assert!(text.contains("refused the connection"), "{text}");
}
