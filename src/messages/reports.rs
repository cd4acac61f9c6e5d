//! Answers to operators, as JSON; the commands that ask for them read the same types.

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
    /// Why it is not `ready`, for people.
    pub reasons: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ready,
    /// Clients are served, something is missing.
    Degraded,
    /// No client should be sent here.
    #[default]
    NotReady,
}

impl HealthStatus {
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
    pub version: String,
    /// When this process began.
    pub started_at: u64,
    pub now: u64,
    pub health: HealthReport,
    pub portal: PortalReport,
    /// The gateway's tunnel addresses, once the portal has sent them.
    pub tunnel: Vec<IpAddr>,
    pub udp_port: u16,
    /// The last attempt to read the configuration again; `None` before the first.
    pub reload: Option<ReloadSummary>,
    /// Set while new clients are refused.
    pub drain: Option<DrainReport>,
    pub clients: usize,
    /// Some or all clients, ordered by id.
    pub client_list: Vec<ClientReport>,
    /// Deaths and recoveries, by kind of actor.
    pub actors: BTreeMap<String, ActorReport>,
    /// Dropped packets by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<String, u64>,
}

/// An attempt to read the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSummary {
    pub at: u64,
    /// `applied`, `unchanged` or `refused`.
    pub outcome: String,
    /// Keys whose new values are in effect.
    pub changed: Vec<String>,
    /// Keys that keep their values until the next start.
    pub needs_restart: Vec<String>,
    /// Reasons for a refusal, each with its place.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortalReport {
    /// `never_joined`, `joined` or `away`.
    pub state: String,
    pub since: u64,
    /// Number of relays from the portal.
    pub relays: usize,
}

/// A gateway that is draining.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// The latest time at which the process ends.
    pub ends_at: u64,
    /// Seconds from now until `ends_at`.
    pub remaining: u64,
    pub clients: usize,
    /// Clients that sent or received a packet within the last minute.
    pub active: usize,
    /// Requests refused since draining began.
    pub refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    pub id: String,
    pub tunnel: Vec<IpAddr>,
    /// Whether a WireGuard session exists. `None` if the connection does not answer.
    pub has_session: Option<bool>,
    /// Seconds since the last datagram from the client.
    pub heard_before: Option<f64>,
    /// The client's end of the path.
    pub remote: Option<SocketAddr>,
    /// The gateway's end of the path.
    pub local: Option<SocketAddr>,
    pub inbound: TrafficReport,
    pub outbound: TrafficReport,
    pub resources: Vec<ResourceReport>,
    /// Number of names that the client uses.
    pub names: usize,
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    pub packets: u64,
    pub bytes: u64,
    /// Seconds since the last packet.
    pub last_before: Option<f64>,
}

/// A resource that a client may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    pub id: String,
    pub name: String,
    /// A network, a pattern of names, or `internet`.
    pub address: String,
    /// `None` never expires.
    pub expires_at: Option<u64>,
}

/// Deaths of the actors of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActorReport {
    pub deaths: u64,
    /// Restarted actors that work.
    pub recoveries: u64,
}
