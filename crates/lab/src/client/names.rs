//! Names of DNS resources: which proxy IPs stand for them, and what gateways were told.
//!
//! A core without IO. It is told the resources, what applications ask for, their packets and the
//! gateways' answers, and says what to announce to whom ([`Names::poll_announcement`], to be
//! drained after every call). It refuses to decide who may use a resource: that is the router's
//! business. A name keeps its proxy IPs for the life of the process, whatever becomes of its
//! resource. Source: docs/protocol.md 4, 5.4 and 5.5.

mod pattern;
mod proxies;

pub use proxies::{
    Domain, IPV4_RANGE, IPV4_SENTINELS, IPV6_RANGE, IPV6_SENTINELS, PER_FAMILY, ProxyIps,
};

use super::control::DomainStatus;
use super::wire::{GatewayId, ResourceId};
use pattern::Pattern;
use proxies::Pool;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the stub answers to a question for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These stand for the name.
    ProxyIps(ProxyIps),
    /// The name is a resource's, but too many names were asked for already.
    Full,
}

/// What becomes of a packet to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Send it.
    Pass,
    /// It is kept until the gateway has confirmed the name, or gives way to those that are.
    Held,
}

/// Something to tell a gateway now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Whom.
    pub gateway: GatewayId,
    /// Through which resource.
    pub resource: ResourceId,
    /// The name and what stands for it.
    pub domain: Domain,
    /// When a packet first wanted to go there.
    pub first_packet_at: Instant,
}

/// What a gateway's answer sets free.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// To be sent, oldest first; empty when the gateway does not serve the name.
    pub held: Vec<Vec<u8>>,
    /// When the gateway was last told of the name.
    pub announced_at: Instant,
    /// When a packet first wanted to go there.
    pub first_packet_at: Instant,
}

/// A name, as the control socket lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The name with what stands for it.
    #[serde(flatten)]
    pub domain: Domain,
    /// The resources that it belongs to, the narrowest first.
    pub resources: Vec<ResourceId>,
    /// What gateways were told and what they made of it.
    pub announced: Vec<ListedAnnouncement>,
}

/// How things stand between a name and a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedAnnouncement {
    /// Whom.
    pub gateway: GatewayId,
    /// Through which resource.
    pub resource: ResourceId,
    /// `pending`, `confirmed` or `failed`.
    pub state: &'static str,
    /// Packets that wait.
    pub held: usize,
}

/// How things stand between a name and a gateway; nothing is kept before the first packet.
#[derive(Debug)]
struct Announced {
    state: State,
    announced_at: Instant,
    first_packet_at: Instant,
}

#[derive(Debug)]
enum State {
    /// The gateway was told and has not answered. Without a queue the name was confirmed before,
    /// and packets go on.
    Pending(Option<Vec<Vec<u8>>>),
    /// The gateway serves it.
    Confirmed,
    /// The gateway does not serve it. Packets pass, for it to refuse them.
    Failed,
}

#[derive(Debug)]
struct Entry {
    proxy_ips: ProxyIps,
    /// The narrowest first, then the greater id.
    resources: Vec<ResourceId>,
    announced: BTreeMap<(GatewayId, ResourceId), Announced>,
}

/// All names that were asked for.
#[derive(Debug, Default)]
pub struct Names {
    patterns: BTreeMap<ResourceId, Pattern>,
    entries: BTreeMap<Arc<str>, Entry>,
    by_proxy_ip: BTreeMap<IpAddr, Arc<str>>,
    pool: Pool,
    /// What is to be announced. A set: telling a gateway the same thing twice at once is no use.
    due: BTreeSet<(Arc<str>, GatewayId, ResourceId)>,
}

impl Names {
    /// The resource now stands for the names that match this pattern.
    pub fn set_resource(&mut self, resource: ResourceId, pattern: &str) {
        let pattern = Pattern::new(pattern);
        if self.patterns.get(&resource) == Some(&pattern) {
            return;
        }
        self.patterns.insert(resource, pattern);
        self.sort_resources();
    }

    /// The resource is gone.
    pub fn remove_resource(&mut self, resource: ResourceId) {
        if self.patterns.remove(&resource).is_some() {
            self.sort_resources();
            self.forget_resource(resource);
        }
    }

    /// Whether there is any resource with names.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// What gateways were told of the resource's names no longer counts.
    pub fn forget_resource(&mut self, resource: ResourceId) {
        for entry in self.entries.values_mut() {
            entry.announced.retain(|(_, of), _| *of != resource);
        }
    }

    /// What the gateway was told no longer counts; packets that waited for it are lost.
    pub fn forget_gateway(&mut self, gateway: GatewayId) {
        for entry in self.entries.values_mut() {
            entry.announced.retain(|(to, _), _| *to != gateway);
        }
    }

    /// An application asks for the addresses of a name; `None` when no resource has it. Gateways
    /// that were told of the name are told again, so that they look it up again.
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
    #[must_use]
    pub fn resources_of(&self, name: &str) -> Vec<ResourceId> {
        matching(&self.patterns, name)
    }

