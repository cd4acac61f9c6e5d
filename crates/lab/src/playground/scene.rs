//! Configurations of the programs of a set-up: addresses, names, resources and policies.
//!
//! | name                       | at                                     | resource             |
//! |----------------------------|----------------------------------------|----------------------|
//! | `app.lab.example`          | the web server, both families          | [`APP`]              |
//! | `late.lab.example`         | the web server, both families          | [`LATE`]             |
//! | `v4only.lab.example`       | the web server, IPv4                   | [`V4_ONLY`]          |
//! | `v6only.lab.example`       | the web server, IPv6                   | [`V6_ONLY`]          |
//! | `<any>.wild.lab.example`   | the web server, both families          | [`WILD`]             |
//! | `_web._tcp.srv.lab.example`| SRV to `app.lab.example`, and TXT      | [`SERVICES`]         |
//! | `missing.lab.example`      | nowhere: the name does not exist       | [`MISSING`]          |

use super::network::{
    CLIENT_INTERFACE, CLIENT_TUNNEL_V4, CLIENT_TUNNEL_V6, GATEWAY_TUNNEL_V4, GATEWAY_TUNNEL_V6,
    GATEWAY_WAN, RESOURCE_NET_V4, RESOURCE_NET_V6, ROUTER_V4, ROUTER_V6, TUNNEL_INTERFACE, WEB_V4,
    WEB_V6,
};
use super::setup::{CLIENT, GATEWAY, RESOURCE_V4, RESOURCE_V6, Setup, StateFile};
use super::{Role, word};
use crate::dns::zone::{NameRecords, Service, Zone};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Zone of all names of the scene.
pub const ORIGIN: &str = "lab.example";
/// A name with addresses of both families, and the resource of this name alone.
pub const APP: &str = "app.lab.example";
/// As [`APP`], for tests that need an unused name.
pub const LATE: &str = "late.lab.example";
/// A name with only an IPv4 address.
pub const V4_ONLY: &str = "v4only.lab.example";
/// A name with only an IPv6 address.
pub const V6_ONLY: &str = "v6only.lab.example";
/// Pattern of a resource: any single label before the rest.
pub const WILD: &str = "*.wild.lab.example";
/// Pattern of a resource: all names below, such as services.
pub const SERVICES: &str = "**.srv.lab.example";
/// A service with an SRV and a TXT record.
pub const SERVICE: &str = "_web._tcp.srv.lab.example";
/// Text of the service's TXT record.
pub const SERVICE_TEXT: &str = "a page of the lab";
/// A granted name that does not exist.
pub const MISSING: &str = "missing.lab.example";
/// TTL of addresses in seconds: longer than any test waits, so that their expiry heals nothing
/// during a test.
pub const TTL: u32 = 300;

/// All DNS resources; the name of each in the portal is its pattern.
pub const NAME_RESOURCES: [&str; 7] = [APP, LATE, V4_ONLY, V6_ONLY, WILD, SERVICES, MISSING];

/// The gateway's admin socket, in the playground's directory.
const ADMIN_SOCKET: &str = "admin.sock";
pub(super) const PORTAL_PORT: u16 = 8081;
const RELAY_PORT: u16 = 3478;

/// Addresses of the relay, as the portal announces them.
pub(super) fn relay_addresses() -> [SocketAddr; 2] {
    [
        (ROUTER_V4, RELAY_PORT).into(),
        (ROUTER_V6, RELAY_PORT).into(),
    ]
}

/// The name server's zone file.
pub(super) fn zone() -> Result<String> {
    let (v4, v6) = (IpAddr::from(WEB_V4), IpAddr::from(WEB_V6));
    let mut names: Vec<NameRecords> = [
        (APP, &[v4, v6][..]),
        (LATE, &[v4, v6]),
        (V4_ONLY, &[v4]),
        (V6_ONLY, &[v6]),
        (WILD, &[v4, v6]),
        (SERVICE, &[]),
    ]
    .map(|(name, addresses)| NameRecords::addresses(name, TTL, addresses))
    .into();
    if let Some(service) = names.last_mut() {
        service.txt.push(SERVICE_TEXT.to_owned());
        service.srv.push(Service {
            priority: 1,
            weight: 2,
            port: 80,
            target: APP.to_owned(),
        });
    }
    Zone::write(ORIGIN, &names)
}

/// A configured client: the one of every playground, or a member of the crowd.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// The client's name in the portal.
    name: String,
    /// Prefix of its files and logs.
    pub(super) stem: String,
    tunnel_v4: Ipv4Addr,
    tunnel_v6: Ipv6Addr,
}

impl Device {
    /// The client in a namespace; `None` where there is none.
    fn at(role: Role) -> Option<Self> {
        match role {
            Role::Client => Some(Self {
                name: CLIENT.to_owned(),
                stem: "client".to_owned(),
                tunnel_v4: CLIENT_TUNNEL_V4,
                tunnel_v6: CLIENT_TUNNEL_V6,
            }),
            Role::Member(number) => Some(Self {
                name: role.to_string(),
                stem: role.to_string(),
                tunnel_v4: Ipv4Addr::new(100, 64, 2, number),
                tunnel_v6: Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 1, number.into()),
            }),
            Role::Router | Role::Gateway | Role::Resource => None,
        }
    }

    pub(super) fn all(setup: &Setup) -> impl Iterator<Item = Self> + use<> {
        let roles = std::iter::once(Role::Client).chain((0..setup.crowd).map(Role::Member));
        roles.filter_map(Self::at)
    }

    /// The file with its token.
    pub(super) fn token_file(&self) -> String {
        format!("{}.token", self.stem)
    }
}

