//! A second policy, a direct transcription of docs/protocol.md without regard to speed, and the
//! property that both agree.

use super::beginning;
use crate::authorizations::Announcer;
use crate::grant::{AnnouncedName, Filter, Resource, ResourceKind, TunnelAddresses};
use crate::ids::{ResourceId, UnixTime};
use crate::packet::icmp::IcmpReply;
use crate::packet::samples::{Shape, any_shape, packet};
use crate::packet::{DropReason, IpPacket};
use crate::policy::{Access, Policy, PolicyConfig, Verdict};
use crate::target::{Host, Service};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use uuid::Uuid;

const CLIENT: [&str; 2] = ["100.64.0.5", "fd00:2021:1111::5"];
const GATEWAY: [&str; 2] = ["100.64.0.1", "fd00:2021:1111::1"];

const TUNNEL: &[&str] = &["100.64.0.0/11", "fd00:2021:1111::/107"];
const PROXY: &[&str] = &["100.96.0.0/11", "fd00:2021:1111:8000::/107"];
const GROUPS: &[&str] = &["224.0.0.0/4", "255.255.255.255/32", "ff00::/8"];
/// docs/protocol.md 5.2 step 7, and the additions of `ranges::is_internet` except NAT64.
const NOT_INTERNET: &[&str] = &[
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "0.0.0.0/8",
    "::/96",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// A few addresses, chosen so that networks, ranges and neighbours collide.
const ADDRESSES_V4: &[&str] = &[
    "100.64.0.5",
    "100.64.0.1",
    "100.64.0.6",
    "100.96.0.1",
    "100.96.0.2",
    "100.96.0.3",
    "10.20.0.1",
    "10.20.0.2",
    "10.20.1.1",
    "10.99.0.1",
    "203.0.113.1",
    "203.0.113.200",
    "192.168.0.1",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
];
const ADDRESSES_V6: &[&str] = &[
    "fd00:2021:1111::5",
    "fd00:2021:1111::1",
    "fd00:2021:1111::6",
    "fd00:2021:1111:8000::",
    "fd00:2021:1111:8000::1",
    "fd00:2021:1111:8000::2",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    "fd12::1",
    "fe80::1",
    "::1",
    "ff02::1",
    "::ffff:203.0.113.1",
];
const NETWORKS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.20.0.0/16",
    "10.20.0.0/24",
    "10.20.0.1/32",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "100.96.0.0/11",
    "100.96.0.1/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8::/48",
    "2001:db8::1/128",
    "fd00:2021:1111:8000::1/128",
    "fd00::/8",
];
/// Ports of packets and filters are drawn from here.
const PORTS: std::ops::Range<u16> = 1..6;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn within(networks: &[&str], ip: IpAddr) -> bool {
    let parse = |text: &&str| text.parse::<IpNet>().expect("a network");
    networks
        .iter()
        .map(parse)
        .any(|network| network.contains(&ip))
}

fn addresses(pair: [&str; 2]) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: pair[0].parse().expect("an address"),
        ipv6: pair[1].parse().expect("an address"),
    }
}

/// A grant of the reference.
#[derive(Clone, Debug)]
struct Granted {
    resource: Resource,
    proxy_ips: Vec<IpAddr>,
    expires_in: Option<u64>,
}

/// docs/protocol.md 5.2, step by step.
fn inbound(grants: &[Granted], source: IpAddr, destination: IpAddr, shape: Shape) -> Verdict {
    use Verdict::{Drop, Forward, Reject};
    if within(GROUPS, destination) {
        return Drop(DropReason::Multicast);
    }
    if shape == Shape::IcmpError {
        return Drop(DropReason::IcmpErrorFromClient);
    }
    if !CLIENT.map(ip).contains(&source) {
        return Reject(DropReason::SourceMismatch, IcmpReply::Prohibited);
    }
    if GATEWAY.map(ip).contains(&destination) {
        return Forward { translate: false };
    }
    if within(TUNNEL, destination) {
        return Reject(DropReason::TunnelRange, IcmpReply::Prohibited);
    }
    let is_proxy = within(PROXY, destination);
    let unmapped = Reject(DropReason::Unmapped, IcmpReply::NetworkUnreachable);
    if !is_proxy && holds_internet(grants) {
        return match within(NOT_INTERNET, destination) {
            true => Reject(DropReason::NotInternet, IcmpReply::NetworkUnreachable),
            false => Forward { translate: false },
        };
    }
    let holds_dns = grants
        .iter()
        .any(|grant| matches!(grant.resource.kind, ResourceKind::Dns(_)));
    let is_mapped = grants
        .iter()
        .any(|grant| grant.proxy_ips.contains(&destination));
    match decision(grants, destination, shape, port(shape, true)) {
        Some((true, _, _)) if is_proxy && !is_mapped => unmapped,
        Some((true, _, _)) => Forward {
            translate: is_proxy,
        },
        None if is_proxy && holds_dns => unmapped,
        Some((false, _, _)) | None => Reject(DropReason::NotAuthorized, IcmpReply::Prohibited),
    }
}

