//! The typed configuration. Actors and cores are given the small part that concerns them.

use super::dns::DnsConfig;
use super::schema::{self, Raw};
use super::secret::Secret;
use super::settings::{Origin, Settings};
use super::values::{InterfaceName, InterfacePattern};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Everything that the gateway can be told.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The control plane.
    pub portal: PortalConfig,
    /// The outside: sockets and addresses.
    pub network: NetworkConfig,
    /// The inside: the TUN interface and the way to the resources.
    pub tunnel: TunnelConfig,
    /// The name servers.
    pub dns: DnsConfig,
    /// What one gateway takes on.
    pub limits: LimitsConfig,
    /// What the next process takes over.
    pub state: StateConfig,
    /// Where the operator asks.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
}

/// `[portal]`
#[derive(Clone, Debug)]
pub struct PortalConfig {
    /// Base address; the scheme is ws, wss, http or https.
    pub url: Url,
    /// Sent in the upgrade request. Printable ASCII without spaces, never empty.
    pub token: Secret,
    /// The external id; see [`crate::system::external_id`].
    pub id: Option<String>,
    /// Where a generated id is kept.
    pub id_file: PathBuf,
    /// For people; the host name if not set.
    pub name: Option<String>,
    /// Which endpoint to use.
    pub generation: Generation,
    /// How long to go on without the portal.
    pub max_outage: Duration,
}

/// Generation of the portal protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Version 2 first, then version 1.
    #[default]
    Auto,
    /// Only `/gateway/v2/websocket`.
    V2,
    /// Only `/gateway/websocket`.
    V1,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// 0 lets the kernel choose.
    pub udp_port: u16,
    /// Whose addresses are host candidates; empty means all.
    pub interfaces: Vec<InterfacePattern>,
    /// Whose addresses are not.
    pub exclude_interfaces: Vec<InterfacePattern>,
    /// Asked for our server-reflexive addresses.
    pub stun_servers: Vec<SocketAddr>,
    /// `SO_RCVBUF`, bytes.
    pub receive_buffer_bytes: usize,
    /// `SO_SNDBUF`, bytes.
    pub send_buffer_bytes: usize,
}

/// `[tunnel]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelConfig {
    /// Of the TUN.
    pub interface: InterfaceName,
    /// Threads of the data path; see [`TunnelConfig::shards`].
    pub shards: Option<u8>,
    /// Hide clients behind our addresses.
    pub masquerade: bool,
    /// Switch the kernel's forwarding on.
    pub forwarding: bool,
    /// Where to masquerade; empty means everywhere but on the tunnel. Each is a name or a prefix
    /// and `*`.
    pub egress_interfaces: Vec<InterfacePattern>,
}

impl TunnelConfig {
    /// As many as are configured; else one for each core that the process may use, but not too
    /// many.
    #[must_use]
    pub fn shards(&self) -> u8 {
        self.shards.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            u8::try_from(cores).map_or(SHARDS_UNASKED_MAX, |cores| cores.min(SHARDS_UNASKED_MAX))
        })
    }
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connected at one time.
    pub clients: usize,
    /// Granted to one client at one time.
    pub resources_per_client: usize,
    /// Answered without a cookie.
    pub handshakes_per_second: u32,
    /// Translated flows of all clients.
    pub flows: u32,
    /// Of one client.
    pub flows_per_client: u32,
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// Write the file, and take over from it.
    pub enabled: bool,
    /// On a memory file system.
    pub file: PathBuf,
    /// SIGTERM says no goodbyes.
    pub handover: bool,
    /// An older file is stale; at least a second.
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Of the unix socket; everything can be asked and told there.
    pub socket: PathBuf,
    /// Where health and metrics can be asked over TCP, and the status where the address is a
    /// loopback one.
    pub listen: Vec<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How.
    pub format: LogFormat,
    /// What: `tracing` directives.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// As in the file: without the token, which is not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    portal: PortalLayer,
    network: NetworkConfig,
    tunnel: TunnelConfig,
    dns: DnsConfig,
    limits: LimitsConfig,
    state: StateConfig,
    admin: AdminConfig,
    log: LogConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortalLayer {
    #[serde(deserialize_with = "url")]
    url: Url,
    /// Read by [`super::token`]; named here only because unknown keys are refused.
    #[serde(default, rename = "token_file")]
    _token_file: Option<PathBuf>,
    id: Option<String>,
    id_file: PathBuf,
    name: Option<String>,
    generation: Generation,
    #[serde(deserialize_with = "duration")]
    max_outage: Duration,
}

/// Layers defaults, the file and the environment with the `config` crate and types the result.
///
/// # Errors
///
/// In words. Everything a user can do wrong was found before, with its place; what is left would be
/// a disagreement between the table of keys and these types, and a test looks for those.
pub(super) fn build(settings: &Settings, token: Secret) -> Result<GatewayConfig, String> {
    let layers = layered(settings)?.try_deserialize();
    let layers: Layers = layers.map_err(|error| error.to_string())?;
    let portal = layers.portal;
    Ok(GatewayConfig {
        portal: PortalConfig {
            url: portal.url,
            token,
            id: portal.id,
            id_file: portal.id_file,
            name: portal.name,
            generation: portal.generation,
            max_outage: portal.max_outage,
        },
        network: layers.network,
        tunnel: layers.tunnel,
        dns: layers.dns,
        limits: layers.limits,
        state: layers.state,
        admin: layers.admin,
        log: layers.log,
    })
}

/// Types one section alone; whether the rest is complete is not asked.
///
/// # Errors
///
/// As [`build`].
pub(super) fn build_section<T: DeserializeOwned>(
    settings: &Settings,
    section: &str,
) -> Result<T, String> {
    let section = layered(settings)?.get(section);
    section.map_err(|error| error.to_string())
}

fn layered(settings: &Settings) -> Result<config::Config, String> {
    let mut builder = config::Config::builder();
    for setting in &settings.all {
        let Some(raw) = &setting.raw else { continue };
        let path = setting.key.path;
        let layered = match setting.origin {
            Origin::Default => builder.set_default(path, raw.clone()),
            Origin::File { .. } | Origin::Environment(_) | Origin::Credential => {
                builder.set_override(path, raw.clone())
            }
        };
        builder = layered.map_err(|error| error.to_string())?;
    }
    builder.build().map_err(|error| error.to_string())
}

impl From<Raw> for config::ValueKind {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::Flag(flag) => Self::Boolean(flag),
            Raw::Integer(number) => Self::I64(number),
            Raw::Text(text) | Raw::Other(text) => Self::String(text),
            Raw::List(items) => items.into(),
        }
    }
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(serde::de::Error::custom)
}

/// More threads than this are of use to few, and each keeps buffers for itself.
const SHARDS_UNASKED_MAX: u8 = 8;

/// As written in the configuration.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    schema::parse_duration(&text).map_err(serde::de::Error::custom)
}
