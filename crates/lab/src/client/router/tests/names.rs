//! The router's rules for names.

use super::super::super::names::Answer;
use super::super::super::vocabulary::DomainStatus;
use super::*;

const APP: &str = "app.lab.example";

fn dns(number: u128, pattern: &str, filters: &[Filter]) -> Resource {
    Resource {
        kind: ResourceKind::Dns(pattern.into()),
        ..cidr(number, "10.0.0.0/8", filters)
    }
}

fn lab() -> Resource {
    dns(1, "*.lab.example", &[])
}

/// A router after a query for the name, so that 100.96.0.1 stands for it.
fn queried_router(resources: &[Resource]) -> Router {
    let mut router = router(resources);
    let answer = router.names.handle_question(APP, now());
    assert!(matches!(answer, Some(Answer::ProxyIps(_))), "{answer:?}");
    router
}

fn granted_router() -> Router {
    let mut router = queried_router(&[lab()]);
    router.handle_outbound(&to_app(), now());
    grant(&mut router, 1);
    router
}

fn grant(router: &mut Router, resource: u128) -> ReleasedPackets {
    router
        .handle_granted(resource_id(resource), gateway_id(1), gateway_addresses())
        .expect("asked for")
}

fn to_app() -> Vec<u8> {
    tcp(OWN4, "100.96.0.1", 80)
}

fn status(active: bool) -> DomainStatus {
    DomainStatus {
        resource: resource_id(1),
        domain: APP.into(),
        active,
    }
}

#[test]
fn requests_access_then_announces_the_name_then_forwards() {
    let (mut router, now) = (queried_router(&[lab()]), now());
    assert_eq!(
        router.handle_outbound(&to_app(), now),
        OutboundAction::RequestAccess(resource_id(1))
    );
    assert_eq!(router.names.poll_announcement(), None, "no gateway yet");
    let granted = grant(&mut router, 1);
    assert_eq!(granted.held, [to_app()]);
    // As the application loop does: released packets come again.
    assert_eq!(router.handle_outbound(&to_app(), now), OutboundAction::Held);
    let announcement = router.names.poll_announcement().expect("due");
    assert_eq!(
        (announcement.gateway, announcement.resource),
        (gateway_id(1), resource_id(1))
    );
    assert_eq!(announcement.domain.name, APP);
    let to_ipv6 = tcp(OWN6, "fd00:2021:1111:8000::3", 80);
    assert_eq!(router.handle_outbound(&to_ipv6, now), OutboundAction::Held);
    let settled = router.names.handle_status(gateway_id(1), &status(true));
    assert_eq!(settled.expect("was announced").held, [to_app(), to_ipv6]);
    assert_eq!(
        router.handle_outbound(&to_app(), now),
        OutboundAction::Forward(gateway_id(1))
    );
    assert_eq!(router.names.poll_announcement(), None);
}

#[test]
fn announces_another_name_of_the_resource_without_the_portal() {
    let (mut router, now) = (granted_router(), now());
    router.names.handle_question("other.lab.example", now);
    let packet = tcp(OWN4, "100.96.0.5", 80);
    assert_eq!(router.handle_outbound(&packet, now), OutboundAction::Held);
    let announcement = router.names.poll_announcement().expect("due");
    assert_eq!(announcement.domain.name, "other.lab.example");
}

#[test]
fn routes_the_proxy_ranges_while_there_is_a_dns_resource() {
    let mut router = router(&[cidr(2, "10.20.0.0/24", &[]), lab()]);
    let nets: Vec<String> = router.networks().iter().map(IpNet::to_string).collect();
    assert_eq!(
        nets,
        ["10.20.0.0/24", "100.96.0.0/11", "fd00:2021:1111:8000::/107"]
    );
    // The resource becomes a network.
    router.upsert_resource(cidr(1, "10.30.0.0/24", &[]));
    let nets: Vec<String> = router.networks().iter().map(IpNet::to_string).collect();
    assert_eq!(nets, ["10.20.0.0/24", "10.30.0.0/24"]);
}

