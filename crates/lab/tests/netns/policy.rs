//! Access that ends while it is used.

use crate::{LIMIT, Trial, WEB};
use postern_lab::playground::lab::{CLIENT, RESOURCE_V4};
use postern_lab::playground::traffic::Drip;
use std::time::Duration;
use tokio::time::Instant;

/// A pause that no line of a flowing download makes.
const QUIET: Duration = Duration::from_millis(1500);

/// A download over IPv4 or IPv6 that has begun to flow.
fn flowing(trial: &Trial, which: usize) -> Drip {
    let drip = Drip::start(trial.playground(), WEB[which], 60).expect("curl starts");
    drip.wait_more(trial.playground(), 25, LIMIT)
        .expect("it flows");
    drip
}

/// How long the download still goes on.
fn goes_on(trial: &Trial, drip: &Drip) -> Duration {
    let from = Instant::now();
    let last = drip
        .wait_silence(trial.playground(), QUIET, LIMIT)
        .expect("it stops");
    last.saturating_duration_since(from)
}

#[test]
fn revoked_access_stops_within_a_second_and_other_access_goes_on() {
    let trial = Trial::start();
    let (revoked, kept) = (flowing(&trial, 0), flowing(&trial, 1));
    trial
        .withdraw_policy(RESOURCE_V4)
        .expect("the portal revokes");
    let went_on = goes_on(&trial, &revoked);
    assert!(
        went_on < Duration::from_secs(1),
        "it went on for {went_on:?}"
    );
    kept.wait_more(trial.playground(), 50, LIMIT)
        .expect("the other resource is still granted");
}

/// A client that lost access may ask again, and gets it where the policy still says so.
#[test]
fn access_that_was_rejected_once_is_granted_again_on_request() {
    let trial = Trial::start();
    trial.expect_page(WEB[0]);
    trial
        .control()
        .reject_access(CLIENT, RESOURCE_V4)
        .expect("the portal sends it");
    trial.expect_page(WEB[0]);
}

/// The gateway keeps the time itself: no portal is there to revoke anything.
#[test]
fn access_that_expires_without_a_portal_stops() {
    let mut trial = Trial::start();
    let drip = flowing(&trial, 0);
    trial
        .control()
        .set_expiry(CLIENT, RESOURCE_V4, 3)
        .expect("the portal sends it");
    // A portal that is killed may take the message with it.
    trial
        .wait_gateway_milestone("initialized", 1, LIMIT)
        .expect("the gateway hears it");
    trial.kill_portal();
    let went_on = goes_on(&trial, &drip);
    // The expiry is a whole second of the wall clock: up to one second before the three are over.
    let expected = Duration::from_millis(1500)..Duration::from_millis(4200);
    assert!(expected.contains(&went_on), "it went on for {went_on:?}");
}
