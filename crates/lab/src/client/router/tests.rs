//! The router's rules one by one, then in random order.

mod names;

use super::super::clock::now;
use super::super::packet::samples::{ip, tcp, udp};
use super::super::wire::PortRange;
use super::*;
use proptest::prelude::*;
use uuid::Uuid;

const OWN4: &str = "100.64.1.2";
const OWN6: &str = "fd00:2021:1111::102";

fn resource_id(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn gateway_id(number: u128) -> GatewayId {
    GatewayId(Uuid::from_u128(number))
}

fn cidr(number: u128, net: &str, filters: &[Filter]) -> Resource {
    Resource {
        id: resource_id(number),
        kind: ResourceKind::Cidr(net.parse().expect("a network")),
        filters: filters.to_vec(),
    }
}

fn addresses(ipv4: &str, ipv6: &str) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: ipv4.parse().expect("an address"),
        ipv6: ipv6.parse().expect("an address"),
    }
}

fn gateway_addresses() -> TunnelAddresses {
    addresses("100.64.0.1", "fd00:2021:1111::1")
}

fn router(resources: &[Resource]) -> Router {
    let mut router = Router::default();
    router.set_own_addresses(addresses(OWN4, OWN6));
    router.replace_resources(resources.to_vec());
    router
}

fn web() -> Resource {
    cidr(1, "10.20.0.0/24", &[])
}

fn to_web() -> Vec<u8> {
    tcp(OWN4, "10.20.0.10", 80)
}

fn granted_router() -> Router {
    let mut router = router(&[web()]);
    router.handle_outbound(&to_web(), now());
    router.handle_granted(resource_id(1), gateway_id(1), gateway_addresses());
    router
}

#[test]
fn the_first_packet_requests_access_and_the_grant_releases_it() {
    let (mut router, now) = (router(&[web()]), now());
    assert_eq!(
        router.handle_outbound(&to_web(), now),
        OutboundAction::RequestAccess(resource_id(1))
    );
    let granted = router
        .handle_granted(resource_id(1), gateway_id(7), gateway_addresses())
        .expect("asked for");
    assert_eq!(granted.held, [to_web()]);
    assert_eq!(granted.first_packet_at, now);
    assert_eq!(
        router.handle_outbound(&to_web(), now),
        OutboundAction::Forward(gateway_id(7))
    );
}

#[test]
fn repeats_a_request_after_two_seconds_with_the_next_packet() {
    let (mut router, start) = (router(&[web()]), now());
    let mut at = |ms| router.handle_outbound(&to_web(), start + Duration::from_millis(ms));
    assert_eq!(at(0), OutboundAction::RequestAccess(resource_id(1)));
    assert_eq!(at(1), OutboundAction::Held);
    assert_eq!(at(1999), OutboundAction::Held);
    assert_eq!(at(2000), OutboundAction::RequestAccess(resource_id(1)));
    assert_eq!(at(3999), OutboundAction::Held);
    assert_eq!(at(4000), OutboundAction::RequestAccess(resource_id(1)));
}

#[test]
fn a_refusal_drops_held_packets_and_keeps_the_pace_of_requests() {
    let (mut router, start) = (router(&[web()]), now());
    router.handle_outbound(&to_web(), start);
    router.handle_refused(resource_id(1));
    let soon = start + Duration::from_millis(500);
    assert_eq!(
        router.handle_outbound(&to_web(), soon),
        OutboundAction::Held
    );
    let later = start + Duration::from_secs(2);
    assert_eq!(
        router.handle_outbound(&to_web(), later),
        OutboundAction::RequestAccess(resource_id(1))
    );
}

#[test]
fn holds_32_packets_and_drops_the_newest() {
    let (mut router, now) = (router(&[web()]), now());
    for port in 0..100 {
        router.handle_outbound(&udp(OWN4, "10.20.0.10", port), now);
    }
    let granted = router
        .handle_granted(resource_id(1), gateway_id(1), gateway_addresses())
        .expect("asked for");
    assert_eq!(granted.held.len(), HELD_PACKETS);
    assert_eq!(granted.held[0], udp(OWN4, "10.20.0.10", 0));
}

#[test]
fn a_new_request_drops_stale_packets() {
    let (mut router, start) = (router(&[web()]), now());
    router.handle_outbound(&udp(OWN4, "10.20.0.10", 1), start);
    let later = start + Duration::from_secs(60);
    assert_eq!(
        router.handle_outbound(&to_web(), later),
        OutboundAction::RequestAccess(resource_id(1))
    );
    let granted = router
        .handle_granted(resource_id(1), gateway_id(1), gateway_addresses())
        .expect("asked for");
    assert_eq!(granted.held, [to_web()]);
    assert_eq!(granted.first_packet_at, later);
}

