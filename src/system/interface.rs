//! Addresses and routes of the TUN interface.
//!
//! Finds the interface by its name; `tunnel::create` creates it. Sets addresses and routes by
//! `defguard_wireguard_rs`, which works by name on any interface. Calls netlink for the rest:
//! removing an old address, the MTU, link-local addresses, reading routes. Reads the routes back,
//! because the crate reports neither a missing interface, nor a route that belongs to another
//! interface, nor a refused IPv6 route.
//!
//! All of it is idempotent: the portal repeats the addresses on every join.

use super::netlink;
use super::sysctl::{self, Setting};
use super::{TUNNEL_RANGE_V4, TUNNEL_RANGE_V6};
use crate::config::InterfaceName;
use defguard_wireguard_rs::key::Key;
use defguard_wireguard_rs::net::IpAddrMask;
use defguard_wireguard_rs::peer::Peer;
use defguard_wireguard_rs::{Userspace, WGApi, WireguardInterfaceApi};
use ipnet::IpNet;
use postern_core::grant::TunnelAddresses;
use std::io;
use std::net::IpAddr;
use tracing::{debug, warn};

/// MTU of the tunnel in bytes: the minimum of IPv6, which fits into every path with our headers
/// around it (docs/protocol.md 5.7 and 6).
pub const MTU_BYTES: u16 = 1280;

/// An error while the interface is set up.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The interface does not exist, or no longer.
    #[error("the interface {name} does not exist: {source}")]
    Missing { name: String, source: io::Error },
    /// The kernel refused an operation.
    #[error("cannot {what} on {name}: {reason}; the gateway needs CAP_NET_ADMIN")]
    Refused {
        name: String,
        /// The operation; completes "cannot".
        what: &'static str,
        reason: String,
    },
    /// The range is routed over another interface.
    #[error(
        "{range} is not routed over {name}; another program holds this range (see `ip route show {range}`), stop it"
    )]
    RouteTaken { name: String, range: IpNet },
}

/// The TUN interface of this name.
pub struct Interface {
    name: String,
    api: WGApi<Userspace>,
    /// Whether the absence of IPv6 was logged: once, not on every join.
    ipv6_warned: bool,
}

impl Interface {
    /// The interface called `name`, which need not exist yet.
    pub fn new(name: &InterfaceName) -> Result<Self, InterfaceError> {
        let name = name.as_str().to_owned();
        let api = WGApi::new(name.clone()).map_err(|error| InterfaceError::Refused {
            name: name.clone(),
            what: "prepare the set-up of addresses",
            reason: error.to_string(),
        })?;
        Ok(Self {
            name,
            api,
            ipv6_warned: false,
        })
    }

    /// Gives the interface exactly these addresses (as /32 and /128), brings it up with
    /// [`MTU_BYTES`], and routes both tunnel ranges over it. Removes the addresses of an earlier
    /// call. Without IPv6 in the kernel, sets up IPv4 only and logs one warning.
    pub fn configure(&mut self, addresses: TunnelAddresses) -> Result<(), InterfaceError> {
        let index = netlink::index(&self.name).map_err(|source| InterfaceError::Missing {
            name: self.name.clone(),
            source,
        })?;
        let ipv6 = self.prepare_ipv6(index);
        netlink::bring_up(index, MTU_BYTES.into())
            .map_err(|error| self.refused("set the MTU", &error))?;
        self.assign(addresses.ipv4.into())?;
        if ipv6 {
            self.assign(addresses.ipv6.into())?;
        }
        self.remove_others(index, addresses)?;
        self.route(index, ipv6)
    }

    /// Switches IPv6 on if it is off. Returns whether the interface has IPv6.
    fn prepare_ipv6(&mut self, index: u32) -> bool {
        let switch = format!("net/ipv6/conf/{}/disable_ipv6", self.name);
        let usable = match sysctl::state(&switch) {
            Setting::Off | Setting::Locked => true,
            Setting::On => sysctl::write(&switch, "0").is_ok(),
            Setting::Absent => false,
        };
        if usable {
            // Cosmetic: a link-local address on the tunnel is not used, and is removed below.
            if let Err(error) = netlink::disable_link_local(index) {
                debug!(%error, interface = self.name, "link-local addresses stay enabled");
            }
        } else if !std::mem::replace(&mut self.ipv6_warned, true) {
            warn!(
                interface = self.name,
                "IPv6 is disabled on this host: only IPv4 works in the tunnel; enable it with \
                 net.ipv6.conf.all.disable_ipv6=0 (docker: --sysctl)"
            );
        }
        usable
    }

    fn assign(&self, ip: IpAddr) -> Result<(), InterfaceError> {
        let assigned = self.api.assign_address(&IpAddrMask::host(ip));
        assigned.map_err(|error| self.refused("assign an address", &error))
    }

