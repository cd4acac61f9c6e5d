//! Names of DNS resources: their proxy IPs and their announcements to gateways.
//!
//! A core without IO. Receives the resources, the queries and packets of applications and the
//! answers of gateways; returns announcements ([`Names::poll_announcement`], to be drained after
//! every call). The router decides about access to a resource. A name keeps its proxy IPs while the
//! process runs, even when its resource is gone. Source: docs/protocol.md 4, 5.4 and 5.5.

mod pattern;
mod proxies;

pub use super::vocabulary::Domain;
pub use proxies::ProxyIps;

use super::vocabulary::{DomainStatus, GatewayId, ResourceId};
use pattern::Pattern;
use proxies::Pool;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stub's answer to a query for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    ProxyIps(ProxyIps),
    /// The name belongs to a resource, but the table of names is full.
    Full,
}

/// A name that the client must announce to a gateway now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub gateway: GatewayId,
    pub resource: ResourceId,
    pub domain: Domain,
    /// Arrival of the first packet for the name.
    pub first_packet_at: Instant,
}

/// The effect of a gateway's answer to an announcement.
#[derive(Debug, PartialEq, Eq)]
pub struct AnnouncementOutcome {
    /// Packets to send, oldest first; empty when the gateway does not serve the name.
    pub held: Vec<Vec<u8>>,
    /// Time of the last announcement.
    pub announced_at: Instant,
    /// Arrival of the first packet for the name.
    pub first_packet_at: Instant,
}

/// A name in the list of the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameReport {
    #[serde(flatten)]
    pub domain: Domain,
    /// The resources that the name belongs to, the narrowest first.
    pub resources: Vec<ResourceId>,
    pub announced: Vec<AnnouncementReport>,
}

/// An announcement in the list of the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnnouncementReport {
    pub gateway: GatewayId,
    pub resource: ResourceId,
    /// `pending`, `confirmed` or `failed`.
    pub state: &'static str,
    /// Number of packets that wait.
    pub held: usize,
}

/// The announcement of a name to a gateway; exists from the first packet on.
#[derive(Debug)]
struct Announced {
    state: State,
    announced_at: Instant,
    first_packet_at: Instant,
}

#[derive(Debug)]
enum State {
    /// The gateway has not answered. Without a queue it had confirmed the name before, and packets
    /// pass.
    Pending(Option<Vec<Vec<u8>>>),
    /// The gateway serves the name.
    Confirmed,
    /// The gateway does not serve the name. Packets pass, and the gateway refuses them.
    Failed,
}

#[derive(Debug)]
struct Entry {
    proxy_ips: ProxyIps,
    /// The narrowest first, then the greater id.
    resources: Vec<ResourceId>,
    announced: BTreeMap<(GatewayId, ResourceId), Announced>,
}

/// All names for which there was a query.
#[derive(Debug, Default)]
pub struct Names {
    patterns: BTreeMap<ResourceId, Pattern>,
    entries: BTreeMap<Arc<str>, Entry>,
    by_proxy_ip: BTreeMap<IpAddr, Arc<str>>,
    pool: Pool,
    /// Announcements to send. A set: an immediate repetition has no use.
    due: BTreeSet<(Arc<str>, GatewayId, ResourceId)>,
}

impl Names {
    /// Adds the resource, or changes its pattern.
    pub fn set_resource(&mut self, resource: ResourceId, pattern: &str) {
        let pattern = Pattern::new(pattern);
        if self.patterns.get(&resource) != Some(&pattern) {
            self.patterns.insert(resource, pattern);
            self.sort_resources();
        }
    }

    pub fn remove_resource(&mut self, resource: ResourceId) {
        if self.patterns.remove(&resource).is_some() {
            self.sort_resources();
            self.forget_resource(resource);
        }
    }

