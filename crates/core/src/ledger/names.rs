//! The names of a client and their proxy IPs.
//!
//! The same rules as in the policy and the mappings, so that the records can be replayed in any
//! order: an announcement for a name replaces the earlier one, family by family, and a proxy IP
//! under another name removes the whole former name (docs/lessons.md 17).

use super::Ledger;
use super::pins::forget_unnamed;
use super::record::{ClientRecord, RecordedName};
use crate::grant::{AnnouncedName, ResourceKind};
use crate::ids::{ClientId, ResourceId};
use crate::names::DomainName;
use crate::policy::{pattern, ranges};
use std::net::IpAddr;

impl Ledger {
    /// Records a client's name of one of its resources. Ignores a name that the client may not use.
    pub fn record_name(&mut self, client: ClientId, name: RecordedName) {
        let limit = self.limits.names_per_client;
        self.change(client, |record| assign(record, name, limit));
    }
}

/// As [`assign`], for an announcement in a grant of the portal. Ignores a name without proxy IPs.
pub(super) fn announce(
    record: &mut ClientRecord,
    resource: ResourceId,
    announced: &Option<AnnouncedName>,
    limit: usize,
) -> bool {
    let Some(announced) = announced.clone() else {
        return false;
    };
    let name = RecordedName {
        resource,
        announced,
        in_tunnel: false,
    };
    assign(record, name, limit)
}

/// Returns whether anything changed.
fn assign(record: &mut ClientRecord, mut name: RecordedName, limit: usize) -> bool {
    if limit == 0 || !is_entitled(record, &name) {
        return false;
    }
    sort(&mut name.announced.proxy_ips);
    let announced = name.announced.proxy_ips.clone();
    let is_it = |held: &RecordedName| held.resource == name.resource && held.is_same_name(&name);
    let place = record.names.iter().position(is_it);
    if let Some(at) = place {
        keep_other_family(&mut name, &record.names[at].announced.proxy_ips);
        if record.names[at] == name {
            return false;
        }
        record.names[at] = name.clone();
    }
    forget_former_owners(record, &name);
    record.names.retain_mut(|held| {
        let is_other = held.resource != name.resource && held.is_same_name(&name);
        !is_other || keep_matching_families(held, &announced)
    });
    if place.is_none() {
        if record.names.len() >= limit {
            record.names.remove(0);
        }
        record.names.push(name);
    }
    forget_unnamed(record);
    true
}

fn is_entitled(record: &ClientRecord, name: &RecordedName) -> bool {
    let is_plausible = is_plausible(&name.announced.proxy_ips);
    let grant = record.grants.get(&name.resource);
    match grant.map(|grant| &grant.resource.kind) {
        Some(ResourceKind::Dns(pattern)) if is_plausible => {
            let parsed = name.announced.domain.parse::<DomainName>();
            parsed.is_ok_and(|name| pattern::covers(pattern, &name))
        }
        Some(ResourceKind::Dns(_) | ResourceKind::Cidr(_) | ResourceKind::Internet) | None => false,
    }
}

/// Whether a client may use these proxy IPs for a name.
pub(super) fn is_plausible(ips: &[IpAddr]) -> bool {
    let v6 = ips.iter().filter(|ip| ip.is_ipv6()).count();
    let most = v6.max(ips.len() - v6);
    (1..=MAX_PROXY_IPS).contains(&most) && ips.iter().all(|ip| ranges::is_proxy(*ip))
}

/// Sorts by family, so that the order of announcements does not matter. The order within a family
/// decides the address of each proxy IP, and stays.
fn sort(ips: &mut [IpAddr]) {
    ips.sort_by_key(IpAddr::is_ipv6);
}

/// Adds the former addresses of a family that `name` does not contain.
fn keep_other_family(name: &mut RecordedName, former: &[IpAddr]) {
    let announced = name.announced.proxy_ips.clone();
    let is_untouched = |ip: &&IpAddr| {
        announced
            .iter()
            .all(|other| other.is_ipv4() != ip.is_ipv4())
    };
    let kept = former.iter().filter(is_untouched);
    let ips = &mut name.announced.proxy_ips;
    ips.extend(kept);
    sort(ips);
}

/// Removes other names with one of the proxy IPs, through any resource.
fn forget_former_owners(record: &mut ClientRecord, new: &RecordedName) {
    let announced = &new.announced.proxy_ips;
    let is_taken = |ip: &IpAddr| announced.contains(ip);
    let owners = record
        .names
        .iter()
        .filter(|held| !held.is_same_name(new) && held.announced.proxy_ips.iter().any(is_taken));
    let owners: Vec<_> = owners.cloned().collect();
    if !owners.is_empty() {
        let is_owner = |held: &RecordedName| owners.iter().any(|owner| owner.is_same_name(held));
        record.names.retain(|held| !is_owner(held));
    }
}

/// For each family in `announced`, another record of the same name either takes over the same
/// addresses or loses its own; returns whether it has any left. If sets overlap in part (no client
/// does that: a name has one set), the policy keeps the common part for both resources; here it is
/// removed, or the records could not be replayed in any order.
fn keep_matching_families(held: &mut RecordedName, announced: &[IpAddr]) -> bool {
    for is_v6 in [false, true] {
        let new: Vec<_> = announced
            .iter()
            .filter(|ip| ip.is_ipv6() == is_v6)
            .copied()
            .collect();
        if new.is_empty() {
            continue;
        }
        let ips = &mut held.announced.proxy_ips;
        let former = ips
            .extract_if(.., |ip| ip.is_ipv6() == is_v6)
            .collect::<Vec<_>>();
        let is_same =
            former.iter().all(|ip| new.contains(ip)) && new.iter().all(|ip| former.contains(ip));
        if is_same {
            ips.extend(new);
            sort(ips);
        }
    }
    !held.announced.proxy_ips.is_empty()
}

/// Of each family: the maximum of one message, and with both families no more than the mappings
/// accept.
const MAX_PROXY_IPS: usize = 8;
