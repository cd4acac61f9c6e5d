//! Helpers for the tests of the policy: resources from text, and a client that sends packets.

mod decision;
mod explain;
mod grants;
mod reference;

use super::*;
use crate::authorizations::GrantEnd;
use crate::grant::Filter;
use crate::packet::icmp::IcmpReply;
use crate::packet::samples::{Shape, packet_between};
use crate::packet::{DropReason, IpPacket};
use crate::testing::beginning;
use uuid::Uuid;

const CLIENT: &str = "100.64.0.5";
const CLIENT_V6: &str = "fd00:2021:1111::5";
const GATEWAY: &str = "100.64.0.1";
const GATEWAY_V6: &str = "fd00:2021:1111::1";
const PROXY: &str = "100.96.0.1";
const PROXY_V6: &str = "fd00:2021:1111:8000::1";
const EPOCH: UnixTime = UnixTime(1_790_000_000);

const PASS: Verdict = Verdict::Forward { translate: false };
const TRANSLATE: Verdict = Verdict::Forward { translate: true };
const PROHIBITED: Verdict = Verdict::Reject(DropReason::NotAuthorized, IcmpReply::Prohibited);
const NOT_INTERNET: Verdict =
    Verdict::Reject(DropReason::NotInternet, IcmpReply::NetworkUnreachable);
const RETURN_REFUSED: Verdict = Verdict::Drop(DropReason::ReturnNotAuthorized);

fn addresses(ipv4: &str, ipv6: &str) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: ipv4.parse().expect("an address"),
        ipv6: ipv6.parse().expect("an address"),
    }
}

fn id(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn resource(number: u128, kind: ResourceKind, filters: &[Filter]) -> Resource {
    Resource {
        id: id(number),
        name: String::new(),
        kind,
        filters: filters.to_vec(),
    }
}

fn cidr(number: u128, network: &str, filters: &[Filter]) -> Resource {
    let network = network.parse().expect("a network");
    resource(number, ResourceKind::Cidr(network), filters)
}

fn dns(number: u128, pattern: &str, filters: &[Filter]) -> Resource {
    resource(number, ResourceKind::Dns(pattern.into()), filters)
}

fn internet(number: u128) -> Resource {
    resource(number, ResourceKind::Internet, &[])
}

fn to_port(to: u16) -> Shape {
    Shape::Tcp { from: 50000, to }
}

fn from_port(from: u16) -> Shape {
    Shape::Tcp { from, to: 50000 }
}

const PING: Shape = Shape::EchoRequest(1);

/// A policy, its clock, and packets for it.
struct Scene {
    policy: Policy,
    now: Instant,
    /// The grants that ended since the last look at them.
    ended: Vec<(ResourceId, GrantEnd)>,
}

impl Scene {
    fn with(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut scene = Self {
            policy: Policy::new(PolicyConfig {
                client: addresses(CLIENT, CLIENT_V6),
                gateway: Some(addresses(GATEWAY, GATEWAY_V6)),
                max_resources: 4,
            }),
            now: beginning(),
            ended: Vec::new(),
        };
        for resource in resources {
            scene.allow(resource, None).expect("within the limit");
        }
        scene
    }

    /// `expires_in`: seconds from the scene's start.
    fn allow(
        &mut self,
        resource: Resource,
        expires_in: Option<u64>,
    ) -> Result<(), AuthorizationError> {
        let expires_at = expires_in.map(|seconds| UnixTime(EPOCH.0 + seconds));
        self.policy.allow(resource, expires_at, EPOCH, self.now)
    }

    fn assign(&mut self, number: u128, ips: &[&str]) -> Result<(), AuthorizationError> {
        let ips = ips.iter().map(|ip| ip.parse().expect("an address"));
        self.assign_to("app.example.com", number, ips.collect())
    }

    fn assign_to(
        &mut self,
        domain: &str,
        number: u128,
        proxy_ips: Vec<IpAddr>,
    ) -> Result<(), AuthorizationError> {
        let domain = domain.into();
        let announced = AnnouncedName { domain, proxy_ips };
        let assigned = (self.policy).assign_proxies(id(number), &announced, Announcer::Client);
        assigned.map(|_| ())
    }

    fn revoke(&mut self, number: u128) {
        let changes = self.policy.revoke(id(number));
        self.note(changes);
    }

    fn reconcile(&mut self, listed: &[(ResourceId, Option<UnixTime>)]) {
        let listed = listed.iter().copied().collect();
        let changes = self.policy.reconcile(&listed, EPOCH, self.now);
        self.note(changes);
    }

    fn tick_at(&mut self, seconds: u64) -> Vec<(ResourceId, GrantEnd)> {
        let now = self.now + Duration::from_secs(seconds);
        let changes = self.policy.handle_timeout(now);
        self.note(changes);
        self.ended()
    }

    fn note(&mut self, changes: Changes) {
        let ended = changes.ended.into_iter();
        self.ended
            .extend(ended.map(|(grant, end)| (grant.resource.id, end)));
    }

    fn ended(&mut self) -> Vec<(ResourceId, GrantEnd)> {
        std::mem::take(&mut self.ended)
    }

    fn inbound(&self, source: &str, destination: &str, shape: Shape) -> Verdict {
        let bytes = packet_between(source, destination, shape);
        self.policy
            .inbound(&IpPacket::parse(&bytes).expect("valid"))
    }

    fn outbound(&self, source: &str, destination: &str, shape: Shape) -> Verdict {
        let bytes = packet_between(source, destination, shape);
        self.policy
            .outbound(&IpPacket::parse(&bytes).expect("valid"))
    }

    /// From the client's own address of the right family.
    fn send(&self, destination: &str, shape: Shape) -> Verdict {
        let own = if destination.contains(':') {
            CLIENT_V6
        } else {
            CLIENT
        };
        self.inbound(own, destination, shape)
    }

    /// To the client's own address of the right family.
    fn receive(&self, source: &str, shape: Shape) -> Verdict {
        let own = if source.contains(':') {
            CLIENT_V6
        } else {
            CLIENT
        };
        self.outbound(source, own, shape)
    }
}

fn expired(number: u128) -> (ResourceId, GrantEnd) {
    (id(number), GrantEnd::Expired)
}
