//! What one client may reach: its grants, and the names that it uses through them.
//!
//! The only place with the rules for them (docs/protocol.md 5.1 and 5.5): a grant of another kind
//! is refused, a list of the portal revokes what it omits, a client announces only names that its
//! resource covers, with proxy IPs of the right ranges. All resources of a client that a name was
//! announced for share one set of proxy IPs, as the client has one for each name. An announcement
//! replaces the set family by family, and a proxy IP under another name removes the whole former
//! name, because the client has restarted its numbering (docs/lessons.md 17).
//!
//! [`Authorizations`] is a plain value, and cheap to clone: a connection decides by an index of it
//! ([`crate::policy`]), publishes it after each change, and is restored from what it has published
//! and from the portal's later commands, which [`Authorizations::apply`] applies by the same rules.
//! The NAT is told what a name means ([`NameMeaning`]), and applies no rule.

mod names;
pub mod pattern;
pub mod ranges;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use names::{Announced, Announcer, NameChange, NameMeaning, ProxiedName};

use crate::grant::{AccessRequest, AnnouncedName, AuthorizationRequest, Resource, ResourceKind};
use crate::ids::{ResourceId, UnixTime};
use crate::names::DomainName;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Limit of a client's proxy IPs: 2048 names of eight, far beyond what a person visits and small
/// enough that a hostile client costs the gateway little memory.
pub const MAX_PROXY_IPS: usize = 16_384;
/// Limit of a client's resources for one name; each holds a string of at most 255 bytes.
pub const MAX_RESOURCES_OF_NAME: usize = 64;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorizations {
    grants: Arc<BTreeMap<ResourceId, Grant>>,
    names: Arc<BTreeMap<DomainName, Arc<ProxiedName>>>,
}

/// A resource that a client may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// As last sent by the portal, including filters.
    pub resource: Resource,
    /// `None` if the grant never expires.
    pub expires_at: Option<UnixTime>,
}

impl Grant {
    /// Whether the grant has expired.
    #[must_use]
    pub fn is_over(&self, unix_now: UnixTime) -> bool {
        self.expires_at.is_some_and(|at| at <= unix_now)
    }
}

/// The reason why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantEnd {
    /// Its expiry was reached.
    Expired,
    /// The portal revoked it.
    Revoked,
    /// The portal's list of grants no longer contains it.
    Unlisted,
    /// Its client left, or was cut off.
    ClientGone,
}

/// What a change removed, in the order of the ids and names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The grants that ended.
    pub ended: Vec<(Grant, GrantEnd)>,
    /// The names that lost a resource, and perhaps their last one.
    pub names: Vec<NameChange>,
}

/// A command of the portal about the grants of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantCommand {
    /// Grant a resource, or renew it.
    Allow {
        /// The granted resource.
        resource: Resource,
        /// End of the grant; `None` never expires.
        expires_at: Option<UnixTime>,
        /// The name that the client wants to reach, if the portal includes it (generation 0).
        announced: Option<AnnouncedName>,
    },
    /// Take a resource away.
    Revoke(ResourceId),
    /// Change the expiry of a held grant.
    SetExpiry(ResourceId, Option<UnixTime>),
    /// Change the filters and the display name of a held resource.
    Update(Resource),
    /// Revoke all grants that are absent from this list, and take over the expiry of the others.
    Reconcile(BTreeMap<ResourceId, Option<UnixTime>>),
}

impl From<&AuthorizationRequest> for GrantCommand {
    fn from(request: &AuthorizationRequest) -> Self {
        Self::Allow {
            resource: request.resource.clone(),
            expires_at: request.expires_at,
            announced: request.announced.clone(),
        }
    }
}

impl From<&AccessRequest> for GrantCommand {
    fn from(request: &AccessRequest) -> Self {
        Self::Allow {
            resource: request.resource.clone(),
            expires_at: request.expires_at,
            announced: request.announced.clone(),
        }
    }
}

/// Why a change was refused. A refused change has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// The client is at its limit of resources.
    #[error("the client already holds {limit} resources, which is the limit")]
    TooManyResources {
        /// The limit of a client's resources.
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
    /// The announcement contains no proxy IP.
    #[error("no proxy IPs")]
    NoProxyIps,
    /// The client chose a proxy IP outside the ranges for them (docs/lessons.md 16).
    #[error("{ip} is outside the proxy ranges")]
    NotProxyIp {
        /// The address outside the ranges.
        ip: IpAddr,
    },
    /// The client is at its limit of proxy IPs.
    #[error("the client already uses {MAX_PROXY_IPS} proxy IPs, which is the limit")]
    TooManyProxyIps,
    /// Too many resources of the client match the name.
    #[error("more than {MAX_RESOURCES_OF_NAME} resources for a name")]
    TooManyResourcesOfName,
}

impl AuthorizationError {
    /// Whether the client holds the resource nonetheless: the earlier grant stays, and counts as
    /// the answer to a mistake of the portal.
    #[must_use]
    pub fn leaves_it_granted(self) -> bool {
        !matches!(self, Self::TooManyResources { .. })
    }
}

impl Authorizations {
    /// The grants, by resource.
    #[must_use]
    pub fn grants(&self) -> &BTreeMap<ResourceId, Grant> {
        &self.grants
    }

