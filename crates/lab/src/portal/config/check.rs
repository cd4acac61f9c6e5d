//! From the document to a configuration: every reference is resolved and every value believed here,
//! once, or refused at its place.

use super::raw::{self, Document, Text};
use super::{Config, Device, Dns, Policy, PolicyKey, Relay, Resource, Service, Site, Target};
use crate::portal::derive::uuid_of;
use ipnet::IpNet;
use postern_core::portal::wire::{Filter, PortRange};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// A mistake at a place in the text.
pub(super) struct Flaw {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

fn flaw<T>(at: &Text, message: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw {
        span: at.span(),
        message: message.into(),
    })
}

/// Turns the document into a configuration; every reference is resolved here, once.
pub(super) struct Checker<'a> {
    pub(super) base: &'a Path,
}

impl Checker<'_> {
    pub(super) fn config(&self, document: Document) -> Result<Config, Flaw> {
        let service = self.service(&document)?;
        let dns = dns(&document)?;
        let sites = sites(&document.sites)?;
        let mut devices = Devices::default();
        let mut gateways = BTreeMap::new();
        for raw in &document.gateways {
            let site = lookup(&sites, &raw.site, "site")?;
            let (id, device) = devices.check(self, "gateway", &raw.device(), Some(site))?;
            gateways.insert(id, device);
        }
        let mut clients = BTreeMap::new();
        for raw in &document.clients {
            let (id, device) = devices.check(self, "client", raw, None)?;
            clients.insert(id, device);
        }
        let resources = resources(&document.resources, &sites)?;
        let policies = policies(&document.policies, &clients, &resources)?;
        Ok(Config {
            account: document.account.unwrap_or_else(|| "lab".to_owned()),
            service,
            dns,
            relays: self.relays(&document.relays)?,
            gateways,
            clients,
            resources,
            policies,
        })
    }

    fn service(&self, document: &Document) -> Result<Service, Flaw> {
        let mut listen = Vec::new();
        for text in &document.listen {
            listen.push(parsed(text, "an address such as \"203.0.113.1:8081\"")?);
        }
        if listen.is_empty() {
            return Err(Flaw {
                span: 0..0,
                message: "listen is missing: give at least one \"ip:port\"".to_owned(),
            });
        }
        Ok(Service {
            listen,
            takeover: document.takeover.unwrap_or(true),
            seed: document.seed.clone(),
            state_file: document
                .state_file
                .as_ref()
                .map(|file| self.base.join(file)),
        })
    }

    fn relays(&self, raws: &[raw::Relay]) -> Result<Vec<Relay>, Flaw> {
        let mut relays = Vec::new();
        let mut ids = BTreeSet::new();
        for raw in raws {
            let Some(first) = raw.addr.get_ref().first() else {
                return Err(Flaw {
                    span: raw.span(),
                    message: "a relay needs at least one address in addr".to_owned(),
                });
            };
            let mut addresses = Vec::new();
            for text in raw.addr.get_ref() {
                let address: SocketAddr = parsed(text, "an address such as \"203.0.113.1:3478\"")?;
                addresses.push(address);
            }
            let id = id_or_derived(raw.id.as_ref(), "relay", first.get_ref())?;
            if !ids.insert(id) {
                return flaw(first, "this relay is listed twice");
            }
            relays.push(Relay {
                id,
                addresses,
                secret: self.relay_secret(raw)?,
            });
        }
        Ok(relays)
    }

    fn relay_secret(&self, raw: &raw::Relay) -> Result<String, Flaw> {
        match (&raw.secret, &raw.secret_file) {
            (Some(secret), None) if !secret.get_ref().is_empty() => Ok(secret.get_ref().clone()),
            (Some(secret), None) => flaw(secret, "the secret is empty"),
            (None, Some(file)) => {
                let path = self.base.join(file.get_ref());
                crate::relay::credentials::read_or_create_secret(&path)
                    .or_else(|error| flaw(file, format!("{error:#}")))
            }
            (Some(secret), Some(_)) => flaw(secret, "give either secret or secret_file, not both"),
            (None, None) => Err(Flaw {
                span: raw.span(),
                message: "a relay needs secret_file (shared with the relay) or secret".to_owned(),
            }),
        }
    }

    fn token(&self, kind: &str, raw: &raw::Device) -> Result<String, Flaw> {
        let (text, at) = match (&raw.token, &raw.token_file) {
            (Some(token), None) => (token.get_ref().clone(), token),
            (None, Some(file)) => {
                let path = self.base.join(file.get_ref());
                let text = std::fs::read_to_string(&path).or_else(|error| {
                    flaw(file, format!("cannot read {}: {error}", path.display()))
                })?;
                (text, file)
            }
            (Some(token), Some(_)) => {
                return flaw(token, "give either token or token_file, not both");
            }
            (None, None) => {
                return flaw(&raw.name, format!("this {kind} needs token or token_file"));
            }
        };
        // Clients remove all white space from the token that they send (docs/protocol.md
        // 1.2.
        let token: String = text.split_whitespace().collect();
        if token.is_empty() {
            return flaw(at, "the token is empty");
        }
        Ok(token)
    }
}

