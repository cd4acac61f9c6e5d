//! The names that a client announced, to be repeated to a NAT that was restarted.
//!
//! The policy decides about the owner of a proxy IP; entries that it no longer confirms are
//! skipped, and removed before they outnumber the rest.

use crate::grant::AnnouncedName;
use crate::ids::ResourceId;
use crate::names::{AddressFamily, DomainName};
use crate::policy::Policy;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The names of one client.
#[derive(Debug, Default)]
pub(super) struct AnnouncedNames {
    by_name: BTreeMap<(DomainName, ResourceId), Entry>,
    /// Number of entries at which outdated ones are removed.
    unpruned: usize,
}

#[derive(Debug)]
struct Entry {
    announced: AnnouncedName,
    in_tunnel: bool,
}

impl AnnouncedNames {
    /// Records a name that the policy has accepted. A family without proxy IPs keeps its earlier
    /// ones.
    pub(super) fn insert(
        &mut self,
        (name, resource): (&DomainName, ResourceId),
        announced: &AnnouncedName,
        in_tunnel: bool,
        policy: &Policy,
    ) {
        let key = (name.clone(), resource);
        let is_named = |ip: &IpAddr| {
            let family = AddressFamily::of(*ip);
            let mut ips = announced.proxy_ips.iter();
            ips.any(|ip| AddressFamily::of(*ip) == family)
        };
        let former = self.by_name.remove(&key);
        let of_other_family = former.into_iter().flat_map(|kept| kept.announced.proxy_ips);
        let of_other_family = of_other_family.filter(|ip| !is_named(ip));
        let proxy_ips = announced.proxy_ips.iter().copied().chain(of_other_family);
        let kept = Entry {
            announced: AnnouncedName {
                domain: announced.domain.clone(),
                proxy_ips: proxy_ips.collect(),
            },
            in_tunnel,
        };
        self.by_name.insert(key, kept);
        if self.by_name.len() > self.unpruned {
            self.prune(policy);
        }
    }

    /// Removes entries that the policy no longer confirms.
    fn prune(&mut self, policy: &Policy) {
        self.by_name.retain(|(name, resource), kept| {
            let mut ips = kept.announced.proxy_ips.iter();
            ips.any(|ip| policy.has_proxy(*resource, name, *ip))
        });
        self.unpruned = 2 * self.by_name.len() + PRUNE_ABOVE;
    }

    /// The confirmed entries: resource, name, announcement, and whether the client waits for a
    /// DomainStatus.
    pub(super) fn in_force(
        &mut self,
        policy: &Policy,
    ) -> impl Iterator<Item = (ResourceId, DomainName, AnnouncedName, bool)> {
        self.prune(policy);
        self.by_name.iter().map(|((name, resource), kept)| {
            let ips = kept.announced.proxy_ips.iter().copied();
            let announced = AnnouncedName {
                domain: kept.announced.domain.clone(),
                proxy_ips: ips
                    .filter(|ip| policy.has_proxy(*resource, name, *ip))
                    .collect(),
            };
            (*resource, name.clone(), announced, kept.in_tunnel)
        })
    }
}

const PRUNE_ABOVE: usize = 64;
