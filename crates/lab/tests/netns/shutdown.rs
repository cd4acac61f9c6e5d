//! The gateway's polite end.

use crate::{LIMIT, Trial, WEB};
use nix::sys::signal::Signal;
use postern_lab::playground::Role;
use postern_lab::playground::lab::count;
use postern_lab::playground::network::{TUNNEL_INTERFACE, interface_bytes};
use std::time::Duration;

/// docs/lessons.md 25: clients are told, so that they do not wait for their own timeouts.
///
/// docs/lessons.md 25.
#[test]
fn sigterm_says_goodbye_and_leaves_nothing_within_two_seconds() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    let goodbyes = count(&trial.client_milestones(), "goodbye");
    let mut gateway = trial.take_gateway().expect("runs");
    gateway.signal(Signal::SIGTERM).expect("is sent");
    let status = gateway.wait_end(Duration::from_secs(2));
    let status = status.unwrap_or_else(|error| panic!("{error}\n{}", gateway.log_tail(30)));
    assert_eq!(status.code(), Some(0), "{}", gateway.log_tail(30));
    trial
        .wait_client_milestone("goodbye", goodbyes, LIMIT)
        .expect("the client hears it");
    let interface = interface_bytes(trial.playground(), Role::Gateway, TUNNEL_INTERFACE);
    assert_eq!(
        interface.expect("counters"),
        None,
        "the interface is still there"
    );
    let mut nft = trial.playground().command(Role::Gateway, "nft");
    nft.args(["list", "tables"]);
    let tables = trial.playground().run(nft, LIMIT).expect("nft runs");
    assert_eq!(
        String::from_utf8_lossy(&tables.stdout),
        "",
        "tables are left"
    );
}

#[test]
fn a_gateway_that_comes_back_serves_the_same_client() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    let mut gateway = trial.take_gateway().expect("runs");
    gateway.signal(Signal::SIGTERM).expect("is sent");
    gateway.wait_end(Duration::from_secs(2)).expect("ends");
    trial.start_gateway().expect("the gateway starts again");
    for address in WEB {
        trial.expect_page(address);
    }
}
