//! Traffic that survives the restart of a program, or a repeated message.

use crate::{LIMIT, Trial, WEB};
use postern_lab::playground::component::Component;
use postern_lab::playground::download::LineDownload;
use postern_lab::playground::milestones::count;
use postern_lab::playground::setup::{CLIENT, GATEWAY, RESOURCE_V4};
use std::time::Duration;

/// Lines of a line download in one second.
const ONE_SECOND: u64 = 50;

/// A download over IPv4 that has begun to flow.
fn flowing(trial: &Trial, seconds: u32) -> LineDownload {
    let drip = LineDownload::start(trial.playground(), WEB[0], seconds).expect("curl starts");
    drip.wait_more(trial.playground(), 10, LIMIT)
        .expect("it flows");
    drip
}

/// Asserts that the download continues for another second of its own time.
#[track_caller]
fn expect_flow(trial: &Trial, drip: &LineDownload, when: &str) {
    let more = drip.wait_more(trial.playground(), ONE_SECOND, Duration::from_secs(10));
    assert!(more.is_ok(), "{when}: {more:?}");
}

/// docs/lessons.md 24: the data plane outlives the portal.
#[test]
fn traffic_continues_while_the_portal_restarts() {
    let mut trial = Trial::start();
    let drip = flowing(&trial, 120);
    let joined = count(&trial.gateway_milestones(), "joined");
    let client_joined = count(&trial.client_milestones(), "joined");
    trial.kill(Component::Portal);
    expect_flow(&trial, &drip, "without a portal");
    trial
        .start(Component::Portal)
        .expect("the portal starts again");
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
fn a_restarted_client_is_served_again() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    trial.kill(Component::Client);
    trial
        .start(Component::Client)
        .expect("the client starts again");
    for address in WEB {
        trial.expect_page(address);
    }
}

/// docs/lessons.md 23: every `init` reconciles, and a repeated one changes nothing.
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
    assert_eq!(handshakes(&trial), before, "a new session was made");
}