#[test]
fn ignores_a_grant_without_a_request() {
    let mut router = router(&[web()]);
    assert_eq!(
        router.handle_granted(resource_id(1), gateway_id(1), gateway_addresses()),
        None
    );
    assert_eq!(
        router.handle_outbound(&to_web(), now()),
        OutboundAction::RequestAccess(resource_id(1))
    );
}

#[test]
fn chooses_between_overlapping_resources_by_filter_then_prefix_then_id() {
    let http = PortRange {
        port_range_start: 80,
        port_range_end: 80,
    };
    let (wide, narrow) = (
        cidr(1, "10.0.0.0/8", &[Filter::Tcp(http)]),
        cidr(2, "10.20.0.0/24", &[Filter::Icmp]),
    );
    let chosen =
        |resources: &[Resource], packet: &[u8]| router(resources).handle_outbound(packet, now());
    let both = [wide, narrow.clone()];
    assert_eq!(
        chosen(&both, &to_web()),
        OutboundAction::RequestAccess(resource_id(1))
    );
    let ping = ip(OWN4, "10.20.0.10", 1, &[8, 0, 0, 0]);
    assert_eq!(
        chosen(&both, &ping),
        OutboundAction::RequestAccess(resource_id(2))
    );
    let denied = tcp(OWN4, "10.20.0.10", 443);
    assert_eq!(
        chosen(&both, &denied),
        OutboundAction::RequestAccess(resource_id(2))
    );
    let twin = cidr(3, "10.20.0.0/24", &[Filter::Icmp]);
    assert_eq!(
        chosen(&[narrow, twin], &ping),
        OutboundAction::RequestAccess(resource_id(3))
    );
}

#[test]
fn routes_ipv6_resources() {
    let mut router = router(&[cidr(1, "2001:db8:20::/64", &[])]);
    let packet = tcp(OWN6, "2001:db8:20::a", 80);
    assert_eq!(
        router.handle_outbound(&packet, now()),
        OutboundAction::RequestAccess(resource_id(1))
    );
    let nets: Vec<String> = router.networks().iter().map(IpNet::to_string).collect();
    assert_eq!(nets, ["2001:db8:20::/64"]);
}

#[test]
fn forwards_to_the_gateways_own_address_without_a_resource() {
    let mut router = granted_router();
    let packet = udp(OWN4, "100.64.0.1", 53535);
    assert_eq!(
        router.handle_outbound(&packet, now()),
        OutboundAction::Forward(gateway_id(1))
    );
}

#[test]
fn drops_foreign_sources_and_unknown_destinations() {
    let mut router = router(&[web()]);
    let mut drop = |packet: Vec<u8>| router.handle_outbound(&packet, now());
    assert_eq!(
        drop(tcp("192.0.2.1", "10.20.0.10", 80)),
        OutboundAction::Drop(DropReason::ForeignSource)
    );
    assert_eq!(
        drop(tcp(OWN4, "10.21.0.10", 80)),
        OutboundAction::Drop(DropReason::NoResource)
    );
    assert_eq!(drop(vec![0x45]), OutboundAction::Drop(DropReason::NotIp));
}

#[test]
fn accepts_packets_from_the_gateway_and_its_resources_only() {
    let router = granted_router();
    let check =
        |source, destination| router.check_inbound(gateway_id(1), &udp(source, destination, 9));
    assert_eq!(check("10.20.0.10", OWN4), Ok(()));
    assert_eq!(check("100.64.0.1", OWN4), Ok(()));
    assert_eq!(check("fd00:2021:1111::1", OWN6), Ok(()));
    assert_eq!(check("10.21.0.10", OWN4), Err(DropReason::ForeignSource));
    assert_eq!(
        check("10.20.0.10", "100.64.1.3"),
        Err(DropReason::ForeignDestination)
    );
    assert_eq!(
        router.check_inbound(gateway_id(2), &udp("10.20.0.10", OWN4, 9)),
        Err(DropReason::ForeignSource),
        "another gateway does not serve this resource"
    );
}

#[test]
fn a_lost_gateway_ends_its_grants_and_the_next_packet_requests_access() {
    let mut router = granted_router();
    router.forget_gateway(gateway_id(1));
    assert_eq!(
        router.handle_outbound(&to_web(), now()),
        OutboundAction::RequestAccess(resource_id(1))
    );
    assert!(router.connected_gateways(resource_id(1)).is_empty());
}

