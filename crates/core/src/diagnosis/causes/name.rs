//! What can be the matter with a name.

use super::{Severity, asked_again, count};
use crate::diagnosis::Seconds;
use crate::names::NameFailure;
use serde::{Deserialize, Serialize};

/// The client may reach the name, but the name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NameCause {
    /// The client has not asked for it.
    NameNotAnnounced {
        /// Which.
        name: String,
        /// Through which resource it could be reached.
        resource: String,
        /// How many names the client has asked for.
        announced: usize,
    },
    /// The client announced it, and the NAT does not keep it.
    NameNotKept {
        /// Which.
        name: String,
        /// How many it keeps for the client.
        kept: usize,
        /// How many it may keep.
        limit: usize,
    },
    /// It is being looked up.
    BeingResolved {
        /// Which.
        name: String,
        /// How many packets wait for that.
        held: usize,
    },
    /// The DNS says that there is no such name.
    NoSuchName {
        /// Which.
        name: String,
        /// For how long it has said so.
        since: Seconds,
        /// When it is asked again.
        next_try: Option<Seconds>,
    },
    /// The name exists without an address that the client could use.
    NoAddress {
        /// Which.
        name: String,
        /// What kind of address is missing.
        families: String,
        /// When the DNS is asked again.
        next_try: Option<Seconds>,
    },
    /// The DNS cannot say.
    DnsNotAnswering {
        /// About which name.
        name: String,
        /// In which way.
        how: DnsFailure,
        /// For how long.
        since: Seconds,
        /// When it is asked again.
        next_try: Option<Seconds>,
        /// How many packets wait for that.
        held: usize,
    },
}

/// Why the DNS cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsFailure {
    /// It fails or refuses.
    Fails,
    /// It does not answer in time.
    IsSilent,
    /// It cannot be reached.
    IsOutOfReach,
    /// It was not asked: the client has too many questions waiting.
    WasNotAsked,
}

impl DnsFailure {
    /// `None` for what the DNS said for sure.
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

    /// As in: the gateway's DNS server …
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
                asked_again(*next_try)
            ),
            Self::NoAddress {
                families, next_try, ..
            } => format!(
                "Add an {families} record, or have the client use the other family. {}.",
                asked_again(*next_try)
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
                asked_again(*next_try)
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