    fn remove_others(&self, index: u32, keep: TunnelAddresses) -> Result<(), InterfaceError> {
        let fail = |error: io::Error| self.refused("remove an old address", &error);
        for assigned in netlink::addresses(index).map_err(fail)? {
            if !keep.contains(assigned.ip) {
                netlink::remove_address(assigned).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// The crate derives routes from the allowed addresses of peers; this peer has no other use.
    fn route(&self, index: u32, ipv6: bool) -> Result<(), InterfaceError> {
        let mut ranges = vec![IpNet::V4(TUNNEL_RANGE_V4)];
        if ipv6 {
            ranges.push(IpNet::V6(TUNNEL_RANGE_V6));
        }
        let mut peer = Peer::new(Key::default());
        let masks = ranges
            .iter()
            .map(|range| IpAddrMask::new(range.network(), range.prefix_len()));
        peer.set_allowed_ips(masks.collect());
        let routed = self.api.configure_peer_routing(&[peer]);
        routed.map_err(|error| self.refused("add the routes", &error))?;
        for range in ranges {
            let over = netlink::route_interfaces(range);
            let over = over.map_err(|error| self.refused("read the routes", &error))?;
            if !over.contains(&index) {
                let name = self.name.clone();
                return Err(InterfaceError::RouteTaken { name, range });
            }
        }
        Ok(())
    }

    fn refused(&self, what: &'static str, error: &dyn std::error::Error) -> InterfaceError {
        InterfaceError::Refused {
            name: self.name.clone(),
            what,
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::netns::{in_private_netns, ip, tunnel};

    fn addresses(last: u8) -> TunnelAddresses {
        TunnelAddresses {
            ipv4: [100, 64, 0, last].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, last.into()].into(),
        }
    }

    /// A TUN made as the gateway makes it, not by `ip`: held by this process, gone with it.
    fn tun(name: &str) -> tun_rs::SyncDevice {
        let builder = tun_rs::DeviceBuilder::new().name(name).mtu(MTU_BYTES);
        builder.build_sync().expect("a TUN interface")
    }

    fn interface(name: &str) -> Interface {
        Interface::new(&tunnel(name).interface).expect("an interface")
    }

    /// Addresses and routes in the words of iproute2, an independent reader.
    fn state(name: &str) -> (Vec<String>, Vec<String>) {
        let shown = ip(&format!("-o addr show dev {name}"));
        let address = |line: &str| line.split_ascii_whitespace().nth(3).map(str::to_owned);
        let mut routes = ip(&format!("-4 route show dev {name}"));
        routes += &ip(&format!("-6 route show dev {name}"));
        let route = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
        (
            shown.lines().filter_map(address).collect(),
            routes.lines().filter_map(route).collect(),
        )
    }

    #[test]
    fn addresses_and_routes_are_set_idempotently_and_replaced() {
        in_private_netns(|| {
            let _tun = tun("pt0");
            ip("addr add 192.0.2.1/24 dev pt0");
            let mut interface = interface("pt0");
            for last in [1, 1, 2, 1] {
                interface.configure(addresses(last)).expect("configured");
                let (assigned, routes) = state("pt0");
                let v6 = format!("fd00:2021:1111::{last}");
                assert_eq!(
                    assigned,
                    [format!("100.64.0.{last}/32"), format!("{v6}/128")]
                );
                assert_eq!(
                    routes,
                    [
                        "100.64.0.0/11".to_owned(),
                        v6,
                        "fd00:2021:1111::/107".to_owned()
                    ]
                );
            }
            let link = ip("link show dev pt0");
            assert!(link.contains("mtu 1280") && link.contains(",UP"), "{link}");
        });
    }

    #[test]
    fn the_absence_of_ipv6_leaves_ipv4_working() {
        in_private_netns(|| {
            let _tun = tun("pt0");
            let mut interface = interface("pt0");
            assert!(interface.prepare_ipv6(netlink::index("pt0").expect("exists")));
            // As on a host that has it compiled out: the directory of the interface is missing.
            interface.name = "gone0".to_owned();
            assert!(!interface.prepare_ipv6(1));
            assert!(interface.ipv6_warned);
        });
    }

    #[test]
    fn ipv6_that_is_disabled_by_default_is_enabled_on_the_tunnel() {
        in_private_netns(|| {
            sysctl::write("net/ipv6/conf/default/disable_ipv6", "1").expect("a setting");
            let _tun = tun("pt0");
            interface("pt0")
                .configure(addresses(1))
                .expect("configured");
            assert_eq!(state("pt0").0.len(), 2);
        });
    }

    #[test]
    fn a_range_that_is_routed_elsewhere_is_reported() {
        in_private_netns(|| {
            let _other = tun("vpn0");
            ip("link set vpn0 up");
            ip("route add 100.64.0.0/11 dev vpn0 scope link");
            let _tun = tun("pt0");
            let error = interface("pt0")
                .configure(addresses(1))
                .expect_err("refused");
            assert!(
                matches!(error, InterfaceError::RouteTaken { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("100.64.0.0/11"), "{error}");
        });
    }

    #[test]
    fn a_missing_interface_is_an_error() {
        in_private_netns(|| {
            let error = interface("pt0")
                .configure(addresses(1))
                .expect_err("refused");
            assert!(matches!(error, InterfaceError::Missing { .. }), "{error}");
        });
    }
}
