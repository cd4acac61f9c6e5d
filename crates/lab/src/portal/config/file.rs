//! The configuration file as serde reads it, and the checks that need more than one value.
//!
//! serde checks each value by itself: unknown keys, types, addresses, filters, durations. The
//! functions below resolve references, read token files and find duplicates. Every mistake has the
//! position of the value that is wrong.

use super::{
    Config, Device, Dns, Mistake, Policy, PolicyKey, Relay, Resource, ServiceConfig, Site, Target,
};
use crate::portal::derive::uuid_of;
use crate::secret;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_core::portal::wire::{Filter, PortRange};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;
use uuid::Uuid;

/// A string and its position.
type Text = Spanned<String>;
type Checked<T> = Result<T, Mistake>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    account: Option<String>,
    #[serde(default)]
    listen: Vec<Parsed<SocketAddr>>,
    takeover: Option<bool>,
    seed: Option<String>,
    state_file: Option<PathBuf>,
    #[serde(default)]
    upstream_dns: Vec<Parsed<IpAddr>>,
    search_domain: Option<String>,
    #[serde(default)]
    relays: Vec<Spanned<RelayEntry>>,
    #[serde(default)]
    sites: Vec<SiteEntry>,
    #[serde(default)]
    gateways: Vec<DeviceEntry>,
    #[serde(default)]
    clients: Vec<DeviceEntry>,
    #[serde(default)]
    resources: Vec<ResourceEntry>,
    #[serde(default)]
    policies: Vec<PolicyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayEntry {
    id: Option<Parsed<Uuid>>,
    addr: Vec<Parsed<SocketAddr>>,
    secret: Option<Text>,
    secret_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteEntry {
    name: Spanned<Parsed<String>>,
    id: Option<Parsed<Uuid>>,
}

/// A gateway or a client; only a gateway has a site.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: Spanned<Parsed<String>>,
    id: Option<Parsed<Uuid>>,
    token: Option<Text>,
    token_file: Option<Text>,
    ipv4: Spanned<Parsed<Ipv4Addr>>,
    ipv6: Spanned<Parsed<Ipv6Addr>>,
    site: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceEntry {
    name: Spanned<Parsed<String>>,
    id: Option<Parsed<Uuid>>,
    #[serde(rename = "type")]
    kind: Spanned<Kind>,
    address: Option<Text>,
    address_description: Option<String>,
    site: Text,
    filters: Option<Spanned<Vec<Parsed<Filter>>>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Cidr,
    Dns,
    Internet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyEntry {
    client: Text,
    resource: Text,
    expires_in: Option<Parsed<Duration>>,
}

/// A value that the file writes as a string.
trait Value: Sized {
    /// # Errors
    /// The message, without the position.
    fn parse(text: &str) -> Result<Self, String>;
}

/// Deserializes a [`Value`]. A visitor parses it, so that a mistake in an array has the position
/// of its element.
struct Parsed<T>(T);

impl<'de, T: Value> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);
        impl<T: Value> Visitor<'_> for Text<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                T::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

fn parsed<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    let wrong = |_| format!("\"{text}\" is not {expected}");
    text.parse().map_err(wrong)
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        parsed(text, "an address such as \"203.0.113.1:3478\"")
    }
}

impl Value for IpAddr {
    fn parse(text: &str) -> Result<Self, String> {
        parsed(text, "an IP address")
    }
}

impl Value for Uuid {
    fn parse(text: &str) -> Result<Self, String> {
        parsed(text, "a UUID")
    }
}

/// A name.
impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().is_empty() {
            true => Err("the name is empty".to_owned()),
            false => Ok(text.to_owned()),
        }
    }
}

/// A tunnel address.
impl Value for Ipv4Addr {
    fn parse(text: &str) -> Result<Self, String> {
        tunnel_address(text, |address| TUNNEL_V4.contains(address))
    }
}

/// A tunnel address.
impl Value for Ipv6Addr {
    fn parse(text: &str) -> Result<Self, String> {
        tunnel_address(text, |address| TUNNEL_V6.contains(address))
    }
}

/// The ranges for tunnel addresses (docs/protocol.md 6).
const TUNNEL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);
const TUNNEL_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);

