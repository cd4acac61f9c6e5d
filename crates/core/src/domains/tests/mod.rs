//! The rules of names, by topic, and a harness to run them.

mod announcing;
mod day;
mod healing;
mod holding;
mod properties;
mod restoring;
mod routing;
mod watching;

use super::*;
use crate::authorizations::Announcer;
use crate::authorizations::testing::Entitled;
use crate::names::{DomainName, NameAnswer, NameFailure, ResolvedAddresses};
use crate::testing::beginning;

const NAME: &str = "app.lab.example";
const V4: AddressFamily = AddressFamily::V4;
const V6: AddressFamily = AddressFamily::V6;
const TTL: Duration = Duration::from_secs(60);
const CLIENT: ClientSlot = ClientSlot(1);

/// Whether the mapping still exists.
fn is_current(domains: &Domains, id: MappingId) -> bool {
    domains.epoch(id, V4).is_some()
}

/// A table of names with a manual clock.
struct World {
    domains: Domains,
    clients: BTreeMap<ClientSlot, Entitled>,
    now: Instant,
    lookups: Vec<bool>,
    statuses: Vec<(u128, String, bool)>,
    known: Vec<Vec<IpAddr>>,
}

impl World {
    fn new() -> Self {
        Self::with(DomainsConfig::default())
    }

    fn with(config: DomainsConfig) -> Self {
        let now = beginning();
        Self {
            domains: Domains::new(config, [7; 32], now),
            clients: BTreeMap::new(),
            now,
            lookups: Vec::new(),
            statuses: Vec::new(),
            known: Vec::new(),
        }
    }

    /// A table with one name that has these addresses, after its first lookup.
    fn resolved(ips: &[IpAddr]) -> (Self, MappingId) {
        let mut world = Self::new();
        let id = world.announce(NAME, 0);
        world.resolve(ips);
        world.lookups();
        world.statuses();
        (world, id)
    }

    /// A client announces set `number` of proxy IPs for a name.
    fn announce(&mut self, name: &str, number: u16) -> MappingId {
        self.announce_as(1, name, &proxies(number))
            .expect("it is entitled to")
    }

    fn announce_as(
        &mut self,
        resource: u128,
        domain: &str,
        proxy_ips: &[IpAddr],
    ) -> Result<MappingId, AssignError> {
        let entitled = self.clients.entry(CLIENT).or_default();
        let meanings = entitled.announce(resource, domain, proxy_ips);
        self.tell(CLIENT, domain, &meanings)
    }

    /// Another client announces `NAME`, or another name, with the first set of proxy IPs.
    fn announce_of(&mut self, client: u32, domain: &str) -> Result<MappingId, AssignError> {
        let client = ClientSlot(client);
        let entitled = self.clients.entry(client).or_default();
        let meanings = entitled.announce(1, domain, &proxies(0));
        self.tell(client, domain, &meanings)
    }

    fn tell(
        &mut self,
        client: ClientSlot,
        domain: &str,
        meanings: &[NameMeaning],
    ) -> Result<MappingId, AssignError> {
        for meaning in meanings {
            self.domains.handle_name(client, meaning, self.now)?;
        }
        let id = self.domains.find_name(client, &name(domain));
        Ok(id.expect("a mapping"))
    }

    fn release(&mut self, resource: u128) {
        let entitled = self.clients.entry(CLIENT).or_default();
        for meaning in entitled.release(resource) {
            let told = self.domains.handle_name(CLIENT, &meaning, self.now);
            told.expect("no further name");
        }
    }

