//! Names and the results of their lookups: types shared by the lookups, the mappings of proxy IPs
//! and the connections.
//!
//! Plain values without behaviour beyond their invariants. The address families are separate
//! everywhere, because they are queried, fail and recover independently (docs/lessons.md 9).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A complete DNS name: lower case, without a trailing dot, at most 253 bytes (RFC 1035, 2.3.4).
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

/// The text is not a name that could be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a domain name: labels of 1 to 63 letters, digits, '-' or '_', 253 bytes in all")]
pub struct NotADomainName;

impl DomainName {
    /// The name as text, without a trailing dot.
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

/// IP version of an address, and the record type that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4 addresses, in A records.
    V4,
    /// IPv6 addresses, in AAAA records.
    V6,
}

impl AddressFamily {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Why a name has no address of a family. The reasons are separate because they require different
/// treatment (docs/lessons.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFailure {
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists without a usable address of this family.
    NoData,
    /// The server failed or refused.
    ServerFailure,
    /// No server answered in time.
    Timeout,
    /// The question could not be sent, or no server is configured.
    Network,
    /// The client has too many questions waiting; the question was not asked.
    Quota,
}

impl NameFailure {
    /// Whether an authority gave this answer, as opposed to a failure to obtain one.
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

    /// The failure's value in the labels of the metrics.
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

/// The result of a lookup for one family. Both families of a name are queried at once; each answer
/// is delivered as soon as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// The name that was looked up.
    pub name: DomainName,
    /// The family of the addresses.
    pub family: AddressFamily,
    /// The addresses, or why there are none.
    pub outcome: Result<ResolvedAddresses, NameFailure>,
    /// Whether the answer comes from the cache. If so, it is not the answer of a pending lookup
    /// that bypasses the cache; that delivers a separate one.
    pub from_cache: bool,
}

/// The addresses of a name in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedAddresses {
    /// At least one, sorted, without duplicates, all of one family.
    pub ips: Vec<IpAddr>,
    /// Time for which they are valid; between the limits of the configuration.
    pub ttl: Duration,
}

const MAX_NAME_BYTES: usize = 253;
/// The longest label of a name (RFC 1035, 2.3.4).
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
    fn text_that_no_dns_question_can_hold_is_refused() {
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