fn tunnel_address<T: FromStr>(text: &str, in_range: impl Fn(&T) -> bool) -> Result<T, String> {
    let address = parsed(text, "an IP address without prefix")?;
    match in_range(&address) {
        true => Ok(address),
        false => Err(format!(
            "tunnel addresses lie in {TUNNEL_V4} and {TUNNEL_V6}"
        )),
    }
}

impl Value for Filter {
    fn parse(text: &str) -> Result<Self, String> {
        let (protocol, ports) = match text.split_once('/') {
            Some((protocol, ports)) => (protocol, Some(ports)),
            None => (text, None),
        };
        let range = port_range(ports.unwrap_or("0-65535"));
        let range = range.ok_or("ports are written as \"tcp/80\" or \"tcp/8000-8100\"")?;
        match (protocol, ports) {
            ("tcp", _) => Ok(Self::Tcp(range)),
            ("udp", _) => Ok(Self::Udp(range)),
            ("icmp", None) => Ok(Self::Icmp),
            _ => Err("a filter is \"icmp\", \"tcp/…\" or \"udp/…\"".to_owned()),
        }
    }
}

fn port_range(ports: &str) -> Option<PortRange> {
    let (start, end) = ports.split_once('-').unwrap_or((ports, ports));
    let range = PortRange {
        port_range_start: start.parse().ok()?,
        port_range_end: end.parse().ok()?,
    };
    (range.port_range_start <= range.port_range_end).then_some(range)
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(lifetime) if lifetime >= Self::from_secs(1) => Ok(lifetime),
            Ok(_) => Err("a grant lives for a second at least".to_owned()),
            Err(error) => Err(format!("{error}; a duration such as \"8h\" is expected")),
        }
    }
}

fn mistake<T, U>(at: &Spanned<T>, message: impl Into<String>) -> Checked<U> {
    Err(Mistake {
        span: at.span(),
        message: message.into(),
    })
}

impl ConfigFile {
    /// Resolves all references. Relative file names are taken from `base`.
    pub(super) fn check(self, base: &Path) -> Checked<Config> {
        if self.listen.is_empty() {
            return Err(Mistake {
                span: 0..0,
                message: "listen is missing: give at least one \"ip:port\"".to_owned(),
            });
        }
        let sites = sites(self.sites)?;
        let mut devices = Devices::default();
        let gateways = devices.check("gateway", self.gateways, base, Some(&sites))?;
        let clients = devices.check("client", self.clients, base, None)?;
        let resources = resources(self.resources, &sites)?;
        let policies = policies(&self.policies, &clients, &resources)?;
        Ok(Config {
            account: self.account.unwrap_or_else(|| "lab".to_owned()),
            service: ServiceConfig {
                listen: values(self.listen),
                takeover: self.takeover.unwrap_or(true),
                seed: self.seed,
                state_file: self.state_file.map(|file| base.join(file)),
            },
            dns: Dns {
                upstream: values(self.upstream_dns),
                search_domain: self.search_domain,
            },
            relays: relays(self.relays, base)?,
            gateways,
            clients,
            resources,
            policies,
        })
    }
}

fn values<T>(parsed: Vec<Parsed<T>>) -> Vec<T> {
    parsed.into_iter().map(|Parsed(value)| value).collect()
}

fn id_or_derived(id: Option<Parsed<Uuid>>, kind: &str, name: &str) -> Uuid {
    id.map_or_else(|| uuid_of(kind, name), |Parsed(id)| id)
}

fn lookup<T: Clone>(known: &BTreeMap<String, T>, name: &Text, kind: &str) -> Checked<T> {
    let Some(found) = known.get(name.get_ref()) else {
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let names = match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let name_text = name.get_ref();
        return mistake(
            name,
            format!("there is no {kind} \"{name_text}\"; known: {names}"),
        );
    };
    Ok(found.clone())
}

fn sites(entries: Vec<SiteEntry>) -> Checked<BTreeMap<String, Site>> {
    let mut sites = BTreeMap::new();
    for SiteEntry { name: at, id } in entries {
        let name = at.get_ref().0.clone();
        let site = Site {
            id: id_or_derived(id, "site", &name),
            name: name.clone(),
        };
        if sites.insert(name, site).is_some() {
            return mistake(&at, "there are two sites with this name");
        }
    }
    Ok(sites)
}

