//! The rules about packets, one by one: docs/protocol.md 5.1, docs/protocol.md 5.2 and
//! docs/protocol.md 5.3.

use super::*;
use crate::authorizations::MAX_PROXY_IPS;
use crate::policy::Access;
use crate::target::{Host, Service};

// ---- docs/protocol.md 5.2: from the tunnel ----

#[test]
fn traffic_to_a_granted_network_passes_untranslated() {
    let scene = Scene::with([
        cidr(1, "10.20.0.0/16", &[]),
        cidr(2, "2001:db8:20::/48", &[]),
    ]);
    for shape in [
        to_port(80),
        PING,
        Shape::Udp { from: 1, to: 2 },
        Shape::Other(47),
    ] {
        assert_eq!(scene.send("10.20.0.100", shape), PASS);
        assert_eq!(scene.send("2001:db8:20::100", shape), PASS);
    }
    assert_eq!(scene.send("10.21.0.100", PING), PROHIBITED);
    assert_eq!(scene.send("2001:db8:21::100", PING), PROHIBITED);
}

#[test]
fn groups_are_dropped_before_anything_else() {
    let scene = Scene::with([cidr(1, "0.0.0.0/0", &[]), cidr(2, "::/0", &[])]);
    let multicast = Verdict::Drop(DropReason::Multicast);
    for destination in ["224.0.0.251", "255.255.255.255", "ff02::fb"] {
        assert_eq!(scene.send(destination, PING), multicast, "{destination}");
    }
    assert_eq!(
        scene.inbound("192.0.2.66", "239.1.1.1", Shape::IcmpError),
        multicast
    );
}

/// docs/lessons.md 19: ICMP errors and filters work in both directions.
#[test]
fn icmp_errors_of_a_client_are_dropped_without_a_reply() {
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &[]), cidr(2, "2001:db8::/32", &[])]);
    let dropped = Verdict::Drop(DropReason::IcmpErrorFromClient);
    for destination in ["10.20.0.100", "2001:db8::1", GATEWAY, "10.99.0.1"] {
        assert_eq!(
            scene.send(destination, Shape::IcmpError),
            dropped,
            "{destination}"
        );
    }
    assert_eq!(
        scene.inbound("192.0.2.66", "10.20.0.1", Shape::IcmpError),
        dropped
    );
}

#[test]
fn a_foreign_source_is_prohibited_for_every_destination() {
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &[])]);
    let spoofed = Verdict::Reject(DropReason::SourceMismatch, IcmpReply::Prohibited);
    for destination in ["10.20.0.100", GATEWAY, "100.64.0.6", "10.99.0.1"] {
        assert_eq!(
            scene.inbound("100.64.0.6", destination, PING),
            spoofed,
            "{destination}"
        );
    }
    assert_eq!(
        scene.inbound("fd00:2021:1111::6", GATEWAY_V6, PING),
        spoofed
    );
}

#[test]
fn the_gateways_tunnel_address_is_open_both_ways_without_any_resource() {
    let scene = Scene::with([]);
    let dns = Shape::Udp {
        from: 1000,
        to: 53535,
    };
    for gateway in [GATEWAY, GATEWAY_V6] {
        assert_eq!(scene.send(gateway, dns), PASS);
        assert_eq!(
            scene.receive(
                gateway,
                Shape::Udp {
                    from: 53535,
                    to: 1000
                }
            ),
            PASS
        );
    }
}

#[test]
fn the_gateways_addresses_may_come_later_and_change() {
    let mut scene = Scene::with([]);
    scene
        .policy
        .set_gateway_addresses(addresses("100.64.0.2", "fd00:2021:1111::2"));
    assert_eq!(scene.send("100.64.0.2", PING), PASS);
    assert_eq!(scene.send(GATEWAY, PING), TUNNEL_RANGE);
}

const TUNNEL_RANGE: Verdict = Verdict::Reject(DropReason::TunnelRange, IcmpReply::Prohibited);

#[test]
fn other_clients_are_closed_to_every_kind_of_resource() {
    let wide = [cidr(1, "0.0.0.0/0", &[]), cidr(2, "::/0", &[])];
    for scene in [
        Scene::with(wide),
        Scene::with([internet(1)]),
        Scene::with([]),
    ] {
        for other in ["100.64.0.6", "100.95.255.255", "fd00:2021:1111::6", CLIENT] {
            assert_eq!(scene.send(other, PING), TUNNEL_RANGE, "{other}");
        }
    }
}

