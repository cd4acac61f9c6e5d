//! What survives the end, or the repetition, of something else.

use crate::{LIMIT, Trial, WEB};
use postern_lab::playground::lab::{CLIENT, GATEWAY, RESOURCE_V4, count};
use postern_lab::playground::traffic::Drip;
use std::time::Duration;

/// Lines of a trickling download: one second of it.
const ONE_SECOND: u64 = 50;

/// A download over IPv4 that has begun to flow.
fn flowing(trial: &Trial, seconds: u32) -> Drip {
    let drip = Drip::start(trial.playground(), WEB[0], seconds).expect("curl starts");
    drip.wait_more(trial.playground(), 10, LIMIT)
        .expect("it flows");
    drip
}

/// Insists that the download goes on for another second of its own time.
#[track_caller]
fn expect_flow(trial: &Trial, drip: &Drip, when: &str) {
    let more = drip.wait_more(trial.playground(), ONE_SECOND, Duration::from_secs(10));
    assert!(more.is_ok(), "{when}: {more:?}");
}

/// docs/lessons.md 24: the data plane outlives the portal.
///
/// docs/lessons.md 24.
#[test]
fn traffic_goes_on_while_the_portal_is_restarted() {
    let mut trial = Trial::start();
    let drip = flowing(&trial, 120);
    let joined = count(&trial.gateway_milestones(), "joined");
    let client_joined = count(&trial.client_milestones(), "joined");
    trial.kill_portal();
    expect_flow(&trial, &drip, "without a portal");
    trial.start_portal().expect("the portal starts again");
    let patience = Duration::from_secs(60);
    trial
        .wait_gateway_milestone("joined", joined, patience)
        .expect("the gateway rejoins");
    trial
        .wait_client_milestone("joined", client_joined, patience)
        .expect("the client rejoins");
    expect_flow(&trial, &drip, "after the gateway has rejoined");
    trial.expect_page(WEB[1]);
}

#[test]
fn a_killed_client_comes_back_and_is_served_again() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    trial.kill_client();
    trial.start_client().expect("the client starts again");
    for address in WEB {
        trial.expect_page(address);
    }
}

/// docs/lessons.md 23: every `init` reconciles, and one that repeats what is known changes nothing.
///
/// docs/lessons.md 23.
#[test]
fn an_init_sent_twice_keeps_traffic() {
    let trial = Trial::start();
    let drip = flowing(&trial, 60);
    for _ in 0..2 {
        trial
            .control()
            .init_again(GATEWAY)
            .expect("the portal sends it");
        expect_flow(&trial, &drip, "after another init");
    }
    assert_eq!(count(&trial.gateway_milestones(), "joined"), 1);
}

#[test]
fn a_repeated_authorization_keeps_the_session() {
    let trial = Trial::start();
    let drip = flowing(&trial, 60);
    let handshakes = |trial: &Trial| count(&trial.client_milestones(), "handshake_completed");
    let before = handshakes(&trial);
    for _ in 0..2 {
        trial
            .control()
            .repeat_authorization(CLIENT, RESOURCE_V4)
            .expect("the portal sends it");
        expect_flow(&trial, &drip, "after a repeated authorization");
    }
    assert_eq!(handshakes(&trial), before, "the session was made anew");
}
