//! The steps about the name and its addresses.

use super::{Case, Outcome, SHOWN};
use crate::diagnosis::words::title;
use crate::diagnosis::{ClientCause, DnsFailure, NameCause, Response, Seconds};
use crate::domains::{FamilyFacts, MappingFacts};
use crate::names::{DomainName, NameFailure};
use crate::policy::{Access, Explanation};
use crate::target::Host;
use std::net::IpAddr;

impl Case<'_> {
    /// The name that the client uses, with the policy's decision.
    fn named(&self) -> Option<(&DomainName, &Explanation)> {
        let policy = self.policy()?;
        Some((policy.name.as_ref()?, policy))
    }

    /// Whether the client reaches the target by a name.
    pub(super) fn is_named(&self) -> bool {
        self.named().is_some() || matches!(self.facts.target.host, Host::Name(_))
    }

    pub(super) fn mapping(&self) -> Option<&MappingFacts> {
        self.client.nat.answer()?.mapping.as_ref()
    }

    pub(super) fn name(&self) -> Outcome {
        let Some((name, policy)) = self.named() else {
            return match self.is_named() {
                true => Outcome::Unknown,
                false => Outcome::NotNeeded("the target is an address".into()),
            };
        };
        if policy.proxy_ips.is_empty() {
            return match covering(policy) {
                Some(resource) => Outcome::Failed(
                    NameCause::NameNotAnnounced {
                        name: name.to_string(),
                        resource,
                        announced: policy.names,
                    }
                    .into(),
                ),
                None => Outcome::Unknown,
            };
        }
        match &self.client.nat {
            Response::Answer(nat) if nat.mapping.is_none() => {
                let (kept, limit) = nat.names;
                let name = name.to_string();
                Outcome::Failed(NameCause::NameNotKept { name, kept, limit }.into())
            }
            Response::Answer(_) => {
                let proxy_ips = list(&policy.proxy_ips);
                Outcome::Passed(format!("{name}, which the client knows as {proxy_ips}"))
            }
            Response::Timeout => {
                let part = "address translation".into();
                ClientCause::PartSilent { part }.into()
            }
            Response::Restarting | Response::Absent => {
                let part = "address translation, which is being built anew".into();
                ClientCause::PartSilent { part }.into()
            }
        }
    }

    pub(super) fn addresses(&self) -> Outcome {
        let Some(mapping) = self.mapping() else {
            return match self.is_named() {
                true => Outcome::Unknown,
                false => Outcome::NotNeeded("the target is an address".into()),
            };
        };
        let known: Vec<_> = used(mapping).flat_map(|(_, it)| &it.addresses).collect();
        if known.is_empty() {
            return Outcome::Failed(unresolved(mapping).into());
        }
        let ips: Vec<_> = known.iter().map(|it| it.ip).collect();
        let count = match ips.len() {
            1 => "1 address".to_owned(),
            count => format!("{count} addresses"),
        };
        let resolved = used(mapping).filter_map(|(_, it)| it.resolved).min();
        let resolved = resolved.map(|ago| format!(", {} ago", Seconds::from(ago)));
        let resolved = resolved.unwrap_or_default();
        Outcome::Passed(format!("{count}{resolved}: {}", list(&ips)))
    }

    pub(super) fn name_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Host::Ip(ip), Some((name, _))) = (&self.facts.target.host, self.named()) {
            notes.push(format!(
                "{ip} is one of the addresses by which this client knows {name}."
            ));
        }
        let Some(mapping) = self.mapping() else {
            return notes;
        };
        for (_, family) in used(mapping).filter(|(_, it)| !it.addresses.is_empty()) {
            if let Some((failure, since)) = family.failure {
                let since = Seconds::from(since);
                let how = said(failure);
                notes.push(format!(
                    "For {since} the gateway's DNS server {how}; the addresses from before are \
                     used."
                ));
            }
            let shunned = family
                .addresses
                .iter()
                .filter(|it| it.shunned_for.is_some());
            let shunned: Vec<_> = shunned.map(|it| it.ip).collect();
            if !shunned.is_empty() && shunned.len() < family.addresses.len() {
                notes.push(format!(
                    "Avoided, as they did not answer: {}.",
                    list(&shunned)
                ));
            }
        }
        notes
    }
}

/// The families in which the client uses the name.
pub(super) fn used(mapping: &MappingFacts) -> impl Iterator<Item = (&'static str, &FamilyFacts)> {
    let named = ["A", "AAAA"].into_iter().zip(&mapping.families);
    let used = named.zip(&mapping.proxy_ips);
    used.filter(|(_, proxy_ips)| !proxy_ips.is_empty())
        .map(|(family, _)| family)
}

/// Why a name has no address. Transient reasons come before definite ones.
fn unresolved(mapping: &MappingFacts) -> NameCause {
    let name = mapping.name.to_string();
    let held = mapping.held_packets;
    let next_try = used(mapping).filter_map(|(_, it)| it.next_try).min();
    let next_try = next_try.map(Seconds::from);
    let failures = || used(mapping).filter_map(|(_, it)| it.failure);
    let unable = failures().find_map(|(failure, since)| Some((DnsFailure::of(failure)?, since)));
    if let Some((how, since)) = unable {
        return NameCause::DnsNotAnswering {
            name,
            how,
            since: since.into(),
            next_try,
            held,
        };
    }
    let denied = |wanted| failures().find(|(failure, _)| *failure == wanted);
    if let Some((_, since)) = denied(NameFailure::NoSuchName) {
        let since = since.into();
        return NameCause::NoSuchName {
            name,
            since,
            next_try,
        };
    }
    let is_waiting = used(mapping).any(|(_, it)| it.failure.is_none());
    if is_waiting {
        return NameCause::BeingResolved { name, held };
    }
    let families: Vec<_> = used(mapping).map(|(family, _)| family).collect();
    NameCause::NoAddress {
        name,
        families: families.join(" or "),
        next_try,
    }
}

fn said(failure: NameFailure) -> &'static str {
    match DnsFailure::of(failure) {
        Some(how) => how.phrase(),
        None => "has said that there are none",
    }
}

fn covering(policy: &Explanation) -> Option<String> {
    let all = policy.access.iter();
    all.filter(|(_, access)| access.is_permitted())
        .find_map(|(_, access)| match access {
            Access::Covered(decisions) => decisions.first().map(|it| title(&it.resource)),
            Access::Gateway
            | Access::Group
            | Access::TunnelRange
            | Access::NotInternet { .. }
            | Access::NoName
            | Access::Uncovered => None,
        })
}

/// The first few addresses.
pub(super) fn list(ips: &[IpAddr]) -> String {
    let some = ips.iter().take(SHOWN).map(ToString::to_string);
    let some = some.collect::<Vec<_>>().join(", ");
    match ips.len() > SHOWN {
        true => format!("{some} …"),
        false => some,
    }
}