/// docs/lessons.md 19: ICMP errors and filters work in both directions.
#[test]
fn filtered_packets_are_answered_with_prohibited() {
    let filters = [Filter::Tcp(80..=80), Filter::Udp(53..=53)];
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &filters)]);
    for (shape, expected) in [
        (to_port(80), PASS),
        (to_port(81), PROHIBITED),
        (Shape::Udp { from: 80, to: 53 }, PASS),
        (Shape::Udp { from: 53, to: 80 }, PROHIBITED),
        (PING, PROHIBITED),
        (Shape::Other(47), PROHIBITED),
    ] {
        assert_eq!(scene.send("10.20.0.100", shape), expected, "{shape:?}");
    }
}

#[test]
fn an_icmp_filter_lets_every_icmp_message_but_errors_in() {
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &[Filter::Icmp])]);
    for shape in [PING, Shape::EchoReply(1), Shape::IcmpOther] {
        assert_eq!(scene.send("10.20.0.100", shape), PASS, "{shape:?}");
    }
    assert_eq!(scene.send("10.20.0.100", to_port(80)), PROHIBITED);
}

// ---- docs/protocol.md 5.1: selection among several resources ----

#[test]
fn filters_of_overlapping_resources_are_combined() {
    let scene = Scene::with([
        cidr(1, "10.20.0.0/16", &[Filter::Tcp(80..=80)]),
        cidr(2, "10.20.0.100/32", &[Filter::Tcp(443..=443)]),
    ]);
    for (port, expected) in [(80, PASS), (443, PASS), (22, PROHIBITED)] {
        assert_eq!(scene.send("10.20.0.100", to_port(port)), expected, "{port}");
    }
    assert_eq!(scene.send("10.20.0.101", to_port(443)), PROHIBITED);
}

fn decider(scene: &Scene, destination: &str, port: u16) -> Option<ResourceId> {
    let place = Host::Ip(destination.parse().expect("an address"));
    let explanation = scene.policy.explain(&place, Service::Tcp(port));
    match &explanation.access[..] {
        [(_, Access::Covered(resources))] => resources.first().map(|it| it.resource.id),
        [(_, access)] => {
            assert_eq!(*access, Access::Uncovered);
            None
        }
        _ => panic!("one service was asked about: {explanation:?}"),
    }
}

#[test]
fn a_permitting_resource_decides_then_the_longest_prefix_then_the_greater_id() {
    let web = [Filter::Tcp(80..=80)];
    let scene = Scene::with([
        cidr(9, "10.0.0.0/8", &[]),
        cidr(1, "10.20.0.0/16", &web),
        cidr(3, "10.20.0.0/24", &web),
        cidr(2, "10.20.0.77/24", &web),
    ]);
    assert_eq!(
        decider(&scene, "10.20.0.1", 80),
        Some(id(3)),
        "longest, then greatest"
    );
    assert_eq!(
        decider(&scene, "10.20.1.1", 80),
        Some(id(1)),
        "longest that contains it"
    );
    assert_eq!(
        decider(&scene, "10.20.0.1", 22),
        Some(id(9)),
        "the only one that permits"
    );
    assert_eq!(decider(&scene, "192.0.2.1", 80), None);
}

#[test]
fn the_longest_prefix_refuses_if_no_resource_permits() {
    let web = [Filter::Tcp(80..=80)];
    let scene = Scene::with([cidr(9, "10.0.0.0/8", &web), cidr(1, "10.20.0.0/16", &web)]);
    assert_eq!(decider(&scene, "10.20.0.1", 22), Some(id(1)));
}

// ---- docs/protocol.md 5.2 step 7: Internet resources ----

#[test]
fn an_internet_resource_opens_the_internet_unfiltered() {
    let scene = Scene::with([internet(1)]);
    for destination in ["203.0.113.9", "2001:db8::9"] {
        for shape in [to_port(443), PING, Shape::Other(47)] {
            assert_eq!(scene.send(destination, shape), PASS, "{destination}");
        }
        assert_eq!(scene.receive(destination, from_port(443)), PASS);
    }
}

/// docs/lessons.md 35: Several egress addresses, closed private networks, many clients.
#[test]
fn private_networks_stay_closed_to_an_internet_resource() {
    let scene = Scene::with([internet(1)]);
    for destination in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.128.0.0",
        "240.0.0.1",
        "::1",
        "fd12::1",
        "fe80::1",
    ] {
        let expected = if destination == "100.128.0.0" {
            PASS
        } else {
            NOT_INTERNET
        };
        assert_eq!(
            scene.send(destination, to_port(80)),
            expected,
            "{destination}"
        );
    }
    assert_eq!(scene.receive("10.0.0.1", from_port(80)), RETURN_REFUSED);
}

#[test]
fn an_internet_resource_overrides_all_networks() {
    let scene = Scene::with([
        internet(1),
        cidr(2, "10.20.0.0/16", &[]),
        cidr(3, "203.0.113.0/24", &[Filter::Tcp(80..=80)]),
    ]);
    assert_eq!(scene.send("10.20.0.100", to_port(80)), NOT_INTERNET);
    assert_eq!(scene.send("203.0.113.9", to_port(22)), PASS);
}

