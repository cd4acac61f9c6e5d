//! The configuration while the gateway runs: plain data between the reload and the actors.

use super::keys::GatewayConfig;
use actix::Message;
use std::sync::Arc;

/// The settings that all actors run with. Shared, never changed: a reload makes others.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// Every key; those that need a restart keep the values of the start.
    pub config: GatewayConfig,
    /// The certificates of `dns.ca_file` and of the public authorities. The same `Arc` as before
    /// while the file is the same.
    pub dns_trust: Arc<rustls::ClientConfig>,
    /// The threads that carry packets, as counted at the start.
    pub shards: u8,
}

/// Run with other settings from now on. Sent to the supervisor, which passes it to every actor that
/// has settings; each compares its part.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseSettings {
    pub before: Arc<LiveSettings>,
    pub after: Arc<LiveSettings>,
}
