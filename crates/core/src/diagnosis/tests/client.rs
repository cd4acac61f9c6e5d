//! The steps about the client and its transport.

use super::*;

/// docs/lessons.md 32: The gateway says why something does not work.
#[test]
fn distinguishes_an_unknown_client_from_a_misspelled_one() {
    let mut facts = Scene::new("10.20.0.7").facts;
    facts.asked = "nobody".into();
    facts.client = Subject::Unknown {
        nearest: None,
        served: 1,
    };
    let report = diagnose(&facts);
    let verdict = "No client \"nobody\" is known here; this gateway serves 1 client.";
    assert_says(&report, verdict, "the portal has not sent the client");
    assert_eq!(marks(&report), "✗");

    let nearest = Some(ClientId(Uuid::from_u128(7)));
    facts.client = Subject::Unknown { nearest, served: 2 };
    let remedy = "Did you mean 00000000-0000-0000-0000-000000000007?";
    assert_eq!(diagnose(&facts).remedy.as_deref(), Some(remedy));
}

#[test]
fn an_ambiguous_prefix_names_some_ids() {
    let mut facts = Scene::new("10.20.0.7").facts;
    facts.asked = "0".into();
    let ids = (1..=9).map(|number| ClientId(Uuid::from_u128(number)));
    facts.client = Subject::Ambiguous(ids.collect());
    let report = diagnose(&facts);
    assert!(
        report
            .verdict
            .starts_with("The ids of 9 clients begin with \"0\"")
    );
    assert!(report.verdict.contains("000000000005") && !report.verdict.contains("000000000006"));
}

#[test]
fn explains_that_a_cut_off_client_is_served_again() {
    let scene = Scene::new("10.20.0.7").with(|scene| {
        scene.client.cut_off_for = Some(seconds(25));
        scene.client.connection = Response::Absent;
    });
    let report = scene.report();
    let verdict = "The client is cut off for 25 s more: its connection died too often.";
    assert_says(&report, verdict, "this is a bug");
    assert_eq!(marks(&report), "✗-------");
}

#[test]
fn names_the_last_grant_of_a_client_that_left() {
    let scene = Scene::new("192.0.2.7").ended(wiki(), 90, GrantEnd::ClientGone);
    let report = scene
        .with(|scene| scene.client.connection = Response::Absent)
        .report();
    let verdict = "The client is not connected here any more: it was last served 1 min 30 s ago, \
                   and held \"Wiki\" (10.20.0.0/16).";
    assert_says(&report, verdict, "connect again");
}

#[test]
fn distinguishes_a_crashed_connection_from_a_silent_one() {
    let report_with = |response| {
        let scene = Scene::new("10.20.0.7").grant(wiki());
        scene
            .with(|scene| scene.client.connection = response)
            .report()
    };
    let rebuilding = report_with(Response::Restarting);
    assert!(rebuilding.verdict.contains("being built anew"));
    // It is not yet restored after a restart of the process.
    assert_eq!(report_with(Response::Absent).verdict, rebuilding.verdict);
    let silent = report_with(Response::Timeout);
    let verdict = "A part of the gateway, the client's connection, did not answer in time.";
    assert_says(&silent, verdict, "ask again");
    assert_eq!(marks(&silent), "✓✗------");
}

#[test]
fn distinguishes_a_lost_transport_from_a_missing_one() {
    let transport = |lost| {
        let scene = Scene::new("10.20.0.7").grant(wiki());
        scene.transport(TransportFacts::None { lost }).report()
    };
    let lost = transport(Some(seconds(40)));
    assert_says(&lost, "The way to the client was lost 40 s ago.", "online");
    // The later steps pass all the same.
    assert_eq!(marks(&lost), "✓✗✓✓---?");
    let never = transport(None);
    let verdict = "The client may be served, but has not begun to connect.";
    assert_says(&never, verdict, "first sends something");
}

#[test]
fn without_a_path_blames_the_firewall_or_the_portal() {
    let unconnected = |has_candidates| {
        let scene = Scene::new("10.20.0.7").grant(wiki()).peer(|peer| {
            peer.has_candidates = has_candidates;
            (peer.path, peer.session, peer.heard) = (None, None, None);
            (peer.is_nominated, peer.age) = (false, seconds(8));
        });
        scene.report()
    };
    let blocked = unconnected(true);
    let verdict = "Client and gateway know each other's addresses, but for 8 s no way between \
                   them has worked.";
    assert_says(&blocked, verdict, "network.udp_port");
    let unheard = unconnected(false);
    assert!(
        unheard
            .verdict
            .contains("none of its addresses has been heard of")
    );
    assert_says(&unheard, &unheard.verdict, "passes its candidates on");
}

#[test]
fn a_path_without_handshake_names_the_client_address() {
    let scene = Scene::new("10.20.0.7").grant(wiki()).peer(|peer| {
        (peer.session, peer.heard) = (None, None);
        peer.age = seconds(12);
    });
    let verdict = "The client can be reached at 203.0.113.9:4000, but for 12 s no WireGuard \
                   handshake has come through.";
    assert_says(&scene.report(), verdict, "keys");
}

#[test]
fn a_silent_client_is_broken_once_its_session_has_expired() {
    let silent = |session| {
        let scene = Scene::new("10.20.0.7").grant(wiki()).peer(|peer| {
            (peer.session, peer.heard) = (session, Some(seconds(90)));
        });
        scene.report()
    };
    let verdict = "Nothing has been heard from the client for 1 min 30 s.";
    let doubtful = silent(Some(seconds(300)));
    assert_says(&doubtful, verdict, "sleeps");
    assert_eq!(doubtful.severity, Severity::Limited);
    assert_eq!(silent(None).severity, Severity::Broken);
}

#[test]
fn a_session_shows_its_age_and_the_client_address() {
    let report = Scene::new("10.20.0.7").grant(wiki()).report();
    let session = "up for 3 min, heard 2 s ago, by 203.0.113.9:4000";
    assert_eq!(step(&report, StepName::Session), session);
    let client = "00000000-0000-0000-0000-000000000ada at 100.64.0.5";
    assert_eq!(step(&report, StepName::Client), client);
}

#[test]
fn draining_and_an_absent_portal_are_only_notes() {
    let scene = Scene::new("10.20.0.7").grant(wiki()).replies(replied(3));
    let report = scene
        .with(|scene| {
            scene.facts.gateway = GatewayFacts {
                is_draining: true,
                portal_away: Some(seconds(75)),
            };
        })
        .report();
    assert_eq!(report.severity, Severity::Works);
    let [draining, portal] = &report.notes[..] else {
        panic!("{:?}", report.notes);
    };
    assert!(draining.contains("draining") && portal.contains("away for 1 min 15 s"));
}
