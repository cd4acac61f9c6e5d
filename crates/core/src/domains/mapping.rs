//! One name of one client: its proxy IPs, its addresses and its lookup in progress.

use super::explain::MappingFacts;
use super::family::{Family, LookupSource};
use super::held::HeldPackets;
use super::known::Restored;
use super::{ClientSlot, MappingId};
use super::{Context, DomainsEvent, HeldOutcome, HeldPacket, Route};
use crate::DropReason;
use crate::authorizations::{Announcer, ProxiedName};
use crate::ids::ResourceId;
use crate::names::{AddressFamily, DomainName, NameAnswer, NameFailure};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A lookup without an answer after this time has failed, because the resolver is gone. Longer than
/// any lookup takes.
pub(super) const LOOKUP_LOST: Duration = Duration::from_secs(12);

/// Minimum time between lookups for announcements.
pub(super) const ANNOUNCED_PAUSE: Duration = Duration::from_secs(1);

/// A name of a client. Exists from the moment its proxy IPs are known, resolved or not.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Set when the mapping is added to the table.
    pub(super) id: MappingId,
    pub(super) client: ClientSlot,
    /// What the name means to its client.
    proxied: Arc<ProxiedName>,
    /// Its proxy IPs by family, sorted, without duplicates.
    pub(super) proxy_ips: [Vec<IpAddr>; 2],
    /// The last status sent to the client inside the tunnel, by resource (docs/lessons.md 18).
    reported_active: BTreeMap<ResourceId, bool>,
    /// When it was last announced or used by a packet in either direction.
    pub(super) used_at: Instant,
    /// The timer that is set for the mapping.
    pub(super) armed: Option<Instant>,
    families: [Family; 2],
    lookup: Option<Lookup>,
    announced_at: Option<Instant>,
    held: HeldPackets,
}

#[derive(Debug)]
struct Lookup {
    since: Instant,
    is_refresh: bool,
    /// By family: whether the answer is missing.
    awaited: [bool; 2],
}

impl Mapping {
    pub(super) fn new(client: ClientSlot, proxied: Arc<ProxiedName>, now: Instant) -> Self {
        Self {
            id: MappingId {
                index: u32::MAX,
                generation: 0,
            },
            client,
            proxied,
            proxy_ips: Default::default(),
            reported_active: BTreeMap::new(),
            used_at: now,
            armed: None,
            families: Default::default(),
            lookup: None,
            announced_at: None,
            held: HeldPackets::default(),
        }
    }

    pub(super) fn name(&self) -> &DomainName {
        &self.proxied.name
    }

    pub(super) fn family(&mut self, family: AddressFamily) -> &mut Family {
        &mut self.families[family as usize]
    }

    pub(super) fn epoch(&self, family: AddressFamily) -> u32 {
        self.families[family as usize].addresses.epoch()
    }

    pub(super) fn epochs(&self) -> [u32; 2] {
        AddressFamily::ALL.map(|family| self.epoch(family))
    }

    /// The facts about the name for a diagnosis.
    pub(super) fn explain(&self, now: Instant) -> MappingFacts {
        let (packets, _) = self.held();
        MappingFacts {
            name: self.proxied.name.clone(),
            proxy_ips: self.proxy_ips.clone(),
            families: AddressFamily::ALL.map(|it| self.families[it as usize].explain(now)),
            asking: (self.lookup.as_ref()).map(|it| now.saturating_duration_since(it.since)),
            held_packets: packets,
        }
    }

    /// The addresses in the order of the proxy IPs, ignoring shunning.
    pub(super) fn order(&self, family: AddressFamily) -> Vec<IpAddr> {
        self.families[family as usize].addresses.order()
    }