    /// The names with proxy IPs.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<DomainName, Arc<ProxiedName>> {
        &self.names
    }

    /// Whether the client holds no resource.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Grants `resource` until `expires_at`, or without an expiry if that is `None`. A resource
    /// that is already held gets the new filters and the new expiry.
    ///
    /// # Errors
    ///
    /// [`AuthorizationError::TooManyResources`] for a resource beyond `max_resources`, and
    /// [`AuthorizationError::KindChanged`].
    pub fn allow(
        &mut self,
        resource: Resource,
        expires_at: Option<UnixTime>,
        max_resources: usize,
    ) -> Result<(), AuthorizationError> {
        let grant = Grant {
            resource,
            expires_at,
        };
        let resource = grant.resource.id;
        match self.grants.get(&resource) {
            Some(held) if !is_same_kind(&held.resource.kind, &grant.resource.kind) => {
                return Err(AuthorizationError::KindChanged { resource });
            }
            None if self.grants.len() >= max_resources => {
                let limit = max_resources;
                return Err(AuthorizationError::TooManyResources { limit });
            }
            Some(held) if *held == grant => {}
            Some(_) | None => {
                Arc::make_mut(&mut self.grants).insert(resource, grant);
            }
        }
        Ok(())
    }

    /// Removes a resource, and its names unless another resource covers them.
    pub fn revoke(&mut self, resource: ResourceId) -> Changes {
        self.end(GrantEnd::Revoked, |id, _| id == resource)
    }

    /// Removes the grants for which `is_over` holds, as expired.
    pub fn expire(&mut self, is_over: impl Fn(ResourceId, &Grant) -> bool) -> Changes {
        self.end(GrantEnd::Expired, is_over)
    }

    /// Removes everything: the client is gone.
    pub fn clear(&mut self) -> Changes {
        self.end(GrantEnd::ClientGone, |_, _| true)
    }

    /// Updates only the filters and the display name of `resource`, if it is held. Returns whether
    /// it is; a resource of another type is ignored with a warning (docs/protocol.md 2.2).
    pub fn update(&mut self, update: &Resource) -> bool {
        let Some(held) = self.grants.get(&update.id).map(|grant| &grant.resource) else {
            return false;
        };
        if std::mem::discriminant(&held.kind) != std::mem::discriminant(&update.kind) {
            tracing::warn!(resource = %update.id, "update of a resource to another type ignored");
            return false;
        }
        let is_news = held.filters != update.filters || held.name != update.name;
        if is_news && let Some(grant) = Arc::make_mut(&mut self.grants).get_mut(&update.id) {
            grant.resource.filters.clone_from(&update.filters);
            grant.resource.name.clone_from(&update.name);
        }
        true
    }

    /// Changes the expiry of a held resource. Returns whether it is held.
    pub fn set_expiry(&mut self, resource: ResourceId, expires_at: Option<UnixTime>) -> bool {
        let Some(held) = self.grants.get(&resource) else {
            return false;
        };
        if held.expires_at != expires_at
            && let Some(grant) = Arc::make_mut(&mut self.grants).get_mut(&resource)
        {
            grant.expires_at = expires_at;
        }
        true
    }

    /// Revokes every resource that is absent from `listed` and updates the expiry of the others
    /// (docs/lessons.md 23). It creates no grant: only a grant of the portal carries what that
    /// needs.
    pub fn reconcile(&mut self, listed: &BTreeMap<ResourceId, Option<UnixTime>>) -> Changes {
        for (resource, expires_at) in listed {
            self.set_expiry(*resource, *expires_at);
        }
        self.end(GrantEnd::Unlisted, |id, _| !listed.contains_key(&id))
    }

    /// Applies a command of the portal, as a connection does. Returns the grants that ended.
    pub fn apply(
        &mut self,
        command: &GrantCommand,
        max_resources: usize,
    ) -> Vec<(Grant, GrantEnd)> {
        match command {
            GrantCommand::Allow {
                resource,
                expires_at,
                announced,
            } => {
                let id = resource.id;
                let refused = self
                    .allow(resource.clone(), *expires_at, max_resources)
                    .err();
                let is_held = refused.is_none_or(AuthorizationError::leaves_it_granted);
                if let Some(announced) = announced.as_ref().filter(|_| is_held) {
                    // Its connection reports what is refused.
                    let _ = self.assign(id, announced, Announcer::Portal);
                }
                Vec::new()
            }
            GrantCommand::Revoke(resource) => self.revoke(*resource).ended,
            GrantCommand::SetExpiry(resource, expires_at) => {
                self.set_expiry(*resource, *expires_at);
                Vec::new()
            }
            GrantCommand::Update(resource) => {
                self.update(resource);
                Vec::new()
            }
            GrantCommand::Reconcile(listed) => self.reconcile(listed).ended,
        }
    }

    fn end(&mut self, end: GrantEnd, is_over: impl Fn(ResourceId, &Grant) -> bool) -> Changes {
        let over = self
            .grants
            .iter()
            .filter(|(id, grant)| is_over(**id, grant));
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        if over.is_empty() {
            return Changes::default();
        }
        let grants = Arc::make_mut(&mut self.grants);
        let ended = over.iter().filter_map(|id| grants.remove(id));
        Changes {
            ended: ended.map(|grant| (grant, end)).collect(),
            names: self.release(&over),
        }
    }
}

/// Whether two grants are of the same kind: networks are compared without their host bits.
fn is_same_kind(held: &ResourceKind, update: &ResourceKind) -> bool {
    match (held, update) {
        (ResourceKind::Cidr(held), ResourceKind::Cidr(update)) => held.trunc() == update.trunc(),
        (ResourceKind::Cidr(_) | ResourceKind::Dns(_) | ResourceKind::Internet, _) => {
            held == update
        }
    }
}
