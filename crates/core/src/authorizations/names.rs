//! The names of a client, their proxy IPs and the resources that cover them.

use super::{
    AuthorizationError, Authorizations, MAX_PROXY_IPS, MAX_RESOURCES_OF_NAME, pattern, ranges,
};
use crate::grant::{AnnouncedName, ResourceKind};
use crate::ids::ResourceId;
use crate::names::{AddressFamily, DomainName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A name that a client has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxiedName {
    /// The name in the form that is looked up.
    pub name: DomainName,
    /// Sorted, IPv4 first, without duplicates. None of them belongs to another name of the client.
    pub proxy_ips: Vec<IpAddr>,
    /// The resources that it was announced for: the filters of each apply to the proxy IPs.
    pub resources: BTreeMap<ResourceId, Announced>,
}

/// The last announcement of a name for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The announced spelling, to be echoed.
    pub domain: String,
    /// Decides whether a status is sent.
    pub by: Announcer,
}

/// Who announces a name for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// The portal, together with a grant (generation 0). Nobody waits for a DomainStatus.
    Portal,
    /// The client, inside the tunnel. It gets a DomainStatus now and whenever the status changes,
    /// also if the portal announces the name later.
    Client,
}

/// A name before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameChange {
    /// `None` if the client has not used the name before.
    pub former: Option<Arc<ProxiedName>>,
    /// `None` if the name is gone.
    pub now: Option<Arc<ProxiedName>>,
    /// The resource that it was just announced for, perhaps again, if it was announced.
    pub announced_for: Option<ResourceId>,
}

/// What a name of a client means from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameMeaning {
    /// The name in the form that is looked up.
    pub name: DomainName,
    /// All its proxy IPs and resources; `None` if the name is gone.
    pub proxied: Option<Arc<ProxiedName>>,
    /// The resource that it was just announced for, perhaps again, if it was announced.
    pub announced_for: Option<ResourceId>,
}

impl ProxiedName {
    /// The proxy IPs of one family.
    pub fn of_family(&self, family: AddressFamily) -> impl Iterator<Item = IpAddr> {
        let all = self.proxy_ips.iter().copied();
        all.filter(move |ip| AddressFamily::of(*ip) == family)
    }

    /// Whether any of `ips` is a proxy IP of the name.
    fn has_any(&self, ips: &BTreeSet<IpAddr>) -> bool {
        self.proxy_ips.iter().any(|ip| ips.contains(ip))
    }

    /// Replaces the proxy IPs of each family in `ips`.
    fn set_proxy_ips(&mut self, ips: &BTreeSet<IpAddr>) {
        let is_replaced = |old: &IpAddr| ips.iter().any(|ip| ip.is_ipv4() == old.is_ipv4());
        self.proxy_ips.retain(|old| !is_replaced(old));
        self.proxy_ips.extend(ips);
        self.proxy_ips.sort_unstable();
    }

    /// Notes an announcement for a resource.
    fn announce(&mut self, resource: ResourceId, domain: &str, by: Announcer) {
        let former = self.resources.get(&resource).map(|former| former.by);
        let announced = Announced {
            domain: domain.to_owned(),
            by: former
                .filter(|former| *former == Announcer::Client)
                .unwrap_or(by),
        };
        self.resources.insert(resource, announced);
    }
}

impl NameChange {
    /// The result, for the NAT.
    #[must_use]
    pub fn meaning(&self) -> Option<NameMeaning> {
        let either = self.now.as_ref().or(self.former.as_ref())?;
        Some(NameMeaning {
            name: either.name.clone(),
            proxied: self.now.clone(),
            announced_for: self.announced_for,
        })
    }
}

