//! The addresses that the owner has recorded: those reported to it, and those that it restored
//! after a rebuild.

use super::{ClientSlot, MappingId};
use super::{Domains, DomainsEvent, MAX_ADDRESSES};
use crate::names::{AddressFamily, DomainName, NameAnswer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses of a name from before the table was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredName {
    /// The name in the form that is looked up.
    pub name: DomainName,
    /// The family of all the addresses.
    pub family: AddressFamily,
    /// The addresses, in the order of the proxy IPs.
    pub ips: Vec<IpAddr>,
    /// Time since the DNS last named them.
    pub age: Duration,
}

/// Addresses by name and family.
#[derive(Debug, Default)]
pub(super) struct AddressRecords {
    /// Of mapped names, as last reported to the owner.
    reported: BTreeMap<(DomainName, AddressFamily), Reported>,
    /// For mappings that are yet to be announced. At most
    /// [`DomainsConfig::mappings`](super::DomainsConfig); further names are looked up as usual.
    restored: BTreeMap<(DomainName, AddressFamily), Restored>,
    /// When unclaimed restored addresses are dropped.
    restored_until: Option<Instant>,
}

/// The owner's record of a name.
#[derive(Debug)]
struct Reported {
    ips: Vec<IpAddr>,
    at: Instant,
}

/// Addresses that were valid at `resolved_at`.
#[derive(Clone, Debug)]
pub(super) struct Restored {
    pub(super) ips: Vec<IpAddr>,
    pub(super) resolved_at: Instant,
}

impl AddressRecords {
    /// The last mapping of the name is gone.
    pub(super) fn forget(&mut self, name: &DomainName) {
        for family in AddressFamily::ALL {
            self.reported.remove(&(name.clone(), family));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.restored_until
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.restored_until.take_if(|until| *until <= now).is_some() {
            self.restored.clear();
        }
    }

    /// Applies an answer to the restored addresses.
    fn handle_answer(&mut self, answer: &NameAnswer, now: Instant) {
        let key = (answer.name.clone(), answer.family);
        let Some(restored) = self.restored.get_mut(&key) else {
            return;
        };
        match &answer.outcome {
            Ok(resolved) => {
                if !is_same_set(&restored.ips, &resolved.ips) {
                    restored.ips.clone_from(&resolved.ips);
                }
                restored.resolved_at = now;
            }
            Err(failure) if failure.is_definite() => {
                self.restored.remove(&key);
            }
            Err(_) => {}
        }
    }
}

impl Domains {
    /// Takes over addresses from before a rebuild, for names that will be announced: their packets
    /// pass immediately, and the lookup that an announcement starts renews them. Ignores addresses
    /// older than [`DomainsConfig::last_known_good`](super::DomainsConfig). Drops addresses without
    /// an announcement within 5 minutes.
    pub fn restore_names(&mut self, names: Vec<RestoredName>, now: Instant) {
        let now = self.clock(now);
        for name in names {
            let Some((key, restored)) = self.acceptable(name, now) else {
                continue;
            };
            if self.known.restored.len() >= self.shared.config.mappings {
                break;
            }
            self.known.restored.insert(key.clone(), restored);
            for id in self.table.all_by_name(&key.0) {
                self.claim(id, now);
            }
        }
        let is_any = !self.known.restored.is_empty();
        self.known.restored_until = is_any.then(|| now + CLAIMED_WITHIN);
    }

    fn acceptable(
        &self,
        name: RestoredName,
        now: Instant,
    ) -> Option<((DomainName, AddressFamily), Restored)> {
        let mut seen = BTreeSet::new();
        let is_new = |ip: &IpAddr| AddressFamily::of(*ip) == name.family && seen.insert(*ip);
        let ips = name.ips.into_iter().filter(is_new).take(MAX_ADDRESSES);
        let ips: Vec<_> = ips.collect();
        let is_good = !ips.is_empty() && name.age < self.shared.config.last_known_good;
        let resolved_at = now.checked_sub(name.age).filter(|_| is_good)?;
        Some(((name.name, name.family), Restored { ips, resolved_at }))
    }

    /// Gives a mapping without addresses those restored for its name.
    pub(super) fn claim(&mut self, id: MappingId, now: Instant) {
        self.known.handle_timeout(now);
        for family in AddressFamily::ALL {
            let Some(mapping) = self.table.get_mut(id) else {
                return;
            };
            let key = (mapping.name().clone(), family);
            let Some(restored) = self.known.restored.get(&key) else {
                continue;
            };
            let age = now.saturating_duration_since(restored.resolved_at);
            if age >= self.shared.config.last_known_good {
                self.known.restored.remove(&key);
            } else if mapping.restore(family, restored, &mut self.shared, now) {
                let reported = Reported {
                    ips: restored.ips.clone(),
                    at: restored.resolved_at,
                };
                self.known.reported.insert(key, reported);
            }
        }
    }

    /// Applies the result of a lookup to the mappings of all clients with that name. Reports the
    /// addresses to the owner once if they changed, and again if the DNS still names them after 10
    /// minutes: their age decides whether they are valid after a rebuild.
    pub fn handle_answer(&mut self, answer: &NameAnswer, now: Instant) {
        let now = self.clock(now);
        self.known.handle_answer(answer, now);
        let mut moved = None;
        for id in self.table.all_by_name(&answer.name) {
            if let Some(mapping) = self.table.get_mut(id) {
                let had_any = !mapping.family(answer.family).addresses.is_empty();
                let epoch = mapping.epoch(answer.family);
                mapping.handle_answer(answer, &mut self.shared, now);
                if had_any && mapping.epoch(answer.family) != epoch {
                    moved = Some(id);
                }
            }
            self.arm(id);
        }
        self.report_addresses(&answer.name, answer.family, moved);
        if answer.outcome.is_ok() && !answer.from_cache {
            self.report_age(&answer.name, answer.family, now);
        }
    }

    /// Reports that the DNS still names the addresses, if the last report is old.
    fn report_age(&mut self, name: &DomainName, family: AddressFamily, now: Instant) {
        let Some(reported) = self.known.reported.get_mut(&(name.clone(), family)) else {
            return;
        };
        let is_old = now.saturating_duration_since(reported.at) >= REPORT_AGAIN_AFTER;
        if is_old && !reported.ips.is_empty() {
            reported.at = now;
            self.shared.events.push_back(DomainsEvent::NameKnown {
                name: name.clone(),
                family,
                ips: reported.ips.clone(),
                is_news: false,
            });
        }
    }

    /// Reports the addresses of a name to the owner if they differ from its record: another set, or
    /// another order if the mapping `moved` went to its next address. There is one order for each
    /// name, though clients may be at different addresses: that of the mapping that moved last.
    pub(super) fn report_addresses(
        &mut self,
        name: &DomainName,
        family: AddressFamily,
        moved: Option<MappingId>,
    ) {
        let order_of = |id: MappingId| {
            let mapping = self.table.get(id)?;
            let order = mapping.order(family);
            (!order.is_empty()).then_some(order)
        };
        let of_moved = moved.and_then(order_of);
        let has_moved = of_moved.is_some();
        let of_anybody = || {
            let mut ids = self.table.all_by_name(name).into_iter();
            ids.find_map(order_of)
        };
        let order = of_moved.or_else(of_anybody).unwrap_or_default();
        let key = (name.clone(), family);
        let reported = self
            .known
            .reported
            .get(&key)
            .map_or(&[][..], |reported| &reported.ips);
        let is_known = match has_moved {
            true => *reported == order,
            false => is_same_set(reported, &order),
        };
        if is_known {
            return;
        }
        let reported = Reported {
            ips: order.clone(),
            at: self.now,
        };
        self.known.reported.insert(key, reported);
        self.shared.events.push_back(DomainsEvent::NameKnown {
            name: name.clone(),
            family,
            ips: order,
            is_news: true,
        });
    }

    /// Calls [`Self::report_addresses`] if an epoch of the mapping changed.
    pub(super) fn report_if_moved(&mut self, id: MappingId, epochs: [u32; 2]) {
        let Some(mapping) = self.table.get(id) else {
            return;
        };
        let is_moved = |family: &AddressFamily| mapping.epoch(*family) != epochs[*family as usize];
        let moved: Vec<_> = AddressFamily::ALL.into_iter().filter(is_moved).collect();
        if moved.is_empty() {
            return;
        }
        let name = mapping.name().clone();
        for family in moved {
            self.report_addresses(&name, family, Some(id));
        }
    }

    /// The client's proxy IPs that map to `real`, shunned or not; at most `max`.
    #[must_use]
    pub fn proxy_ips_to(&self, client: ClientSlot, real: IpAddr, max: usize) -> Vec<IpAddr> {
        let ids = self.table.of_client(client);
        let mappings = ids.filter_map(|id| self.table.get(id));
        let proxy_ips = mappings.flat_map(|mapping| mapping.proxy_ips_to(real));
        proxy_ips.take(max).collect()
    }

    /// The address of a proxy IP according to the last report to the owner.
    #[must_use]
    pub fn reported_real(&self, id: MappingId, proxy_ip: IpAddr) -> Option<IpAddr> {
        let mapping = self.table.get(id)?;
        let family = AddressFamily::of(proxy_ip);
        let proxy_ips = &mapping.proxy_ips[family as usize];
        let place = proxy_ips.binary_search(&proxy_ip).ok()?;
        let order = &self
            .known
            .reported
            .get(&(mapping.name().clone(), family))?
            .ips;
        order.get(place.checked_rem(order.len())?).copied()
    }

    /// The name of a mapping; `None` if the id is not current.
    #[must_use]
    pub fn name(&self, id: MappingId) -> Option<&DomainName> {
        Some(self.table.get(id)?.name())
    }

    /// The mappings of all clients with that name.
    #[must_use]
    pub fn mappings_of(&self, name: &DomainName) -> Vec<(ClientSlot, MappingId)> {
        let ids = self.table.all_by_name(name).into_iter();
        ids.filter_map(|id| Some((self.table.get(id)?.client, id)))
            .collect()
    }

    /// Repeats all lookups in progress, because the resolver was restarted and has lost them. Held
    /// packets wait no longer than before.
    pub fn handle_resolver_restarted(&mut self, now: Instant) {
        let now = self.clock(now);
        for id in self.table.ids() {
            if let Some(mapping) = self.table.get_mut(id) {
                mapping.repeat_lookup(&mut self.shared, now);
            }
        }
    }
}

/// Whether both contain the same addresses in any order; neither contains duplicates.
fn is_same_set(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|ip| b.contains(ip))
}

/// Rarely enough to cost nothing, often enough for
/// [`DomainsConfig::last_known_good`](super::DomainsConfig).
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Clients announce the names they use when they attach; names announced later are better looked
/// up.
const CLAIMED_WITHIN: Duration = Duration::from_secs(300);