    /// Advances the clock; timers fire when they are due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.domains.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a timer in the past");
            self.now = at;
            self.domains.handle_timeout(at);
            assert!(
                self.domains.poll_timeout().is_none_or(|next| next > at),
                "no progress"
            );
        }
        self.now = end;
    }

    fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// Answers both families with the addresses of each, or with a denial if there are none.
    fn resolve(&mut self, ips: &[IpAddr]) {
        for family in AddressFamily::ALL {
            let ips = ips.iter().copied();
            let ips: Vec<_> = ips.filter(|ip| AddressFamily::of(*ip) == family).collect();
            match ips.is_empty() {
                true => self.answer(family, Err(NameFailure::NoData)),
                false => self.answer(family, Ok(ips)),
            }
        }
    }

    fn fail(&mut self, failure: NameFailure) {
        for family in AddressFamily::ALL {
            self.answer(family, Err(failure));
        }
    }

    fn answer(&mut self, family: AddressFamily, outcome: Result<Vec<IpAddr>, NameFailure>) {
        let name = name(NAME);
        let outcome = outcome.map(|ips| ResolvedAddresses { ips, ttl: TTL });
        let answer = NameAnswer {
            name,
            family,
            outcome,
            from_cache: false,
        };
        self.domains.handle_answer(&answer, self.now);
    }

    /// An answer from the cache that another client received.
    fn answer_from_cache(&mut self, family: AddressFamily, ips: Vec<IpAddr>) {
        let answer = NameAnswer {
            name: name(NAME),
            family,
            outcome: Ok(ResolvedAddresses { ips, ttl: TTL }),
            from_cache: true,
        };
        self.domains.handle_answer(&answer, self.now);
    }

    fn drain(&mut self) {
        while let Some(event) = self.domains.poll_event() {
            match event {
                DomainsEvent::Resolve { refresh, .. } => self.lookups.push(refresh),
                DomainsEvent::NameKnown { ips, .. } => self.known.push(ips),
                DomainsEvent::Status {
                    resource,
                    domain,
                    active,
                    ..
                } => self.statuses.push((resource.0.as_u128(), domain, active)),
            }
        }
    }

    /// The lookups since the last call: whether each was a refresh.
    fn lookups(&mut self) -> Vec<bool> {
        self.drain();
        std::mem::take(&mut self.lookups)
    }

    /// The statuses since the last call: resource, domain, active.
    fn statuses(&mut self) -> Vec<(u128, String, bool)> {
        self.drain();
        std::mem::take(&mut self.statuses)
    }

    /// The address reports since the last call, in order.
    fn known(&mut self) -> Vec<Vec<IpAddr>> {
        self.drain();
        std::mem::take(&mut self.known)
    }

    fn route(&mut self, id: MappingId, proxy_ip: IpAddr) -> Route {
        self.domains.route(id, proxy_ip, self.now)
    }

    /// The real address of a proxy IP.
    fn real(&mut self, id: MappingId, proxy_ip: IpAddr) -> IpAddr {
        match self.route(id, proxy_ip) {
            Route::To { real, .. } => real,
            other @ (Route::Hold | Route::Unreachable) => panic!("{other:?}"),
        }
    }

    /// Sends a packet to a proxy IP; returns its real address.
    fn send(&mut self, id: MappingId, proxy_ip: IpAddr, sent: Sent) -> IpAddr {
        let real = self.real(id, proxy_ip);
        self.domains.note_inbound(id, real, sent, self.now);
        real
    }

    fn reply(&mut self, id: MappingId, real: IpAddr, newly_confirmed: bool) {
        self.domains
            .note_outbound(id, real, newly_confirmed, self.now);
    }

    /// The epoch of the IPv4 family.
    fn epoch(&self, id: MappingId) -> u32 {
        self.domains.epoch(id, V4).expect("it is current")
    }

    fn released(&mut self) -> Vec<(Vec<u8>, HeldOutcome)> {
        let released = std::iter::from_fn(|| self.domains.poll_released());
        released.map(|held| (held.bytes, held.outcome)).collect()
    }
}

fn name(text: &str) -> DomainName {
    text.parse().expect("a name")
}

/// IPv4 proxy IP `place` of set `number`.
fn proxy_v4(number: u16, place: u16) -> IpAddr {
    let [high, low] = (number * 4 + place + 1).to_be_bytes();
    [100, 96, high, low].into()
}

/// IPv6 proxy IP `place` of set `number`.
fn proxy_v6(number: u16, place: u16) -> IpAddr {
    [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, number * 4 + place].into()
}

/// Four of each family, numbered as clients do.
fn proxies(number: u16) -> Vec<IpAddr> {
    let v4 = (0..4).map(|place| proxy_v4(number, place));
    v4.chain((0..4).map(|place| proxy_v6(number, place)))
        .collect()
}

fn v4(last: u8) -> IpAddr {
    [10, 20, 0, last].into()
}

fn v6(last: u16) -> IpAddr {
    [0xfd00, 0x20, 0, 0, 0, 0, 0, last].into()
}