#[test]
fn drops_packets_to_proxy_ips_without_a_resource() {
    let mut router = queried_router(&[lab()]);
    let packet = tcp(OWN4, "100.96.0.5", 80);
    assert_eq!(
        router.handle_outbound(&packet, now()),
        OutboundAction::Drop(DropReason::NoResource)
    );
    router.remove_resource(resource_id(1));
    assert_eq!(
        router.handle_outbound(&to_app(), now()),
        OutboundAction::Drop(DropReason::NoResource),
        "the name remains, without a resource"
    );
}

#[test]
fn chooses_a_names_resource_by_filter_then_pattern_then_id() {
    let http = PortRange {
        port_range_start: 80,
        port_range_end: 80,
    };
    let resources = [
        dns(1, APP, &[Filter::Tcp(http)]),
        dns(2, "*.lab.example", &[]),
        dns(3, "*.lab.example", &[]),
    ];
    let mut router = queried_router(&resources);
    assert_eq!(
        router.handle_outbound(&to_app(), now()),
        OutboundAction::RequestAccess(resource_id(1))
    );
    let https = tcp(OWN4, "100.96.0.2", 443);
    assert_eq!(
        router.handle_outbound(&https, now()),
        OutboundAction::RequestAccess(resource_id(3))
    );
}

#[test]
fn accepts_proxy_ips_only_from_the_gateway_that_serves_the_name() {
    let mut router = granted_router();
    let check = |router: &Router, gateway, source| {
        router.check_inbound(gateway_id(gateway), &udp(source, OWN4, 9))
    };
    assert_eq!(check(&router, 1, "100.96.0.1"), Ok(()));
    assert_eq!(check(&router, 1, "100.96.0.4"), Ok(()));
    let foreign = Err(DropReason::ForeignSource);
    assert_eq!(check(&router, 1, "100.96.0.5"), foreign);
    assert_eq!(check(&router, 2, "100.96.0.1"), foreign);
    router.forget_gateway(gateway_id(1));
    assert_eq!(check(&router, 1, "100.96.0.1"), foreign);
}

#[test]
fn announces_the_name_again_to_a_gateway_after_its_loss() {
    let (mut router, now) = (granted_router(), now());
    router.handle_outbound(&to_app(), now);
    assert!(router.names.poll_announcement().is_some());
    router.names.handle_status(gateway_id(1), &status(true));
    router.forget_gateway(gateway_id(1));
    assert_eq!(
        router.handle_outbound(&to_app(), now),
        OutboundAction::RequestAccess(resource_id(1))
    );
    grant(&mut router, 1);
    assert_eq!(router.handle_outbound(&to_app(), now), OutboundAction::Held);
    assert!(router.names.poll_announcement().is_some());
}

#[test]
fn a_request_of_generation_0_has_the_name_of_the_packet() {
    let (mut router, now) = (
        queried_router(&[lab(), cidr(2, "10.20.0.0/24", &[])]),
        now(),
    );
    assert_eq!(router.requested_domain(resource_id(1)), None);
    router.handle_outbound(&to_app(), now);
    let domain = router.requested_domain(resource_id(1)).expect("a name");
    assert_eq!((domain.name.as_str(), domain.proxy_ips.len()), (APP, 8));
    router.handle_outbound(&to_web(), now);
    assert_eq!(router.requested_domain(resource_id(2)), None);
    grant(&mut router, 1);
    router
        .names
        .assume_confirmed(APP, (gateway_id(1), resource_id(1)), now);
    assert_eq!(
        router.handle_outbound(&to_app(), now),
        OutboundAction::Forward(gateway_id(1))
    );
    assert_eq!(router.names.poll_announcement(), None);
}

#[test]
fn a_query_for_the_site_requests_access_and_then_finds_the_gateway() {
    let (mut router, start) = (router(&[lab()]), now());
    assert_eq!(router.handle_site_question("lab.test", start), None);
    assert_eq!(
        router.handle_site_question(APP, start),
        Some(SiteServer::RequestAccess(resource_id(1)))
    );
    assert_eq!(
        router.handle_site_question(APP, start),
        Some(SiteServer::Requested)
    );
    let later = start + REQUEST_AGAIN_AFTER;
    assert_eq!(
        router.handle_site_question(APP, later),
        Some(SiteServer::RequestAccess(resource_id(1)))
    );
    assert!(grant(&mut router, 1).held.is_empty());
    assert_eq!(
        router.handle_site_question(APP, later),
        Some(SiteServer::At(gateway_addresses()))
    );
}
