//! The steps about the name and its addresses.

use super::*;
use crate::names::NameFailure;

fn app() -> Scene {
    Scene::new("app.example:443").grant(dns(1, "App", "*.example"))
}

fn failed(failure: NameFailure) -> FamilyFacts {
    FamilyFacts {
        failure: Some((failure, seconds(20))),
        next_try: Some(seconds(5)),
        ..FamilyFacts::default()
    }
}

#[test]
fn an_unannounced_name_points_to_the_client_dns() {
    let report = app().report();
    let verdict = "The client may reach app.example through \"App\" (*.example), but has not \
                   asked for it by name.";
    assert_says(&report, verdict, "asked for no name at all");
    assert_eq!(marks(&report), "✓✓✓✓✗---");

    let other = app().announce("other.example", resolved("192.0.2.7"));
    let report = other.with(|scene| scene.nat().mapping = None).report();
    assert_says(&report, verdict, "a hosts file");
}

#[test]
fn an_unmapped_name_shows_whether_the_limit_is_reached() {
    let unkept = |names| {
        let scene = app().announce("app.example", resolved("192.0.2.7"));
        let scene = scene.with(|scene| {
            scene.nat().mapping = None;
            scene.nat().names = names;
        });
        scene.report()
    };
    let full = unkept((2048, 2048));
    let verdict = "The client asked for app.example, but the gateway does not keep the name: it \
                   keeps 2048 of at most 2048 for this client.";
    assert_says(&full, verdict, "give way");
    assert_says(
        &unkept((3, 2048)),
        &unkept((3, 2048)).verdict,
        "announces it again",
    );
}

#[test]
fn a_nat_without_an_answer_is_part_of_the_verdict() {
    let scene = app().announce("app.example", resolved("192.0.2.7"));
    let report = scene
        .with(|scene| scene.client.nat = Response::Timeout)
        .report();
    let verdict = "A part of the gateway, the address translation, did not answer in time.";
    assert_says(&report, verdict, "ask again");
    assert_eq!(marks(&report), "✓✓✓✓✗---");
}

#[test]
fn distinguishes_a_missing_name_from_one_without_an_address() {
    let denied = app().announce("app.example", failed(NameFailure::NoSuchName));
    let report = denied.report();
    let verdict = "The gateway's DNS has said for 20 s that app.example does not exist.";
    assert_says(&report, verdict, "dns.servers");
    assert_says(&report, verdict, "asked again in 5 s");
    assert_eq!(marks(&report), "✓✓✓✓✓✗✓-");

    let empty = app().announce("app.example", failed(NameFailure::NoData));
    let verdict = "app.example exists, but the gateway's DNS knows no A address of it.";
    assert_says(&empty.report(), verdict, "Add an A record");
}

#[test]
fn a_silent_dns_server_shows_its_time_and_held_packets() {
    let silent = app().announce("app.example", failed(NameFailure::Timeout));
    let report = silent.with(|scene| {
        let mapping = scene.nat().mapping.as_mut();
        mapping.expect("it is announced").held_packets = 3;
    });
    let verdict = "No address of app.example is known: for 20 s the gateway's DNS server does not \
                   answer; 3 packets wait.";
    assert_says(&report.report(), verdict, "can be reached from the gateway");
    for (failure, said) in [
        (NameFailure::ServerFailure, "refuses to say, or fails."),
        (NameFailure::Network, "cannot be reached."),
        (NameFailure::Quota, "too many questions of the client wait."),
    ] {
        let report = app().announce("app.example", failed(failure)).report();
        assert!(report.verdict.ends_with(said), "{}", report.verdict);
    }
}

#[test]
fn a_lookup_in_progress_is_not_broken() {
    let report = app()
        .announce("app.example", FamilyFacts::default())
        .report();
    assert_says(
        &report,
        "The addresses of app.example are being looked up.",
        "Ask again",
    );
    assert_eq!(report.severity, Severity::Limited);
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn addresses_in_use_without_a_dns_server_get_a_note() {
    let family = FamilyFacts {
        failure: Some((NameFailure::Timeout, seconds(20))),
        replies: replied(1),
        heard_from: Some(ip("192.0.2.7")),
        ..resolved("192.0.2.7")
    };
    let report = app().announce("app.example", family).report();
    assert_eq!(
        report.verdict,
        "It works: the last reply came 1 s ago, from 192.0.2.7."
    );
    let note = "For 20 s the gateway's DNS server does not answer; the addresses from before are \
                used.";
    assert_eq!(
        report.notes,
        ["The filter does not permit udp 443.", note][1..]
    );
}

#[test]
fn a_proxy_ip_is_decided_by_its_name() {
    let mut scene = Scene::new(PROXY).grant(dns(1, "App", "*.example"));
    let mut family = resolved("192.0.2.7");
    family.replies = replied(2);
    scene = scene.announce("app.example", family);
    let report = scene.report();
    assert_eq!(report.severity, Severity::Works);
    let known_as = "app.example, which the client knows as 100.96.0.1";
    assert_eq!(step(&report, StepName::Name), known_as);
    assert_eq!(
        step(&report, StepName::Addresses),
        "1 address, 10 s ago: 192.0.2.7"
    );
    assert!(report.notes[0].starts_with("100.96.0.1 is one of the addresses"));
}

#[test]
fn shunned_addresses_are_a_note_while_others_are_left() {
    let mut family = resolved("192.0.2.7");
    family.addresses.push(AddressFacts {
        ip: ip("192.0.2.8"),
        shunned_for: Some(seconds(20)),
        owes_answer: false,
    });
    family.replies = replied(2);
    let report = app().announce("app.example", family).report();
    assert_eq!(
        report.notes,
        ["Avoided, as they did not answer: 192.0.2.8."]
    );
}
