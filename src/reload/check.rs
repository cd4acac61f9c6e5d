//! The checks that need more than the configuration itself.

use crate::config::{GatewayConfig, LiveSettings};
use postern_core::portal::{PortalUrl, Token};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;
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
    let dns_trust = Arc::new(trust(config.dns.ca_file.as_deref())?);
    Ok(LiveSettings {
        shards: config.tunnel.shards(),
        config,
        dns_trust,
    })
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
