//! The settings in which set-ups differ, and the names and ports that all of them share.

use std::path::PathBuf;
use std::time::Duration;

/// Port of the web server that the policy permits.
pub const WEB_PORT: u16 = 80;
/// Port of the web server that the policy does not permit.
pub const DENIED_PORT: u16 = 8080;
/// UDP port of the echo on the web server's host, which the policy permits.
pub const ECHO_PORT: u16 = 7;
/// The client's name in the portal.
pub const CLIENT: &str = "alice-laptop";
/// The gateway's name in the portal.
pub const GATEWAY: &str = "gw";
/// The IPv4 resource's name in the portal.
pub const RESOURCE_V4: &str = "office-v4";
/// The IPv6 resource's name in the portal.
pub const RESOURCE_V6: &str = "office-v6";

/// Generation of the portal protocol that a program is configured to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Generation {
    /// `prepare_connection`, `request_connection`. Clients only.
    V0,
    /// `create_flow`, `authorize_flow`.
    V1,
    /// `request_authorization`, `create_authorization`.
    V2,
    /// Version 2 if the portal has it, else 1. Gateways only.
    Auto,
}

/// Settings in which set-ups differ.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether there is a relay.
    pub relay: bool,
    pub gateway_generation: Generation,
    pub client_generation: Generation,
    /// Traffic that the policy permits, as the portal's configuration writes it.
    pub filters: &'static [&'static str],
    /// Number of crowd members that the portal knows, at most the playground's.
    pub crowd: u8,
    /// Number of shards; `None` leaves it to the gateway's default.
    pub shards: Option<u8>,
    /// `portal.id` of the gateway.
    pub gateway_id: &'static str,
    /// `None` configures the gateway without a state file.
    pub state: Option<StateFile>,
    /// Whether the gateway accepts injected faults on its fault socket.
    pub faults: bool,
    /// Environment variables of the gateway's process.
    pub gateway_environment: Vec<(&'static str, String)>,
}

/// `[state]` of the gateway's configuration.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// A path on a memory file system.
    pub file: PathBuf,
    /// Whether SIGTERM leaves it to the next process.
    pub handover: bool,
    /// A new process ignores older ones; `None`: the gateway's default.
    pub max_age: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            relay: true,
            gateway_generation: Generation::Auto,
            client_generation: Generation::V2,
            filters: &["tcp/80", "udp/7", "icmp"],
            crowd: 0,
            shards: Some(1),
            gateway_id: "lab-gateway",
            state: None,
            faults: false,
            gateway_environment: Vec::new(),
        }
    }
}