/// docs/protocol.md 5.3, steps 2, 4 and 5.
fn outbound(grants: &[Granted], source: IpAddr, destination: IpAddr, shape: Shape) -> Verdict {
    use Verdict::{Drop, Forward};
    if !CLIENT.map(ip).contains(&destination) {
        return Drop(DropReason::UnknownClient);
    }
    if GATEWAY.map(ip).contains(&source) {
        return Forward { translate: false };
    }
    if within(TUNNEL, source) {
        return Drop(DropReason::TunnelRange);
    }
    let permitted = if shape == Shape::IcmpError {
        true
    } else if !within(PROXY, source) && holds_internet(grants) {
        !within(NOT_INTERNET, source)
    } else {
        matches!(
            decision(grants, source, shape, port(shape, false)),
            Some((true, _, _))
        )
    };
    match permitted {
        true => Forward { translate: false },
        false => Drop(DropReason::ReturnNotAuthorized),
    }
}

fn holds_internet(grants: &[Granted]) -> bool {
    grants
        .iter()
        .any(|grant| grant.resource.kind == ResourceKind::Internet)
}

/// docs/protocol.md 5.1: whether the deciding entry permits it, its prefix length and its resource.
fn decision(
    grants: &[Granted],
    ip: IpAddr,
    shape: Shape,
    port: u16,
) -> Option<(bool, u8, ResourceId)> {
    let mut entries = Vec::new();
    for Granted {
        resource,
        proxy_ips,
        ..
    } in grants
    {
        let networks = match &resource.kind {
            ResourceKind::Cidr(network) => vec![*network],
            ResourceKind::Dns(_) => proxy_ips.iter().map(|ip| IpNet::from(*ip)).collect(),
            ResourceKind::Internet => vec![],
        };
        for network in networks.into_iter().filter(|network| network.contains(&ip)) {
            let permitted = filters_permit(&resource.filters, shape, port);
            entries.push((permitted, network.prefix_len(), resource.id));
        }
    }
    entries.sort_unstable();
    entries.pop()
}

fn filters_permit(filters: &[Filter], shape: Shape, port: u16) -> bool {
    let mut permitted = filters.is_empty();
    for filter in filters {
        permitted |= match (filter, shape) {
            (Filter::Tcp(range), Shape::Tcp { .. }) => range.contains(&port),
            (Filter::Udp(range), Shape::Udp { .. }) => range.contains(&port),
            (Filter::Icmp, Shape::EchoRequest(_) | Shape::EchoReply(_) | Shape::IcmpOther) => true,
            (Filter::Tcp(_) | Filter::Udp(_) | Filter::Icmp, _) => false,
        };
    }
    permitted
}

fn port(shape: Shape, towards: bool) -> u16 {
    match shape {
        Shape::Tcp { from, to } | Shape::Udp { from, to } => {
            if towards {
                to
            } else {
                from
            }
        }
        Shape::EchoRequest(_)
        | Shape::EchoReply(_)
        | Shape::IcmpError
        | Shape::IcmpOther
        | Shape::Other(_) => 0,
    }
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let ports = || (PORTS, PORTS).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![
        2 => ports().prop_map(Filter::Tcp),
        2 => ports().prop_map(Filter::Udp),
        1 => Just(Filter::Icmp),
    ]
}

fn any_kind() -> impl Strategy<Value = ResourceKind> {
    prop_oneof![
        8 => select(NETWORKS).prop_map(|text| ResourceKind::Cidr(text.parse().expect("a network"))),
        4 => Just(ResourceKind::Dns("*.example.com".into())),
        1 => Just(ResourceKind::Internet),
    ]
}