/// The portal's configuration; one resource may be left without a policy.
pub(super) fn portal(setup: &Setup, directory: &Path, without_policy: Option<&str>) -> String {
    let relays = match setup.relay {
        true => format!(
            "[[relays]]\naddr = {:?}\nsecret_file = {:?}\n",
            relay_addresses().map(|address| address.to_string()),
            directory.join("relay.secret")
        ),
        false => String::new(),
    };
    let mut config = format!(
        "listen = [\"{ROUTER_V4}:{PORTAL_PORT}\"]\n\
         {relays}\
         [[sites]]\nname = \"lab\"\n\
         [[gateways]]\nname = \"{GATEWAY}\"\nsite = \"lab\"\ntoken_file = {:?}\n\
         ipv4 = \"{GATEWAY_TUNNEL_V4}\"\nipv6 = \"{GATEWAY_TUNNEL_V6}\"\n",
        directory.join("gateway.token"),
    );
    for device in Device::all(setup) {
        config += &format!(
            "[[clients]]\nname = \"{}\"\ntoken_file = {:?}\nipv4 = \"{}\"\nipv6 = \"{}\"\n",
            device.name,
            directory.join(device.token_file()),
            device.tunnel_v4,
            device.tunnel_v6,
        );
    }
    let nets = [
        (RESOURCE_V4, "cidr", RESOURCE_NET_V4),
        (RESOURCE_V6, "cidr", RESOURCE_NET_V6),
    ];
    let names = NAME_RESOURCES.map(|name| (name, "dns", name));
    for (name, kind, address) in nets.into_iter().chain(names) {
        config += &format!(
            "[[resources]]\nname = \"{name}\"\ntype = \"{kind}\"\naddress = \"{address}\"\n\
             site = \"lab\"\nfilters = {:?}\n",
            setup.filters
        );
        for device in Device::all(setup).filter(|_| without_policy != Some(name)) {
            config += &format!(
                "[[policies]]\nclient = \"{}\"\nresource = \"{name}\"\n",
                device.name
            );
        }
    }
    config
}

/// The gateway's configuration; it reads its name servers from resolv.conf.
pub(super) fn gateway(setup: &Setup, directory: &Path) -> String {
    let state = setup.state.as_ref().map(state_section).unwrap_or_default();
    let shards = setup.shards.map(|shards| format!("shards = {shards}\n"));
    let shards = shards.unwrap_or_default();
    format!(
        "[portal]\nurl = \"ws://{ROUTER_V4}:{PORTAL_PORT}\"\ntoken_file = {:?}\n\
         id = \"{}\"\nname = \"{GATEWAY}\"\ngeneration = \"{}\"\n\
         [network]\ninterfaces = [\"{GATEWAY_WAN}\"]\n\
         [tunnel]\ninterface = \"{TUNNEL_INTERFACE}\"\n{shards}\
         [admin]\nsocket = {:?}\n\
         [log]\nformat = \"json\"\nfilter = \"info,postern=debug\"\n{state}",
        directory.join("gateway.token"),
        setup.gateway_id,
        word(setup.gateway_generation),
        directory.join(ADMIN_SOCKET),
    )
}

fn state_section(state: &StateFile) -> String {
    let age = state.max_age.map(humantime::format_duration);
    let age = age.map(|age| format!("max_age = \"{age}\"\n"));
    format!(
        "[state]\nfile = {:?}\nhandover = {}\n{}",
        state.file,
        state.handover,
        age.unwrap_or_default()
    )
}

/// A client's configuration.
pub(super) fn client(setup: &Setup, device: &Device, directory: &Path) -> String {
    format!(
        "[portal]\nurl = \"ws://{ROUTER_V4}:{PORTAL_PORT}\"\ntoken_file = {:?}\n\
         id = \"lab-{}\"\nname = \"{}\"\ngeneration = \"{}\"\n\
         [tunnel]\ninterface = \"{CLIENT_INTERFACE}\"\n",
        directory.join(device.token_file()),
        device.stem,
        device.name,
        word(setup.client_generation),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::Config;

    #[test]
    fn portal_and_name_server_accept_their_configurations() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = Setup {
            crowd: 250,
            ..Setup::default()
        };
        let tokens = Device::all(&setup).map(|device| device.token_file());
        for secret in ["gateway.token", "relay.secret"]
            .map(str::to_owned)
            .into_iter()
            .chain(tokens)
        {
            let text = format!("{secret}-0123456789abcdef0123456789abcdef");
            std::fs::write(directory.path().join(secret), text).expect("written");
        }
        let text = portal(&setup, directory.path(), Some(APP));
        Config::parse(&text, directory.path()).expect("a configuration");
        Zone::parse(&zone().expect("TOML")).expect("a zone");
    }
}
