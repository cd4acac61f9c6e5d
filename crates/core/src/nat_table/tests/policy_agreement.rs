//! A client's authorizations, its policy and the NAT agree after any announcements, revocations and
//! restarts: a packet that was admitted for one name is never translated for another.

use super::{Scene, client, own_v4, proxy_v4};
use crate::UnixTime;
use crate::authorizations::{Announcer, NameChange, NameMeaning};
use crate::grant::{AnnouncedName, Resource, ResourceKind};
use crate::ids::ResourceId;
use crate::names::AddressFamily;
use crate::packet::IpPacket;
use crate::packet::samples::{Shape, packet};
use crate::policy::{Policy, PolicyConfig, Verdict};
use proptest::prelude::*;
use std::net::IpAddr;
use uuid::Uuid;

#[derive(Clone, Debug)]
enum Step {
    /// This resource announces this name with these proxy IPs.
    Announce(u128, usize, Vec<u8>),
    Answer(usize),
    Packet(u8),
    Revoke(u128),
    /// The connection dies: its successor has the published authorizations, and repeats all names.
    RestartConnection,
    /// The NAT dies: the connection repeats all names to its successor.
    RestartNat,
}

fn any_step() -> impl Strategy<Value = Step> {
    let proxies = proptest::collection::vec(0u8..6, 1..4);
    prop_oneof![
        4 => (0u128..3, 0..NAMES.len(), proxies)
            .prop_map(|(resource, name, proxies)| Step::Announce(resource, name, proxies)),
        2 => (0..NAMES.len()).prop_map(Step::Answer),
        5 => (0u8..6).prop_map(Step::Packet),
        1 => (0u128..3).prop_map(Step::Revoke),
        1 => Just(Step::RestartConnection),
        1 => Just(Step::RestartNat),
    ]
}

fn proxy(number: u8) -> IpAddr {
    proxy_v4(number / 4, number % 4)
}

fn real(name: usize) -> String {
    format!("10.20.0.{}", name + 1)
}

fn config() -> PolicyConfig {
    PolicyConfig {
        client: client(1).1,
        gateway: None,
        max_resources: 8,
    }
}

struct Pair {
    policy: Policy,
    scene: Scene,
}

impl Pair {
    fn new() -> Self {
        let scene = Scene::new(&[1]);
        let mut pair = Self {
            policy: Policy::new(config()),
            scene,
        };
        (0..3).for_each(|number| pair.grant(number));
        pair
    }

    fn grant(&mut self, number: u128) {
        let resource = Resource {
            id: ResourceId(Uuid::from_u128(number)),
            name: String::new(),
            kind: ResourceKind::Dns("*.example".into()),
            filters: Vec::new(),
        };
        let granted = self
            .policy
            .allow(resource, None, UnixTime(0), self.scene.now);
        granted.expect("room");
    }

    /// As a connection does it: the policy first, then the result to the NAT.
    fn announce(&mut self, number: u128, name: usize, proxies: &[u8]) {
        let resource = ResourceId(Uuid::from_u128(number));
        let announced = AnnouncedName {
            domain: NAMES[name].into(),
            proxy_ips: proxies.iter().map(|number| proxy(*number)).collect(),
        };
        let changes = (self.policy).assign_proxies(resource, &announced, Announcer::Client);
        self.tell(&changes.unwrap_or_default());
    }

    fn tell(&mut self, changes: &[NameChange]) {
        let meanings: Vec<_> = changes.iter().filter_map(NameChange::meaning).collect();
        self.scene.tell(1, &meanings);
    }

    fn revoke(&mut self, number: u128) {
        let changes = self.policy.revoke(ResourceId(Uuid::from_u128(number)));
        self.tell(&changes.names);
        self.grant(number);
    }

    fn restart_connection(&mut self) {
        let published = self.policy.authorizations().clone();
        self.policy = Policy::restore(config(), &published, UnixTime(0), self.scene.now);
        self.repeat_names();
    }

    fn restart_nat(&mut self) {
        let (id, tunnel) = client(1);
        self.scene.nat.detach(id);
        self.scene.nat.attach(id, tunnel);
        self.repeat_names();
    }

    fn repeat_names(&mut self) {
        let names = self.policy.authorizations().names().values();
        let meanings = names.map(|proxied| NameMeaning {
            name: proxied.name.clone(),
            proxied: Some(proxied.clone()),
            announced_for: None,
        });
        let meanings: Vec<_> = meanings.collect();
        self.scene.tell(1, &meanings);
    }

    /// Sends a packet that carries the name it was admitted for.
    fn send(&mut self, number: u8) {
        let to = proxy(number);
        let judged_by = self.policy.proxied_name(to).map(ToString::to_string);
        let own = own_v4(1).parse().expect("an address");
        let shape = Shape::Udp { from: 4000, to: 53 };
        let bytes = packet(own, to, shape, judged_by.unwrap_or_default().as_bytes());
        let verdict = self
            .policy
            .inbound(&IpPacket::parse(&bytes).expect("valid"));
        if verdict == (Verdict::Forward { translate: true }) {
            let batch = crate::packet::PacketBatch::of(&bytes);
            self.scene.nat.handle_inbound(batch, self.scene.now);
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for bytes in self.scene.forwarded() {
            let packet = IpPacket::parse(&bytes).expect("valid");
            let judged_by = NAMES
                .iter()
                .position(|name| name.as_bytes() == &packet.segment()[8..])
                .expect("judged by a name");
            prop_assert_eq!(packet.destination().to_string(), real(judged_by));
        }
        for ip in (0..6).map(proxy) {
            let slot = self.scene.nat.clients.slot(client(1).0).expect("attached");
            let mapping = self.scene.nat.domains.find(slot, ip);
            let translated_by = mapping.and_then(|id| self.scene.nat.domains.name(id));
            prop_assert_eq!(self.policy.proxied_name(ip), translated_by, "{}", ip);
            let named = self.policy.authorizations().names().values();
            let named = named.filter(|name| name.proxy_ips.contains(&ip));
            let named: Vec<_> = named.map(|name| &name.name).collect();
            prop_assert_eq!(
                named,
                translated_by.into_iter().collect::<Vec<_>>(),
                "{}",
                ip
            );
        }
        Ok(())
    }
}

const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];

proptest! {
    #[test]
    fn never_translates_a_packet_for_another_name_than_admitted(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Announce(resource, name, proxies) => pair.announce(resource, name, &proxies),
                Step::Answer(name) => {
                    let ip = real(name);
                    pair.scene.answer(NAMES[name], AddressFamily::V4, Ok(&[&ip]));
                }
                Step::Packet(number) => pair.send(number),
                Step::Revoke(number) => pair.revoke(number),
                Step::RestartConnection => pair.restart_connection(),
                Step::RestartNat => pair.restart_nat(),
            }
            pair.check()?;
        }
    }
}