#[test]
fn an_internet_resource_does_not_open_dns_resources() {
    let mut scene = Scene::with([
        internet(1),
        dns(2, "app.example.com", &[Filter::Tcp(443..=443)]),
    ]);
    scene.assign(2, &[PROXY, PROXY_V6]).expect("valid");
    for proxy in [PROXY, PROXY_V6] {
        assert_eq!(scene.send(proxy, to_port(443)), TRANSLATE);
        assert_eq!(scene.send(proxy, to_port(80)), PROHIBITED);
        assert_eq!(scene.receive(proxy, from_port(80)), RETURN_REFUSED);
    }
    let alone = Scene::with([internet(1)]);
    assert_eq!(alone.send(PROXY, to_port(443)), PROHIBITED);
}

// ---- docs/protocol.md 5.2 step 9: proxy IPs ----

#[test]
fn a_mapped_proxy_ip_is_translated_and_its_answers_pass() {
    let mut scene = Scene::with([dns(1, "app.example.com", &[Filter::Tcp(443..=443)])]);
    scene.assign(1, &[PROXY, PROXY_V6]).expect("valid");
    for proxy in [PROXY, PROXY_V6] {
        assert_eq!(scene.send(proxy, to_port(443)), TRANSLATE);
        assert_eq!(scene.receive(proxy, from_port(443)), PASS);
        assert_eq!(scene.receive(proxy, from_port(80)), RETURN_REFUSED);
    }
}

/// docs/lessons.md 8: Unresolved is "unreachable", not "prohibited".
#[test]
fn an_unmapped_proxy_ip_is_unreachable_and_a_filtered_one_prohibited() {
    let unreachable = Verdict::Reject(DropReason::Unmapped, IcmpReply::NetworkUnreachable);
    let mut scene = Scene::with([dns(1, "app.example.com", &[Filter::Tcp(443..=443)])]);
    assert_eq!(scene.send(PROXY, to_port(443)), unreachable);
    assert_eq!(scene.send(PROXY_V6, to_port(443)), unreachable);
    scene.assign(1, &[PROXY]).expect("valid");
    assert_eq!(scene.send(PROXY, to_port(80)), PROHIBITED);
    scene.assign(1, &["100.96.0.9"]).expect("withdrawn");
    assert_eq!(scene.send(PROXY, to_port(443)), unreachable);
    scene.revoke(1);
    assert_eq!(
        scene.send(PROXY, to_port(443)),
        PROHIBITED,
        "to be asked for again"
    );
}

#[test]
fn a_network_over_the_proxy_range_opens_nothing_without_a_mapping() {
    let unreachable = Verdict::Reject(DropReason::Unmapped, IcmpReply::NetworkUnreachable);
    let scene = Scene::with([cidr(1, "0.0.0.0/0", &[])]);
    assert_eq!(scene.send(PROXY, to_port(443)), unreachable);
}

#[test]
fn dns_and_cidr_filters_do_not_mix() {
    let mut scene = Scene::with([
        dns(1, "app.example.com", &[Filter::Tcp(443..=443)]),
        cidr(2, "203.0.113.0/24", &[Filter::Tcp(80..=80)]),
    ]);
    scene.assign(1, &[PROXY]).expect("valid");
    // If the name resolves to 203.0.113.9, the filters of one resource do not apply to the other.
    assert_eq!(scene.send(PROXY, to_port(443)), TRANSLATE);
    assert_eq!(scene.send(PROXY, to_port(80)), PROHIBITED);
    assert_eq!(scene.send("203.0.113.9", to_port(80)), PASS);
    assert_eq!(scene.send("203.0.113.9", to_port(443)), PROHIBITED);
}

#[test]
fn resources_share_a_proxy_ip_until_each_is_removed() {
    let mut scene = Scene::with([
        dns(1, "app.example.com", &[Filter::Tcp(443..=443)]),
        dns(2, "*.example.com", &[Filter::Tcp(80..=80)]),
    ]);
    scene.assign(1, &[PROXY]).expect("valid");
    scene.assign(2, &[PROXY]).expect("valid");
    scene.assign(2, &[PROXY]).expect("idempotent");
    assert_eq!(scene.send(PROXY, to_port(80)), TRANSLATE);
    assert_eq!(scene.send(PROXY, to_port(443)), TRANSLATE);
    scene.revoke(1);
    assert_eq!(scene.send(PROXY, to_port(80)), TRANSLATE);
    assert_eq!(scene.send(PROXY, to_port(443)), PROHIBITED);
    scene
        .allow(dns(1, "app.example.com", &[]), None)
        .expect("room");
    assert_eq!(
        scene.send(PROXY, to_port(443)),
        PROHIBITED,
        "not assigned again"
    );
}

