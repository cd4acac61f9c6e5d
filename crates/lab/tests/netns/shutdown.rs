//! The gateway's orderly shutdown.

use crate::{LIMIT, Trial, WEB};
use nix::sys::signal::Signal;
use postern_lab::playground::Role;
use postern_lab::playground::component::Component;
use postern_lab::playground::milestones::count;
use postern_lab::playground::network::{TUNNEL_INTERFACE, interface_bytes};
use std::time::Duration;

/// docs/lessons.md 25: clients receive a goodbye, so that they do not wait for their own timeouts.
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
fn a_restarted_gateway_serves_the_same_client() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    let mut gateway = trial.take_gateway().expect("runs");
    gateway.signal(Signal::SIGTERM).expect("is sent");
    gateway.wait_end(Duration::from_secs(2)).expect("ends");
    trial
        .start(Component::Gateway)
        .expect("the gateway starts again");
    for address in WEB {
        trial.expect_page(address);
    }
}
