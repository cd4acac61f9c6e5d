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
use anyhow::Context;
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

type Text = Spanned<String>;
type Name = Spanned<Parsed<String>>;
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
    upstream_dns: Vec<IpAddr>,
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
    id: Option<Uuid>,
    addr: Vec<Parsed<SocketAddr>>,
    secret: Option<Text>,
    secret_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteEntry {
    name: Name,
    id: Option<Uuid>,
}

/// A gateway or a client; only a gateway has a site.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: Name,
    id: Option<Uuid>,
    token: Option<Text>,
    token_file: Option<Text>,
    ipv4: Spanned<Parsed<Ipv4Addr>>,
    ipv6: Spanned<Parsed<Ipv6Addr>>,
    site: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceEntry {
    name: Name,
    id: Option<Uuid>,
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
#[derive(Clone, Copy)]
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

/// A name, which must not be empty.
impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().is_empty() {
            true => Err("the name is empty".to_owned()),
            false => Ok(text.to_owned()),
        }
    }
}

/// A tunnel address, in its range.
impl Value for Ipv4Addr {
    fn parse(text: &str) -> Result<Self, String> {
        tunnel_address(text, |address| TUNNEL_V4.contains(address))
    }
}

/// A tunnel address, in its range.
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
        let mut sites = Names::new("site");
        for SiteEntry { name, id } in self.sites {
            sites.add(&name, id)?;
        }
        let mut taken = BTreeSet::new();
        let mut gateways = Devices::new("gateway", &mut taken);
        for entry in self.gateways {
            let Some(site) = &entry.site else {
                return mistake(&entry.name, "this gateway needs a site");
            };
            let site = sites.site(site)?;
            gateways.add(entry, Some(site), base)?;
        }
        let gateways = gateways.devices;
        let mut clients = Devices::new("client", &mut taken);
        for entry in self.clients {
            if let Some(site) = &entry.site {
                return mistake(site, "a client has no site");
            }
            clients.add(entry, None, base)?;
        }
        let mut names = Names::new("resource");
        let mut resources = BTreeMap::new();
        for entry in self.resources {
            let (id, resource) = entry.check(&sites, &mut names)?;
            resources.insert(id, resource);
        }
        let mut policies = BTreeMap::new();
        for entry in self.policies {
            let (key, policy) = entry.check(&clients.names, &names)?;
            if policies.insert(key, policy).is_some() {
                return mistake(&entry.resource, "there is already a policy for these two");
            }
        }
        Ok(Config {
            account: self.account.unwrap_or_else(|| "lab".to_owned()),
            service: ServiceConfig {
                listen: values(self.listen),
                takeover: self.takeover.unwrap_or(true),
                seed: self.seed,
                state_file: self.state_file.map(|file| base.join(file)),
            },
            dns: Dns {
                upstream: self.upstream_dns,
                search_domain: self.search_domain,
            },
            relays: relays(self.relays, base)?,
            gateways,
            clients: clients.devices,
            resources,
            policies,
        })
    }
}

fn values<T>(parsed: Vec<Parsed<T>>) -> Vec<T> {
    parsed.into_iter().map(|Parsed(value)| value).collect()
}

/// The names of one kind of entry, with their ids.
struct Names {
    kind: &'static str,
    ids: BTreeMap<String, Uuid>,
}

impl Names {
    fn new(kind: &'static str) -> Self {
        let ids = BTreeMap::new();
        Self { kind, ids }
    }

    /// Adds a name; its id is the given one or follows from the name.
    fn add(&mut self, name: &Name, id: Option<Uuid>) -> Checked<(Uuid, String)> {
        let Self { kind, ids } = self;
        let Parsed(text) = name.get_ref();
        let id = id.unwrap_or_else(|| uuid_of(kind, text));
        if ids.contains_key(text) {
            return mistake(name, format!("there are two {kind}s with this name"));
        }
        if ids.values().any(|other| *other == id) {
            return mistake(name, format!("another {kind} has the id {id} too"));
        }
        ids.insert(text.clone(), id);
        Ok((id, text.clone()))
    }

    fn find(&self, name: &Text) -> Checked<Uuid> {
        if let Some(id) = self.ids.get(name.get_ref()) {
            return Ok(*id);
        }
        let known: Vec<_> = self.ids.keys().map(String::as_str).collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        };
        let (kind, text) = (self.kind, name.get_ref());
        mistake(
            name,
            format!("there is no {kind} \"{text}\"; known: {known}"),
        )
    }

    fn site(&self, name: &Text) -> Checked<Site> {
        Ok(Site {
            id: self.find(name)?,
            name: name.get_ref().clone(),
        })
    }
}

struct Devices<'a> {
    names: Names,
    devices: BTreeMap<Uuid, Device>,
    /// Ids and addresses of gateways and clients together.
    taken: &'a mut BTreeSet<String>,
}

impl<'a> Devices<'a> {
    fn new(kind: &'static str, taken: &'a mut BTreeSet<String>) -> Self {
        Self {
            names: Names::new(kind),
            devices: BTreeMap::new(),
            taken,
        }
    }

