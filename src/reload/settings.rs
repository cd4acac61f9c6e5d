//! What the gateway can take over while it runs, and what the actors make of it.

use crate::actors::dns::{self, NameServers};
use crate::actors::udp::ListAddresses;
use crate::config::{DnsConfig, GatewayConfig, InterfaceName, LimitsConfig, NetworkConfig};
use crate::system::interfaces;
use postern_core::domains::DomainsConfig;
use postern_core::lookups::LookupsConfig;
use postern_core::nat_table::NatTableConfig;
use postern_core::nat_table::flows::FlowLimits;
use postern_core::portal::{PortalUrl, Token};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the module's documentation. What cannot change is in it where it stands beside what can.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// The portal may be away for so long.
    pub max_outage: Duration,
    /// Which addresses are offered, and who is asked for more.
    pub network: NetworkConfig,
    /// The tunnel's own addresses are not.
    pub tunnel: InterfaceName,
    /// The name servers.
    pub dns: DnsConfig,
    /// How encrypted ones are told from impostors.
    pub dns_trust: rustls::ClientConfig,
    /// What one gateway takes on.
    pub limits: LimitsConfig,
}

impl LiveSettings {
    /// Of a configuration, with what [`check`] made of it.
    #[must_use]
    pub fn new(config: &GatewayConfig, dns_trust: rustls::ClientConfig) -> Self {
        Self {
            max_outage: config.portal.max_outage,
            network: config.network.clone(),
            tunnel: config.tunnel.interface.clone(),
            dns: config.dns.clone(),
            dns_trust,
            limits: config.limits,
        }
    }

    /// For the DnsActor.
    #[must_use]
    pub fn name_servers(&self) -> NameServers {
        NameServers::new(&self.dns, self.dns_trust.clone())
    }

    /// For the DnsActor.
    #[must_use]
    pub fn lookups(&self) -> LookupsConfig {
        dns::lookups_config(&self.dns)
    }

    /// For the NatTableActor.
    #[must_use]
    pub fn nat_table(&self) -> NatTableConfig {
        NatTableConfig {
            domains: DomainsConfig {
                last_known_good: self.dns.last_known_good,
                ..DomainsConfig::default()
            },
            flows: FlowLimits {
                flows: self.limits.flows,
                flows_per_client: self.limits.flows_per_client,
            },
        }
    }

    /// For the UdpActor. A list that cannot be read changes nothing: the next attempt is seconds
    /// away.
    #[must_use]
    pub fn list_addresses(&self) -> ListAddresses {
        let (network, tunnel) = (self.network.clone(), self.tunnel.clone());
        Arc::new(move || -> Option<Vec<IpAddr>> {
            interfaces::host_addresses(&network, &tunnel)
                .inspect_err(|error| tracing::warn!(%error, "the interfaces cannot be listed"))
                .ok()
        })
    }
}

/// What can be wrong with a configuration although each of its keys is right: at the start and at
/// each reload alike.
///
/// # Errors
/// In words, with the remedy.
pub fn check(config: &GatewayConfig) -> Result<rustls::ClientConfig, String> {
    let portal = &config.portal;
    PortalUrl::parse(portal.url.as_str()).map_err(|error| format!("portal.url: {error}"))?;
    Token::new(portal.token.expose()).map_err(|error| format!("portal.token: {error}"))?;
    dns::trust(&config.dns)
}