fn any_grants() -> impl Strategy<Value = Vec<Granted>> {
    let proxies: Vec<&str> = [ADDRESSES_V4, ADDRESSES_V6]
        .concat()
        .into_iter()
        .filter(|text| within(PROXY, ip(text)))
        .collect();
    let grant = (
        any_kind(),
        proptest::collection::vec(any_filter(), 0..4),
        proptest::collection::vec(select(proxies), 0..4),
        proptest::option::of(0u64..20),
    );
    proptest::collection::vec(grant, 0..8).prop_map(|grants| {
        let number = |(place, grant): (usize, (_, _, Vec<&str>, _))| {
            let (kind, filters, proxies, expires_in) = grant;
            let is_dns = matches!(kind, ResourceKind::Dns(_));
            Granted {
                resource: Resource {
                    id: ResourceId(Uuid::from_u128(place as u128)),
                    name: String::new(),
                    kind,
                    filters,
                },
                proxy_ips: proxies.into_iter().filter(|_| is_dns).map(ip).collect(),
                expires_in,
            }
        };
        let mut grants: Vec<_> = grants.into_iter().enumerate().map(number).collect();
        share_the_latest_announcements(&mut grants);
        grants
    })
}

/// All announce the same name, and share its proxy IPs: of each family, the last announcement
/// decides them.
fn share_the_latest_announcements(grants: &mut [Granted]) {
    let of_family = |is_v4: bool| {
        let sets = grants.iter().rev().map(|grant| {
            let ips = grant.proxy_ips.iter().copied();
            ips.filter(|ip| ip.is_ipv4() == is_v4).collect::<Vec<_>>()
        });
        sets.into_iter()
            .find(|set| !set.is_empty())
            .unwrap_or_default()
    };
    let shared = [of_family(true), of_family(false)].concat();
    for grant in grants
        .iter_mut()
        .filter(|grant| !grant.proxy_ips.is_empty())
    {
        grant.proxy_ips.clone_from(&shared);
    }
}

/// Covered addresses, and often the client's own; others would stop at the first steps.
fn any_packet() -> impl Strategy<Value = (bool, IpAddr, IpAddr, Shape)> {
    let pair = |addresses: &'static [&'static str], own: &'static str| {
        let near = || prop_oneof![6 => Just(own), 1 => select(addresses)];
        (near(), select(addresses), any::<bool>()).prop_map(|(near, far, is_inbound)| {
            match is_inbound {
                true => (true, ip(near), ip(far)),
                false => (false, ip(far), ip(near)),
            }
        })
    };
    let addresses = prop_oneof![pair(ADDRESSES_V4, CLIENT[0]), pair(ADDRESSES_V6, CLIENT[1])];
    (addresses, any_shape(PORTS)).prop_map(|((is_inbound, source, destination), shape)| {
        (is_inbound, source, destination, shape)
    })
}

const EPOCH: UnixTime = UnixTime(1_790_000_000);

fn policy_of(grants: &[Granted], now: Instant) -> Policy {
    let mut policy = Policy::new(PolicyConfig {
        client: addresses(CLIENT),
        gateway: Some(addresses(GATEWAY)),
        max_resources: 8,
    });
    for Granted {
        resource,
        proxy_ips,
        expires_in,
    } in grants
    {
        let expires_at = expires_in.map(|seconds| UnixTime(EPOCH.0 + seconds));
        policy
            .allow(resource.clone(), expires_at, EPOCH, now)
            .expect("within the limit");
        if !proxy_ips.is_empty() {
            let announced = AnnouncedName {
                domain: "app.example.com".into(),
                proxy_ips: proxy_ips.clone(),
            };
            policy
                .assign_proxies(resource.id, &announced, Announcer::Client)
                .expect("within the ranges");
        }
    }
    policy
}

fn check(
    policy: &Policy,
    grants: &[Granted],
    packets: &[(bool, IpAddr, IpAddr, Shape)],
) -> Result<(), TestCaseError> {
    for (is_inbound, source, destination, shape) in packets.iter().copied() {
        let bytes = packet(source, destination, shape, b"payload");
        let parsed = IpPacket::parse(&bytes).expect("valid");
        let (found, expected) = if is_inbound {
            (
                policy.inbound(&parsed),
                inbound(grants, source, destination, shape),
            )
        } else {
            (
                policy.outbound(&parsed),
                outbound(grants, source, destination, shape),
            )
        };
        prop_assert_eq!(
            found,
            expected,
            "inbound: {}, {:?}, {:?}",
            is_inbound,
            parsed,
            grants
        );
    }
    Ok(())
}