    /// The proxy IPs that map to `real` if it is not shunned.
    pub(super) fn proxy_ips_to(&self, real: IpAddr) -> Vec<IpAddr> {
        let family = AddressFamily::of(real);
        let addresses = &self.families[family as usize].addresses;
        if !addresses.contains(real) {
            return Vec::new();
        }
        let order = addresses.order();
        let proxy_ips = self.proxy_ips[family as usize].iter().copied();
        let real_of = order.iter().cycle();
        let leads = proxy_ips.zip(real_of).filter(|(_, to)| **to == real);
        leads.map(|(proxy_ip, _)| proxy_ip).collect()
    }

    /// Takes over addresses from before a rebuild if there are none. Returns whether it did.
    pub(super) fn restore(
        &mut self,
        family: AddressFamily,
        restored: &Restored,
        shared: &mut Context,
        now: Instant,
    ) -> bool {
        let state = &mut self.families[family as usize];
        if !state.addresses.is_empty() || state.is_denied() {
            return false;
        }
        let Restored { ips, resolved_at } = restored;
        state.addresses.restore(ips, *resolved_at, now);
        state.note_known(&mut shared.heals, now);
        self.release_held(family, shared);
        true
    }

    /// Repeats the lookup in progress, which is lost.
    pub(super) fn repeat_lookup(&mut self, shared: &mut Context, now: Instant) {
        if let Some(lookup) = &mut self.lookup {
            lookup.since = now;
            shared.events.push_back(DomainsEvent::Resolve {
                client: self.client,
                name: self.proxied.name.clone(),
                refresh: lookup.is_refresh,
            });
        }
    }

    /// Takes over proxy IPs and resources; returns the proxy IPs that are no longer in use.
    pub(super) fn take_over(&mut self, proxied: &Arc<ProxiedName>) -> Vec<IpAddr> {
        self.proxied = proxied.clone();
        let resources = &proxied.resources;
        self.reported_active
            .retain(|id, _| resources.contains_key(id));
        let mut gone = Vec::new();
        for family in AddressFamily::ALL {
            let new: Vec<_> = proxied.of_family(family).collect();
            let old = &mut self.proxy_ips[family as usize];
            if *old != new {
                let is_gone = |ip: &IpAddr| new.binary_search(ip).is_err();
                gone.extend(old.extract_if(.., |ip| is_gone(ip)));
                *old = new;
                self.families[family as usize].addresses.raise_epoch();
            }
        }
        gone
    }

    /// Answers a client that waits for the status of the name: for the resource that it was
    /// announced for now, and for those without a status.
    pub(super) fn answer(
        &mut self,
        announced_for: Option<ResourceId>,
        shared: &mut Context,
        now: Instant,
    ) {
        for (resource, announced) in &self.proxied.resources {
            let is_due =
                announced_for == Some(*resource) || !self.reported_active.contains_key(resource);
            if is_due && announced.by == Announcer::Client {
                self.reported_active.insert(*resource, true);
                shared.events.push_back(DomainsEvent::Status {
                    client: self.client,
                    resource: *resource,
                    domain: announced.domain.clone(),
                    active: true,
                });
            }
        }
        if announced_for.is_some() || self.announced_at.is_none() {
            self.note_announced(shared, now);
        }
        self.settle(shared, now);
    }

    /// Starts a lookup through the cache for an announcement, unless there was one just before.
    fn note_announced(&mut self, shared: &mut Context, now: Instant) {
        self.used_at = now;
        let is_due = |at: Instant| now - at >= ANNOUNCED_PAUSE;
        if self.lookup.is_none() && self.announced_at.is_none_or(is_due) {
            self.announced_at = Some(now);
            self.look_up(false, shared, now);
        }
    }

    /// Where a packet for `proxy_ip` goes.
    pub(super) fn route(&mut self, proxy_ip: IpAddr, shared: &mut Context, now: Instant) -> Route {
        self.used_at = now;
        let family = AddressFamily::of(proxy_ip);
        let Ok(place) = self.proxy_ips[family as usize].binary_search(&proxy_ip) else {
            return Route::Unreachable;
        };
        let last_known_good = shared.config.last_known_good;
        let state = self.family(family);
        let route = state.route(place, last_known_good, &mut shared.heals, now);
        match route {
            Route::To { .. } => {}
            Route::Hold | Route::Unreachable => self.settle(shared, now),
        }
        route
    }

