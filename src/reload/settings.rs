//! What the gateway can take over while it runs, and what the actors make of it.

use crate::config::changes::Step;
use crate::config::{DnsConfig, GatewayConfig, InterfaceName, LimitsConfig, NetworkConfig};
use crate::messages::udp::ListAddresses;
use crate::system::interfaces;
use actix::Message;
use postern_core::domains::DomainsConfig;
use postern_core::nat_table::NatTableConfig;
use postern_core::nat_table::flows::FlowLimits;
use postern_core::portal::{PortalUrl, Token};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Run with these settings from now on, and see to it that the others do.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseSettings {
    /// All that can change.
    pub settings: Box<LiveSettings>,
    /// Whom it concerns.
    pub steps: Vec<Step>,
}

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
    trust(config.dns.ca_file.as_deref())
}

/// How encrypted name servers are authenticated: by the public authorities and the certificates in
/// `dns.ca_file`, if there is one. An error names the file.
pub fn trust(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let shown = path.display();
        let wrong = |error: &dyn std::fmt::Display| {
            format!("dns.ca_file: {shown}: {error}; name a file with certificates in PEM")
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong(&"no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
