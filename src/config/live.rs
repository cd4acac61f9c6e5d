//! The configuration while the gateway runs: plain data between the reload and the actors.

use super::keys::GatewayConfig;
use postern_core::UnixTime;
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

/// The outcome of one attempt to read the configuration again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    pub at: UnixTime,
    pub outcome: ReloadOutcome,
}

/// See [`ReloadReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Some keys have other values.
    Applied {
        /// Keys whose new values are in use.
        changed: Vec<&'static str>,
        /// Keys that keep their values until the next start.
        needs_restart: Vec<&'static str>,
    },
    /// No key has another value.
    Unchanged,
    /// The configuration is wrong; the one of before stays.
    Refused {
        /// Each in one line, with its place.
        problems: Vec<String>,
    },
}