    fn add(&mut self, entry: DeviceEntry, site: Option<Site>, base: &Path) -> Checked<()> {
        let (kind, at) = (self.names.kind, &entry.name);
        let (id, name) = self.names.add(at, entry.id)?;
        self.take(format!("id {id}"), at)?;
        let missing = Mistake {
            span: at.span(),
            message: format!("this {kind} needs token or token_file"),
        };
        let read = |file: &str| {
            let path = base.join(file);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        let token = credential("token", (entry.token, entry.token_file), read, missing)?;
        // Clients remove all white space from the token that they send (docs/protocol.md 1.2).
        let token: String = token.split_whitespace().collect();
        if self.devices.values().any(|device| device.token == token) {
            return mistake(at, format!("another {kind} has the same token"));
        }
        let (Parsed(ipv4), Parsed(ipv6)) = (*entry.ipv4.get_ref(), *entry.ipv6.get_ref());
        self.take(format!("address {ipv4}"), &entry.ipv4)?;
        self.take(format!("address {ipv6}"), &entry.ipv6)?;
        let device = Device {
            name,
            token,
            site,
            ipv4,
            ipv6,
        };
        self.devices.insert(id, device);
        Ok(())
    }

    fn take<T>(&mut self, value: String, at: &Spanned<T>) -> Checked<()> {
        let message = format!("another device has the {value} too");
        match self.taken.insert(value) {
            true => Ok(()),
            false => mistake(at, message),
        }
    }
}

/// A text, or the content of the file that is given instead.
fn credential(
    key: &str,
    given: (Option<Text>, Option<Text>),
    read: impl FnOnce(&str) -> anyhow::Result<String>,
    missing: Mistake,
) -> Checked<String> {
    let (text, at) = match given {
        (Some(text), None) => (text.get_ref().clone(), text),
        (None, Some(file)) => {
            let text =
                read(file.get_ref()).or_else(|error| mistake(&file, format!("{error:#}")))?;
            (text, file)
        }
        (Some(text), Some(_)) => {
            return mistake(&text, format!("give either {key} or {key}_file, not both"));
        }
        (None, None) => return Err(missing),
    };
    match text.trim().is_empty() {
        true => mistake(&at, format!("the {key} is empty")),
        false => Ok(text),
    }
}

fn relays(entries: Vec<Spanned<RelayEntry>>, base: &Path) -> Checked<Vec<Relay>> {
    let mut names = Names::new("relay");
    let mut relays = Vec::new();
    for entry in entries {
        let span = entry.span();
        let entry = entry.into_inner();
        let addresses = values(entry.addr);
        let Some(first) = addresses.first() else {
            let message = "a relay needs at least one address in addr".to_owned();
            return Err(Mistake { span, message });
        };
        let name = Spanned::new(span.clone(), Parsed(first.to_string()));
        let (id, _) = names.add(&name, entry.id)?;
        let missing = Mistake {
            span,
            message: "a relay needs secret_file (shared with the relay) or secret".to_owned(),
        };
        let read = |file: &str| secret::read_or_create(&base.join(file));
        relays.push(Relay {
            id,
            addresses,
            secret: credential("secret", (entry.secret, entry.secret_file), read, missing)?,
        });
    }
    Ok(relays)
}

impl ResourceEntry {
    fn check(self, sites: &Names, names: &mut Names) -> Checked<(Uuid, Resource)> {
        let (id, name) = names.add(&self.name, self.id)?;
        let target = self.target()?;
        let resource = Resource {
            name,
            target,
            description: self.address_description,
            site: sites.site(&self.site)?,
            filters: self
                .filters
                .map_or(Vec::new(), |it| values(it.into_inner())),
        };
        Ok((id, resource))
    }

    fn target(&self) -> Checked<Target> {
        match (*self.kind.get_ref(), &self.address, &self.filters) {
            (Kind::Cidr, Some(address), _) => network(address).map(Target::Cidr),
            (Kind::Dns, Some(address), _) => pattern(address).map(Target::Dns),
            (Kind::Cidr | Kind::Dns, None, _) => {
                mistake(&self.kind, "this resource needs an address")
            }
            (Kind::Internet, Some(address), _) => {
                mistake(address, "the Internet resource has no address")
            }
            (Kind::Internet, None, Some(filters)) if !filters.get_ref().is_empty() => {
                mistake(filters, "the Internet resource cannot be filtered")
            }
            (Kind::Internet, None, _) => Ok(Target::Internet),
        }
    }
}

fn network(address: &Text) -> Checked<IpNet> {
    let text = address.get_ref();
    if let Ok(host) = text.parse::<IpAddr>() {
        return Ok(host.into());
    }
    let expected = "a network such as \"10.20.0.0/24\" or a host address";
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

impl PolicyEntry {
    fn check(&self, clients: &Names, resources: &Names) -> Checked<(PolicyKey, Policy)> {
        let client = match self.client.get_ref().as_str() {
            "*" => None,
            _ => Some(clients.find(&self.client)?),
        };
        let resource = resources.find(&self.resource)?;
        let names = format!("{}:{}", self.client.get_ref(), self.resource.get_ref());
        let policy = Policy {
            id: uuid_of("policy", &names),
            expires_in: self.expires_in.map(|Parsed(lifetime)| lifetime),
        };
        Ok((PolicyKey { client, resource }, policy))
    }
}
