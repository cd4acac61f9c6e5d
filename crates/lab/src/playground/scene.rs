//! What the programs of the scene are told: addresses, names, resources and who may reach them.
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

use super::Role;
use super::lab::{CLIENT, GATEWAY, RESOURCE_V4, RESOURCE_V6, Setup};
use super::network::{
    CLIENT_INTERFACE, CLIENT_TUNNEL_V4, CLIENT_TUNNEL_V6, GATEWAY_TUNNEL_V4, GATEWAY_TUNNEL_V6,
    GATEWAY_WAN, RESOURCE_NET_V4, RESOURCE_NET_V6, ROUTER_V4, ROUTER_V6, TUNNEL_INTERFACE, WEB_V4,
    WEB_V6,
};
use crate::dns::zone::{NameRecords, Service, Zone};
use anyhow::Result;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The zone of all names.
pub const ORIGIN: &str = "lab.example";
/// A name with addresses of both families, and the resource that is this name alone.
pub const APP: &str = "app.lab.example";
/// As [`APP`]; for whatever must not have been used before.
pub const LATE: &str = "late.lab.example";
/// A name with an IPv4 address alone.
pub const V4_ONLY: &str = "v4only.lab.example";
/// A name with an IPv6 address alone.
pub const V6_ONLY: &str = "v6only.lab.example";
/// The names of one resource: any single label before it.
pub const WILD: &str = "*.wild.lab.example";
/// The names of one resource: services and what else hangs below.
pub const SERVICES: &str = "**.srv.lab.example";
/// A service: SRV and TXT.
pub const SERVICE: &str = "_web._tcp.srv.lab.example";
/// What the service's TXT record says.
pub const SERVICE_TEXT: &str = "a page of the lab";
/// A granted name that does not exist.
pub const MISSING: &str = "missing.lab.example";
/// Seconds for which addresses may be kept: longer than any test waits, so that what heals sooner
/// was not healed by their end.
pub const TTL: u32 = 300;

/// All resources that are names; each is called in the portal as its pattern is written.
pub const NAME_RESOURCES: [&str; 7] = [APP, LATE, V4_ONLY, V6_ONLY, WILD, SERVICES, MISSING];

/// In the playground's directory: where the gateway is asked how it is.
pub(super) const ADMIN_SOCKET: &str = "admin.sock";
pub(super) const PORTAL_PORT: u16 = 8081;
pub(super) const RELAY_PORT: u16 = 3478;

/// The addresses of the relay, as they are handed out.
pub(super) fn relay_addresses() -> [SocketAddr; 2] {
    [
        (ROUTER_V4, RELAY_PORT).into(),
        (ROUTER_V6, RELAY_PORT).into(),
    ]
}

/// What the name server is told.
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

/// A client of the scene: the one of every playground, or a member of the crowd.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Its name in the portal.
    pub(super) name: String,
    /// What its files and logs begin with.
    pub(super) stem: String,
    tunnel_v4: Ipv4Addr,
    tunnel_v6: Ipv6Addr,
}

impl Device {
    /// The client that runs at a place; `None` where none does.
    pub(super) fn at(role: Role) -> Option<Self> {
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

    /// All clients of a set-up.
    pub(super) fn all(setup: &Setup) -> impl Iterator<Item = Self> + use<> {
        let roles = std::iter::once(Role::Client).chain((0..setup.crowd).map(Role::Member));
        roles.filter_map(Self::at)
    }

    /// The file with its token.
    pub(super) fn token_file(&self) -> String {
        format!("{}.token", self.stem)
    }
}

/// What the portal is told; a resource may be left without a policy.
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
        // Writing to a String cannot fail.
        let _infallible = write!(
            config,
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
        // Writing to a String cannot fail.
        let _infallible = write!(
            config,
            "[[resources]]\nname = \"{name}\"\ntype = \"{kind}\"\naddress = \"{address}\"\n\
             site = \"lab\"\nfilters = {:?}\n",
            setup.filters
        );
        for device in Device::all(setup).filter(|_| without_policy != Some(name)) {
            let _infallible = write!(
                config,
                "[[policies]]\nclient = \"{}\"\nresource = \"{name}\"\n",
                device.name
            );
        }
    }
    config
}

/// What the gateway is told; whom to ask for names it reads from its resolv.conf.
pub(super) fn gateway(setup: &Setup, directory: &Path) -> String {
    let state = match &setup.state {
        Some(state) => state.section(),
        None => String::new(),
    };
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
        setup.gateway_generation.word(),
        directory.join(ADMIN_SOCKET),
    )
}

/// What a client is told.
pub(super) fn client(setup: &Setup, device: &Device, directory: &Path) -> String {
    format!(
        "[portal]\nurl = \"ws://{ROUTER_V4}:{PORTAL_PORT}\"\ntoken_file = {:?}\n\
         id = \"lab-{}\"\nname = \"{}\"\ngeneration = \"{}\"\n\
         [tunnel]\ninterface = \"{CLIENT_INTERFACE}\"\n",
        directory.join(device.token_file()),
        device.stem,
        device.name,
        setup.client_generation.word(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::Config;

    #[test]
    fn the_portal_and_the_name_server_understand_what_they_are_told() {
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
