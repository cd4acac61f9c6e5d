//! Old and new clients with old and new gateways, and a portal that knows no relay.

use crate::{Trial, WEB};
use postern_lab::playground::lab::{Generation, RESOURCE_V4, Setup};

fn serves(gateway: Generation, client: Generation) {
    let trial = Trial::with(Setup {
        gateway_generation: gateway,
        client_generation: client,
        ..Setup::default()
    });
    for address in WEB {
        trial.expect_page(address);
    }
}

#[test]
fn a_client_of_generation_1_reaches_a_gateway_of_generation_1() {
    serves(Generation::V1, Generation::V1);
}

#[test]
fn a_client_of_generation_1_reaches_a_gateway_of_generation_2() {
    serves(Generation::V2, Generation::V1);
}

#[test]
fn a_client_of_generation_2_reaches_a_gateway_of_generation_1() {
    serves(Generation::V1, Generation::V2);
}

#[test]
fn a_client_of_generation_2_reaches_a_gateway_of_generation_2() {
    serves(Generation::V2, Generation::V2);
}

#[test]
fn a_client_of_generation_0_reaches_a_gateway_of_generation_1() {
    serves(Generation::V1, Generation::V0);
}

#[test]
fn a_client_of_generation_0_reaches_a_gateway_of_generation_2() {
    serves(Generation::V2, Generation::V0);
}

/// docs/lessons.md 1.
#[test]
fn set_ups_of_generation_0_are_acknowledged_and_measured() {
    let trial = Trial::start();
    let times = trial.control().authorize_in("v0", RESOURCE_V4, 20);
    assert_eq!(times.expect("acknowledged").len(), 20);
}

#[test]
fn without_any_relay_the_direct_path_works() {
    let trial = Trial::with(Setup {
        relay: false,
        ..Setup::default()
    });
    for address in WEB {
        trial.expect_page(address);
    }
}