    pub fn has_resources(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Forgets the announcements for the resource, with the packets that wait for them.
    pub fn forget_resource(&mut self, resource: ResourceId) {
        for entry in self.entries.values_mut() {
            entry.announced.retain(|(_, of), _| *of != resource);
        }
    }

    /// Forgets the announcements to the gateway, with the packets that wait for them.
    pub fn forget_gateway(&mut self, gateway: GatewayId) {
        for entry in self.entries.values_mut() {
            entry.announced.retain(|(to, _), _| *to != gateway);
        }
    }

    /// Handles an application's query for the addresses of a name; `None` when no resource has it.
    /// Repeats earlier announcements of the name, so that gateways resolve it again.
    pub fn handle_question(&mut self, name: &str, now: Instant) -> Option<Answer> {
        let resources = self.resources_of(name);
        if resources.is_empty() {
            return None;
        }
        if !self.entries.contains_key(name) && !self.add(name, resources) {
            return Some(Answer::Full);
        }
        let (name, entry) = (Arc::<str>::from(name), self.entries.get_mut(name)?);
        for ((gateway, resource), announced) in &mut entry.announced {
            announced.announce_again(now);
            self.due.insert((Arc::clone(&name), *gateway, *resource));
        }
        Some(Answer::ProxyIps(entry.proxy_ips))
    }

    /// The resources that a name belongs to, the narrowest first.
    pub fn resources_of(&self, name: &str) -> Vec<ResourceId> {
        matching(&self.patterns, name)
    }

    /// The name behind a proxy IP, with the resources that it belongs to, the narrowest first.
    pub fn behind(&self, proxy_ip: IpAddr) -> Option<(&Arc<str>, &[ResourceId])> {
        let name = self.by_proxy_ip.get(&proxy_ip)?;
        Some((name, &self.entries.get(name)?.resources))
    }

    /// The name with its proxy IPs, if it has any.
    pub fn domain(&self, name: &str) -> Option<Domain> {
        let entry = self.entries.get(name)?;
        Some(entry.domain(name))
    }

    /// Handles a packet to `name` through `gateway`, which serves `resource`: holds it while the
    /// gateway has not confirmed the name. Announces the name with the first packet, and again with
    /// a packet after 2 s without an answer. `true`: the packet is held, or lost to a full queue;
    /// `false`: it may be sent.
    pub fn hold_unconfirmed(
        &mut self,
        name: &Arc<str>,
        (gateway, resource): (GatewayId, ResourceId),
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        let (announced, is_new) = match entry.announced.entry((gateway, resource)) {
            MapEntry::Occupied(known) => (known.into_mut(), false),
            MapEntry::Vacant(vacant) => {
                let state = State::Pending(Some(Vec::new()));
                (vacant.insert(Announced::new(state, now)), true)
            }
        };
        let State::Pending(held) = &mut announced.state else {
            return false;
        };
        let elapsed = now.saturating_duration_since(announced.announced_at);
        if is_new || elapsed >= ANNOUNCE_AGAIN_AFTER {
            announced.announced_at = now;
            self.due.insert((Arc::clone(name), gateway, resource));
        }
        let Some(held) = held else {
            return false;
        };
        if held.len() < HELD_PACKETS {
            held.push(packet.to_vec());
        }
        true
    }

    /// Handles a gateway's answer to an announcement. `None` without such an announcement.
    pub fn handle_status(
        &mut self,
        gateway: GatewayId,
        status: &DomainStatus,
    ) -> Option<AnnouncementOutcome> {
        let name = status.domain.strip_suffix('.').unwrap_or(&status.domain);
        let entry = self.entries.get_mut(name.to_ascii_lowercase().as_str())?;
        let announced = entry.announced.get_mut(&(gateway, status.resource))?;
        let state = if status.active {
            State::Confirmed
        } else {
            State::Failed
        };
        let held = match std::mem::replace(&mut announced.state, state) {
            State::Pending(Some(held)) if status.active => held,
            State::Pending(_) | State::Confirmed | State::Failed => Vec::new(),
        };
        Some(AnnouncementOutcome {
            held,
            announced_at: announced.announced_at,
            first_packet_at: announced.first_packet_at,
        })
    }

    /// Marks the name as confirmed without an announcement: the gateway knows it from the portal
    /// (generation 0).
    pub fn assume_confirmed(&mut self, name: &str, route: (GatewayId, ResourceId), now: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            let announced = Announced::new(State::Confirmed, now);
            entry.announced.insert(route, announced);
        }
    }