#[test]
fn a_request_lists_connected_gateways_with_the_last_one_first() {
    let mut router = router(&[
        web(),
        cidr(2, "10.30.0.0/24", &[]),
        cidr(3, "10.40.0.0/24", &[]),
    ]);
    for (resource, gateway, host) in [(1, 9, "10.20.0.1"), (2, 5, "10.30.0.1")] {
        router.handle_outbound(&udp(OWN4, host, 1), now());
        let addresses = addresses(&format!("100.64.0.{gateway}"), "fd00:2021:1111::9");
        router.handle_granted(resource_id(resource), gateway_id(gateway), addresses);
    }
    assert_eq!(
        router.connected_gateways(resource_id(1)),
        [gateway_id(9), gateway_id(5)],
        "the last gateway of the resource comes first"
    );
    assert_eq!(
        router.connected_gateways(resource_id(3)),
        [gateway_id(5), gateway_id(9)]
    );
}

#[test]
fn removing_the_last_resource_of_a_gateway_reports_it_as_idle() {
    let mut router = router(&[web(), cidr(2, "10.30.0.0/24", &[])]);
    for (resource, host) in [(1, "10.20.0.1"), (2, "10.30.0.1")] {
        router.handle_outbound(&udp(OWN4, host, 1), now());
        router.handle_granted(resource_id(resource), gateway_id(1), gateway_addresses());
    }
    assert_eq!(router.remove_resource(resource_id(1)), None);
    assert_eq!(router.remove_resource(resource_id(2)), Some(gateway_id(1)));
}

#[test]
fn a_second_init_keeps_grants_of_unchanged_resources() {
    let mut router = granted_router();
    assert!(router.replace_resources(vec![web()]).is_empty());
    assert_eq!(
        router.handle_outbound(&to_web(), now()),
        OutboundAction::Forward(gateway_id(1))
    );
    let moved = cidr(1, "10.99.0.0/24", &[]);
    let idle = router.replace_resources(vec![moved]);
    assert_eq!(idle, BTreeSet::from([gateway_id(1)]));
    assert_eq!(
        router.handle_outbound(&tcp(OWN4, "10.99.0.1", 80), now()),
        OutboundAction::RequestAccess(resource_id(1))
    );
}

#[test]
fn a_change_of_filters_keeps_the_grant() {
    let mut router = granted_router();
    let narrowed = cidr(1, "10.20.0.0/24", &[Filter::Icmp]);
    assert_eq!(router.upsert_resource(narrowed), None);
    assert_eq!(
        router.handle_outbound(&to_web(), now()),
        OutboundAction::Forward(gateway_id(1))
    );
}

proptest! {
    /// In every order of events, the router forwards a packet only to a connected gateway with a
    /// grant for its resource, and requests no resource twice within two seconds.
    #[test]
    fn forwards_only_where_granted(
        steps in prop::collection::vec((0u8..5, 1u128..4, 0u64..1500), 1..80),
    ) {
        let resources = [1, 2, 3].map(|n| cidr(n, &format!("10.{n}.0.0/24"), &[]));
        let mut router = router(&resources);
        let mut now = now();
        let mut granted: BTreeMap<u128, GatewayId> = BTreeMap::new();
        let mut asked: BTreeMap<u128, Instant> = BTreeMap::new();
        for (step, number, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            let id = resource_id(number);
            match step {
                0 | 1 => {
                    let packet = udp(OWN4, &format!("10.{number}.0.7"), 5);
                    match router.handle_outbound(&packet, now) {
                        OutboundAction::Forward(gateway) => {
                            prop_assert_eq!(granted.get(&number), Some(&gateway));
                        }
                        OutboundAction::RequestAccess(resource) => {
                            prop_assert_eq!(resource, id);
                            prop_assert!(!granted.contains_key(&number));
                            let last = asked.insert(number, now);
                            prop_assert!(last.is_none_or(|last| now - last >= REQUEST_AGAIN_AFTER));
                        }
                        OutboundAction::Held => prop_assert!(!granted.contains_key(&number)),
                        OutboundAction::Drop(reason) => prop_assert!(false, "dropped: {:?}", reason),
                    }
                }
                2 => {
                    let gateway = gateway_id(number % 2);
                    if router.handle_granted(id, gateway, gateway_addresses()).is_some() {
                        granted.insert(number, gateway);
                        asked.remove(&number);
                    }
                }
                3 => {
                    let gateway = gateway_id(number % 2);
                    router.forget_gateway(gateway);
                    granted.retain(|_, by| *by != gateway);
                }
                _ => router.handle_refused(id),
            }
        }
    }
}
