//! Explanations agree with the decisions about packets.

use super::*;
use crate::policy::Access;
use crate::target::{Host, Service};

fn explained(scene: &Scene, place: &str, asked: Service) -> Access {
    let place = match place.parse::<IpAddr>() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(place.parse().expect("a name")),
    };
    let explanation = scene.policy.explain(&place, asked);
    explanation.access.first().expect("one was asked").1.clone()
}

fn deciding(access: &Access) -> Vec<(ResourceId, bool)> {
    let Access::Covered(all) = access else {
        panic!("{access:?}");
    };
    all.iter()
        .map(|it| (it.resource.id, it.is_permitted))
        .collect()
}

#[test]
fn lists_permitting_resources_first_and_refusing_ones_after() {
    let scene = Scene::with([
        cidr(1, "10.20.0.0/16", &[Filter::Tcp(22..=22)]),
        cidr(2, "10.20.0.7/32", &[Filter::Tcp(80..=80)]),
        cidr(3, "10.99.0.0/16", &[]),
    ]);
    let ssh = explained(&scene, "10.20.0.7", Service::Tcp(22));
    assert_eq!(deciding(&ssh), [(id(1), true), (id(2), false)]);
    let dns = explained(&scene, "10.20.0.7", Service::Udp(53));
    assert_eq!(deciding(&dns), [(id(2), false), (id(1), false)]);
}

#[test]
fn decides_a_name_by_patterns_until_it_is_announced() {
    let mut scene = Scene::with([
        dns(1, "*.example.com", &[Filter::Tcp(80..=80)]),
        dns(2, "app.example.com", &[]),
    ]);
    let app = "app.example.com";
    let before = explained(&scene, app, Service::Tcp(22));
    assert_eq!(deciding(&before), [(id(2), true), (id(1), false)]);
    scene.assign(1, &[PROXY]).expect("covered");
    let after = explained(&scene, app, Service::Tcp(22));
    assert_eq!(deciding(&after), [(id(1), false)]);
    assert_eq!(
        explained(&scene, "other.example", Service::Any),
        Access::Uncovered
    );
}

#[test]
fn explains_a_proxy_ip_with_and_without_a_name() {
    let mut scene = Scene::with([dns(1, "*.example.com", &[])]);
    scene.assign(1, &[PROXY]).expect("covered");
    let proxy = Host::Ip(PROXY.parse().expect("an address"));
    let explanation = scene.policy.explain(&proxy, Service::Any);
    let name = explanation.name.expect("it stands for one");
    assert_eq!(name.as_str(), "app.example.com");
    assert_eq!(explanation.proxy_ips.len(), 1);
    assert_eq!(explanation.names, 1);
    assert_eq!(
        explained(&scene, "100.96.0.2", Service::Any),
        Access::NoName
    );
}

#[test]
fn explains_special_addresses() {
    let scene = Scene::with([internet(1)]);
    for (ip, access) in [
        (GATEWAY, Access::Gateway),
        (GATEWAY_V6, Access::Gateway),
        ("100.64.0.9", Access::TunnelRange),
        ("224.0.0.1", Access::Group),
        (
            "10.0.0.1",
            Access::NotInternet {
                internet: internet(1),
            },
        ),
        (PROXY, Access::Uncovered),
    ] {
        assert_eq!(explained(&scene, ip, Service::Any), access, "{ip}");
    }
    let open = explained(&scene, "203.0.113.1", Service::Udp(1));
    assert_eq!(deciding(&open), [(id(1), true)]);
}
