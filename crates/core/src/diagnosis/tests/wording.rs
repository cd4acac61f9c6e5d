//! What is true of all causes: they can be read by programs, and are whole sentences.

use super::*;
use std::collections::BTreeSet;

const TROUBLESHOOTING: &str = include_str!("../../../../../docs/troubleshooting.md");

/// One of each. A cause that is missing here is missed by the count below.
fn all() -> Vec<Cause> {
    let place = || "10.20.0.7".to_owned();
    let called = || "app.example".to_owned();
    let titled = || "\"Wiki\" (10.20.0.0/16)".to_owned();
    let (ago, since) = (Seconds(3), Seconds(30));
    let next_try = Some(Seconds(5));
    let permits = Permits {
        resource: titled(),
        permits: "tcp 443".into(),
    };
    vec![
        ClientCause::NoSuchClient {
            asked: called(),
            nearest: None,
            served: 2,
        }
        .into(),
        ClientCause::AmbiguousClient {
            asked: called(),
            matches: vec![place()],
            all: 2,
        }
        .into(),
        ClientCause::CutOff { rest: ago }.into(),
        ClientCause::ClientLeft {
            last: titled(),
            ago,
        }
        .into(),
        ClientCause::Rebuilding.into(),
        ClientCause::NoTransport { lost: Some(ago) }.into(),
        ClientCause::NoPath {
            has_candidates: true,
            waiting: ago,
        }
        .into(),
        ClientCause::NoHandshake {
            remote: place(),
            waiting: ago,
        }
        .into(),
        ClientCause::ClientSilent {
            heard: since,
            has_session: true,
        }
        .into(),
        ClientCause::PartSilent { part: called() }.into(),
        RightsCause::NotAuthorized {
            place: place(),
            is_name: false,
            holds: vec![],
        }
        .into(),
        RightsCause::Expired {
            resource: titled(),
            at: called(),
            ago,
        }
        .into(),
        RightsCause::Revoked {
            resource: titled(),
            at: called(),
            ago,
        }
        .into(),
        RightsCause::Filtered {
            asked: called(),
            place: place(),
            resources: vec![permits],
        }
        .into(),
        RightsCause::NotInternet {
            resource: titled(),
            place: place(),
        }
        .into(),
        RightsCause::TunnelRange { place: place() }.into(),
        RightsCause::Group { place: place() }.into(),
        RightsCause::NoName { place: place() }.into(),
        NameCause::NameNotAnnounced {
            name: called(),
            resource: titled(),
            announced: 0,
        }
        .into(),
        NameCause::NameNotKept {
            name: called(),
            kept: 1,
            limit: 1,
        }
        .into(),
        NameCause::BeingResolved {
            name: called(),
            held: 1,
        }
        .into(),
        NameCause::NoSuchName {
            name: called(),
            since,
            next_try,
        }
        .into(),
        NameCause::NoAddress {
            name: called(),
            families: "A".into(),
            next_try,
        }
        .into(),
        NameCause::DnsNotAnswering {
            name: called(),
            how: Unable::IsSilent,
            since,
            next_try,
            held: 1,
        }
        .into(),
        ResourceCause::Works {
            ago,
            by: Some(ip("10.20.0.7")),
        }
        .into(),
        ResourceCause::NothingSent { place: place() }.into(),
        ResourceCause::Awaited {
            by: place(),
            packets: 1,
            since,
        }
        .into(),
        ResourceCause::Unanswered {
            by: place(),
            packets: 4,
            since,
            replied: Some(since),
            next_try,
        }
        .into(),
        ResourceCause::Refused {
            by: place(),
            how: Refusal::Reset,
            ago,
        }
        .into(),
        ResourceCause::FlowTableFull { flows: 1, limit: 1 }.into(),
        ResourceCause::PortsExhausted { ago }.into(),
    ]
}

#[test]
fn every_cause_has_a_code_of_its_own_is_explained_to_people_and_survives_json() {
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
fn every_cause_but_success_says_in_sentences_what_is_the_matter_and_what_to_do() {
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