proptest! {
    /// Over random grants and packets, also after some were revoked, some expired, and the rest was
    /// reconciled.
    #[test]
    fn policy_equals_the_naive_reference(
        mut grants in any_grants(),
        packets in proptest::collection::vec(any_packet(), 1..60),
        revoked in 0u128..8,
        elapsed in 0u64..20,
        kept in any::<u8>(),
    ) {
        let now = beginning();
        let mut policy = policy_of(&grants, now);
        check(&policy, &grants, &packets)?;

        let revoked = ResourceId(Uuid::from_u128(revoked));
        policy.revoke(revoked);
        grants.retain(|grant| grant.resource.id != revoked);
        check(&policy, &grants, &packets)?;

        policy.handle_timeout(now + Duration::from_secs(elapsed));
        grants.retain(|grant| grant.expires_in.is_none_or(|at| at > elapsed));
        check(&policy, &grants, &packets)?;

        grants.retain(|grant| kept >> (grant.resource.id.0.as_u128() % 8) & 1 == 1);
        let listed = grants.iter().map(|grant| (grant.resource.id, None));
        policy.reconcile(&listed.collect(), EPOCH, now);
        prop_assert_eq!(policy.poll_timeout(), None);
        check(&policy, &grants, &packets)?;
    }

    #[test]
    fn the_deciding_resource_is_that_of_the_naive_reference(
        grants in any_grants(),
        packets in proptest::collection::vec(any_packet(), 1..30),
    ) {
        prop_assume!(!holds_internet(&grants));
        let policy = policy_of(&grants, beginning());
        for (_, _, destination, shape) in packets {
            let Some(asked) = asked(shape) else {
                continue;
            };
            let explanation = policy.explain(&Host::Ip(destination), asked);
            let found = match &explanation.access[..] {
                [(_, Access::Covered(all))] => {
                    all.first().map(|it| (it.is_permitted, it.resource.id))
                }
                [(_, Access::Uncovered)] => None,
                // The verdict depends on more than the resources there.
                _ => continue,
            };
            let expected = decision(&grants, destination, shape, port(shape, true));
            prop_assert_eq!(found, expected.map(|(permitted, _, id)| (permitted, id)));
        }
    }

    /// The explanation agrees with the verdict for every packet.
    #[test]
    fn explanations_agree_with_the_verdicts(
        grants in any_grants(),
        packets in proptest::collection::vec(any_packet(), 1..60),
    ) {
        let policy = policy_of(&grants, beginning());
        for (_, source, destination, shape) in packets {
            let Some(asked) = asked(shape).filter(|_| CLIENT.map(ip).contains(&source)) else {
                continue;
            };
            let bytes = packet(source, destination, shape, b"payload");
            let verdict = policy.inbound(&IpPacket::parse(&bytes).expect("valid"));
            let explanation = policy.explain(&Host::Ip(destination), asked);
            let [(_, access)] = &explanation.access[..] else {
                panic!("one was asked about: {explanation:?}");
            };
            prop_assert_eq!(said(access), verdict, "{:?}", access);
        }
    }
}

fn asked(shape: Shape) -> Option<Service> {
    match shape {
        Shape::Tcp { to, .. } => Some(Service::Tcp(to)),
        Shape::Udp { to, .. } => Some(Service::Udp(to)),
        Shape::EchoRequest(_) | Shape::EchoReply(_) | Shape::IcmpOther => Some(Service::Icmp),
        Shape::IcmpError | Shape::Other(_) => None,
    }
}

/// The verdict that follows from an explanation. Translation is not explained, but follows from the
/// name.
fn said(access: &Access) -> Verdict {
    use Verdict::{Drop, Forward, Reject};
    match access {
        Access::Covered(all) if access.is_permitted() => Forward {
            translate: all
                .iter()
                .any(|it| matches!(it.resource.kind, ResourceKind::Dns(_))),
        },
        Access::Gateway => Forward { translate: false },
        Access::Group => Drop(DropReason::Multicast),
        Access::TunnelRange => Reject(DropReason::TunnelRange, IcmpReply::Prohibited),
        Access::NotInternet { .. } => {
            Reject(DropReason::NotInternet, IcmpReply::NetworkUnreachable)
        }
        Access::NoName => Reject(DropReason::Unmapped, IcmpReply::NetworkUnreachable),
        Access::Covered(_) | Access::Uncovered => {
            Reject(DropReason::NotAuthorized, IcmpReply::Prohibited)
        }
    }
}
