//! The resources and the name of each proxy IP of a client.
//!
//! The same rules as for the mappings of the NAT, so that a packet admitted for one name is never
//! translated for another: an announcement for a name replaces the earlier one, family by family,
//! and a proxy IP under another name removes the whole former name, because the client has
//! restarted its numbering (docs/lessons.md 17).

use crate::ids::ResourceId;
use crate::names::DomainName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The proxy IPs of one client.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    by_ip: BTreeMap<IpAddr, Proxy>,
    /// The proxy IPs of each name, to remove them without a search.
    by_name: BTreeMap<DomainName, BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct Proxy {
    name: DomainName,
    owners: Vec<ResourceId>,
}

impl Proxies {
    /// The resources with filters for `ip`; empty if it belongs to no name.
    pub(super) fn owners(&self, ip: IpAddr) -> &[ResourceId] {
        self.by_ip.get(&ip).map_or(&[], |proxy| &proxy.owners)
    }

    /// Whether `ip` belongs to a name.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.by_ip.contains_key(&ip)
    }

    /// Whether `ip` belongs to `name`, through `resource` among others.
    pub(super) fn has(&self, resource: ResourceId, name: &DomainName, ip: IpAddr) -> bool {
        let proxy = self.by_ip.get(&ip);
        proxy.is_some_and(|proxy| proxy.name == *name && proxy.owners.contains(&resource))
    }

    /// The number of proxy IPs after adding `ips`.
    pub(super) fn len_with(&self, ips: &[IpAddr]) -> usize {
        self.by_ip.len() + ips.iter().filter(|ip| !self.contains(**ip)).count()
    }

    /// Assigns `ips` to a name through `resource`: the name's earlier addresses of the same
    /// families are withdrawn, through any resource.
    pub(super) fn assign(&mut self, resource: ResourceId, name: &DomainName, ips: &[IpAddr]) {
        for ip in ips {
            let former = self.by_ip.get(ip).map(|proxy| &proxy.name);
            if let Some(former) = former.filter(|former| *former != name).cloned() {
                self.forget_name(&former);
            }
        }
        let is_renamed = |old: &IpAddr| {
            let is_named = ips.iter().any(|ip| ip.is_ipv4() == old.is_ipv4());
            is_named && !ips.contains(old)
        };
        let of_name = self.by_name.get(name).into_iter().flatten();
        let withdrawn: Vec<_> = of_name.copied().filter(is_renamed).collect();
        for ip in withdrawn {
            self.disown(ip, |_| true);
        }
        for ip in ips {
            let proxy = self.by_ip.entry(*ip).or_insert_with(|| Proxy {
                name: name.clone(),
                owners: Vec::new(),
            });
            if !proxy.owners.contains(&resource) {
                proxy.owners.push(resource);
            }
            self.by_name.entry(name.clone()).or_default().insert(*ip);
        }
    }

    /// All proxy IPs of a name.
    pub(super) fn of_name(&self, name: &DomainName) -> Vec<IpAddr> {
        self.by_name
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Number of names with proxy IPs.
    pub(super) fn names(&self) -> usize {
        self.by_name.len()
    }

    /// The name of a proxy IP.
    pub(super) fn name_of(&self, ip: IpAddr) -> Option<&DomainName> {
        self.by_ip.get(&ip).map(|proxy| &proxy.name)
    }

    /// Removes the addresses of resources for which `is_gone` is true.
    pub(super) fn forget_resources(&mut self, is_gone: impl Fn(ResourceId) -> bool) {
        let is_touched = |proxy: &Proxy| proxy.owners.iter().any(|owner| is_gone(*owner));
        let touched = self.by_ip.iter().filter(|(_, proxy)| is_touched(proxy));
        let touched: Vec<_> = touched.map(|(ip, _)| *ip).collect();
        for ip in touched {
            self.disown(ip, &is_gone);
        }
    }

    fn disown(&mut self, ip: IpAddr, is_gone: impl Fn(ResourceId) -> bool) {
        let Some(proxy) = self.by_ip.get_mut(&ip) else {
            return;
        };
        proxy.owners.retain(|owner| !is_gone(*owner));
        if !proxy.owners.is_empty() {
            return;
        }
        if let Some(proxy) = self.by_ip.remove(&ip)
            && let Some(ips) = self.by_name.get_mut(&proxy.name)
        {
            ips.remove(&ip);
            if ips.is_empty() {
                self.by_name.remove(&proxy.name);
            }
        }
    }

    fn forget_name(&mut self, name: &DomainName) {
        for ip in self.by_name.remove(name).into_iter().flatten() {
            self.by_ip.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(number: u128) -> ResourceId {
        ResourceId(Uuid::from_u128(number))
    }

    fn ips(last: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
        last.into_iter()
            .map(|last| [100, 96, 0, last].into())
            .collect()
    }

    fn name(text: &str) -> DomainName {
        text.parse().expect("a name")
    }

    #[test]
    fn an_announcement_replaces_the_earlier_one_of_its_family() {
        let v6: IpAddr = [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 1].into();
        let mut proxies = Proxies::default();
        let both: Vec<_> = ips(1..=2).into_iter().chain([v6]).collect();
        proxies.assign(id(1), &name("a.example"), &both);
        proxies.assign(id(2), &name("a.example"), &ips(2..=3));
        assert_eq!(proxies.owners(ips([1])[0]), []);
        assert_eq!(proxies.owners(ips([2])[0]), [id(1), id(2)]);
        assert_eq!(proxies.owners(ips([3])[0]), [id(2)]);
        assert_eq!(proxies.owners(v6), [id(1)], "of the other family");
    }

    /// docs/lessons.md 17: A reused proxy IP resets its mapping.
    #[test]
    fn a_proxy_ip_under_another_name_removes_the_former_name() {
        let mut proxies = Proxies::default();
        proxies.assign(id(1), &name("a.example"), &ips(1..=4));
        proxies.assign(id(1), &name("b.example"), &ips(5..=8));
        proxies.assign(id(2), &name("c.example"), &ips(4..=4));
        assert_eq!(proxies.owners(ips([1])[0]), []);
        assert_eq!(proxies.owners(ips([4])[0]), [id(2)]);
        assert_eq!(
            proxies.owners(ips([5])[0]),
            [id(1)],
            "a name without conflict stays"
        );
    }

    #[test]
    fn removed_resources_leave_no_state() {
        let mut proxies = Proxies::default();
        proxies.assign(id(1), &name("a.example"), &ips(1..=4));
        proxies.assign(id(2), &name("a.example"), &ips(1..=4));
        proxies.assign(id(2), &name("b.example"), &ips(5..=5));
        proxies.assign(id(1), &name("c.example"), &ips(6..=6));
        proxies.forget_resources(|resource| resource == id(1));
        assert_eq!(proxies.owners(ips([1])[0]), [id(2)]);
        assert!(!proxies.contains(ips([6])[0]));
        assert_eq!(proxies.len_with(&ips([5, 6])), 6);
        proxies.forget_resources(|_| true);
        assert_eq!((proxies.by_ip.len(), proxies.by_name.len()), (0, 0));
    }
}