/// What must be unique among gateways and clients together.
#[derive(Default)]
struct Devices {
    ids: BTreeSet<Uuid>,
    names: BTreeSet<(String, String)>,
    tokens: BTreeSet<(String, String)>,
    addresses: BTreeSet<IpAddr>,
}

impl Devices {
    fn check(
        &mut self,
        checker: &Checker<'_>,
        kind: &str,
        raw: &raw::Device,
        site: Option<Site>,
    ) -> Result<(Uuid, Device), Flaw> {
        let name = named(&raw.name)?;
        if !self.names.insert((kind.to_owned(), name.clone())) {
            return flaw(&raw.name, format!("there are two {kind}s named \"{name}\""));
        }
        let id = id_or_derived(raw.id.as_ref(), kind, &name)?;
        if !self.ids.insert(id) {
            return flaw(&raw.name, format!("another device has the id {id} too"));
        }
        let token = checker.token(kind, raw)?;
        if !self.tokens.insert((kind.to_owned(), token.clone())) {
            return flaw(&raw.name, format!("another {kind} has the same token"));
        }
        let ipv4 = in_range(&raw.ipv4, |ip: &Ipv4Addr| TUNNEL_V4.contains(&(*ip).into()))?;
        let ipv6 = in_range(&raw.ipv6, |ip: &Ipv6Addr| TUNNEL_V6.contains(&(*ip).into()))?;
        for (ip, at) in [(IpAddr::V4(ipv4), &raw.ipv4), (IpAddr::V6(ipv6), &raw.ipv6)] {
            if !self.addresses.insert(ip) {
                return flaw(at, format!("another device has the address {ip} too"));
            }
        }
        let device = Device {
            name,
            token,
            site,
            ipv4,
            ipv6,
        };
        Ok((id, device))
    }
}

/// docs/protocol.md 6: where the portal may place tunnel addresses.
const TUNNEL_V4: NetRange = NetRange("100.64.0.0/11");
/// As [`TUNNEL_V4`], for IPv6.
const TUNNEL_V6: NetRange = NetRange("fd00:2021:1111::/107");

