//! The steps about authorizations, current and former.

use super::{Case, Outcome, SHOWN};
use crate::authorizations::{GrantEnd, pattern, ranges};
use crate::diagnosis::words::{date, permitted, title};
use crate::diagnosis::{Permits, RightsCause, Seconds};
use crate::grant::{Resource, ResourceKind};
use crate::ids::UnixTime;
use crate::names::DomainName;
use crate::policy::{Access, Explanation, ResourceDecision, permits_service};
use crate::target::{Host, Service};

impl Case<'_> {
    /// The policy's decision.
    pub(super) fn policy(&self) -> Option<&Explanation> {
        let connection = self.client.connection.answer();
        connection.map(|connection| &connection.policy)
    }

    /// The best decision about any of the services.
    fn best(&self) -> Option<&(Service, Access)> {
        let all = &self.policy()?.access;
        let permitted = all.iter().find(|(_, access)| access.is_permitted());
        permitted.or_else(|| all.first())
    }

    pub(super) fn authorization(&self) -> Outcome {
        let place = self.facts.target.host.to_string();
        let Some((_, access)) = self.best() else {
            return match self.ended() {
                Some(cause) => Outcome::Failed(cause.into()),
                None => Outcome::Unknown,
            };
        };
        let failed = match access {
            Access::Gateway => {
                return Outcome::Passed("not needed for the gateway's own address".into());
            }
            Access::Covered(decisions) => {
                let lost = self.ended().filter(|_| !access.is_permitted());
                return match (lost, decisions.first()) {
                    (Some(cause), _) => Outcome::Failed(cause.into()),
                    (None, Some(deciding)) => Outcome::Passed(self.until(&deciding.resource)),
                    (None, None) => Outcome::Unknown,
                };
            }
            Access::Uncovered => self.ended().unwrap_or_else(|| RightsCause::NotAuthorized {
                place,
                is_name: matches!(self.facts.target.host, Host::Name(_)),
                holds: self.holds(),
            }),
            Access::NotInternet { internet } => RightsCause::NotInternet {
                resource: title(internet),
                place,
            },
            Access::TunnelRange => RightsCause::TunnelRange { place },
            Access::Group => RightsCause::Group { place },
            Access::NoName => RightsCause::NoName { place },
        };
        Outcome::Failed(failed.into())
    }

    pub(super) fn filter(&self) -> Outcome {
        let Some((_, access)) = self.best() else {
            return Outcome::Unknown;
        };
        match access {
            Access::Gateway => Outcome::Passed("permits everything".into()),
            Access::Covered(decisions) if access.is_permitted() => {
                let permits = decisions.first().map(permits);
                let permits = permits.map_or_else(String::new, |it| it.permits);
                Outcome::Passed(format!("permits {permits}"))
            }
            // The right to that service ended with an authorization.
            Access::Covered(_) if self.ended().is_some() => Outcome::Unknown,
            Access::Covered(decisions) => {
                let cause = RightsCause::Filtered {
                    asked: self.facts.target.service.to_string(),
                    place: self.facts.target.host.to_string(),
                    resources: decisions.iter().take(SHOWN).map(permits).collect(),
                };
                Outcome::Failed(cause.into())
            }
            Access::Uncovered
            | Access::NotInternet { .. }
            | Access::TunnelRange
            | Access::Group
            | Access::NoName => Outcome::Unknown,
        }
    }

    /// Notes for a service that only one protocol may use.
    pub(super) fn filter_notes(&self) -> Vec<String> {
        let Some(policy) = self.policy() else {
            return Vec::new();
        };
        let any = policy
            .access
            .iter()
            .any(|(_, access)| access.is_permitted());
        let forbidden = policy
            .access
            .iter()
            .filter(|(_, it)| any && !it.is_permitted());
        let note = |(asked, _): &(Service, Access)| format!("The filter does not permit {asked}.");
        forbidden.map(note).collect()
    }

    /// The authorization that would have permitted the target, and that ended.
    pub(super) fn ended(&self) -> Option<RightsCause> {
        let now = self.facts.unix_now;
        let held = self.client.grants.iter();
        let over = held.filter(|grant| grant.is_over(now) && self.would_permit(&grant.resource));
        let over = over.filter_map(|grant| Some((&grant.resource, grant.expires_at?, true)));
        let ended = self.client.ended.iter();
        let ended = ended.filter(|ended| self.would_permit(&ended.grant.resource));
        let ended = ended.filter_map(|ended| {
            let expired = match ended.end {
                GrantEnd::Expired => true,
                GrantEnd::Revoked | GrantEnd::Unlisted => false,
                // It may come back with all its grants.
                GrantEnd::ClientGone => return None,
            };
            Some((&ended.grant.resource, ended.at, expired))
        });
        let (resource, at, is_expired) = over.chain(ended).max_by_key(|(_, at, _)| *at)?;
        let (resource, ago) = (title(resource), Seconds(now.0.saturating_sub(at.0)));
        let at = date(at);
        Some(match is_expired {
            true => RightsCause::Expired { resource, at, ago },
            false => RightsCause::Revoked { resource, at, ago },
        })
    }

    fn would_permit(&self, resource: &Resource) -> bool {
        let target = &self.facts.target;
        let known = self.policy().and_then(|policy| policy.name.as_ref());
        let covers = match &target.host {
            Host::Name(name) => covers_name(resource, name),
            Host::Ip(ip) => match &resource.kind {
                ResourceKind::Cidr(network) => network.contains(ip),
                ResourceKind::Dns(_) => known.is_some_and(|name| covers_name(resource, name)),
                ResourceKind::Internet => ranges::is_internet(*ip),
            },
        };
        covers && permits_service(&resource.filters, target.service)
    }

    /// The other resources of the client, as far as useful.
    fn holds(&self) -> Vec<String> {
        let now = self.facts.unix_now;
        let held = self
            .client
            .grants
            .iter()
            .filter(|grant| !grant.is_over(now));
        let mut titles: Vec<_> = held.map(|grant| title(&grant.resource)).collect();
        let more = titles.len().saturating_sub(SHOWN);
        if more > 1 {
            titles.truncate(SHOWN);
            titles.push(format!("and {more} more"));
        }
        titles
    }

    /// A resource, and the expiry of its grant.
    fn until(&self, resource: &Resource) -> String {
        let grant = self
            .client
            .grants
            .iter()
            .find(|it| it.resource.id == resource.id);
        let title = title(resource);
        match grant.and_then(|grant| grant.expires_at) {
            None => format!("by {title}"),
            Some(at) => {
                let UnixTime(now) = self.facts.unix_now;
                let rest = Seconds(at.0.saturating_sub(now));
                format!("by {title}, until {} (for {rest})", date(at))
            }
        }
    }
}

fn covers_name(resource: &Resource, name: &DomainName) -> bool {
    match &resource.kind {
        ResourceKind::Dns(pattern) => pattern::covers(pattern, name),
        ResourceKind::Cidr(_) | ResourceKind::Internet => false,
    }
}

fn permits(decision: &ResourceDecision) -> Permits {
    let resource = &decision.resource;
    Permits {
        resource: title(resource),
        permits: permitted(&resource.filters),
    }
}
