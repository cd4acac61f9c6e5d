//! The portal's configuration: one TOML file, checked as a whole before any of it takes effect.
//!
//! Unknown keys, unknown names, addresses outside their range and duplicates are refused with line
//! and column. Names are for people; everything else refers to the UUIDs behind them.

mod file;

use file::ConfigFile;
use ipnet::IpNet;
use postern_core::portal::wire::Filter;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strsim::normalized_damerau_levenshtein;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The account's slug, for people.
    pub account: String,
    pub service: ServiceConfig,
    pub dns: Dns,
    pub relays: Vec<Relay>,
    pub gateways: BTreeMap<Uuid, Device>,
    pub clients: BTreeMap<Uuid, Device>,
    pub resources: BTreeMap<Uuid, Resource>,
    pub policies: BTreeMap<PolicyKey, Policy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Addresses for plain websockets.
    pub listen: Vec<SocketAddr>,
    /// Whether a device that connects a second time replaces its first connection. A real portal
    /// refuses a second gateway with 409 for as long as the first lives.
    pub takeover: bool,
    /// Makes keys reproducible; random when absent.
    pub seed: Option<String>,
    /// File for grants; by default beside the configuration file.
    pub state_file: Option<PathBuf>,
}

/// The DNS settings that clients get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Resolvers for names outside all resources. Clients keep their own when it is empty.
    pub upstream: Vec<IpAddr>,
    /// Appended to single-label names.
    pub search_domain: Option<String>,
}

/// A STUN server with one address for each family.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    pub id: Uuid,
    /// Exactly the addresses that it answers from.
    pub addresses: Vec<SocketAddr>,
    /// Shared between portal and relay.
    pub secret: String,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({} at {:?})", self.id, self.addresses)
    }
}

/// A group of gateways in front of the same resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub id: Uuid,
    pub name: String,
}

/// A gateway or a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// For people and for the control socket.
    pub name: String,
    pub token: String,
    /// A gateway has a site, a client has none.
    pub site: Option<Site>,
    /// Tunnel address inside 100.64.0.0/11.
    pub ipv4: Ipv4Addr,
    /// Tunnel address inside fd00:2021:1111::/107.
    pub ipv6: Ipv6Addr,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({} {} {})", self.name, self.ipv4, self.ipv6)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A network, or a host as /32 or /128.
    Cidr(IpNet),
    /// A name or a pattern of names.
    Dns(String),
    /// All public addresses.
    Internet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// For people and for the control socket.
    pub name: String,
    pub target: Target,
    pub description: Option<String>,
    pub site: Site,
    /// Permitted traffic; empty permits everything. Always empty for the Internet.
    pub filters: Vec<Filter>,
}

impl Resource {
    /// The address as it is written on the wire; `None` for the Internet.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match &self.target {
            Target::Cidr(network) => Some(network.to_string()),
            Target::Dns(pattern) => Some(pattern.clone()),
            Target::Internet => None,
        }
    }
}

/// The client and the resource of a policy. Without a client it applies to every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyKey {
    pub client: Option<Uuid>,
    pub resource: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub id: Uuid,
    /// Lifetime of each grant; `None` never expires.
    pub expires_in: Option<Duration>,
}

/// A mistake in the file. Line and column (in characters) count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ConfigError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// A mistake and its position in bytes.
struct Mistake {
    span: Range<usize>,
    message: String,
}

impl Config {
    /// Checks `text`; relative file names in it are taken from `base`.
    ///
    /// Token files are read, and a relay's secret file is made when it is missing.
    ///
    /// # Errors
    /// The first mistake, with its position.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        let file = toml::from_str::<ConfigFile>(text).map_err(|error| Mistake {
            span: error.span().unwrap_or(0..0),
            message: with_suggestion(error.message()),
        });
        let config = file.and_then(|file| file.check(base));
        config.map_err(|mistake| mistake.locate(text))
    }

    /// The policy that lets `client` reach `resource`: its own, else the one for every client.
    #[must_use]
    pub fn policy(&self, client: Uuid, resource: Uuid) -> Option<Policy> {
        let key = |client| PolicyKey { client, resource };
        let own = self.policies.get(&key(Some(client)));
        own.or_else(|| self.policies.get(&key(None))).copied()
    }

    /// The resources that `client` may reach, ordered by id.
    pub fn visible_to(&self, client: Uuid) -> impl Iterator<Item = (Uuid, &Resource)> {
        self.resources
            .iter()
            .filter(move |(id, _)| self.policy(client, **id).is_some())
            .map(|(id, resource)| (*id, resource))
    }
}

impl Mistake {
    fn locate(self, text: &str) -> ConfigError {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ConfigError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: self.message.trim_end().replace('\n', ", "),
        }
    }
}

/// Adds the nearest expected name to serde's message about an unknown one, which lists all in
/// backticks.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown "));
    let likeness = |known| normalized_damerau_levenshtein(unknown.unwrap_or_default(), known);
    let near = quoted.filter(|known| likeness(known) >= NEAR);
    match near.max_by(|one, other| likeness(one).total_cmp(&likeness(other))) {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// Below this likeness a suggestion confuses more than it helps. 0.6 finds two slips in a word of
/// five letters.
const NEAR: f64 = 0.6;

#[cfg(test)]
mod tests;
