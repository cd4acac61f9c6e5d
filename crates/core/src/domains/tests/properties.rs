//! Properties that hold after any sequence of events.

use super::family::IN_USE;
use super::mapping::LOOKUP_LOST;
use super::*;
use crate::authorizations::Announced;
use crate::ids::ResourceId;
use crate::names::DomainName;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

const CONFIG: DomainsConfig = DomainsConfig {
    mappings_per_client: 3,
    mappings: 5,
    held_packets: 4,
    held_bytes: 100,
    held_bytes_of_client: 130,
    held_bytes_in_all: 150,
    hold_for: Duration::from_secs(2),
    last_known_good: Duration::from_secs(60),
};

/// An event. Its numbers select from a few clients, names, resources, sets of proxy IPs and
/// addresses.
#[derive(Clone, Debug)]
enum Step {
    Assign {
        client: u32,
        name: u8,
        set: u16,
        resource: u128,
        families: u8,
    },
    Release {
        client: u32,
        resource: u128,
    },
    RemoveClient {
        client: u32,
    },
    Answer {
        name: u8,
        family: AddressFamily,
        outcome: Result<Vec<u8>, NameFailure>,
    },
    Packet {
        client: u32,
        proxy_ip: IpAddr,
        sent: Sent,
        length: usize,
    },
    Outbound {
        client: u32,
        proxy_ip: IpAddr,
        newly_confirmed: bool,
    },
    Icmp {
        client: u32,
        proxy_ip: IpAddr,
        is_unreachable: bool,
    },
    Pass {
        ms: u64,
    },
}

fn proxy_ip() -> impl Strategy<Value = IpAddr> {
    (0u16..4, 0u16..4, any::<bool>()).prop_map(|(set, place, is_v4)| match is_v4 {
        true => proxy_v4(set, place),
        false => proxy_v6(set, place),
    })
}

