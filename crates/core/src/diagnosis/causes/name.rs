//! Causes that concern a name.

use super::{Severity, count, next_lookup};
use crate::diagnosis::Seconds;
use crate::names::NameFailure;
use serde::{Deserialize, Serialize};

/// The client may reach the name, but the name has no usable address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NameCause {
    /// The client has not announced the name.
    NameNotAnnounced {
        /// The name of the target.
        name: String,
        /// The resource that covers the name.
        resource: String,
        /// Number of names that the client has announced.
        announced: usize,
    },
    /// The client announced it, but the NAT has no mapping.
    NameNotKept {
        /// The name of the target.
        name: String,
        /// Number of mappings of the client.
        kept: usize,
        /// Limit of the client's mappings.
        limit: usize,
    },
    /// The first lookup is in progress.
    BeingResolved {
        /// The name of the target.
        name: String,
        /// Number of packets that wait for it.
        held: usize,
    },
    /// The DNS reports that the name does not exist.
    NoSuchName {
        /// The name of the target.
        name: String,
        /// How long the DNS has reported it.
        since: Seconds,
        /// Time until the next lookup.
        next_try: Option<Seconds>,
    },
    /// The name exists, but has no address that the client could use.
    NoAddress {
        /// The name of the target.
        name: String,
        /// The missing families, as in `A or AAAA`.
        families: String,
        /// Time until the next lookup.
        next_try: Option<Seconds>,
    },
    /// The DNS gives no answer.
    DnsNotAnswering {
        /// The name of the target.
        name: String,
        /// The kind of the failure.
        how: DnsFailure,
        /// How long lookups have failed.
        since: Seconds,
        /// Time until the next lookup.
        next_try: Option<Seconds>,
        /// Number of packets that wait for it.
        held: usize,
    },
}

/// Why the DNS gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsFailure {
    /// The server fails or refuses.
    Fails,
    /// The server does not answer in time.
    IsSilent,
    /// The server cannot be reached.
    IsOutOfReach,
    /// It was not asked: the client has too many lookups waiting.
    WasNotAsked,
}

impl DnsFailure {
    /// `None` for definite answers of the DNS.
    #[must_use]
    pub fn of(failure: NameFailure) -> Option<Self> {
        match failure {
            NameFailure::NoSuchName | NameFailure::NoData => None,
            NameFailure::ServerFailure => Some(Self::Fails),
            NameFailure::Timeout => Some(Self::IsSilent),
            NameFailure::Network => Some(Self::IsOutOfReach),
            NameFailure::Quota => Some(Self::WasNotAsked),
        }
    }

    /// Completes the sentence: the gateway's DNS server …
    pub(in crate::diagnosis) fn phrase(self) -> &'static str {
        match self {
            Self::Fails => "refuses to say, or fails",
            Self::IsSilent => "does not answer",
            Self::IsOutOfReach => "cannot be reached",
            Self::WasNotAsked => "was not asked, as too many questions of the client wait",
        }
    }
}

impl NameCause {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::BeingResolved { .. } => Severity::Limited,
            Self::NameNotAnnounced { .. }
            | Self::NameNotKept { .. }
            | Self::NoSuchName { .. }
            | Self::NoAddress { .. }
            | Self::DnsNotAnswering { .. } => Severity::Broken,
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::NameNotAnnounced { name, resource, .. } => format!(
                "The client may reach {name} through {resource}, but has not asked for it by name."
            ),
            Self::NameNotKept { name, kept, limit } => format!(
                "The client asked for {name}, but the gateway does not keep the name: it keeps \
                 {kept} of at most {limit} for this client."
            ),
            Self::BeingResolved { name, held } => {
                let held = waiting(*held);
                format!("The addresses of {name} are being looked up{held}.")
            }
            Self::NoSuchName { name, since, .. } => {
                format!("The gateway's DNS has said for {since} that {name} does not exist.")
            }
            Self::NoAddress { name, families, .. } => {
                format!("{name} exists, but the gateway's DNS knows no {families} address of it.")
            }
            Self::DnsNotAnswering {
                name,
                how,
                since,
                held,
                ..
            } => {
                let (how, held) = (how.phrase(), waiting(*held));
                format!(
                    "No address of {name} is known: for {since} the gateway's DNS server \
                     {how}{held}."
                )
            }
        }
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NameNotAnnounced { announced: 0, .. } => {
                "Open it once at the client. The client has asked for no name at all: its system's \
                 DNS seems not to go through it. Look for another VPN, a browser with DNS of its \
                 own (DoH), or a fixed resolver."
                    .into()
            }
            Self::NameNotAnnounced { .. } => {
                "Open it once at the client. If it stays like this, that application looks names \
                 up past the client: a browser with DNS of its own (DoH), a hosts file, or an \
                 address that it remembers."
                    .into()
            }
            Self::NameNotKept { kept, limit, .. } if kept >= limit => {
                "The client uses more names at a time than the gateway keeps; those it does not \
                 use for two hours give way."
                    .into()
            }
            Self::NameNotKept { .. } => {
                "The client announces it again within seconds; if it stays like this, the log at \
                 level debug says \"proxy IPs not assigned\" and why."
                    .into()
            }
            Self::BeingResolved { .. } => "Ask again in a second or two.".into(),
            Self::NoSuchName { name, next_try, .. } => format!(
                "See with the DNS server that the gateway uses (dns.servers) whether {name} \
                 should exist, also for that server's view of the zone. {}.",
                next_lookup(*next_try)
            ),
            Self::NoAddress {
                families, next_try, ..
            } => format!(
                "Add an {families} record, or have the client use the other family. {}.",
                next_lookup(*next_try)
            ),
            Self::DnsNotAnswering {
                how: DnsFailure::WasNotAsked,
                ..
            } => "Wait a moment; if it stays like this, something at the client asks for names \
                 without end."
                .into(),
            Self::DnsNotAnswering { next_try, .. } => format!(
                "See that the DNS server that the gateway uses (dns.servers) runs and can be \
                 reached from the gateway. {}.",
                next_lookup(*next_try)
            ),
        }
    }
}

fn waiting(held: usize) -> String {
    match held {
        0 => String::new(),
        1 => "; 1 packet waits".into(),
        _ => format!("; {} wait", count(held, "packet")),
    }
}
