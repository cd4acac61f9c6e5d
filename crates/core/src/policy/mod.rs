//! The decision about each packet of one client, by an index of its [`Authorizations`].
//!
//! Implements docs/protocol.md 5.1 (selection), docs/protocol.md 5.2 steps 1 and 3 – 9
//! (inbound) and docs/protocol.md 5.3 steps 2, 4 and 5 (outbound). It does not know other clients
//! (each has its own policy), translate (the NAT does), or read wall-clock time except when a grant
//! arrives. A decision needs no allocation and no cache: one ordered-map lookup for a proxy IP,
//! else one binary search for each different prefix length among the client's networks.

mod decision;
mod explain;
mod filter;
mod routes;

pub use decision::Verdict;
pub(crate) use explain::permits_service;
pub use explain::{Access, Explanation, ResourceDecision};

use crate::authorizations::{
    Announcer, AuthorizationError, Authorizations, Changes, Grant, NameChange, ProxiedName,
};
use crate::grant::{AnnouncedName, Resource, ResourceKind, TunnelAddresses};
use crate::ids::{ResourceId, UnixTime};
use crate::names::DomainName;
use routes::Routes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client of a [`Policy`], and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The client's own tunnel addresses: the only permitted sources.
    pub client: TunnelAddresses,
    /// The gateway's tunnel addresses; `None` until the portal has sent them.
    pub gateway: Option<TunnelAddresses>,
    /// Limit of the client's resources; further ones are refused.
    pub max_resources: usize,
}

/// The policy of one client: its [`Authorizations`], and what packets need of them at hand.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
    authorizations: Authorizations,
    /// When each grant ends; without an entry, never.
    ends: BTreeMap<ResourceId, Instant>,
    /// The name of each proxy IP.
    proxied: BTreeMap<IpAddr, Arc<ProxiedName>>,
    /// The latest `now` so far.
    clock: Option<Instant>,
    derived: Derived,
}

/// Derived from the grants, because each packet or poll needs it.
#[derive(Debug, Default)]
struct Derived {
    routes: Routes,
    internet: Option<ResourceId>,
    holds_dns: bool,
    next_expiry: Option<Instant>,
}

impl Policy {
    /// A policy without grants.
    #[must_use]
    pub fn new(config: PolicyConfig) -> Self {
        Self {
            config,
            authorizations: Authorizations::default(),
            ends: BTreeMap::new(),
            proxied: BTreeMap::new(),
            clock: None,
            derived: Derived::default(),
        }
    }

    /// The policy of a client with these authorizations. What has expired is removed by the next
    /// [`Self::handle_timeout`].
    #[must_use]
    pub fn restore(
        config: PolicyConfig,
        authorizations: &Authorizations,
        unix_now: UnixTime,
        now: Instant,
    ) -> Self {
        let mut policy = Self::new(config);
        let now = policy.advance(now);
        for (id, grant) in authorizations.grants() {
            policy.note_end(*id, monotonic(grant.expires_at, unix_now, now));
        }
        for name in authorizations.names().values() {
            let ips = name.proxy_ips.iter();
            policy.proxied.extend(ips.map(|ip| (*ip, name.clone())));
        }
        policy.authorizations = authorizations.clone();
        policy.derive();
        policy
    }

    /// The authorizations that the policy decides by.
    #[must_use]
    pub fn authorizations(&self) -> &Authorizations {
        &self.authorizations
    }

    /// Changes the limit of resources; held ones stay.
    pub fn limit_resources(&mut self, max_resources: usize) {
        self.config.max_resources = max_resources;
    }

    /// Sets the gateway's tunnel addresses, which the client may always reach.
    pub fn set_gateway_addresses(&mut self, gateway: TunnelAddresses) {
        self.config.gateway = Some(gateway);
    }

    /// As [`Authorizations::allow`]. A grant that has expired is removed by the next
    /// [`Self::handle_timeout`].
    ///
    /// # Errors
    ///
    /// Those of [`Authorizations::allow`].
    pub fn allow(
        &mut self,
        resource: Resource,
        expires_at: Option<UnixTime>,
        unix_now: UnixTime,
        now: Instant,
    ) -> Result<(), AuthorizationError> {
        let now = self.advance(now);
        let id = resource.id;
        let limit = self.config.max_resources;
        self.authorizations.allow(resource, expires_at, limit)?;
        self.note_end(id, monotonic(expires_at, unix_now, now));
        self.derive();
        Ok(())
    }

    /// As [`Authorizations::revoke`], immediately.
    pub fn revoke(&mut self, resource: ResourceId) -> Changes {
        let changes = self.authorizations.revoke(resource);
        self.follow(changes)
    }