fn relays(entries: Vec<Spanned<RelayEntry>>, base: &Path) -> Checked<Vec<Relay>> {
    let mut relays: Vec<Relay> = Vec::new();
    for entry in entries {
        let at = Spanned::new(entry.span(), ());
        let entry = entry.into_inner();
        let secret = relay_secret(&entry, &at, base)?;
        let addresses = values(entry.addr);
        let Some(first) = addresses.first() else {
            return mistake(&at, "a relay needs at least one address in addr");
        };
        let id = id_or_derived(entry.id, "relay", &first.to_string());
        if relays.iter().any(|relay| relay.id == id) {
            return mistake(&at, "this relay is listed twice");
        }
        relays.push(Relay {
            id,
            addresses,
            secret,
        });
    }
    Ok(relays)
}

fn relay_secret(entry: &RelayEntry, at: &Spanned<()>, base: &Path) -> Checked<String> {
    match (&entry.secret, &entry.secret_file) {
        (Some(secret), None) if !secret.get_ref().is_empty() => Ok(secret.get_ref().clone()),
        (Some(secret), None) => mistake(secret, "the secret is empty"),
        (None, Some(file)) => secret::read_or_create(&base.join(file.get_ref()))
            .or_else(|error| mistake(file, format!("{error:#}"))),
        (Some(secret), Some(_)) => mistake(secret, "give either secret or secret_file, not both"),
        (None, None) => mistake(
            at,
            "a relay needs secret_file (shared with the relay) or secret",
        ),
    }
}

/// Values that are unique among gateways and clients together.
#[derive(Default)]
struct Devices {
    ids: BTreeSet<Uuid>,
    addresses: BTreeSet<IpAddr>,
}

impl Devices {
    /// `sites` is `None` for clients, which have none.
    fn check(
        &mut self,
        kind: &str,
        entries: Vec<DeviceEntry>,
        base: &Path,
        sites: Option<&BTreeMap<String, Site>>,
    ) -> Checked<BTreeMap<Uuid, Device>> {
        let mut devices: BTreeMap<Uuid, Device> = BTreeMap::new();
        for entry in entries {
            let at = &entry.name;
            let name = at.get_ref().0.clone();
            if devices.values().any(|device| device.name == name) {
                return mistake(at, format!("there are two {kind}s named \"{name}\""));
            }
            let token = token(kind, &entry, base)?;
            if devices.values().any(|device| device.token == token) {
                return mistake(at, format!("another {kind} has the same token"));
            }
            let site = match (sites, &entry.site) {
                (Some(sites), Some(site)) => Some(lookup(sites, site, "site")?),
                (Some(_), None) => return mistake(at, "this gateway needs a site"),
                (None, Some(site)) => return mistake(site, "a client has no site"),
                (None, None) => None,
            };
            let (ipv4, ipv6) = (entry.ipv4.get_ref().0, entry.ipv6.get_ref().0);
            self.reserve(ipv4, &entry.ipv4)?;
            self.reserve(ipv6, &entry.ipv6)?;
            let id = id_or_derived(entry.id, kind, &name);
            if !self.ids.insert(id) {
                return mistake(at, format!("another device has the id {id} too"));
            }
            let device = Device {
                name,
                token,
                site,
                ipv4,
                ipv6,
            };
            devices.insert(id, device);
        }
        Ok(devices)
    }

    fn reserve<T>(&mut self, ip: impl Into<IpAddr>, at: &Spanned<T>) -> Checked<()> {
        let ip = ip.into();
        match self.addresses.insert(ip) {
            true => Ok(()),
            false => mistake(at, format!("another device has the address {ip} too")),
        }
    }
}

fn token(kind: &str, entry: &DeviceEntry, base: &Path) -> Checked<String> {
    let (text, at) = match (&entry.token, &entry.token_file) {
        (Some(token), None) => (token.get_ref().clone(), token),
        (None, Some(file)) => {
            let path = base.join(file.get_ref());
            let text = std::fs::read_to_string(&path).or_else(|error| {
                mistake(file, format!("cannot read {}: {error}", path.display()))
            })?;
            (text, file)
        }
        (Some(token), Some(_)) => {
            return mistake(token, "give either token or token_file, not both");
        }
        (None, None) => {
            return mistake(
                &entry.name,
                format!("this {kind} needs token or token_file"),
            );
        }
    };
    // Clients remove all white space from the token that they send (docs/protocol.md 1.2).
    let token: String = text.split_whitespace().collect();
    match token.is_empty() {
        true => mistake(at, "the token is empty"),
        false => Ok(token),
    }
}

