//! What operators are told, as JSON; the commands that ask for it read the same types.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// `/readyz`, and in short `/livez`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether every actor answers.
    pub live: bool,
    /// Actors that do not answer.
    pub silent: Vec<String>,
    /// Ready for clients: `ready`, `degraded` or `not_ready`.
    pub status: HealthStatus,
    /// Why it is not just ready, in words.
    pub reasons: Vec<String>,
}

/// See [`HealthReport::status`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Nothing is missing.
    Ready,
    /// Clients are served, something is missing.
    Degraded,
    /// No client should be sent here.
    #[default]
    NotReady,
}

impl HealthStatus {
    /// As in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::NotReady => "not_ready",
        }
    }
}

/// `/status`. Times are seconds since 1970, ages seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Of the program.
    pub version: String,
    /// When this process began.
    pub started_at: u64,
    /// When this was true.
    pub now: u64,
    /// As `/readyz`.
    pub health: HealthReport,
    /// The control plane.
    pub portal: PortalReport,
    /// The gateway's tunnel addresses, when the portal has told them.
    pub tunnel: Vec<IpAddr>,
    /// The one UDP port.
    pub udp_port: u16,
    /// What became of the last attempt to read the configuration again; `None` before the first.
    pub reload: Option<ReloadSummary>,
    /// Set while new clients are refused.
    pub drain: Option<DrainReport>,
    /// Clients that are known.
    pub clients: usize,
    /// Some or all of them, by id.
    pub client_list: Vec<ClientReport>,
    /// What became of the actors, by kind.
    pub actors: BTreeMap<String, ActorReport>,
    /// Dropped packets by reason, without those that did not occur.
    pub drops: BTreeMap<String, u64>,
}

/// An attempt to read the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSummary {
    /// When.
    pub at: u64,
    /// `applied`, `unchanged` or `refused`.
    pub outcome: String,
    /// Keys that were taken over.
    pub changed: Vec<String>,
    /// Keys that keep their values until the next start.
    pub needs_restart: Vec<String>,
    /// Why it was refused, each with its place.
    pub problems: Vec<String>,
}

/// The control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalReport {
    /// `never_joined`, `joined` or `away`.
    pub state: String,
    /// Since when.
    pub since: u64,
    /// Relays that it handed out.
    pub relays: usize,
}

/// A gateway that is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// When it ends at the latest.
    pub ends_at: u64,
    /// How long that is from now, in seconds.
    pub remaining: u64,
    /// Clients that are still there.
    pub clients: usize,
    /// Those of them that sent or received something within the last minute.
    pub active: usize,
    /// Who was refused meanwhile.
    pub refused: u64,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// As in the portal.
    pub id: String,
    /// Its tunnel addresses.
    pub tunnel: Vec<IpAddr>,
    /// Whether a WireGuard session stands. `None` when its connection does not answer.
    pub has_session: Option<bool>,
    /// How long ago it was heard.
    pub heard_before: Option<f64>,
    /// Where its datagrams come from.
    pub remote: Option<SocketAddr>,
    /// Where we receive them.
    pub local: Option<SocketAddr>,
    /// Towards resources.
    pub inbound: TrafficReport,
    /// Towards the client.
    pub outbound: TrafficReport,
    /// What it may reach.
    pub resources: Vec<ResourceReport>,
    /// How many names it uses.
    pub names: usize,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// How many.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
    /// How long ago the last of them was.
    pub last_before: Option<f64>,
}

/// A resource that a client may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// As in the portal.
    pub id: String,
    /// For people.
    pub name: String,
    /// A network, a pattern of names, or `internet`.
    pub address: String,
    /// `None` never expires.
    pub expires_at: Option<u64>,
}

/// What became of the actors of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActorReport {
    /// How many died.
    pub deaths: u64,
    /// How many were rebuilt and work.
    pub recoveries: u64,
}
