//! Name servers as the configuration writes them.

use super::kinds::{Refusal, Scalar};
use postern_core::names::DomainName;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A name server and how to talk to it, for example `10.0.0.53`, `tcp://[fd00::53]:5353` or
/// `tls://10.0.0.53#dns.corp.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// Address and port of the server.
    pub address: SocketAddr,
    /// The protocol under the questions.
    pub transport: DnsTransport,
}

/// How a name server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsTransport {
    /// UDP, and TCP if the answer does not fit.
    Udp,
    /// TCP, from the first question on.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// The host name or address that the certificate must name.
        name: String,
    },
    /// DNS over HTTP/2 (RFC 8484).
    Https {
        /// The host name or address that the certificate must name.
        name: String,
        /// Path of the service on the server.
        path: String,
    },
}

impl FromStr for DnsServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        let (ip, port) = parse_host(host)?;
        let is_encrypted = matches!(scheme, "tls" | "https");
        if name.is_some() && !is_encrypted {
            return Err("only tls:// and https:// have a certificate to name after #".to_owned());
        }
        if path.is_some() && scheme != "https" {
            return Err("only https:// has a path".to_owned());
        }
        let name = name.map_or_else(|| ip.to_string(), str::to_owned);
        if ServerName::try_from(name.as_str()).is_err() {
            return Err("what follows # is no host name".to_owned());
        }
        let (transport, usual_port) = match scheme {
            "udp" => (DnsTransport::Udp, 53),
            "tcp" => (DnsTransport::Tcp, 53),
            "tls" => (DnsTransport::Tls { name }, 853),
            "https" => {
                let path = path.unwrap_or(USUAL_PATH).to_owned();
                (DnsTransport::Https { name, path }, 443)
            }
            _ => return Err(format!("scheme {scheme:?}")),
        };
        let address = SocketAddr::new(ip, port.unwrap_or(usual_port));
        Ok(Self { address, transport })
    }
}

impl Scalar for DnsServer {
    const EXPECTS: &'static str = "an IP address, or udp://, tcp://, tls:// or https:// and one; \
         #NAME at the end names the certificate of the last two";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(text.parse::<Self>()?)
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.transport {
            DnsTransport::Udp => write!(f, "udp://{address}"),
            DnsTransport::Tcp => write!(f, "tcp://{address}"),
            DnsTransport::Tls { name } => write!(f, "tls://{address}#{name}"),
            DnsTransport::Https { name, path } => write!(f, "https://{address}{path}#{name}"),
        }
    }
}

/// `10.0.0.53`, `10.0.0.53:53`, `fd00::53`, `[fd00::53]` or `[fd00::53]:53`.
fn parse_host(host: &str) -> Result<(IpAddr, Option<u16>), String> {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let parsed = match (host.parse(), host.parse::<SocketAddr>()) {
        (Ok(ip), _) => Some((ip, None)),
        (_, Ok(address)) => Some((address.ip(), Some(address.port()))),
        (Err(_), Err(_)) => bracketed
            .and_then(|ip| ip.parse().ok())
            .map(|ip| (IpAddr::V6(ip), None)),
    };
    let is_on_link = matches!(parsed, Some((IpAddr::V6(ip), _)) if ip.is_unicast_link_local());
    if host.contains('%') || is_on_link {
        return Err("a link-local address; name one that does not depend on a link".to_owned());
    }
    let Some((ip, port)) = parsed else {
        return Err("no IP address; the name of a server cannot be looked up".to_owned());
    };
    if port == Some(0) || ip.is_unspecified() || ip.is_multicast() {
        return Err("nobody can be reached there".to_owned());
    }
    Ok((ip, port))
}

/// A server for a domain and all names below it, for example `corp.example=10.1.0.53`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSuffix {
    /// Of several domains that fit a name, the longest counts.
    pub domain: DomainName,
    /// One of the servers of the domain.
    pub server: DnsServer,
}

impl FromStr for DnsSuffix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((domain, server)) = text.split_once('=') else {
            return Err("the = between domain and server is missing".to_owned());
        };
        let domain = domain.trim().parse();
        Ok(Self {
            domain: domain.map_err(|_| "what stands before = is no domain".to_owned())?,
            server: server.trim().parse()?,
        })
    }
}

impl Scalar for DnsSuffix {
    const EXPECTS: &'static str = "a domain, = and the address of a server for it";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        Ok(text.parse::<Self>()?)
    }
}

/// RFC 8484 leaves the path to the server; its examples use this one, and so do most servers.
const USUAL_PATH: &str = "/dns-query";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn servers_are_written_in_many_ways() {
        let full = [
            ("10.0.0.53", "udp://10.0.0.53:53"),
            ("10.0.0.53:5353", "udp://10.0.0.53:5353"),
            ("udp://10.0.0.53", "udp://10.0.0.53:53"),
            ("fd00::53", "udp://[fd00::53]:53"),
            ("tcp://[fd00::53]", "tcp://[fd00::53]:53"),
            ("tls://10.0.0.53", "tls://10.0.0.53:853#10.0.0.53"),
            (
                "tls://10.0.0.53:8853#dns.corp.example",
                "tls://10.0.0.53:8853#dns.corp.example",
            ),
            (
                "https://10.0.0.53#dns.corp.example",
                "https://10.0.0.53:443/dns-query#dns.corp.example",
            ),
            (
                "https://[fd00::53]:8443/q#dns.corp.example",
                "https://[fd00::53]:8443/q#dns.corp.example",
            ),
        ];
        for (text, shown) in full {
            let server: DnsServer = text.parse().expect(text);
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse(), Ok(server));
        }
    }

    #[test]
    fn what_is_no_server_is_explained() {
        let wrong = [
            ("dns.example", "cannot be looked up"),
            ("", "cannot be looked up"),
            ("10.0.0.53:0", "nobody"),
            ("0.0.0.0", "nobody"),
            ("fe80::1", "link-local"),
            ("fe80::1%eth0", "link-local"),
            ("[fe80::1%2]:53", "link-local"),
            ("quic://10.0.0.53", "scheme \"quic\""),
            ("10.0.0.53#name", "certificate"),
            ("tls://10.0.0.53/path", "path"),
            ("tls://10.0.0.53#a b", "no host name"),
        ];
        for (text, because) in wrong {
            let error = text.parse::<DnsServer>().expect_err(text);
            assert!(error.contains(because), "{text}: {error}");
        }
        for text in ["corp.example", "=10.0.0.53", "a b=10.0.0.53"] {
            assert!(text.parse::<DnsSuffix>().is_err(), "{text}");
        }
        let suffix: DnsSuffix = "Corp.Example=10.1.0.53".parse().expect("a suffix");
        assert_eq!(suffix.domain.as_str(), "corp.example");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z0-9:/#=.\\[\\]é]{0,30}") {
            let _ = text.parse::<DnsServer>();
            let _ = text.parse::<DnsSuffix>();
        }
    }
}
