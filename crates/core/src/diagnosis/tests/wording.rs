//! Properties of all causes: they are machine-readable, and their texts are whole sentences.

use super::*;
use std::collections::BTreeSet;

const TROUBLESHOOTING: &str = include_str!("../../../../../docs/troubleshooting.md");

const AGO: Seconds = Seconds(3);
const SINCE: Seconds = Seconds(30);
const NEXT_TRY: Option<Seconds> = Some(Seconds(5));

fn place() -> String {
    "10.20.0.7".to_owned()
}

fn called() -> String {
    "app.example".to_owned()
}

fn titled() -> String {
    "\"Wiki\" (10.20.0.0/16)".to_owned()
}

/// One of each. The count below detects a missing one.
fn all() -> Vec<Cause> {
    let clients = of_clients().into_iter().map(Cause::from);
    let rights = of_rights().into_iter().map(Cause::from);
    let names = of_names().into_iter().map(Cause::from);
    let resources = of_resources().into_iter().map(Cause::from);
    let all = clients.chain(rights).chain(names).chain(resources);
    all.collect()
}

fn of_clients() -> Vec<ClientCause> {
    vec![
        ClientCause::NoSuchClient {
            asked: called(),
            nearest: None,
            served: 2,
        },
        ClientCause::AmbiguousClient {
            asked: called(),
            matches: vec![place()],
            all: 2,
        },
        ClientCause::CutOff { rest: AGO },
        ClientCause::ClientLeft {
            last: titled(),
            ago: AGO,
        },
        ClientCause::Rebuilding,
        ClientCause::NoTransport { lost: Some(AGO) },
        ClientCause::NoPath {
            has_candidates: true,
            waiting: AGO,
        },
        ClientCause::NoHandshake {
            remote: place(),
            waiting: AGO,
        },
        ClientCause::ClientSilent {
            heard: SINCE,
            has_session: true,
        },
        ClientCause::PartSilent { part: called() },
    ]
}

fn of_rights() -> Vec<RightsCause> {
    let permits = Permits {
        resource: titled(),
        permits: "tcp 443".to_owned(),
    };
    vec![
        RightsCause::NotAuthorized {
            place: place(),
            is_name: false,
            holds: vec![],
        },
        RightsCause::Expired {
            resource: titled(),
            at: called(),
            ago: AGO,
        },
        RightsCause::Revoked {
            resource: titled(),
            at: called(),
            ago: AGO,
        },
        RightsCause::Filtered {
            asked: called(),
            place: place(),
            resources: vec![permits],
        },
        RightsCause::NotInternet {
            resource: titled(),
            place: place(),
        },
        RightsCause::TunnelRange { place: place() },
        RightsCause::Group { place: place() },
        RightsCause::NoName { place: place() },
    ]
}

fn of_names() -> Vec<NameCause> {
    vec![
        NameCause::NameNotAnnounced {
            name: called(),
            resource: titled(),
            announced: 0,
        },
        NameCause::NameNotKept {
            name: called(),
            kept: 1,
            limit: 1,
        },
        NameCause::BeingResolved {
            name: called(),
            held: 1,
        },
        NameCause::NoSuchName {
            name: called(),
            since: SINCE,
            next_try: NEXT_TRY,
        },
        NameCause::NoAddress {
            name: called(),
            families: "A".to_owned(),
            next_try: NEXT_TRY,
        },
        NameCause::DnsNotAnswering {
            name: called(),
            how: DnsFailure::IsSilent,
            since: SINCE,
            next_try: NEXT_TRY,
            held: 1,
        },
    ]
}

fn of_resources() -> Vec<ResourceCause> {
    vec![
        ResourceCause::Works {
            ago: AGO,
            by: Some(ip("10.20.0.7")),
        },
        ResourceCause::NothingSent { place: place() },
        ResourceCause::Awaited {
            by: place(),
            packets: 1,
            since: SINCE,
        },
        ResourceCause::Unanswered {
            by: place(),
            packets: 4,
            since: SINCE,
            replied: Some(SINCE),
            next_try: NEXT_TRY,
        },
        ResourceCause::Refused {
            by: place(),
            how: RefusalKind::Reset,
            ago: AGO,
        },
        ResourceCause::FlowTableFull { flows: 1, limit: 1 },
        ResourceCause::PortsExhausted { ago: AGO },
    ]
}

#[test]
fn every_cause_has_a_unique_code_a_text_and_a_json_form() {
    let mut codes = BTreeSet::new();
    for cause in all() {
        let json = serde_json::to_value(&cause).expect("causes are plain values");
        let code = json["code"].as_str().expect("each has a code").to_owned();
        let back: Cause = serde_json::from_value(json).expect("it was written by us");
        assert_eq!(back, cause);
        let line = format!("\n| `{code}` | ");
        assert!(TROUBLESHOOTING.contains(&line), "{code} is not explained");
        codes.insert(code);
    }
    assert_eq!(codes.len(), 31, "{codes:?}");
}

#[test]
fn every_cause_but_success_has_a_sentence_and_a_remedy() {
    for cause in all() {
        let verdict = cause.sentence();
        assert!(verdict.ends_with('.'), "{verdict}");
        assert!(
            verdict.starts_with(|first: char| !first.is_lowercase()) || verdict.starts_with("app."),
            "{verdict}"
        );
        assert!(!verdict.contains("  "), "{verdict}");
        let remedy = cause.remedy();
        assert_eq!(
            remedy.is_none(),
            cause.severity() == Severity::Works,
            "{verdict}"
        );
        let remedy = remedy.unwrap_or_else(|| ".".into());
        assert!(remedy.ends_with('.') && !remedy.contains("  "), "{remedy}");
    }
}

#[test]
fn a_report_survives_json() {
    let report = Scene::new("10.20.0.7")
        .grant(wiki())
        .replies(replied(3))
        .report();
    let json = serde_json::to_string(&report).expect("reports are plain values");
    let back: Report = serde_json::from_str(&json).expect("it was written by us");
    assert_eq!(back, report);
}