fn outcome() -> impl Strategy<Value = Result<Vec<u8>, NameFailure>> {
    let failures = [
        NameFailure::NoSuchName,
        NameFailure::NoData,
        NameFailure::ServerFailure,
        NameFailure::Timeout,
        NameFailure::Network,
        NameFailure::Quota,
    ];
    prop_oneof![
        proptest::sample::subsequence(vec![1, 2, 3, 4], 1..=3).prop_map(Ok),
        proptest::sample::select(failures.to_vec()).prop_map(Err),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 1u32..=2;
    let sent = proptest::sample::select(vec![Sent::Syn, Sent::Unconfirmed, Sent::Confirmed]);
    let family = proptest::sample::select(AddressFamily::ALL.to_vec());
    prop_oneof![
        3 => (client(), 0u8..4, 0u16..4, 1u128..4, 1u8..4).prop_map(
            |(client, name, set, resource, families)| Step::Assign {
                client, name, set, resource, families,
            }
        ),
        1 => (client(), 1u128..4).prop_map(|(client, resource)| Step::Release { client, resource }),
        1 => client().prop_map(|client| Step::RemoveClient { client }),
        6 => (0u8..4, family, outcome()).prop_map(|(name, family, outcome)| Step::Answer {
            name, family, outcome,
        }),
        12 => (client(), proxy_ip(), sent, 20usize..60).prop_map(
            |(client, proxy_ip, sent, length)| Step::Packet { client, proxy_ip, sent, length }
        ),
        3 => (client(), proxy_ip(), any::<bool>()).prop_map(
            |(client, proxy_ip, newly_confirmed)| Step::Outbound {
                client, proxy_ip, newly_confirmed,
            }
        ),
        2 => (client(), proxy_ip(), any::<bool>()).prop_map(
            |(client, proxy_ip, is_unreachable)| Step::Icmp { client, proxy_ip, is_unreachable }
        ),
        8 => prop_oneof![0u64..2000, 0u64..30_000].prop_map(|ms| Step::Pass { ms }),
    ]
}

fn name_of(number: u8) -> DomainName {
    name(&format!("name{number}.lab.example"))
}

/// Address `number` of a name; names share no address.
fn address(name: u8, family: AddressFamily, number: u8) -> IpAddr {
    match family {
        V4 => [10, 20, name, number].into(),
        V6 => [0xfd00, 0x20, 0, 0, 0, 0, u16::from(name), u16::from(number)].into(),
    }
}

/// The expected state of a mapping.
#[derive(Debug)]
struct Expected {
    id: MappingId,
    resources: BTreeSet<u128>,
    proxy_ips: [BTreeSet<IpAddr>; 2],
    /// What the DNS last named since the mapping exists.
    named: [Vec<IpAddr>; 2],
    /// The lookup in progress.
    asked: Option<(Instant, [bool; 2])>,
    /// When it was last announced, and when a packet was last sent.
    announced_at: Instant,
    last_packet: Option<Instant>,
}

/// What a name means; without `expected`, it is gone.
fn meaning(name: u8, expected: Option<&Expected>, announced_for: Option<u128>) -> NameMeaning {
    let (name, id) = (name_of(name), |number| ResourceId(Uuid::from_u128(number)));
    let announced = Announced {
        domain: "as announced".into(),
        by: Announcer::Client,
    };
    let proxied = expected.map(|it| ProxiedName {
        name: name.clone(),
        proxy_ips: it.proxy_ips.iter().flatten().copied().collect(),
        resources: it
            .resources
            .iter()
            .map(|it| (id(*it), announced.clone()))
            .collect(),
    });
    NameMeaning {
        name,
        proxied: proxied.map(Arc::new),
        announced_for: announced_for.map(id),
    }
}

/// The expected mappings beside the table under test.
struct Model {
    domains: Domains,
    now: Instant,
    mappings: BTreeMap<(u32, u8), Expected>,
    held: usize,
    released: usize,
}

impl Model {
    fn new() -> Self {
        let now = beginning();
        Self {
            domains: Domains::new(CONFIG, [5; 32], now),
            now,
            mappings: BTreeMap::new(),
            held: 0,
            released: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign {
                client,
                name,
                set,
                resource,
                families,
            } => {
                let ips = proxies(set).into_iter();
                let is_named = |ip: &IpAddr| families & (1 << AddressFamily::of(*ip) as u8) != 0;
                self.assign(
                    (client, name),
                    resource,
                    &ips.filter(is_named).collect::<Vec<_>>(),
                );
            }
            Step::Release { client, resource } => self.release(client, resource),
            Step::RemoveClient { client } => {
                self.domains.remove_client(ClientSlot(client));
                self.mappings.retain(|(owner, _), _| *owner != client);
            }
            Step::Answer {
                name,
                family,
                outcome,
            } => self.answer(name, family, outcome),
            Step::Packet {
                client,
                proxy_ip,
                sent,
                length,
            } => {
                self.packet(client, proxy_ip, sent, length);
            }
            Step::Outbound {
                client,
                proxy_ip,
                newly_confirmed,
            } => {
                if let Some((id, real)) = self.any_address(client, proxy_ip) {
                    self.domains
                        .note_outbound(id, real, newly_confirmed, self.now);
                }
            }
            Step::Icmp {
                client,
                proxy_ip,
                is_unreachable,
            } => match (self.any_address(client, proxy_ip), is_unreachable) {
                (Some((id, real)), true) => self.domains.note_unreachable(id, real, self.now),
                (Some((id, real)), false) => {
                    self.domains.note_answer_by_icmp(id, real, self.now);
                }
                (None, _) => {}
            },
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
        }
        self.drain();
        self.check();
    }

    fn release(&mut self, client: u32, resource: u128) {
        let mut changed = Vec::new();
        for (key, it) in self.mappings.iter_mut().filter(|(key, _)| key.0 == client) {
            if it.resources.remove(&resource) {
                changed.push(*key);
            }
        }
        for key in changed {
            let it = &self.mappings[&key];
            let is_gone = it.resources.is_empty();
            let meaning = meaning(key.1, (!is_gone).then_some(it), None);
            let told = self
                .domains
                .handle_name(ClientSlot(client), &meaning, self.now);
            assert_eq!(told, Ok(()));
            self.mappings.retain(|other, _| !(is_gone && *other == key));
        }
    }

    fn assign(&mut self, key: (u32, u8), resource: u128, ips: &[IpAddr]) {
        let client = ClientSlot(key.0);
        let overlaps = |it: &Expected| {
            ips.iter()
                .any(|ip| it.proxy_ips.iter().any(|s| s.contains(ip)))
        };
        let is_reset =
            |other: &(u32, u8), it: &Expected| other.0 == key.0 && *other != key && overlaps(it);
        let reset = self
            .mappings
            .extract_if(.., |other, it| is_reset(other, it));
        for ((_, name), _) in reset.collect::<Vec<_>>() {
            let gone = meaning(name, None, None);
            assert_eq!(self.domains.handle_name(client, &gone, self.now), Ok(()));
        }
        let of_client = self
            .mappings
            .keys()
            .filter(|(client, _)| *client == key.0)
            .count();
        let is_known = self.mappings.contains_key(&key);
        let is_full = !is_known
            && (of_client >= CONFIG.mappings_per_client || self.mappings.len() >= CONFIG.mappings);
        let now = self.now;
        let expected = self.mappings.entry(key).or_insert_with(|| Expected {
            id: MappingId {
                index: u32::MAX,
                generation: 0,
            },
            resources: BTreeSet::new(),
            proxy_ips: Default::default(),
            named: Default::default(),
            asked: None,
            announced_at: now,
            last_packet: None,
        });
        expected.announced_at = now;
        expected.resources.insert(resource);
        for family in AddressFamily::ALL {
            let ips = ips.iter().copied();
            let ips: BTreeSet<_> = ips.filter(|ip| AddressFamily::of(*ip) == family).collect();
            if !ips.is_empty() {
                expected.proxy_ips[family as usize] = ips;
            }
        }
        let meaning = meaning(key.1, Some(expected), Some(resource));
        let told = self.domains.handle_name(client, &meaning, now);
        assert_eq!(told.is_err(), is_full, "{told:?}");
        let Some(id) = self.domains.find_name(client, &meaning.name) else {
            self.mappings.remove(&key);
            return assert!(is_full);
        };
        assert!(!is_known || expected.id == id, "the mapping is kept");
        expected.id = id;
    }

    fn answer(&mut self, name: u8, family: AddressFamily, outcome: Result<Vec<u8>, NameFailure>) {
        let ips = outcome.map(|it| it.into_iter().map(|n| address(name, family, n)).collect());
        let answer = NameAnswer {
            name: name_of(name),
            family,
            outcome: ips.map(|ips: Vec<_>| ResolvedAddresses { ips, ttl: TTL }),
            from_cache: false,
        };
        for (_, it) in self.mappings.iter_mut().filter(|((_, of), _)| *of == name) {
            if let Ok(resolved) = &answer.outcome {
                it.named[family as usize] = resolved.ips.clone();
            }
            if let Some((_, awaited)) = &mut it.asked {
                awaited[family as usize] = false;
            }
            it.asked = it.asked.filter(|(_, awaited)| *awaited != [false; 2]);
        }
        self.domains.handle_answer(&answer, self.now);
    }

    fn packet(&mut self, client: u32, proxy_ip: IpAddr, sent: Sent, length: usize) {
        let Some(id) = self.domains.find(ClientSlot(client), proxy_ip) else {
            return;
        };
        let now = self.now;
        let it = self
            .mappings
            .values_mut()
            .find(|it| it.id == id)
            .expect("it is expected");
        it.last_packet = Some(now);
        match self.domains.route(id, proxy_ip, now) {
            Route::To { real, epoch } => {
                let family = AddressFamily::of(proxy_ip);
                assert!(
                    it.named[family as usize].contains(&real),
                    "{real} was not named"
                );
                assert_eq!(self.domains.epoch(id, family), Some(epoch));
                self.domains.note_new_flow(id, real, now);
                self.domains.note_inbound(id, real, sent, now);
            }
            Route::Hold => {
                let mut packet = vec![0; length];
                packet[0] = if proxy_ip.is_ipv4() { 0x45 } else { 0x60 };
                let result = self.domains.hold(id, &packet, now);
                self.held += usize::from(result.is_ok());
            }
            Route::Unreachable => {}
        }
    }

    /// An address of the proxy IP's name, named now or not.
    fn any_address(&self, client: u32, proxy_ip: IpAddr) -> Option<(MappingId, IpAddr)> {
        let id = self.domains.find(ClientSlot(client), proxy_ip)?;
        let ((_, name), _) = self.mappings.iter().find(|(_, it)| it.id == id)?;
        Some((id, address(*name, AddressFamily::of(proxy_ip), 1)))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.domains.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            for it in self.mappings.values_mut() {
                it.asked = it
                    .asked
                    .filter(|(since, _)| self.now - *since < LOOKUP_LOST);
            }
            self.domains.handle_timeout(self.now);
            self.drain();
            let next = self.domains.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a busy loop");
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(event) = self.domains.poll_event() {
            let DomainsEvent::Resolve { client, name, .. } = event else {
                continue;
            };
            let is_it = |key: &(u32, u8)| key.0 == client.0 && name_of(key.1) == name;
            let found = self.mappings.iter_mut().find(|(key, _)| is_it(key));
            let (_, it) = found.expect("only mapped names are asked for");
            assert_eq!(it.asked, None, "one lookup at a time");
            it.asked = Some((self.now, [true; 2]));
            let is_recent = |at: Option<Instant>| at.is_some_and(|at| self.now - at <= IN_USE);
            assert!(
                is_recent(it.last_packet) || it.announced_at == self.now,
                "the name is unused"
            );
        }
        self.released += std::iter::from_fn(|| self.domains.poll_released()).count();
        self.released += self.domains.take_drops().total() as usize;
    }

    fn check(&self) {
        assert_eq!(self.domains.mappings(), self.mappings.len());
        assert!(self.mappings.len() <= CONFIG.mappings);
        assert!(self.domains.held_bytes() <= CONFIG.held_bytes_in_all);
        for ((client, _), it) in &self.mappings {
            assert!(is_current(&self.domains, it.id), "it was lost: {it:?}");
            for ip in it.proxy_ips.iter().flatten() {
                assert_eq!(self.domains.find(ClientSlot(*client), *ip), Some(it.id));
            }
        }
        let known = self.mappings.iter();
        let proxies_in_use: usize = known
            .map(|(_, it)| it.proxy_ips.iter().map(BTreeSet::len).sum::<usize>())
            .sum();
        let found = (1..=2).flat_map(|client| (0..4).flat_map(proxies).map(move |ip| (client, ip)));
        let found =
            found.filter(|(client, ip)| self.domains.find(ClientSlot(*client), *ip).is_some());
        assert_eq!(
            found.count(),
            proxies_in_use,
            "a proxy IP that leads nowhere"
        );
    }
}

proptest! {
    #[test]
    fn rules_hold_after_any_sequence_of_events(steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.step(Step::Pass { ms: 30_000 });
        prop_assert_eq!(model.held, model.released, "each held packet has one fate");
        prop_assert_eq!(model.domains.held_bytes(), 0);
    }

    #[test]
    fn the_same_seed_and_steps_give_the_same_waits(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut models = [Model::new(), Model::new()];
        let begin = models[0].now;
        models[1].now = begin;
        models[1].domains = Domains::new(CONFIG, [5; 32], begin);
        for step in steps {
            for model in &mut models {
                model.step(step.clone());
            }
            prop_assert_eq!(models[0].domains.poll_timeout(), models[1].domains.poll_timeout());
        }
    }
}
