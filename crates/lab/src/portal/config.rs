//! The portal's configuration: one TOML file, checked as a whole before any of it is used.
//!
//! Unknown keys, unknown names, addresses outside their range and duplicates are refused with line
//! and column. Names are for people; everything else refers to the UUIDs behind them.

mod check;
mod raw;

use check::{Checker, Flaw};
use ipnet::IpNet;
use postern_core::portal::wire::Filter;
use raw::Document;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Everything the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For people: the account's slug.
    pub account: String,
    /// Where and how to serve.
    pub service: Service,
    /// What clients are told about names.
    pub dns: Dns,
    /// STUN and TURN servers.
    pub relays: Vec<Relay>,
    /// By UUID.
    pub gateways: BTreeMap<Uuid, Device>,
    /// By UUID.
    pub clients: BTreeMap<Uuid, Device>,
    /// By UUID.
    pub resources: BTreeMap<Uuid, Resource>,
    /// Who may reach what.
    pub policies: BTreeMap<PolicyKey, Policy>,
}

/// Where and how to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Addresses for plain websockets.
    pub listen: Vec<SocketAddr>,
    /// Whether a device that connects a second time replaces its first connection. A real portal
    /// refuses a second gateway with 409 for as long as the first lives.
    pub takeover: bool,
    /// Makes keys reproducible; random when absent.
    pub seed: Option<String>,
    /// Where grants survive a restart; `None` beside the configuration file.
    pub state_file: Option<PathBuf>,
}

/// What clients are told about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Resolvers for everything that is no resource; empty: the client's own.
    pub upstream: Vec<IpAddr>,
    /// Appended to single-label names.
    pub search_domain: Option<String>,
}

/// One relay with one address for each family.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// Shared by its addresses.
    pub id: Uuid,
    /// Exactly where it answers from.
    pub addresses: Vec<SocketAddr>,
    /// Shared with the relay.
    pub secret: String,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({} at {:?})", self.id, self.addresses)
    }
}

/// A site: gateways in front of the same resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// UUID.
    pub id: Uuid,
    /// For people.
    pub name: String,
}

/// A gateway or a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// For people and for the control socket.
    pub name: String,
    /// What it authenticates with.
    pub token: String,
    /// Where a gateway stands; `None` for clients.
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

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A network, or a host as /32 or /128.
    Cidr(IpNet),
    /// A name or a pattern of names.
    Dns(String),
    /// Everything that is not private.
    Internet,
}

/// Something to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// For people and for the control socket.
    pub name: String,
    /// What it is.
    pub target: Target,
    /// For people.
    pub description: Option<String>,
    /// Whose gateways stand in front of it.
    pub site: Site,
    /// What may reach it; empty means everything. Always empty for the Internet.
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

/// A policy's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyKey {
    /// `None` is every client.
    pub client: Option<Uuid>,
    /// The resource.
    pub resource: Uuid,
}

/// That access is permitted, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// UUID.
    pub id: Uuid,
    /// Lifetime of each grant; `None` never expires.
    pub expires_in: Option<Duration>,
}

/// What is wrong with the file and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What, and what would be right.
    pub message: String,
}

impl Config {
    /// Checks `text`; relative file names in it are taken from `base`.
    ///
    /// Token files are read, and a relay's secret file is made when it is missing.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        let document: Document = toml::from_str(text)
            .map_err(|error| locate(text, error.span().unwrap_or(0..0), error.message()))?;
        Checker { base }
            .config(document)
            .map_err(|Flaw { span, message }| locate(text, span, &message))
    }

    /// The policy that lets `client` reach `resource`: its own, else the one for every client.
    #[must_use]
    pub fn policy(&self, client: Uuid, resource: Uuid) -> Option<Policy> {
        let key = |client| PolicyKey { client, resource };
        let own = self.policies.get(&key(Some(client)));
        own.or_else(|| self.policies.get(&key(None))).copied()
    }

    /// The resources that `client` may reach, in a fixed order.
    pub fn visible_to(&self, client: Uuid) -> impl Iterator<Item = (Uuid, &Resource)> {
        self.resources
            .iter()
            .filter(move |(id, _)| self.policy(client, **id).is_some())
            .map(|(id, resource)| (*id, resource))
    }
}

fn locate(text: &str, span: Range<usize>, message: &str) -> ConfigError {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ConfigError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.trim_end().replace('\n', ", "),
    }
}

#[cfg(test)]
mod tests;