impl Authorizations {
    /// Applies an announcement of proxy IPs for a name, through a resource that covers it. Returns
    /// the names that are gone, and last the announced one, changed or not.
    ///
    /// # Errors
    ///
    /// All of [`AuthorizationError`] except those of [`Authorizations::allow`].
    pub fn assign(
        &mut self,
        resource: ResourceId,
        announced: &AnnouncedName,
        by: Announcer,
    ) -> Result<Vec<NameChange>, AuthorizationError> {
        let name = self.entitled(resource, &announced.domain)?;
        let ips: BTreeSet<_> = announced.proxy_ips.iter().copied().collect();
        if let Some(&ip) = ips.iter().find(|ip| !ranges::is_proxy(**ip)) {
            return Err(AuthorizationError::NotProxyIp { ip });
        }
        if ips.is_empty() {
            return Err(AuthorizationError::NoProxyIps);
        }
        let former = self.names.get(&name).cloned();
        let fresh = || ProxiedName {
            name: name.clone(),
            proxy_ips: Vec::new(),
            resources: BTreeMap::new(),
        };
        let mut now = former.as_deref().map_or_else(fresh, ProxiedName::clone);
        now.set_proxy_ips(&ips);
        now.announce(resource, &announced.domain, by);
        if now.resources.len() > MAX_RESOURCES_OF_NAME {
            return Err(AuthorizationError::TooManyResourcesOfName);
        }
        let others = self.names.values().filter(|held| held.name != name);
        let (lost, kept): (Vec<_>, Vec<_>) = others.partition(|held| held.has_any(&ips));
        let kept: usize = kept.iter().map(|held| held.proxy_ips.len()).sum();
        if kept + now.proxy_ips.len() > MAX_PROXY_IPS {
            return Err(AuthorizationError::TooManyProxyIps);
        }
        let lost = lost.into_iter().cloned().map(|lost| NameChange {
            former: Some(lost),
            now: None,
            announced_for: None,
        });
        let mut changes: Vec<_> = lost.collect();
        let now = match &former {
            Some(former) if **former == now => former.clone(),
            Some(_) | None => Arc::new(now),
        };
        changes.push(NameChange {
            former,
            now: Some(now),
            announced_for: Some(resource),
        });
        self.store(&changes);
        Ok(changes)
    }

    /// The name, if the client may announce it for the resource.
    fn entitled(
        &self,
        resource: ResourceId,
        domain: &str,
    ) -> Result<DomainName, AuthorizationError> {
        match self.grants.get(&resource).map(|grant| &grant.resource.kind) {
            None => Err(AuthorizationError::NotGranted { resource }),
            Some(ResourceKind::Cidr(_) | ResourceKind::Internet) => {
                Err(AuthorizationError::NotDns { resource })
            }
            Some(ResourceKind::Dns(pattern)) => {
                let name = domain.parse::<DomainName>().ok();
                let name = name.filter(|name| pattern::covers(pattern, name));
                name.ok_or(AuthorizationError::NameNotCovered { resource })
            }
        }
    }

    /// Takes the names away from resources that are gone.
    pub(super) fn release(&mut self, gone: &[ResourceId]) -> Vec<NameChange> {
        let is_touched =
            |held: &&Arc<ProxiedName>| gone.iter().any(|id| held.resources.contains_key(id));
        let touched = self.names.values().filter(is_touched).cloned();
        let changes = touched.map(|former| {
            let mut now = ProxiedName::clone(&former);
            now.resources.retain(|id, _| !gone.contains(id));
            NameChange {
                former: Some(former),
                now: (!now.resources.is_empty()).then(|| Arc::new(now)),
                announced_for: None,
            }
        });
        let changes: Vec<_> = changes.collect();
        self.store(&changes);
        changes
    }

    fn store(&mut self, changes: &[NameChange]) {
        for NameChange { former, now, .. } in changes.iter().filter(|it| it.former != it.now) {
            let names = Arc::make_mut(&mut self.names);
            match (former, now) {
                (_, Some(now)) => {
                    names.insert(now.name.clone(), now.clone());
                }
                (Some(former), None) => {
                    names.remove(&former.name);
                }
                (None, None) => {}
            }
        }
    }
}
