//! The grants of one client, and the decision about each of its packets.
//!
//! Implements docs/protocol.md 5.1 (grants, selection), docs/protocol.md 5.2 steps 1 and 3 – 9
//! (inbound) and docs/protocol.md 5.3 steps 2, 4 and 5 (outbound). It does not know other clients
//! (each has its own policy), translate (the NAT does), or read wall-clock time except when a grant
//! arrives. A decision needs no allocation and no cache: one ordered-map lookup for a proxy IP,
//! else one binary search for each different prefix length among the client's networks.

mod decision;
mod explain;
mod filter;
pub mod pattern;
mod proxies;
pub mod ranges;
mod routes;

pub use decision::Verdict;
pub(crate) use explain::permits_service;
pub use explain::{Access, Explanation, ResourceDecision};

use crate::grant::{Resource, ResourceKind, TunnelAddresses};
use crate::ids::{ResourceId, UnixTime};
use crate::names::DomainName;
use proxies::Proxies;
use routes::Routes;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
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

/// A resource and its proxy IPs were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyEvent {
    /// The grant of a resource expired.
    Expired {
        /// The removed resource.
        resource: ResourceId,
    },
    /// The portal revoked the resource, or omitted it from its list of grants.
    Revoked {
        /// The removed resource.
        resource: ResourceId,
    },
}

/// Why a change was refused. A refused change has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The client is at its limit of resources.
    #[error("the client already holds {limit} resources, which is the limit")]
    TooManyResources {
        /// [`PolicyConfig::max_resources`].
        limit: usize,
    },
    /// The portal granted a held resource again with another kind, address or pattern. It has to
    /// revoke the resource first (docs/protocol.md 5.1).
    #[error("resource {resource} is held with another kind or address and must be revoked first")]
    KindChanged {
        /// The resource that is already held.
        resource: ResourceId,
    },
    /// The client does not hold the resource.
    #[error("resource {resource} is not granted")]
    NotGranted {
        /// The resource that is not held.
        resource: ResourceId,
    },
    /// Only a DNS resource has proxy IPs.
    #[error("resource {resource} is no DNS resource")]
    NotDns {
        /// The resource of another kind.
        resource: ResourceId,
    },
    /// The resource's pattern does not cover the name (docs/protocol.md 5.5).
    #[error("resource {resource} does not cover that name")]
    NameNotCovered {
        /// The resource with the pattern.
        resource: ResourceId,
    },
    /// The client chose a proxy IP outside the ranges for them (docs/lessons.md 16).
    #[error("{ip} is outside the proxy ranges")]
    NotProxyIp {
        /// The address outside the ranges.
        ip: IpAddr,
    },
    /// The client is at its limit of proxy IPs.
    #[error("the client already uses {limit} proxy IPs, which is the limit")]
    TooManyProxyIps {
        /// [`MAX_PROXY_IPS`], the limit.
        limit: usize,
    },
}

/// Limit of a client's proxy IPs: 2048 names of eight, far beyond what a person visits and small
/// enough that a hostile client costs the gateway little memory.
pub const MAX_PROXY_IPS: usize = 16_384;

/// The policy of one client.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
    grants: BTreeMap<ResourceId, HeldGrant>,
    proxies: Proxies,
    /// At most the highest [`PolicyConfig::max_resources`] so far; then the oldest is dropped.
    events: VecDeque<PolicyEvent>,
    max_events: usize,
    /// The latest `now` so far.
    clock: Option<Instant>,
    derived: Derived,
}

