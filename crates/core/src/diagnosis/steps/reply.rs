//! The steps about flows and replies.

use super::name::{list, used};
use super::{Case, Outcome};
use crate::DropReason;
use crate::diagnosis::{ResourceCause, Seconds};
use crate::domains::FamilyFacts;
use crate::replies::{ReplyFacts, ReplyStatus};
use std::net::IpAddr;
use std::time::Duration;

/// The replies of one family, or of one address.
struct ReplyEvidence {
    seen: ReplyFacts,
    /// The addresses that replied.
    by: String,
    heard_from: Option<IpAddr>,
    next_try: Option<Seconds>,
}

impl Case<'_> {
    pub(super) fn flow(&self) -> Outcome {
        if !self.is_named() {
            return Outcome::NotNeeded("packets to addresses are not translated".into());
        }
        let Some(nat) = self.client.nat.answer().filter(|nat| nat.is_attached) else {
            return Outcome::Unknown;
        };
        if nat.mapping.is_none() {
            return Outcome::Unknown;
        }
        let (flows, limit) = nat.flows;
        let replied = self.mapping().and_then(|mapping| {
            let replies = used(mapping).filter_map(|(_, family)| family.replies.replied);
            replies.min()
        });
        let refused = nat
            .refused_flow
            .filter(|(ago, _)| *ago <= RECENT && replied.is_none_or(|replied| *ago <= replied));
        let cause = match refused {
            Some((_, DropReason::FlowTableFull)) => ResourceCause::FlowTableFull { flows, limit },
            Some((ago, DropReason::PortsExhausted)) => {
                let ago = ago.into();
                ResourceCause::PortsExhausted { ago }
            }
            Some(_) | None => return Outcome::Passed(format!("{flows} of at most {limit} flows")),
        };
        Outcome::Failed(cause.into())
    }

    pub(super) fn reply(&self) -> Outcome {
        let evidence = self.evidence();
        if evidence.is_empty() {
            return match self.client.connection.answer() {
                Some(_) if !self.is_named() => Outcome::Failed(self.nothing_sent().into()),
                Some(_) | None => Outcome::Unknown,
            };
        }
        let asked = self.facts.target.service;
        let all = evidence.iter().map(|it| (it.seen.status(asked), it));
        let best = all.min_by_key(|(status, _)| rank(status));
        let cause = best.map(|(status, it)| self.cause(status, it));
        cause.map_or(Outcome::Unknown, |cause| Outcome::Failed(cause.into()))
    }

    fn evidence(&self) -> Vec<ReplyEvidence> {
        if let Some(mapping) = self.mapping() {
            let known = used(mapping).filter(|(_, family)| !family.addresses.is_empty());
            return known.map(|(_, family)| of_family(family)).collect();
        }
        let connection = self.client.connection.answer();
        let seen = connection.and_then(|connection| connection.replies);
        let evidence = seen.filter(|_| !self.is_named()).map(|seen| ReplyEvidence {
            seen,
            by: self.facts.target.host.to_string(),
            heard_from: None,
            next_try: None,
        });
        evidence.into_iter().collect()
    }

    fn nothing_sent(&self) -> ResourceCause {
        let place = self.facts.target.host.to_string();
        ResourceCause::NothingSent { place }
    }

    fn cause(&self, status: ReplyStatus, evidence: &ReplyEvidence) -> ResourceCause {
        let by = evidence.by.clone();
        match status {
            ReplyStatus::NothingSent => self.nothing_sent(),
            ReplyStatus::Answered { ago } => ResourceCause::Works {
                ago: ago.into(),
                by: evidence.heard_from,
            },
            ReplyStatus::Refused { ago, how } => {
                let ago = ago.into();
                ResourceCause::Refused { by, how, ago }
            }
            ReplyStatus::Awaited { since, packets } => {
                let since = since.into();
                ResourceCause::Awaited { by, packets, since }
            }
            ReplyStatus::Unanswered {
                since,
                packets,
                replied,
            } => ResourceCause::Unanswered {
                by,
                packets,
                since: since.into(),
                replied: replied.map(Seconds::from),
                next_try: evidence.next_try,
            },
        }
    }
}

fn of_family(family: &FamilyFacts) -> ReplyEvidence {
    let ips: Vec<_> = family.addresses.iter().map(|it| it.ip).collect();
    ReplyEvidence {
        seen: family.replies,
        by: list(&ips),
        heard_from: family.heard_from,
        next_try: family.next_try.map(Seconds::from),
    }
}

/// The best known status decides: a reply in one family, else a problem in the family in use.
fn rank(status: &ReplyStatus) -> u8 {
    match status {
        ReplyStatus::Answered { .. } => 0,
        ReplyStatus::Refused { .. } => 1,
        ReplyStatus::Unanswered { .. } => 2,
        ReplyStatus::Awaited { .. } => 3,
        ReplyStatus::NothingSent => 4,
    }
}

/// An older refusal of a flow does not explain the current state.
const RECENT: Duration = Duration::from_secs(60);
