//! The names that a client uses and their proxy IPs.
//!
//! The rules of the policy and of the mappings, so that the order in which the records are replayed
//! does not matter: what is announced for a name replaces what was announced for it before, family
//! by family, and a proxy IP under another name takes all of the former name with it (lesson 17).

use super::Ledger;
use super::record::{ClientRecord, RecordedName};
use crate::grant::{AnnouncedName, ResourceKind};
use crate::ids::{ClientId, ResourceId};
use crate::names::DomainName;
use crate::policy::{pattern, ranges};
use std::net::IpAddr;

impl Ledger {
    /// The client uses a name through one of its resources. Whatever it is not entitled to is
    /// ignored.
    pub fn record_name(&mut self, client: ClientId, name: RecordedName) {
        let limit = self.limits.names_per_client;
        self.change(client, |record| assign(record, name, limit));
    }
}

/// As [`assign`], for what the portal says in a grant. A name without proxy IPs is only a hint.
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

/// Whether anything changed.
fn assign(record: &mut ClientRecord, mut name: RecordedName, limit: usize) -> bool {
    if limit == 0 || !is_entitled(record, &name) {
        return false;
    }
    let place = record
        .names
        .iter()
        .position(|held| held.resource == name.resource && is_same_name(held, &name));
    if let Some(at) = place {
        keep_other_family(&mut name, &record.names[at].announced.proxy_ips);
        if record.names[at] == name {
            return false;
        }
        record.names[at] = name.clone();
    }
    record.names.retain_mut(|held| yields(held, &name));
    if place.is_none() {
        if record.names.len() >= limit {
            record.names.remove(0);
        }
        record.names.push(name);
    }
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

/// Whether a client may speak to a name under these addresses.
pub(super) fn is_plausible(ips: &[IpAddr]) -> bool {
    let v6 = ips.iter().filter(|ip| ip.is_ipv6()).count();
    let most = v6.max(ips.len() - v6);
    (1..=MAX_PROXY_IPS).contains(&most) && ips.iter().all(|ip| ranges::is_proxy(*ip))
}

/// Keeps the addresses of the family that `name` says nothing of.
fn keep_other_family(name: &mut RecordedName, former: &[IpAddr]) {
    let told = name.announced.proxy_ips.clone();
    let is_untouched = |ip: &&IpAddr| told.iter().all(|other| other.is_ipv4() != ip.is_ipv4());
    let kept = former.iter().filter(is_untouched);
    let ips = &mut name.announced.proxy_ips;
    ips.extend(kept);
    // Keeps the order within a family; whichever was announced last, the result is the same.
    ips.sort_by_key(IpAddr::is_ipv6);
}

/// Takes from another record what `new` has claimed; whether anything of it is left.
fn yields(held: &mut RecordedName, new: &RecordedName) -> bool {
    let told = &new.announced.proxy_ips;
    if !is_same_name(held, new) {
        return held.announced.proxy_ips.iter().all(|ip| !told.contains(ip));
    }
    if held.resource == new.resource {
        return true;
    }
    let is_renamed = |ip: &IpAddr| {
        !told.contains(ip) && told.iter().any(|other| other.is_ipv4() == ip.is_ipv4())
    };
    held.announced.proxy_ips.retain(|ip| !is_renamed(ip));
    !held.announced.proxy_ips.is_empty()
}

/// As [`DomainName`] compares, without building one.
fn is_same_name(one: &RecordedName, other: &RecordedName) -> bool {
    bare(&one.announced.domain).eq_ignore_ascii_case(bare(&other.announced.domain))
}

fn bare(domain: &str) -> &str {
    domain.strip_suffix('.').unwrap_or(domain)
}

/// Of each family: as many as one message may announce, and with both no more than the mappings
/// take.
const MAX_PROXY_IPS: usize = 8;