/// A network literal of this file.
struct NetRange(&'static str);

impl NetRange {
    fn contains(&self, ip: &IpAddr) -> bool {
        let network: IpNet = self.0.parse().expect("a literal of this file");
        network.contains(ip)
    }
}

fn in_range<T>(text: &Text, inside: impl Fn(&T) -> bool) -> Result<T, Flaw>
where
    T: std::str::FromStr,
{
    let ip = parsed(text, "an IP address without prefix")?;
    if !inside(&ip) {
        let message = format!(
            "tunnel addresses lie in {} and {}",
            TUNNEL_V4.0, TUNNEL_V6.0
        );
        return flaw(text, message);
    }
    Ok(ip)
}

fn parsed<T: std::str::FromStr>(text: &Text, expected: &str) -> Result<T, Flaw> {
    let wrong = |_| Flaw {
        span: text.span(),
        message: format!("\"{}\" is not {expected}", text.get_ref()),
    };
    text.get_ref().parse().map_err(wrong)
}

fn named(text: &Text) -> Result<String, Flaw> {
    if text.get_ref().trim().is_empty() {
        return flaw(text, "the name is empty");
    }
    Ok(text.get_ref().clone())
}

fn id_or_derived(id: Option<&Text>, kind: &str, name: &str) -> Result<Uuid, Flaw> {
    match id {
        Some(text) => parsed(text, "a UUID"),
        None => Ok(uuid_of(kind, name)),
    }
}

fn lookup<T: Clone>(known: &BTreeMap<String, T>, name: &Text, kind: &str) -> Result<T, Flaw> {
    let Some(found) = known.get(name.get_ref()) else {
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let message = format!(
            "there is no {kind} \"{}\"; known: {}",
            name.get_ref(),
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        );
        return flaw(name, message);
    };
    Ok(found.clone())
}

fn dns(document: &Document) -> Result<Dns, Flaw> {
    let mut upstream = Vec::new();
    for text in &document.upstream_dns {
        upstream.push(parsed(text, "an IP address")?);
    }
    Ok(Dns {
        upstream,
        search_domain: document.search_domain.clone(),
    })
}

fn sites(raws: &[raw::Site]) -> Result<BTreeMap<String, Site>, Flaw> {
    let mut sites = BTreeMap::new();
    for raw in raws {
        let name = named(&raw.name)?;
        let site = Site {
            id: id_or_derived(raw.id.as_ref(), "site", &name)?,
            name: name.clone(),
        };
        if sites.insert(name, site).is_some() {
            return flaw(&raw.name, "there are two sites with this name");
        }
    }
    Ok(sites)
}

fn resources(
    raws: &[raw::Resource],
    sites: &BTreeMap<String, Site>,
) -> Result<BTreeMap<Uuid, Resource>, Flaw> {
    let mut resources = BTreeMap::new();
    let mut names = BTreeSet::new();
    for raw in raws {
        let name = named(&raw.name)?;
        if !names.insert(name.clone()) {
            return flaw(&raw.name, "there are two resources with this name");
        }
        let resource = Resource {
            target: target(raw)?,
            description: raw.address_description.clone(),
            site: lookup(sites, &raw.site, "site")?,
            filters: filters(raw)?,
            name,
        };
        let id = id_or_derived(raw.id.as_ref(), "resource", &resource.name)?;
        if resources.insert(id, resource).is_some() {
            return flaw(&raw.name, format!("another resource has the id {id} too"));
        }
    }
    Ok(resources)
}

fn target(raw: &raw::Resource) -> Result<Target, Flaw> {
    match (raw.kind.get_ref().as_str(), &raw.address) {
        ("cidr", Some(address)) => network(address).map(Target::Cidr),
        ("dns", Some(address)) => pattern(address).map(Target::Dns),
        ("cidr" | "dns", None) => flaw(&raw.kind, "this resource needs an address"),
        ("internet", None) => Ok(Target::Internet),
        ("internet", Some(address)) => flaw(address, "the Internet resource has no address"),
        _ => flaw(&raw.kind, "type is one of \"cidr\", \"dns\", \"internet\""),
    }
}

fn network(address: &Text) -> Result<IpNet, Flaw> {
    if let Ok(host) = address.get_ref().parse::<IpAddr>() {
        return Ok(host.into());
    }
    let network: IpNet = parsed(
        address,
        "a network such as \"10.20.0.0/24\" or a host address",
    )?;
    if network.trunc() != network {
        let message = format!(
            "\"{network}\" has bits beyond its prefix; {} is meant?",
            network.trunc()
        );
        return flaw(address, message);
    }
    Ok(network)
}

fn pattern(address: &Text) -> Result<String, Flaw> {
    let permitted = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '*' | '?');
    let good = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(permitted);
    if !address.get_ref().split('.').all(good) {
        return flaw(
            address,
            "a name or a pattern such as \"*.corp.example\" is expected",
        );
    }
    Ok(address.get_ref().clone())
}