    /// Holds a packet until the addresses of its family are known.
    pub(super) fn hold(
        &mut self,
        packet: &[u8],
        shared: &mut Context,
        now: Instant,
    ) -> Result<(), DropReason> {
        let config = &shared.config;
        let is_full = self.held.packets() >= config.held_packets
            || self.held.bytes() + packet.len() > config.held_bytes
            || shared.held_bytes_of(self.client) + packet.len() > config.held_bytes_of_client
            || shared.held_bytes + packet.len() > config.held_bytes_in_all;
        if is_full {
            return Err(DropReason::HoldFull);
        }
        let family = match packet.first().map(|byte| byte >> 4) {
            Some(4) => AddressFamily::V4,
            Some(6) => AddressFamily::V6,
            Some(_) | None => return Err(DropReason::MalformedIp),
        };
        self.held.push(packet, family, now + config.hold_for);
        shared.note_held(self.client, packet.len());
        // An answer may have come between the decision to hold and this call.
        self.release_held(family, shared);
        Ok(())
    }

    /// A new flow begins: renews stale addresses in the background.
    pub(super) fn note_new_flow(
        &mut self,
        family: AddressFamily,
        shared: &mut Context,
        now: Instant,
    ) {
        if self.lookup.is_none() && self.family(family).wants_renewal(now) {
            self.look_up(false, shared, now);
        }
    }

    /// Applies the result of a lookup, requested by any client.
    pub(super) fn handle_answer(
        &mut self,
        answer: &NameAnswer,
        shared: &mut Context,
        now: Instant,
    ) {
        let family = answer.family;
        let asked = self.take_awaited(family, answer.from_cache);
        let state = &mut self.families[family as usize];
        state.addresses.expire(shared.config.last_known_good, now);
        let rng = &mut shared.rng;
        match &answer.outcome {
            Ok(resolved) => state.resolved(resolved, asked, rng, now),
            Err(failure) if failure.is_definite() => state.denied(*failure, asked, rng, now),
            Err(failure) => state.failed(*failure, asked, rng, now),
        }
        state.note_known(&mut shared.heals, now);
        self.release_held(family, shared);
        self.settle(shared, now);
    }

    pub(super) fn handle_timeout(&mut self, shared: &mut Context, now: Instant) {
        // Removed before it is failed: the next lookup may start while the families of this one
        // fail.
        let is_lost = |it: &&Lookup| now - it.since >= LOOKUP_LOST;
        let lost = self.lookup.as_ref().filter(is_lost).map(|it| it.awaited);
        for family in AddressFamily::ALL {
            if lost.is_some_and(|awaited| awaited[family as usize]) {
                let timeout = NameAnswer {
                    name: self.proxied.name.clone(),
                    family,
                    outcome: Err(NameFailure::Timeout),
                    from_cache: false,
                };
                self.handle_answer(&timeout, shared, now);
            }
        }
        while let Some(bytes) = self.held.take_overdue(now) {
            shared.release_held(self.client, self.id, bytes, HeldOutcome::Unreachable);
        }
        self.settle(shared, now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let lookup = match &self.lookup {
            Some(lookup) => Some(lookup.since + LOOKUP_LOST),
            None => self.families.iter().filter_map(Family::deadline).min(),
        };
        lookup.into_iter().chain(self.held.deadline()).min()
    }

    /// Performs what is due: a lookup, a status to the client.
    pub(super) fn settle(&mut self, shared: &mut Context, now: Instant) {
        self.report_status(shared);
        if self.lookup.is_some() {
            return;
        }
        let wishes = self.families.each_mut().map(|it| it.wants_lookup(now));
        if let Some(is_refresh) = wishes.into_iter().flatten().max() {
            self.look_up(is_refresh, shared, now);
        }
    }

    /// Number and bytes of the held packets.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held.packets(), self.held.bytes())
    }

