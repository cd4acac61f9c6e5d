//! A target of a question: a host (name or address) and a service on it.

use crate::names::DomainName;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// What a client wants to reach, as in `10.20.0.7:tcp/80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name or address that the client connects to.
    pub host: Host,
    /// The protocol and port that the client uses there.
    pub service: Service,
}

impl Target {
    /// The address; `None` if the host is a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }
}

/// A host, written as a name or as an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name, as through a DNS resource.
    Name(DomainName),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
}

/// A service, in the terms of resource filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Any service of the host.
    Any,
    /// This port, by TCP or by UDP.
    Port(u16),
    /// This destination port of TCP.
    Tcp(u16),
    /// This destination port of UDP.
    Udp(u16),
    /// ICMP, such as an echo request.
    Icmp,
}

impl Service {
    /// The services that filters decide on separately: a filter may permit TCP and forbid UDP.
    #[must_use]
    pub fn by_protocol(self) -> Vec<Self> {
        match self {
            Self::Port(port) => vec![Self::Tcp(port), Self::Udp(port)],
            Self::Any | Self::Tcp(_) | Self::Udp(_) | Self::Icmp => vec![self],
        }
    }
}

/// The text is not a valid target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no target: give a name or an address, and if need be a port, as in \
     app.example.com, 10.20.0.7:443, 10.20.0.7:udp/53, 10.20.0.7:icmp or [2001:db8::7]:443"
)]
pub struct TargetParseError {
    /// The text as it was given.
    pub text: String,
}

impl FromStr for Target {
    type Err = TargetParseError;

    fn from_str(text: &str) -> Result<Self, TargetParseError> {
        parse(text.trim()).ok_or_else(|| TargetParseError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Target> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (ip, rest) = bracketed.split_once(']')?;
        let ip: Ipv6Addr = ip.parse().ok()?;
        let service = match rest {
            "" => Service::Any,
            _ => rest.strip_prefix(':')?.parse().ok()?,
        };
        let host = Host::Ip(ip.into());
        return Some(Target { host, service });
    }
    if let Ok(ip) = text.parse() {
        let (host, service) = (Host::Ip(ip), Service::Any);
        return Some(Target { host, service });
    }
    let (host, service) = match text.split_once(':') {
        Some((host, service)) => (host, service.parse().ok()?),
        None => (text, Service::Any),
    };
    let host = host.parse().ok()?;
    Some(Target { host, service })
}

impl FromStr for Host {
    type Err = TargetParseError;

    fn from_str(text: &str) -> Result<Self, TargetParseError> {
        let parse_error = || TargetParseError { text: text.into() };
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        // No top-level domain is numeric: this is an address with a typing error.
        let last = text.trim_end_matches('.').rsplit('.').next();
        if last.is_none_or(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(parse_error());
        }
        text.parse().map(Self::Name).map_err(|_| parse_error())
    }
}

impl FromStr for Service {
    type Err = TargetParseError;

    /// `80`, `tcp/80` or `80/tcp`, `udp/53`, `icmp`.
    fn from_str(text: &str) -> Result<Self, TargetParseError> {
        let parse_error = || TargetParseError { text: text.into() };
        let lower = text.to_ascii_lowercase();
        if lower == "icmp" || lower == "ping" {
            return Ok(Self::Icmp);
        }
        let number = |text: &str| text.parse::<u16>().map_err(|_| parse_error());
        let Some((one, other)) = lower.split_once('/') else {
            return number(&lower).map(Self::Port);
        };
        match (one, other) {
            ("tcp", port) | (port, "tcp") => number(port).map(Self::Tcp),
            ("udp", port) | (port, "udp") => number(port).map(Self::Udp),
            _ => Err(parse_error()),
        }
    }
}

impl fmt::Display for Target {
    /// Writes the form that [`Target::from_str`] parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = match self.service {
            Service::Any => return self.host.fmt(f),
            Service::Port(port) => format!("{port}"),
            Service::Tcp(port) => format!("tcp/{port}"),
            Service::Udp(port) => format!("udp/{port}"),
            Service::Icmp => "icmp".into(),
        };
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{service}"),
            Host::Ip(IpAddr::V4(_)) | Host::Name(_) => write!(f, "{}:{service}", self.host),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Display for Service {
    /// Writes the form that verdicts show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Port(port) => write!(f, "port {port}"),
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Icmp => f.write_str("icmp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect("a target")
    }

    #[test]
    fn parses_every_form_of_a_target_and_writes_it_back() {
        for (text, asked, written) in [
            ("App.Example.com.", Service::Any, "app.example.com"),
            (
                "app.example.com:443",
                Service::Port(443),
                "app.example.com:443",
            ),
            ("10.20.0.7", Service::Any, "10.20.0.7"),
            ("10.20.0.7:tcp/80", Service::Tcp(80), "10.20.0.7:tcp/80"),
            ("10.20.0.7:80/TCP", Service::Tcp(80), "10.20.0.7:tcp/80"),
            ("10.20.0.7:udp/53", Service::Udp(53), "10.20.0.7:udp/53"),
            ("10.20.0.7:ping", Service::Icmp, "10.20.0.7:icmp"),
            ("2001:db8::7", Service::Any, "2001:db8::7"),
            ("[2001:db8::7]", Service::Any, "2001:db8::7"),
            ("[2001:db8::7]:443", Service::Port(443), "[2001:db8::7]:443"),
        ] {
            let target = target(text);
            assert_eq!(target.service, asked, "{text}");
            assert_eq!(target.to_string(), written);
            assert_eq!(written.parse(), Ok(target));
        }
    }

    #[test]
    fn rejects_an_invalid_target_and_shows_examples() {
        for text in [
            "",
            "https://app.example.com/",
            "10.20.0.0/16",
            "10.20.0.999",
            "10.20.0.7:",
            "10.20.0.7:99999",
            "10.20.0.7:sctp/80",
            "[10.20.0.7]:80",
            "[2001:db8::7",
            "two words",
        ] {
            let refused = text.parse::<Target>().expect_err(text);
            assert!(refused.to_string().contains("10.20.0.7:443"), "{refused}");
        }
    }

    #[test]
    fn splits_a_port_into_tcp_and_udp() {
        let both = target("10.20.0.7:53").service.by_protocol();
        assert_eq!(both, [Service::Tcp(53), Service::Udp(53)]);
        assert_eq!(target("10.20.0.7").service.by_protocol(), [Service::Any]);
    }
}