fn filters(raw: &raw::Resource) -> Result<Vec<Filter>, Flaw> {
    if let (Some(first), "internet") = (raw.filters.first(), raw.kind.get_ref().as_str()) {
        return flaw(first, "the Internet resource cannot be filtered");
    }
    raw.filters.iter().map(filter).collect()
}

fn filter(text: &Text) -> Result<Filter, Flaw> {
    let (protocol, ports) = match text.get_ref().split_once('/') {
        Some((protocol, ports)) => (protocol, Some(ports)),
        None => (text.get_ref().as_str(), None),
    };
    let Some(range) = port_range(ports) else {
        return flaw(text, "ports are written as \"tcp/80\" or \"tcp/8000-8100\"");
    };
    match (protocol, ports) {
        ("tcp", _) => Ok(Filter::Tcp(range)),
        ("udp", _) => Ok(Filter::Udp(range)),
        ("icmp", None) => Ok(Filter::Icmp),
        _ => flaw(text, "a filter is \"icmp\", \"tcp/…\" or \"udp/…\""),
    }
}

fn port_range(ports: Option<&str>) -> Option<PortRange> {
    let Some(ports) = ports else {
        return Some(PortRange {
            port_range_start: 0,
            port_range_end: u16::MAX,
        });
    };
    let (start, end) = ports.split_once('-').unwrap_or((ports, ports));
    let range = PortRange {
        port_range_start: start.parse().ok()?,
        port_range_end: end.parse().ok()?,
    };
    (range.port_range_start <= range.port_range_end).then_some(range)
}

fn policies(
    raws: &[raw::Policy],
    clients: &BTreeMap<Uuid, Device>,
    resources: &BTreeMap<Uuid, Resource>,
) -> Result<BTreeMap<PolicyKey, Policy>, Flaw> {
    let by_name = |(id, device): (&Uuid, &Device)| (device.name.clone(), *id);
    let clients: BTreeMap<_, _> = clients.iter().map(by_name).collect();
    let by_name = |(id, resource): (&Uuid, &Resource)| (resource.name.clone(), *id);
    let resources: BTreeMap<_, _> = resources.iter().map(by_name).collect();
    let mut policies = BTreeMap::new();
    for raw in raws {
        let client = match raw.client.get_ref().as_str() {
            "*" => None,
            _ => Some(lookup(&clients, &raw.client, "client")?),
        };
        let resource = lookup(&resources, &raw.resource, "resource")?;
        let names = format!("{}:{}", raw.client.get_ref(), raw.resource.get_ref());
        let policy = Policy {
            id: uuid_of("policy", &names),
            expires_in: raw.expires_in.as_ref().map(lifetime).transpose()?,
        };
        if policies
            .insert(PolicyKey { client, resource }, policy)
            .is_some()
        {
            return flaw(&raw.resource, "there is already a policy for these two");
        }
    }
    Ok(policies)
}

fn lifetime(text: &Text) -> Result<Duration, Flaw> {
    match humantime::parse_duration(text.get_ref()) {
        Ok(lifetime) if lifetime >= Duration::from_secs(1) => Ok(lifetime),
        Ok(_) => flaw(text, "a grant lives for a second at least"),
        Err(error) => flaw(
            text,
            format!("{error}; a duration such as \"8h\" is expected"),
        ),
    }
}