    fn look_up(&mut self, is_refresh: bool, shared: &mut Context, now: Instant) {
        self.lookup = Some(Lookup {
            since: now,
            is_refresh,
            awaited: [true; 2],
        });
        shared.events.push_back(DomainsEvent::Resolve {
            client: self.client,
            name: self.proxied.name.clone(),
            refresh: is_refresh,
        });
    }

    /// Marks the answer of a family as received; the second one ends the lookup. An answer from the
    /// cache to another client does not answer a refresh, as it would make old addresses count as a
    /// fresh confirmation.
    fn take_awaited(&mut self, family: AddressFamily, from_cache: bool) -> LookupSource {
        let Some(lookup) = &mut self.lookup else {
            return LookupSource::Unrequested;
        };
        if from_cache && lookup.is_refresh {
            return LookupSource::Unrequested;
        }
        if !std::mem::take(&mut lookup.awaited[family as usize]) {
            return LookupSource::Unrequested;
        }
        let asked = match lookup.is_refresh {
            true => LookupSource::Refreshed,
            false => LookupSource::Cached,
        };
        if lookup.awaited == [false; 2] {
            self.lookup = None;
        }
        asked
    }

    /// Releases or refuses held packets once their outcome is known.
    fn release_held(&mut self, family: AddressFamily, shared: &mut Context) {
        let state = &self.families[family as usize];
        let outcome = match (state.addresses.is_empty(), state.is_denied()) {
            (false, _) => HeldOutcome::Released,
            (true, true) => HeldOutcome::Unreachable,
            (true, false) => return,
        };
        for bytes in self.held.take(family) {
            shared.release_held(self.client, self.id, bytes, outcome);
        }
    }

    /// Reports the status of the name for each resource with another last status.
    fn report_status(&mut self, shared: &mut Context) {
        let Some(is_active) = self.verdict() else {
            return;
        };
        for (resource, reported) in &mut self.reported_active {
            let announced = self.proxied.resources.get(resource);
            if *reported != is_active
                && let Some(announced) = announced
            {
                *reported = is_active;
                shared.events.push_back(DomainsEvent::Status {
                    client: self.client,
                    resource: *resource,
                    domain: announced.domain.clone(),
                    active: is_active,
                });
            }
        }
    }

    /// Whether the name works, if that is certain. It does not if the DNS denied it in each family
    /// that has proxy IPs and no lookup is in progress.
    fn verdict(&self) -> Option<bool> {
        let of_interest = || {
            let pairs = self.families.iter().zip(&self.proxy_ips);
            pairs.filter(|(_, ips)| !ips.is_empty()).map(|(it, _)| it)
        };
        if of_interest().any(|family| !family.addresses.is_empty()) {
            return Some(true);
        }
        let is_bad = self.lookup.is_none() && of_interest().all(Family::is_denied);
        is_bad.then_some(false)
    }
}

impl Context {
    fn release_held(
        &mut self,
        client: ClientSlot,
        mapping: MappingId,
        bytes: Vec<u8>,
        outcome: HeldOutcome,
    ) {
        self.note_unheld(client, 1, bytes.len());
        self.released.push_back(HeldPacket {
            client,
            mapping,
            bytes,
            outcome,
        });
    }

    fn held_bytes_of(&self, client: ClientSlot) -> usize {
        self.held_by_client.get(&client).copied().unwrap_or(0)
    }

    fn note_held(&mut self, client: ClientSlot, bytes: usize) {
        self.held_packets += 1;
        self.held_bytes += bytes;
        *self.held_by_client.entry(client).or_default() += bytes;
    }

    pub(super) fn note_unheld(&mut self, client: ClientSlot, packets: usize, bytes: usize) {
        self.held_packets -= packets;
        self.held_bytes -= bytes;
        if let Some(held) = self.held_by_client.get_mut(&client) {
            *held -= bytes;
            if *held == 0 {
                self.held_by_client.remove(&client);
            }
        }
    }
}
