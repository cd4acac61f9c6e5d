//! Names and what became of looking them up: the vocabulary shared by the lookups, the mappings of
//! proxy IPs and the connections.
//!
//! Plain values without behaviour beyond their own invariants. The families are kept apart
//! everywhere, because they are asked for, fail and heal on their own (docs/lessons.md 9).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A complete name of the DNS: lower case, without a trailing dot, at most 253 bytes (RFC 1035,
/// section 2.3.4). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

/// The text is no name that could be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a domain name: labels of 1 to 63 letters, digits, '-' or '_', 253 bytes in all")]
pub struct NotADomainName;

impl DomainName {
    /// The text, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = NotADomainName;

    fn from_str(text: &str) -> Result<Self, NotADomainName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_NAME_BYTES || !text.split('.').all(is_label) {
            return Err(NotADomainName);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(is_plain)
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which kind of address: A or AAAA records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl AddressFamily {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Why a name has no address of a family. Kept apart because they call for different treatment
/// (docs/lessons.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFailure {
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists without a usable address of this family.
    NoData,
    /// The server failed or refused.
    ServerFailure,
    /// Nobody answered in time.
    Timeout,
    /// The question could not be sent, or no server is known.
    Network,
    /// The client has too many questions waiting; it was not asked.
    Quota,
}

impl NameFailure {
    /// Whether an authority said so, as opposed to nobody having been able to say.
    #[must_use]
    pub fn is_definite(self) -> bool {
        match self {
            Self::NoSuchName | Self::NoData => true,
            Self::ServerFailure | Self::Timeout | Self::Network | Self::Quota => false,
        }
    }

    /// All variants, in order, for counters and metrics.
    pub const ALL: [Self; 6] = [
        Self::NoSuchName,
        Self::NoData,
        Self::ServerFailure,
        Self::Timeout,
        Self::Network,
        Self::Quota,
    ];

    /// What metrics call it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoSuchName => "no_name",
            Self::NoData => "no_address",
            Self::ServerFailure => "server_failure",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Quota => "quota",
        }
    }
}

/// What a lookup found for one family. Both families of a name are asked for at once; each answer
/// comes as soon as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// As asked.
    pub name: DomainName,
    /// Of what kind the addresses are.
    pub family: AddressFamily,
    /// The addresses, or why there are none.
    pub outcome: Result<ResolvedAddresses, NameFailure>,
    /// Whether this was known before somebody asked without wanting it anew: it says nothing about
    /// a lookup past the cache, which has an answer of its own.
    pub from_cache: bool,
}

/// The addresses of a name in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAddresses {
    /// At least one, sorted, each once, all of one family.
    pub ips: Vec<IpAddr>,
    /// How long they may be used without asking again; between the limits of the configuration.
    pub ttl: Duration,
}

const MAX_NAME_BYTES: usize = 253;
/// RFC 1035, section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_trailing_dot() {
        let name = |text: &str| text.parse::<DomainName>().expect("a name");
        assert_eq!(name("App.Lab.Example."), name("app.lab.example"));
        assert_eq!(
            name("_sip._tcp.lab.example").as_str(),
            "_sip._tcp.lab.example"
        );
    }

    #[test]
    fn what_could_not_be_asked_for_is_no_name() {
        let long = "a".repeat(64);
        let longer = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(62),
        ]
        .join(".");
        assert_eq!(longer.len(), 254);
        for text in [
            "", ".", "a..b", ".a", "a b", "a\\b", "a/b", "ä", &long, &longer,
        ] {
            assert_eq!(text.parse::<DomainName>(), Err(NotADomainName), "{text:?}");
        }
        assert!(longer[1..].parse::<DomainName>().is_ok());
    }
}