    /// The name behind a proxy IP, with the resources that it belongs to, the narrowest first.
    #[must_use]
    pub fn behind(&self, proxy_ip: IpAddr) -> Option<(&Arc<str>, &[ResourceId])> {
        let name = self.by_proxy_ip.get(&proxy_ip)?;
        Some((name, &self.entries.get(name)?.resources))
    }

    /// The name with its proxy IPs, if it has any.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<Domain> {
        let entry = self.entries.get(name)?;
        Some(entry.domain(name))
    }

    /// A packet is to go to `name` through `gateway`, which serves `resource`. Announces the name
    /// when the gateway was not told, or did not answer for 2 s.
    pub fn handle_packet(
        &mut self,
        name: &Arc<str>,
        (gateway, resource): (GatewayId, ResourceId),
        packet: &[u8],
        now: Instant,
    ) -> Passage {
        let Some(entry) = self.entries.get_mut(name) else {
            return Passage::Pass;
        };
        let mut due = false;
        let announced = entry
            .announced
            .entry((gateway, resource))
            .or_insert_with(|| {
                due = true;
                Announced {
                    state: State::Pending(Some(Vec::new())),
                    announced_at: now,
                    first_packet_at: now,
                }
            });
        let State::Pending(held) = &mut announced.state else {
            return Passage::Pass;
        };
        if now.saturating_duration_since(announced.announced_at) >= ANNOUNCE_AGAIN_AFTER {
            announced.announced_at = now;
            due = true;
        }
        if due {
            self.due.insert((Arc::clone(name), gateway, resource));
        }
        let Some(held) = held else {
            return Passage::Pass;
        };
        if held.len() < HELD_PACKETS {
            held.push(packet.to_vec());
        }
        Passage::Held
    }

    /// A gateway says what it makes of a name. `None` when it was not told of it.
    pub fn handle_status(&mut self, gateway: GatewayId, status: &DomainStatus) -> Option<Settled> {
        let name = normal(&status.domain);
        let entry = self.entries.get_mut(name.as_str())?;
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
        Some(Settled {
            held,
            announced_at: announced.announced_at,
            first_packet_at: announced.first_packet_at,
        })
    }

    /// The gateway knows the name already, told by the portal (generation 0): it needs no
    /// announcement.
    pub fn assume_confirmed(
        &mut self,
        name: &str,
        (gateway, resource): (GatewayId, ResourceId),
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let announced = Announced {
            state: State::Confirmed,
            announced_at: now,
            first_packet_at: now,
        };
        entry.announced.insert((gateway, resource), announced);
    }

    /// What to announce next.
    pub fn poll_announcement(&mut self) -> Option<Announcement> {
        loop {
            let (name, gateway, resource) = self.due.pop_first()?;
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            // Gateway or resource may be gone again.
            if let Some(announced) = entry.announced.get(&(gateway, resource)) {
                return Some(Announcement {
                    gateway,
                    resource,
                    domain: entry.domain(&name),
                    first_packet_at: announced.first_packet_at,
                });
            }
        }
    }

    /// Everything, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = |(name, entry): (&Arc<str>, &Entry)| Listed {
            domain: entry.domain(name),
            resources: entry.resources.clone(),
            announced: entry.announced.iter().map(list_announced).collect(),
        };
        self.entries.iter().map(listed).collect()
    }

    /// `false` when there is no room.
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
    fn announce_again(&mut self, now: Instant) {
        self.announced_at = now;
        match self.state {
            State::Pending(_) => {}
            State::Confirmed => self.state = State::Pending(None),
            State::Failed => {
                self.first_packet_at = now;
                self.state = State::Pending(Some(Vec::new()));
            }
        }
    }
}

fn list_announced(
    ((gateway, resource), announced): (&(GatewayId, ResourceId), &Announced),
) -> ListedAnnouncement {
    let (state, held) = match &announced.state {
        State::Pending(held) => ("pending", held.as_ref().map_or(0, Vec::len)),
        State::Confirmed => ("confirmed", 0),
        State::Failed => ("failed", 0),
    };
    ListedAnnouncement {
        gateway: *gateway,
        resource: *resource,
        state,
        held,
    }
}

fn matching(patterns: &BTreeMap<ResourceId, Pattern>, name: &str) -> Vec<ResourceId> {
    let matches = patterns.iter().filter(|(_, pattern)| pattern.matches(name));
    let mut matches: Vec<_> = matches
        .map(|(id, pattern)| Reverse((pattern.specificity(), *id)))
        .collect();
    matches.sort_unstable();
    matches.into_iter().map(|Reverse((_, id))| id).collect()
}

/// A name as it is kept: lower case, without a trailing dot.
#[must_use]
pub fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Packets held for one name at one gateway (docs/protocol.md: at most 32). A full queue drops the
/// newest, so that a handshake's first packets survive.
const HELD_PACKETS: usize = 32;
/// A gateway that has not answered is told again by the next packet after so long (docs/protocol.md
/// 4.
const ANNOUNCE_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Names that are given proxy IPs; more than a person's applications ask for in a session.
const NAMES_MAX: usize = 16_384;

#[cfg(test)]
mod tests;