    /// As [`Authorizations::update`].
    pub fn update_filters(&mut self, resource: &Resource) -> bool {
        self.authorizations.update(resource)
    }

    /// As [`Authorizations::set_expiry`].
    pub fn set_expiry(
        &mut self,
        resource: ResourceId,
        expires_at: Option<UnixTime>,
        unix_now: UnixTime,
        now: Instant,
    ) -> bool {
        let now = self.advance(now);
        let is_held = self.authorizations.set_expiry(resource, expires_at);
        if is_held {
            self.note_end(resource, monotonic(expires_at, unix_now, now));
            self.derive();
        }
        is_held
    }

    /// As [`Authorizations::reconcile`].
    pub fn reconcile(
        &mut self,
        listed: &BTreeMap<ResourceId, Option<UnixTime>>,
        unix_now: UnixTime,
        now: Instant,
    ) -> Changes {
        let now = self.advance(now);
        let changes = self.authorizations.reconcile(listed);
        for (id, expires_at) in listed {
            self.note_end(*id, monotonic(*expires_at, unix_now, now));
        }
        self.follow(changes)
    }

    /// As [`Authorizations::assign`]: the filters of the resource then apply to the proxy IPs.
    ///
    /// # Errors
    ///
    /// Those of [`Authorizations::assign`].
    pub fn assign_proxies(
        &mut self,
        resource: ResourceId,
        announced: &AnnouncedName,
        by: Announcer,
    ) -> Result<Vec<NameChange>, AuthorizationError> {
        let changes = self.authorizations.assign(resource, announced, by)?;
        self.index(&changes);
        Ok(changes)
    }

    /// Removes everything: the client is gone.
    pub fn clear(&mut self) -> Changes {
        let changes = self.authorizations.clear();
        self.follow(changes)
    }

    /// Removes the resources that have expired.
    pub fn handle_timeout(&mut self, now: Instant) -> Changes {
        let now = self.advance(now);
        if self.derived.next_expiry.is_none_or(|at| at > now) {
            return Changes::default();
        }
        let ends = &self.ends;
        let is_over = |id, _: &Grant| ends.get(&id).is_some_and(|at| *at <= now);
        let changes = self.authorizations.expire(is_over);
        self.follow(changes)
    }

    /// When the next resource expires.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.derived.next_expiry
    }

    /// Whether the client holds no resource, so that its connection can close.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authorizations.is_empty()
    }

    /// The resources of the client, in the order of their ids.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.authorizations
            .grants()
            .values()
            .map(|grant| &grant.resource)
    }

    /// The name by which packets to `ip` are decided.
    #[must_use]
    pub fn proxied_name(&self, ip: IpAddr) -> Option<&DomainName> {
        self.proxied.get(&ip).map(|proxied| &proxied.name)
    }

    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(now);
        now
    }

    fn note_end(&mut self, resource: ResourceId, end: Option<Instant>) {
        match end {
            Some(end) => self.ends.insert(resource, end),
            None => self.ends.remove(&resource),
        };
    }

    /// Takes over what a change removed.
    fn follow(&mut self, changes: Changes) -> Changes {
        let grants = self.authorizations.grants();
        self.ends.retain(|id, _| grants.contains_key(id));
        self.index(&changes.names);
        self.derive();
        changes
    }

    fn index(&mut self, changes: &[NameChange]) {
        for NameChange { former, now, .. } in changes.iter().filter(|it| it.former != it.now) {
            for ip in former.iter().flat_map(|former| &former.proxy_ips) {
                self.proxied.remove(ip);
            }
            if let Some(name) = now {
                let ips = name.proxy_ips.iter();
                self.proxied.extend(ips.map(|ip| (*ip, name.clone())));
            }
        }
    }

    fn derive(&mut self) {
        let resources = || self.resources();
        let derived = Derived {
            routes: resources()
                .filter_map(|resource| match resource.kind {
                    ResourceKind::Cidr(network) => Some((network, resource.id)),
                    ResourceKind::Dns(_) | ResourceKind::Internet => None,
                })
                .collect(),
            internet: resources()
                .filter(|resource| resource.kind == ResourceKind::Internet)
                .last()
                .map(|resource| resource.id),
            holds_dns: resources().any(|resource| matches!(resource.kind, ResourceKind::Dns(_))),
            next_expiry: self.ends.values().min().copied(),
        };
        self.derived = derived;
    }
}

/// Converts a date to the monotonic clock; dates beyond that clock never come.
fn monotonic(expires_at: Option<UnixTime>, unix_now: UnixTime, now: Instant) -> Option<Instant> {
    let seconds = expires_at?.0.saturating_sub(unix_now.0);
    now.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
