//! The ends of the benchmarks: the floor with the floor, and the fast client with a gateway.

use crate::programs;
use crate::trial::{LIMIT, Trial};
use postern_bench::fast_client::{Admitted, Place, wait_ready};
use postern_lab::playground::component::Component;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::{GATEWAY_V4, WEB_V4};
use postern_lab::playground::scene::APP;
use postern_lab::playground::setup::{RESOURCE_V4, Setup, WEB_PORT};
use postern_lab::playground::traffic::{fetch, url};
use postern_lab::playground::{Playground, Role};
use std::net::{IpAddr, Ipv4Addr};

/// First proxy IP of the name.
const PROXY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);

#[test]
fn a_floor_reaches_a_floor() {
    let playground = Playground::new().expect("builds");
    let floor = |role| {
        let mut command = playground.command(role, programs().bench());
        command.args(["floor", "--key", "test"]);
        command
    };
    let mut command = floor(Role::Gateway);
    command.args(["--listen", "0.0.0.0:51820", "--interface", "floor0"]);
    command.args(["--address", "100.64.0.1/32", "--route", "100.64.1.2/32"]);
    let gateway = playground.spawn("floor", command).expect("starts");
    let _gateway = wait_ready(&playground, gateway).expect("is ready");
    let mut command = floor(Role::Client);
    let peer = format!("{GATEWAY_V4}:51820");
    command.args(["--listen", "0.0.0.0:0", "--peer", &peer]);
    let place = Place {
        playground: &playground,
        role: Role::Client,
        address: Ipv4Addr::new(100, 64, 1, 2),
        routes: &["100.64.0.0/24"],
    };
    let _client = place.spawn("floor-client", command).expect("starts");
    let mut web = playground.command(Role::Gateway, programs().lab());
    web.args(["web", "--listen", "100.64.0.1:80"]);
    let _web = playground.spawn("web", web).expect("starts");
    let url = url(IpAddr::from([100, 64, 0, 1]), WEB_PORT, "/");
    let page = playground.interrupt().until("a page", LIMIT, || {
        let fetched = fetch(&playground, Role::Client, &url, LIMIT).ok()?;
        fetched.is_page().then_some(())
    });
    page.expect("a page");
}

#[test]
fn a_fast_client_reaches_a_resource_by_address_and_by_name() {
    let setup = Setup {
        relay: false,
        ..Setup::default()
    };
    let lab = Playground::new().and_then(|it| Lab::new(it, &programs(), setup));
    let trial = Trial::up(lab.and_then(|mut lab| {
        lab.start_all(&[
            Component::Web,
            Component::Names,
            Component::Portal,
            Component::Gateway,
        ])?;
        Ok(lab)
    }));
    let mut client = Admitted::new(1).expect("keys");
    client.admit(&trial, RESOURCE_V4, None).expect("admitted");
    client.admit(&trial, APP, Some(PROXY)).expect("admitted");
    let place = Place {
        playground: trial.playground(),
        role: Role::Client,
        address: client.address(),
        routes: &["10.20.0.0/24", "100.96.0.0/24"],
    };
    let peer = client.peer().expect("admitted");
    let _client = place.start(&programs(), peer).expect("connects");
    for address in [WEB_V4, PROXY] {
        trial.expect_page(address.into());
    }
}