#[derive(Debug)]
struct HeldGrant {
    resource: Resource,
    /// `None` never expires.
    expires_at: Option<Instant>,
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
            grants: BTreeMap::new(),
            proxies: Proxies::default(),
            events: VecDeque::new(),
            max_events: config.max_resources,
            config,
            clock: None,
            derived: Derived::default(),
        }
    }

    /// Changes the limit of resources; held ones stay.
    pub fn limit_resources(&mut self, max_resources: usize) {
        self.config.max_resources = max_resources;
        self.max_events = self.max_events.max(max_resources);
    }

    /// Sets the gateway's tunnel addresses, which the client may always reach.
    pub fn set_gateway_addresses(&mut self, gateway: TunnelAddresses) {
        self.config.gateway = Some(gateway);
    }

    /// Grants `resource` until `expires_at`, or without an expiry if that is `None`.
    ///
    /// A resource that is already held gets the new filters and the new expiry. A grant that has
    /// expired is removed by the next [`Self::handle_timeout`].
    ///
    /// # Errors
    ///
    /// [`PolicyError::TooManyResources`] and [`PolicyError::KindChanged`].
    pub fn allow(
        &mut self,
        resource: Resource,
        expires_at: Option<UnixTime>,
        unix_now: UnixTime,
        now: Instant,
    ) -> Result<(), PolicyError> {
        let now = self.advance(now);
        let limit = self.config.max_resources;
        let held = self.grants.len();
        let expires_at = monotonic(expires_at, unix_now, now);
        match self.grants.get_mut(&resource.id) {
            Some(grant) if !is_same_kind(&grant.resource.kind, &resource.kind) => {
                return Err(PolicyError::KindChanged {
                    resource: resource.id,
                });
            }
            Some(grant) => {
                grant.resource.filters = resource.filters;
                grant.expires_at = expires_at;
            }
            None if held >= limit => return Err(PolicyError::TooManyResources { limit }),
            None => {
                let grant = HeldGrant {
                    resource,
                    expires_at,
                };
                self.grants.insert(grant.resource.id, grant);
            }
        }
        self.derive();
        Ok(())
    }

    /// Removes a resource and its proxy IPs immediately. Returns whether it was held.
    pub fn revoke(&mut self, resource: ResourceId) -> bool {
        if self.grants.remove(&resource).is_none() {
            return false;
        }
        self.emit(PolicyEvent::Revoked { resource });
        self.forget_proxy_ips();
        self.derive();
        true
    }

    /// Updates only the filters of `resource`, if it is held. Returns whether it did; a resource of
    /// another type is ignored with a warning (docs/protocol.md 2.2).
    pub fn update_filters(&mut self, resource: &Resource) -> bool {
        let Some(grant) = self.grants.get_mut(&resource.id) else {
            return false;
        };
        let (held, update) = (&grant.resource.kind, &resource.kind);
        if std::mem::discriminant(held) != std::mem::discriminant(update) {
            tracing::warn!(resource = %resource.id, "update of a resource to another type ignored");
            return false;
        }
        grant.resource.filters.clone_from(&resource.filters);
        true
    }

    /// Changes the expiry of a held resource. Returns whether it is held.
    pub fn set_expiry(
        &mut self,
        resource: ResourceId,
        expires_at: Option<UnixTime>,
        unix_now: UnixTime,
        now: Instant,
    ) -> bool {
        let now = self.advance(now);
        let Some(grant) = self.grants.get_mut(&resource) else {
            return false;
        };
        grant.expires_at = monotonic(expires_at, unix_now, now);
        self.derive();
        true
    }

    /// Revokes every resource that is absent from `granted` and updates the expiry of the others
    /// (docs/lessons.md 23). It creates no grant: only a grant of the portal carries what that
    /// needs.
    pub fn reconcile(
        &mut self,
        granted: impl Iterator<Item = (ResourceId, Option<UnixTime>)>,
        unix_now: UnixTime,
        now: Instant,
    ) {
        let now = self.advance(now);
        let granted: BTreeMap<_, _> = granted.collect();
        for (id, grant) in &mut self.grants {
            if let Some(expires_at) = granted.get(id) {
                grant.expires_at = monotonic(*expires_at, unix_now, now);
            }
        }
        self.remove_where(
            |id, _| !granted.contains_key(&id),
            |resource| PolicyEvent::Revoked { resource },
        );
    }

    /// Adds `ips` as the addresses of `name` through `resource`: its filters then apply to them.
    /// Replaces the name's former addresses of the same family; another name with one of `ips`
    /// loses all of its own (docs/lessons.md 17). They are removed with the resource.
    ///
    /// # Errors
    ///
    /// [`PolicyError::NotGranted`], [`PolicyError::NotDns`], [`PolicyError::NameNotCovered`],
    /// [`PolicyError::NotProxyIp`] and [`PolicyError::TooManyProxyIps`].
    pub fn assign_proxies(
        &mut self,
        resource: ResourceId,
        name: &DomainName,
        ips: &[IpAddr],
    ) -> Result<(), PolicyError> {
        match self.grants.get(&resource).map(|grant| &grant.resource.kind) {
            None => return Err(PolicyError::NotGranted { resource }),
            Some(ResourceKind::Cidr(_) | ResourceKind::Internet) => {
                return Err(PolicyError::NotDns { resource });
            }
            Some(ResourceKind::Dns(pattern)) if !pattern::covers(pattern, name) => {
                return Err(PolicyError::NameNotCovered { resource });
            }
            Some(ResourceKind::Dns(_)) => {}
        }
        if let Some(&ip) = ips.iter().find(|ip| !ranges::is_proxy(**ip)) {
            return Err(PolicyError::NotProxyIp { ip });
        }
        if self.proxies.len_with(ips) > MAX_PROXY_IPS {
            return Err(PolicyError::TooManyProxyIps {
                limit: MAX_PROXY_IPS,
            });
        }
        self.proxies.assign(resource, name, ips);
        Ok(())
    }

    /// Removes the resources that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        if self.derived.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        self.remove_where(
            |_, grant| grant.expires_at.is_some_and(|at| at <= now),
            |resource| PolicyEvent::Expired { resource },
        );
    }

    /// When the next resource expires.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.derived.next_expiry
    }

    /// The next removed resource; those of one call come in the order of their ids.
    pub fn poll_event(&mut self) -> Option<PolicyEvent> {
        self.events.pop_front()
    }

    /// Whether the client holds no resource, so that its connection can close.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// The resources of the client, in the order of their ids.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.grants.values().map(|grant| &grant.resource)
    }

    /// Whether `ip` belongs to `name` through `resource`.
    #[must_use]
    pub fn has_proxy(&self, resource: ResourceId, name: &DomainName, ip: IpAddr) -> bool {
        self.proxies.has(resource, name, ip)
    }

    /// The name by which packets to `ip` are decided.
    #[cfg(test)]
    pub(crate) fn proxied_name(&self, ip: IpAddr) -> Option<&DomainName> {
        self.proxies.name_of(ip)
    }

    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(now);
        now
    }

    fn remove_where(
        &mut self,
        is_over: impl Fn(ResourceId, &HeldGrant) -> bool,
        event: impl Fn(ResourceId) -> PolicyEvent,
    ) {
        let mut gone = Vec::new();
        self.grants.retain(|id, grant| {
            let is_over = is_over(*id, grant);
            if is_over {
                gone.push(*id);
            }
            !is_over
        });
        if gone.is_empty() {
            return self.derive();
        }
        for id in gone {
            self.emit(event(id));
        }
        self.forget_proxy_ips();
        self.derive();
    }

    fn emit(&mut self, event: PolicyEvent) {
        if self.events.len() >= self.max_events {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Removes the proxy IPs of resources that are gone.
    fn forget_proxy_ips(&mut self) {
        let grants = &self.grants;
        self.proxies
            .forget_resources(|resource| !grants.contains_key(&resource));
    }

    fn derive(&mut self) {
        let resources = || self.grants.values().map(|grant| &grant.resource);
        self.derived = Derived {
            routes: resources()
                .filter_map(|resource| match resource.kind {
                    ResourceKind::Cidr(network) => Some((network, resource.id)),
                    ResourceKind::Dns(_) | ResourceKind::Internet => None,
                })
                .collect(),
            internet: resources()
                .rfind(|resource| resource.kind == ResourceKind::Internet)
                .map(|resource| resource.id),
            holds_dns: resources().any(|resource| matches!(resource.kind, ResourceKind::Dns(_))),
            next_expiry: self
                .grants
                .values()
                .filter_map(|grant| grant.expires_at)
                .min(),
        };
    }
}

/// Whether two grants are of the same kind: networks are compared without their host bits.
pub(crate) fn is_same_kind(held: &ResourceKind, update: &ResourceKind) -> bool {
    match (held, update) {
        (ResourceKind::Cidr(held), ResourceKind::Cidr(update)) => held.trunc() == update.trunc(),
        (ResourceKind::Cidr(_) | ResourceKind::Dns(_) | ResourceKind::Internet, _) => {
            held == update
        }
    }
}

/// Converts a date to the monotonic clock; dates beyond that clock never come.
fn monotonic(expires_at: Option<UnixTime>, unix_now: UnixTime, now: Instant) -> Option<Instant> {
    let seconds = expires_at?.0.saturating_sub(unix_now.0);
    now.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