fn resources(
    entries: Vec<ResourceEntry>,
    sites: &BTreeMap<String, Site>,
) -> Checked<BTreeMap<Uuid, Resource>> {
    let mut resources: BTreeMap<Uuid, Resource> = BTreeMap::new();
    for entry in entries {
        let at = &entry.name;
        let name = at.get_ref().0.clone();
        if resources.values().any(|resource| resource.name == name) {
            return mistake(at, "there are two resources with this name");
        }
        let target = target(&entry)?;
        let id = id_or_derived(entry.id, "resource", &name);
        let resource = Resource {
            name,
            target,
            description: entry.address_description,
            site: lookup(sites, &entry.site, "site")?,
            filters: entry
                .filters
                .map_or(Vec::new(), |it| values(it.into_inner())),
        };
        if resources.insert(id, resource).is_some() {
            return mistake(at, format!("another resource has the id {id} too"));
        }
    }
    Ok(resources)
}

fn target(entry: &ResourceEntry) -> Checked<Target> {
    match (*entry.kind.get_ref(), &entry.address) {
        (Kind::Cidr, Some(address)) => network(address).map(Target::Cidr),
        (Kind::Dns, Some(address)) => pattern(address).map(Target::Dns),
        (Kind::Cidr | Kind::Dns, None) => mistake(&entry.kind, "this resource needs an address"),
        (Kind::Internet, Some(address)) => mistake(address, "the Internet resource has no address"),
        (Kind::Internet, None) => match &entry.filters {
            Some(filters) if !filters.get_ref().is_empty() => {
                mistake(filters, "the Internet resource cannot be filtered")
            }
            Some(_) | None => Ok(Target::Internet),
        },
    }
}

fn network(address: &Text) -> Checked<IpNet> {
    let text = address.get_ref();
    if let Ok(host) = text.parse::<IpAddr>() {
        return Ok(host.into());
    }
    let expected = "a network such as \"10.20.0/24\" or a host address";
    let network: IpNet = parsed(text, expected).or_else(|message| mistake(address, message))?;
    let whole = network.trunc();
    match whole == network {
        true => Ok(network),
        false => mistake(
            address,
            format!("\"{network}\" has bits beyond its prefix; {whole} is meant?"),
        ),
    }
}

fn pattern(address: &Text) -> Checked<String> {
    let permitted = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '*' | '?');
    let good = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(permitted);
    match address.get_ref().split('.').all(good) {
        true => Ok(address.get_ref().clone()),
        false => mistake(
            address,
            "a name or a pattern such as \"*.corp.example\" is expected",
        ),
    }
}

fn policies(
    entries: &[PolicyEntry],
    clients: &BTreeMap<Uuid, Device>,
    resources: &BTreeMap<Uuid, Resource>,
) -> Checked<BTreeMap<PolicyKey, Policy>> {
    let clients = clients.iter().map(|(id, it)| (it.name.clone(), *id));
    let clients: BTreeMap<_, _> = clients.collect();
    let resources = resources.iter().map(|(id, it)| (it.name.clone(), *id));
    let resources: BTreeMap<_, _> = resources.collect();
    let mut policies = BTreeMap::new();
    for entry in entries {
        let client = match entry.client.get_ref().as_str() {
            "*" => None,
            _ => Some(lookup(&clients, &entry.client, "client")?),
        };
        let resource = lookup(&resources, &entry.resource, "resource")?;
        let names = format!("{}:{}", entry.client.get_ref(), entry.resource.get_ref());
        let policy = Policy {
            id: uuid_of("policy", &names),
            expires_in: entry.expires_in.as_ref().map(|Parsed(lifetime)| *lifetime),
        };
        let key = PolicyKey { client, resource };
        if policies.insert(key, policy).is_some() {
            return mistake(&entry.resource, "there is already a policy for these two");
        }
    }
    Ok(policies)
}
