//! `postern why`: the questions to the actors, and missing answers.

use super::in_virtual_time;
use super::probe::Break;
use super::samples::{PROXY_IPS, client, open, open_for, open_name, resource};
use super::scene::{Scene, initialized, revoke};
use super::seen::DetachClient;
use crate::messages::diagnosis::Diagnosis;
use crate::messages::supervisor::Child;
use postern_core::UnixTime;
use postern_core::command::ClientCommand;
use postern_core::diagnosis::{Report, Severity, StepName, StepState};
use postern_core::grant::AuthorizationEntry;
use std::time::Duration;

const ADDRESS: &str = "10.20.0.7:443";
const NAME: &str = "app.corp.example";
const MS: fn(u64) -> Duration = Duration::from_millis;

impl Scene {
    async fn why(&self, client: &str, target: &str) -> Report {
        let target = target.parse().expect("a target");
        let client = client.to_owned();
        let answer = self.supervisor.send(Diagnosis { client, target });
        // The answer waits for silent actors, but not longer than their time-out.
        let answer = tokio::time::timeout(MS(600), answer).await;
        let answer = answer.expect("within the time for silence");
        answer.expect("the supervisor runs")
    }

    /// The findings for client 1, as codes.
    async fn code(&self, target: &str) -> String {
        code(&self.why("100.64.1.1", target).await)
    }
}

fn code(report: &Report) -> String {
    let cause = serde_json::to_value(&report.cause).expect("causes are plain values");
    cause["code"].as_str().expect("each has a code").to_owned()
}

fn state(report: &Report, wanted: StepName) -> StepState {
    let step = report.steps.iter().find(|step| step.name == wanted);
    step.expect("each step is there").state
}

/// docs/lessons.md 32: the gateway explains why something does not work.
#[test]
fn finds_a_client_by_id_prefix_or_address() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        assert_eq!(code(&scene.why("1", ADDRESS).await), "no_such_client");
        scene.connect(open(1)).await;
        let id = client(1).to_string();
        for called in ["100.64.1.1", "fd00:2021:1111::1", "0", &id] {
            let report = scene.why(called, ADDRESS).await;
            assert_eq!(report.client, id);
            assert_eq!(code(&report), "no_path");
            assert_eq!(state(&report, StepName::Session), StepState::Failed);
            assert_eq!(state(&report, StepName::Authorization), StepState::Passed);
            assert_eq!(state(&report, StepName::Filter), StepState::Passed);
        }
        scene.connect(open_for(2, 2)).await;
        assert_eq!(code(&scene.why("0", ADDRESS).await), "ambiguous_client");
    });
}

#[test]
fn asks_the_nat_about_names_and_proxy_ips() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open_name(1)).await;
        for target in [NAME, &PROXY_IPS[0].to_string()] {
            let report = scene.why("0", target).await;
            // The probe in its place knows no names.
            assert_eq!(state(&report, StepName::Name), StepState::Open, "{target}");
            let step = report.steps.iter().find(|step| step.name == StepName::Name);
            let text = &step.expect("it is there").text;
            assert!(text.contains("does not keep the name"), "{text}");
        }
    });
}

#[test]
fn reports_a_connection_that_does_not_answer() {
    in_virtual_time(async {
        let scene = Scene::new();
        scene.spawner.set_stuck(client(1), true);
        scene.tell(open(1));
        let report = scene.why("0", ADDRESS).await;
        assert_eq!(code(&report), "part_silent");
        assert!(report.verdict.contains("the client's connection"));
        assert_eq!(report.severity, Severity::Broken);
        assert_eq!(state(&report, StepName::Client), StepState::Passed);
        assert_eq!(state(&report, StepName::Authorization), StepState::Unknown);
    });
}

#[test]
fn judges_without_a_nat_that_does_not_answer() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open_name(1)).await;
        scene.spawner.break_child(Child::NatTable(0), Break::Hang);
        let report = scene.why("0", NAME).await;
        assert_eq!(state(&report, StepName::Authorization), StepState::Passed);
        let step = report.steps.iter().find(|step| step.name == StepName::Name);
        let text = &step.expect("it is there").text;
        assert!(text.contains("the address translation"), "{text}");
    });
}

#[test]
fn remembers_revocations_after_the_client_is_gone() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.tell(revoke(1));
        scene.nat_table.next::<DetachClient>().await;
        let report = scene.why("100.64.1.1", ADDRESS).await;
        assert_eq!(code(&report), "revoked");
        assert!(
            report.verdict.contains("\"web\" (10.20.0.0/24)"),
            "{}",
            report.verdict
        );
        assert_eq!(scene.code("192.0.2.1").await, "client_left");

        scene.connect(open(1)).await;
        assert_eq!(scene.code(ADDRESS).await, "no_path");
        scene.tell(initialized(Vec::new()));
        scene.nat_table.next::<DetachClient>().await;
        assert_eq!(scene.code(ADDRESS).await, "revoked");
    });
}

#[test]
fn distinguishes_expired_from_revoked_grants() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.tell(ClientCommand::SetExpiry(AuthorizationEntry {
            client: client(1),
            resource: resource(1),
            expires_at: Some(UnixTime(1)),
        }));
        tokio::time::sleep(MS(1)).await;
        let report = scene.why("100.64.1.1", ADDRESS).await;
        assert_eq!(code(&report), "expired");
        assert!(
            report.verdict.ends_with("at 1970-01-01 00:00:01 UTC."),
            "{}",
            report.verdict
        );
    });
}

#[test]
fn reports_how_long_a_client_is_cut_off() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..3 {
            scene.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
        }
        let report = scene.why("100.64.1.1", ADDRESS).await;
        assert_eq!(code(&report), "cut_off");
        assert!(
            report.verdict.contains("for 29 s more"),
            "{}",
            report.verdict
        );
        tokio::time::sleep(MS(30_000)).await;
        assert_eq!(scene.code(ADDRESS).await, "client_left");
    });
}

#[test]
fn notes_that_the_portal_was_never_joined() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        let notes = scene.why("0", ADDRESS).await.notes;
        assert!(
            notes
                .iter()
                .any(|note| note.contains("portal has been away")),
            "{notes:?}"
        );
    });
}
