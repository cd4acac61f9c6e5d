//! The checks that need more than the configuration itself.

use crate::actors::dns;
use crate::config::{GatewayConfig, LiveSettings};
use postern_core::portal::{PortalUrl, Token};
use std::sync::Arc;

/// Makes settings of a configuration: at the start and at each reload alike.
///
/// # Errors
///
/// What can be wrong with a configuration although each of its keys is right, in words, with the
/// remedy.
pub fn check(config: GatewayConfig) -> Result<LiveSettings, String> {
    let portal = &config.portal;
    PortalUrl::parse(portal.url.as_str()).map_err(|error| format!("portal.url: {error}"))?;
    Token::new(portal.token.expose()).map_err(|error| format!("portal.token: {error}"))?;
    let dns_trust = Arc::new(dns::trust(&config.dns)?);
    Ok(LiveSettings {
        shards: config.tunnel.shards(),
        config,
        dns_trust,
    })
}
