//! Every cause, from the facts to the wording.

mod client;
mod journal;
mod name;
mod resource;
mod rights;
mod wording;

use super::*;
use crate::authorizations::{Announcer, Grant, GrantEnd};
use crate::connection::{ConnectionFacts, TransportFacts};
use crate::domains::{AddressFacts, FamilyFacts, MappingFacts};
use crate::grant::{AnnouncedName, Filter, Resource, ResourceKind, TunnelAddresses};
use crate::ids::{ClientId, ResourceId, UnixTime};
use crate::names::DomainName;
use crate::nat_table::NatFacts;
use crate::packet::Path;
use crate::peer::PeerFacts;
use crate::policy::{Policy, PolicyConfig};
use crate::replies::{Refusal, RefusalKind, ReplyFacts};
use crate::target::Target;
use crate::testing::beginning;
use std::net::IpAddr;
use std::time::Duration;
use uuid::Uuid;

const NOW: UnixTime = UnixTime(1_790_000_000);
const PROXY: &str = "100.96.0.1";

/// A working client, its policy, and a question.
struct Scene {
    facts: Facts,
    client: ClientFacts,
    policy: Policy,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn name(text: &str) -> DomainName {
    text.parse().expect("a name")
}

fn resource(number: u128, called: &str, kind: ResourceKind, filters: &[Filter]) -> Resource {
    Resource {
        id: ResourceId(Uuid::from_u128(number)),
        name: called.into(),
        kind,
        filters: filters.to_vec(),
    }
}

fn network(number: u128, called: &str, network: &str, filters: &[Filter]) -> Resource {
    let network = network.parse().expect("a network");
    resource(number, called, ResourceKind::Cidr(network), filters)
}

fn dns(number: u128, called: &str, pattern: &str) -> Resource {
    resource(number, called, ResourceKind::Dns(pattern.into()), &[])
}

fn wiki() -> Resource {
    network(1, "Wiki", "10.20.0.0/16", &[])
}

fn web_and_ping() -> [Filter; 2] {
    [Filter::Tcp(443..=443), Filter::Icmp]
}

/// With a session that is 3 minutes old.
fn peer() -> PeerFacts {
    PeerFacts {
        age: seconds(185),
        has_candidates: true,
        is_nominated: true,
        path: Some(Path::direct(
            "192.0.2.1:52625".parse().expect("a socket address"),
            "203.0.113.9:4000".parse().expect("a socket address"),
        )),
        session: Some(seconds(180)),
        heard: Some(seconds(2)),
    }
}

/// One address that was named 10 s ago.
fn resolved(address: &str) -> FamilyFacts {
    FamilyFacts {
        addresses: vec![AddressFacts {
            ip: ip(address),
            shunned_for: None,
            owes_answer: false,
        }],
        resolved: Some(seconds(10)),
        ..FamilyFacts::default()
    }
}

fn replied(seconds_ago: u64) -> ReplyFacts {
    ReplyFacts {
        replied: Some(seconds(seconds_ago)),
        ..ReplyFacts::default()
    }
}

impl Scene {
    fn new(target: &str) -> Self {
        let id = ClientId(Uuid::from_u128(0xada));
        let tunnel = TunnelAddresses {
            ipv4: [100, 64, 0, 5].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 5].into(),
        };
        let gateway = TunnelAddresses {
            ipv4: [100, 64, 0, 1].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1].into(),
        };
        let target: Target = target.parse().expect("a target");
        let policy = Policy::new(PolicyConfig {
            client: tunnel,
            gateway: Some(gateway),
            max_resources: 16,
        });
        let connection = ConnectionFacts {
            transport: TransportFacts::Peer(peer()),
            policy: policy.explain(&target.host, target.service),
            replies: None,
        };
        Self {
            facts: Facts {
                asked: id.to_string(),
                target,
                client: Subject::Ambiguous(Vec::new()),
                gateway: GatewayFacts::default(),
                unix_now: NOW,
            },
            client: ClientFacts {
                id,
                tunnel: Some(tunnel),
                cut_off_for: None,
                connection: Response::Answer(connection),
                nat: Response::Answer(NatFacts {
                    is_attached: true,
                    mapping: None,
                    names: (0, 2048),
                    flows: (3, 16_384),
                    refused_flow: None,
                }),
                grants: Vec::new(),
                ended: Vec::new(),
            },
            policy,
        }
    }

    fn grant(mut self, resource: Resource) -> Self {
        self.allow(resource, None);
        self
    }

    fn allow(&mut self, resource: Resource, expires_at: Option<UnixTime>) {
        let granted = resource.clone();
        let allowed = self.policy.allow(granted, expires_at, NOW, beginning());
        allowed.expect("there is room");
        self.client.grants.push(Grant {
            resource,
            expires_at,
        });
    }

    fn ended(mut self, resource: Resource, seconds_ago: u64, end: GrantEnd) -> Self {
        self.client.ended.push(JournalEntry {
            client: self.client.id,
            tunnel: self.client.tunnel.expect("a client has addresses"),
            grant: Grant {
                resource,
                expires_at: None,
            },
            at: UnixTime(NOW.0 - seconds_ago),
            end,
        });
        self
    }

    /// The client announces the name; the NAT has these facts about its IPv4 addresses.
    fn announce(mut self, called: &str, v4: FamilyFacts) -> Self {
        let id = ResourceId(Uuid::from_u128(1));
        let announced = AnnouncedName {
            domain: called.into(),
            proxy_ips: vec![ip(PROXY)],
        };
        let assigned = (self.policy).assign_proxies(id, &announced, Announcer::Client);
        assigned.expect("a DNS resource covers it");
        self.nat().mapping = Some(MappingFacts {
            name: name(called),
            proxy_ips: [vec![ip(PROXY)], Vec::new()],
            families: [v4, FamilyFacts::default()],
            asking: None,
            held_packets: 0,
        });
        self
    }

    fn connection(&mut self) -> &mut ConnectionFacts {
        match &mut self.client.connection {
            Response::Answer(connection) => connection,
            missing @ (Response::Timeout | Response::Restarting | Response::Absent) => {
                panic!("{missing:?}")
            }
        }
    }

    fn nat(&mut self) -> &mut NatFacts {
        match &mut self.client.nat {
            Response::Answer(nat) => nat,
            missing @ (Response::Timeout | Response::Restarting | Response::Absent) => {
                panic!("{missing:?}")
            }
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn transport(self, transport: TransportFacts) -> Self {
        self.with(|scene| scene.connection().transport = transport)
    }

    fn peer(self, change: impl FnOnce(&mut PeerFacts)) -> Self {
        let mut peer = peer();
        change(&mut peer);
        self.transport(TransportFacts::Peer(peer))
    }

    fn replies(self, seen: ReplyFacts) -> Self {
        self.with(|scene| scene.connection().replies = Some(seen))
    }

    fn report(mut self) -> Report {
        let target = self.facts.target.clone();
        let explanation = self.policy.explain(&target.host, target.service);
        if let Response::Answer(connection) = &mut self.client.connection {
            connection.policy = explanation;
        }
        self.facts.client = Subject::Client(Box::new(self.client));
        diagnose(&self.facts)
    }
}

/// The states of the steps, a character for each: ✓ passed, ✗ failed, ? open, - not needed or not
/// known.
fn marks(report: &Report) -> String {
    let mark = |step: &Step| match step.state {
        StepState::Passed => '✓',
        StepState::Failed => '✗',
        StepState::Open => '?',
        StepState::NotNeeded | StepState::Unknown => '-',
    };
    report.steps.iter().map(mark).collect()
}

fn step(report: &Report, wanted: StepName) -> &str {
    let found = report.steps.iter().find(|step| step.name == wanted);
    &found.expect("each step is there").text
}

fn assert_says(report: &Report, verdict: &str, remedy: &str) {
    assert_eq!(report.verdict, verdict);
    let said = report.remedy.as_deref().unwrap_or("nothing to do");
    assert!(said.contains(remedy), "{said}");
}
