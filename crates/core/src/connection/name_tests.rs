//! Names over a connection: announcements that it accepts and refuses, and the order of its
//! messages.

use super::tests::{Pair, UNIX_NOW, resource};
use super::*;
use crate::authorizations::{Announced, ProxiedName};
use crate::grant::{Filter, ReplyKind, ResourceKind};
use crate::peer::testing::ipv4_packet;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

const DOMAIN: &str = "App.Example.com";

fn id(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn dns(number: u128, pattern: &str) -> Resource {
    Resource {
        kind: ResourceKind::Dns(pattern.into()),
        ..resource(number, vec![])
    }
}

fn proxy_ips() -> Vec<IpAddr> {
    let v4 = (1..=4).map(|last| IpAddr::from([100, 96, 0, last]));
    let v6 = (0..4).map(|last| IpAddr::from([0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, last]));
    v4.chain(v6).collect()
}

fn announced() -> AnnouncedName {
    AnnouncedName {
        domain: DOMAIN.into(),
        proxy_ips: proxy_ips(),
    }
}

fn assigned_packet(number: u128, domain: &str, proxy_ips: Vec<IpAddr>) -> Vec<u8> {
    ControlPacket::assigned_ips(&AssignedIps {
        resource: id(number),
        domain: domain.into(),
        proxy_ips,
    })
}

fn name() -> DomainName {
    DOMAIN.parse().expect("a name")
}

fn assigned(by: Announcer) -> ConnectionEvent {
    let announced = Announced {
        domain: DOMAIN.into(),
        by,
    };
    ConnectionEvent::NameChanged(NameMeaning {
        name: name(),
        proxied: Some(Arc::new(ProxiedName {
            name: name(),
            proxy_ips: proxy_ips(),
            resources: [(id(1), announced)].into(),
        })),
        announced_for: Some(id(1)),
    })
}

/// The DomainStatus messages among the sent packets.
fn statuses(pair: &mut Pair, sent: &[Vec<u8>]) -> Vec<DomainStatus> {
    let opened = sent.iter().map(|datagram| pair.wireguard.open(datagram));
    opened
        .filter_map(|packet| match ControlPacket::parse(&packet)? {
            Ok(ControlPacket::DomainStatus(status)) => Some(status),
            _ => None,
        })
        .collect()
}

fn status(active: bool) -> DomainStatus {
    DomainStatus {
        resource: id(1),
        domain: DOMAIN.into(),
        active,
    }
}

/// docs/lessons.md 1: DNS never delays a reply.
#[test]
fn acknowledges_a_grant_of_a_name_before_its_lookup() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "app.example.com"));
    let events = pair.events();
    let [accepted, expected, ..] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(matches!(accepted, ConnectionEvent::Accepted { .. }));
    assert_eq!(*expected, ConnectionEvent::NameExpected(name()));
}

#[test]
fn a_pattern_predicts_no_name() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    let is_expected = |event: &_| matches!(event, ConnectionEvent::NameExpected(_));
    assert!(!pair.events().iter().any(is_expected));
}

#[test]
fn passes_announced_proxy_ips_to_the_nat_before_packets_to_them() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    pair.establish();
    pair.events();
    let sent = pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    assert_eq!(pair.events(), [assigned(Announcer::Client)]);
    assert_eq!(
        statuses(&mut pair, &sent),
        [],
        "the mappings answer, not the connection"
    );

    pair.send_packet(&ipv4_packet([100, 96, 0, 2], [100, 64, 1, 2], b"x"));
    assert_eq!(
        pair.inbound().len(),
        0,
        "the packet is from the proxy IP, not to it"
    );
    pair.send_packet(&ipv4_packet([100, 64, 1, 2], [100, 96, 0, 2], b"x"));
    assert_eq!(pair.inbound().len(), 1);
}

/// docs/lessons.md 16: Proxy IPs that a client chooses are checked first.
#[test]
fn a_refused_announcement_is_inactive_immediately_without_effect() {
    let outside = vec![[10, 20, 0, 1].into()];
    for (packet, domain) in [
        (assigned_packet(1, "other.org", proxy_ips()), "other.org"),
        (assigned_packet(1, DOMAIN, outside), DOMAIN),
        (assigned_packet(1, "a b", proxy_ips()), "a b"),
    ] {
        let mut pair = Pair::new();
        pair.grant(dns(1, "*.example.com"));
        pair.establish();
        pair.events();
        let sent = pair.send_packet(&packet);
        assert_eq!(pair.events(), []);
        let refused = DomainStatus {
            domain: domain.into(),
            ..status(false)
        };
        assert_eq!(statuses(&mut pair, &sent), [refused]);
    }
}

#[test]
fn an_ungranted_resource_or_an_invalid_name_is_inactive() {
    let mut pair = Pair::new();
    pair.grant(resource(2, vec![]));
    pair.establish();
    pair.events();
    for number in [1, 2] {
        let sent = pair.send_packet(&assigned_packet(number, DOMAIN, proxy_ips()));
        let refused = DomainStatus {
            resource: id(number),
            ..status(false)
        };
        assert_eq!(statuses(&mut pair, &sent), [refused]);
    }
}

#[test]
fn sends_a_status_through_the_tunnel() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    pair.establish();
    let _ = pair.sent();
    pair.connection
        .handle_domain_status(&status(true), pair.now);
    let sent = pair.sent();
    assert_eq!(statuses(&mut pair, &sent), [status(true)]);
}