    /// The next announcement to send.
    pub fn poll_announcement(&mut self) -> Option<Announcement> {
        loop {
            let (name, gateway, resource) = self.due.pop_first()?;
            // Gateway or resource may be gone by now.
            if let Some(entry) = self.entries.get(&name)
                && let Some(announced) = entry.announced.get(&(gateway, resource))
            {
                return Some(Announcement {
                    gateway,
                    resource,
                    domain: entry.domain(&name),
                    first_packet_at: announced.first_packet_at,
                });
            }
        }
    }

    /// All names in alphabetical order, for the control socket.
    pub fn list(&self) -> Vec<NameReport> {
        let report = |(name, entry): (&Arc<str>, &Entry)| NameReport {
            domain: entry.domain(name),
            resources: entry.resources.clone(),
            announced: entry.announced.iter().map(report_announced).collect(),
        };
        self.entries.iter().map(report).collect()
    }

    /// Gives the name proxy IPs; `false` when there is no room.
    fn add(&mut self, name: &str, resources: Vec<ResourceId>) -> bool {
        if self.entries.len() >= NAMES_MAX {
            return false;
        }
        let Some(proxy_ips) = self.pool.take() else {
            return false;
        };
        let name = Arc::<str>::from(name);
        for ip in proxy_ips.iter() {
            self.by_proxy_ip.insert(ip, Arc::clone(&name));
        }
        let entry = Entry {
            proxy_ips,
            resources,
            announced: BTreeMap::new(),
        };
        self.entries.insert(name, entry);
        true
    }

    fn sort_resources(&mut self) {
        for (name, entry) in &mut self.entries {
            entry.resources = matching(&self.patterns, name);
        }
    }
}

impl Entry {
    fn domain(&self, name: &str) -> Domain {
        Domain {
            name: name.to_owned(),
            proxy_ips: self.proxy_ips.iter().collect(),
        }
    }
}

impl Announced {
    fn new(state: State, now: Instant) -> Self {
        Self {
            state,
            announced_at: now,
            first_packet_at: now,
        }
    }

    fn announce_again(&mut self, now: Instant) {
        self.announced_at = now;
        match self.state {
            State::Pending(_) => {}
            State::Confirmed => self.state = State::Pending(None),
            State::Failed => *self = Self::new(State::Pending(Some(Vec::new())), now),
        }
    }
}

fn report_announced(
    ((gateway, resource), announced): (&(GatewayId, ResourceId), &Announced),
) -> AnnouncementReport {
    let (state, held) = match &announced.state {
        State::Pending(held) => ("pending", held.as_ref().map_or(0, Vec::len)),
        State::Confirmed => ("confirmed", 0),
        State::Failed => ("failed", 0),
    };
    AnnouncementReport {
        gateway: *gateway,
        resource: *resource,
        state,
        held,
    }
}

fn matching(patterns: &BTreeMap<ResourceId, Pattern>, name: &str) -> Vec<ResourceId> {
    let matches = patterns.iter().filter(|(_, pattern)| pattern.matches(name));
    let ranked = matches.map(|(id, pattern)| Reverse((pattern.specificity(), *id)));
    let ranked: BTreeSet<_> = ranked.collect();
    ranked.into_iter().map(|Reverse((_, id))| id).collect()
}

/// Packets held for one name at one gateway (docs/protocol.md 4). A full queue drops the newest, so
/// that a handshake's first packets survive.
const HELD_PACKETS: usize = 32;
/// Pause before a packet repeats an unanswered announcement (docs/protocol.md 4).
const ANNOUNCE_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Limit of names with proxy IPs; more than a person's applications query in a session.
const NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