/// docs/lessons.md 16: Proxy IPs that a client chooses are checked first.
#[test]
fn proxy_ips_outside_the_ranges_change_nothing() {
    let mut scene = Scene::with([dns(1, "app.example.com", &[])]);
    for bad in [
        "10.20.0.1",
        "100.64.0.6",
        "100.128.0.0",
        "fd00:2021:1111::6",
    ] {
        let refused = AuthorizationError::NotProxyIp {
            ip: bad.parse().unwrap(),
        };
        assert_eq!(scene.assign(1, &[PROXY, bad]), Err(refused));
    }
    assert_ne!(scene.send(PROXY, to_port(443)), TRANSLATE);
}

#[test]
fn proxy_ips_need_a_granted_dns_resource() {
    let mut scene = Scene::with([cidr(1, "10.0.0.0/8", &[]), internet(2)]);
    for number in [1, 2] {
        let refused = AuthorizationError::NotDns {
            resource: id(number),
        };
        assert_eq!(scene.assign(number, &[PROXY]), Err(refused));
    }
    let refused = AuthorizationError::NotGranted { resource: id(3) };
    assert_eq!(scene.assign(3, &[PROXY]), Err(refused));
}

#[test]
fn proxy_ips_are_limited_and_known_ones_do_not_count_twice() {
    let mut scene = Scene::with([dns(1, "*.example.com", &[])]);
    let first = u32::from(std::net::Ipv4Addr::new(100, 96, 0, 1));
    let limit = u32::try_from(MAX_PROXY_IPS).expect("small");
    let ips: Vec<IpAddr> = (first..first + limit)
        .map(|bits| IpAddr::V4(bits.into()))
        .collect();
    assert_eq!(scene.assign_to("app.example.com", 1, ips.clone()), Ok(()));
    assert_eq!(scene.assign_to("app.example.com", 1, ips), Ok(()));
    let more = vec![PROXY_V6.parse().expect("an address")];
    let refused = scene.assign_to("other.example.com", 1, more);
    assert_eq!(refused, Err(AuthorizationError::TooManyProxyIps));
}

#[test]
fn a_name_beyond_the_pattern_gets_no_proxy_ips() {
    let mut scene = Scene::with([dns(1, "*.other.com", &[])]);
    let refused = AuthorizationError::NameNotCovered { resource: id(1) };
    assert_eq!(scene.assign(1, &[PROXY]), Err(refused));
}

// ---- docs/protocol.md 5.3: towards the client ----

/// docs/lessons.md 19: ICMP errors and filters work in both directions.
#[test]
fn answers_are_filtered_by_source_port() {
    let filters = [Filter::Tcp(80..=80), Filter::Icmp];
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &filters)]);
    for (shape, expected) in [
        (from_port(80), PASS),
        (to_port(80), RETURN_REFUSED),
        (Shape::Udp { from: 80, to: 1 }, RETURN_REFUSED),
        (Shape::EchoReply(1), PASS),
        (Shape::IcmpOther, PASS),
        (Shape::Other(47), RETURN_REFUSED),
    ] {
        assert_eq!(scene.receive("10.20.0.100", shape), expected, "{shape:?}");
    }
    assert_eq!(scene.receive("10.99.0.1", from_port(80)), RETURN_REFUSED);
}

/// docs/lessons.md 19: ICMP errors and filters work in both directions.
#[test]
fn icmp_errors_from_outside_bypass_filters() {
    let filters = [Filter::Tcp(80..=80)];
    let scene = Scene::with([cidr(1, "10.20.0.0/16", &filters)]);
    for router in ["10.20.0.100", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(scene.receive(router, Shape::IcmpError), PASS, "{router}");
    }
}

#[test]
fn answers_must_be_for_this_client_and_not_from_the_tunnel_range() {
    let scene = Scene::with([cidr(1, "0.0.0.0/0", &[]), cidr(2, "::/0", &[])]);
    let unknown = Verdict::Drop(DropReason::UnknownClient);
    assert_eq!(
        scene.outbound("10.20.0.1", "100.64.0.6", from_port(80)),
        unknown
    );
    assert_eq!(
        scene.outbound(GATEWAY, "100.64.0.6", from_port(80)),
        unknown
    );
    assert_eq!(
        scene.outbound("10.20.0.1", "100.64.0.6", Shape::IcmpError),
        unknown
    );
    let tunnel_range = Verdict::Drop(DropReason::TunnelRange);
    for other in ["100.64.0.6", "fd00:2021:1111::6"] {
        assert_eq!(scene.receive(other, from_port(80)), tunnel_range);
        assert_eq!(scene.receive(other, Shape::IcmpError), tunnel_range);
    }
}