#[test]
fn a_name_in_the_request_is_assigned_after_the_acknowledgement() {
    let mut pair = Pair::new();
    let mut request = pair.request(dns(1, "app.example.com"), None);
    request.announced = Some(announced());
    request.reply = ReplyKind::ConnectionReady;
    pair.connection
        .handle_authorization(request, UNIX_NOW, pair.now);
    let events = pair.events();
    assert!(matches!(events[0], ConnectionEvent::Accepted { .. }));
    assert!(events.contains(&assigned(Announcer::Portal)), "{events:?}");
}

fn access(announced: Option<AnnouncedName>) -> AccessRequest {
    AccessRequest {
        reply_ref: "access".into(),
        client: crate::ids::ClientId(Uuid::from_u128(1)),
        tunnel: None,
        resource: dns(1, "*.example.com"),
        expires_at: None,
        announced,
    }
}

/// docs/lessons.md 18: NAT set-up is keyed by resource and accepts any order.
#[test]
fn access_may_come_before_the_transport() {
    let mut pair = Pair::new();
    pair.connection
        .handle_access(access(Some(announced())), UNIX_NOW, pair.now);
    let accepted = ConnectionEvent::Accepted {
        reply_ref: "access".into(),
    };
    assert_eq!(pair.events(), [accepted, assigned(Announcer::Portal)]);
    pair.grant(resource(2, vec![]));
    pair.establish();
    pair.send_packet(&ipv4_packet([100, 64, 1, 2], [100, 96, 0, 1], b"x"));
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn grants_access_without_a_name_without_an_answer() {
    let mut pair = Pair::new();
    pair.connection
        .handle_access(access(None), UNIX_NOW, pair.now);
    assert_eq!(pair.events(), []);
}

#[test]
fn names_are_removed_with_their_resource() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    pair.grant(resource(2, vec![]));
    pair.establish();
    pair.events();
    pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    pair.events();
    pair.connection.handle_revocation(id(1), pair.now);
    assert_eq!(pair.events(), [gone(DOMAIN)]);
    pair.grant(dns(3, "other.example.com"));
    pair.send_packet(&assigned_packet(3, "other.example.com", proxy_ips()));
    pair.events();
    pair.send_packet(&ControlPacket::goodbye());
    assert_eq!(pair.events()[0], gone("other.example.com"));
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn tells_the_nat_of_former_names_first() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    pair.establish();
    pair.send_packet(&assigned_packet(
        1,
        "former.example.com",
        vec![proxy_ips()[3]],
    ));
    pair.events();
    pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    let expected = [gone("former.example.com"), assigned(Announcer::Client)];
    assert_eq!(pair.events(), expected);
}

#[test]
fn publishes_its_authorizations_after_each_change_and_only_then() {
    let mut pair = Pair::new();
    assert_eq!(pair.connection.take_authorizations(), None);
    pair.grant(dns(1, "*.example.com"));
    let granted = pair.connection.take_authorizations().expect("a change");
    assert_eq!((granted.grants().len(), granted.names().len()), (1, 0));
    pair.establish();
    assert_eq!(pair.connection.take_authorizations(), None);
    pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    let named = pair.connection.take_authorizations().expect("a change");
    assert_eq!((named.grants().len(), named.names().len()), (1, 1));
    pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    assert_eq!(
        pair.connection.take_authorizations(),
        None,
        "the same again"
    );
    pair.connection.handle_revocation(id(1), pair.now);
    let empty = pair.connection.take_authorizations().expect("a change");
    assert_eq!((empty.grants().len(), empty.names().len()), (0, 0));
    assert_eq!(granted.grants().len(), 1, "what was handed out stays");
}

fn gone(domain: &str) -> ConnectionEvent {
    ConnectionEvent::NameChanged(NameMeaning {
        name: domain.parse().expect("a name"),
        proxied: None,
        announced_for: None,
    })
}

#[test]
fn decides_packets_beside_an_announcement_after_it() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "app.example.com"));
    let guarded = Resource {
        filters: vec![Filter::Tcp(443..=443)],
        ..dns(2, "other.example.com")
    };
    pair.grant(guarded);
    pair.establish();
    pair.events();
    pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    let to_proxy = ipv4_packet([100, 64, 1, 2], [100, 96, 0, 1], &[0; 400]);
    // To the same proxy IP, which by then is a name of the guarded resource.
    let announcement = assigned_packet(2, "other.example.com", proxy_ips());
    pair.send_packets(&[&to_proxy, &announcement]);
    assert_eq!(pair.inbound().len(), 0);
    // In the reverse order: an announcement beside a packet applies to it.
    pair.send_packets(&[&to_proxy, &assigned_packet(1, DOMAIN, proxy_ips())]);
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn ignores_announcements_beyond_the_budget() {
    let mut pair = Pair::new();
    pair.grant(dns(1, "*.example.com"));
    pair.establish();
    pair.events();
    for _ in 0..300 {
        pair.send_packet(&assigned_packet(1, DOMAIN, proxy_ips()));
    }
    assert_eq!(pair.events().len(), 256);
    let drops = pair.connection.take_drops();
    assert_eq!(drops.of(DropReason::ControlRejected), 44);
}
