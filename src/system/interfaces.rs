//! The addresses of this host at which clients may reach the gateway.
//!
//! Leaves out interfaces that are down or excluded, the tunnel's own, loopback unless its interface
//! is named, link-local and other addresses that are of no use outside the host, and all addresses
//! inside the tunnel's ranges. Lists an interface without a carrier: it may get one at any time,
//! and the kernel reports that late.

use super::{TUNNEL_RANGE_V4, TUNNEL_RANGE_V6};
use crate::config::{InterfaceName, InterfacePattern, NetworkConfig};
use ipnet::Ipv4Net;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses to offer, best first: IPv6 before IPv4 (as their ICE priorities, docs/protocol.md
/// 3.3.2), within a family public before private, then in numeric order.
pub fn host_addresses(network: &NetworkConfig, tunnel: &InterfaceName) -> io::Result<Vec<IpAddr>> {
    let listed: Vec<Listed> = getifaddrs()?
        .filter_map(|entry| Listed::new(&entry))
        .collect();
    Ok(choose(&listed, network, tunnel))
}

/// One address of an interface.
#[derive(Clone)]
struct Listed {
    interface: String,
    ip: IpAddr,
    is_up: bool,
}

impl Listed {
    /// `None` for an entry without an IP address.
    fn new(entry: &InterfaceAddress) -> Option<Self> {
        let address = entry.address.as_ref()?;
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        let v6 = address.as_sockaddr_in6().map(|address| address.ip().into());
        Some(Self {
            // Old tools name an alias of eth0 eth0:1.
            interface: entry.interface_name.split(':').next()?.to_owned(),
            ip: v4.or(v6)?,
            is_up: entry.flags.contains(InterfaceFlags::IFF_UP),
        })
    }
}

fn choose(listed: &[Listed], network: &NetworkConfig, tunnel: &InterfaceName) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = listed
        .iter()
        .filter(|listed| listed.is_up && listed.interface != tunnel.as_str())
        .filter(|listed| is_wanted(listed, network))
        .map(|listed| listed.ip)
        .filter(is_usable)
        .collect();
    chosen.sort_by_key(|ip| (ip.is_ipv4(), is_private(ip), *ip));
    chosen.dedup();
    chosen
}

fn is_wanted(listed: &Listed, network: &NetworkConfig) -> bool {
    let matches = |pattern: &&InterfacePattern| pattern.matches(&listed.interface);
    let included = network.interfaces.iter().filter(matches);
    if included.clone().any(InterfacePattern::is_exact) {
        return true;
    }
    let is_included = network.interfaces.is_empty() || included.count() > 0;
    let is_excluded = network.exclude_interfaces.iter().any(|it| matches(&it));
    is_included && !is_excluded && !listed.ip.is_loopback()
}

fn is_usable(ip: &IpAddr) -> bool {
    let is_reserved = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || TUNNEL_RANGE_V4.contains(ip),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || TUNNEL_RANGE_V6.contains(ip),
    };
    !is_reserved && !ip.is_unspecified() && !ip.is_multicast()
}

/// Not reachable from everywhere: RFC 1918, RFC 6598, RFC 4193 and loopback.
fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
            ip.is_private() || ip.is_loopback() || SHARED.contains(ip)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || *ip == Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::netns::{in_private_netns, ip, tunnel};

    fn listed(interface: &str, ip: &str) -> Listed {
        Listed {
            interface: interface.to_owned(),
            ip: ip.parse().expect("an address"),
            is_up: true,
        }
    }

    fn patterns(texts: &[&str]) -> Vec<InterfacePattern> {
        let pattern = |text: &&str| (*text).to_owned().try_into().expect("a pattern");
        texts.iter().map(pattern).collect()
    }

    fn network(interfaces: &[&str], exclude: &[&str]) -> NetworkConfig {
        NetworkConfig {
            interfaces: patterns(interfaces),
            exclude_interfaces: patterns(exclude),
            ..NetworkConfig::default()
        }
    }

    const EXCLUDED: [&str; 4] = ["lo", "docker*", "br-*", "veth*"];

    fn chosen(listed: &[Listed], network: &NetworkConfig) -> Vec<String> {
        let chosen = choose(listed, network, &tunnel("postern0").interface);
        chosen.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn public_addresses_come_before_private_ones_and_ipv6_before_ipv4() {
        let interfaces = [
            listed("eth0", "192.168.1.5"),
            listed("eth0", "198.51.100.7"),
            listed("eth0", "fd12::5"),
            listed("eth1", "2001:db8::7"),
            listed("eth1", "198.51.100.3"),
            listed("eth2", "198.51.100.3"),
        ];
        let expected = [
            "2001:db8::7",
            "fd12::5",
            "198.51.100.3",
            "198.51.100.7",
            "192.168.1.5",
        ];
        assert_eq!(chosen(&interfaces, &network(&[], &EXCLUDED)), expected);
        let reversed: Vec<Listed> = interfaces.iter().rev().cloned().collect();
        assert_eq!(chosen(&reversed, &network(&[], &EXCLUDED)), expected);
    }

    #[test]
    fn addresses_that_no_client_can_reach_are_left_out() {
        let mut down = listed("eth1", "198.51.100.9");
        down.is_up = false;
        let interfaces = [
            listed("lo", "127.0.0.1"),
            listed("dummy0", "127.0.0.2"),
            listed("docker0", "172.17.0.1"),
            listed("eth0", "fe80::1"),
            listed("eth0", "169.254.1.1"),
            listed("eth0", "100.64.0.9"),
            listed("eth0", "fd00:2021:1111::9"),
            listed("postern0", "198.51.100.8"),
            down,
        ];
        assert_eq!(chosen(&interfaces, &network(&[], &EXCLUDED)), [""; 0]);
    }

    #[test]
    fn an_exact_name_overrides_the_exclusion_and_a_pattern_does_not() {
        let interfaces = [
            listed("lo", "127.0.0.1"),
            listed("veth0", "198.51.100.1"),
            listed("eth0", "198.51.100.2"),
            listed("wlan0", "198.51.100.3"),
        ];
        let chosen = |include: &[&str]| chosen(&interfaces, &network(include, &EXCLUDED));
        assert_eq!(chosen(&["eth*"]), ["198.51.100.2"]);
        assert_eq!(chosen(&["veth0", "lo"]), ["198.51.100.1", "127.0.0.1"]);
        assert_eq!(chosen(&["*"]), ["198.51.100.2", "198.51.100.3"]);
        assert_eq!(chosen(&["none*"]), [""; 0]);
    }

    #[test]
    fn the_list_of_the_kernel_is_parsed() {
        in_private_netns(|| {
            ip("link add up0 type veth peer name peer0");
            ip("link set peer0 up");
            ip("link add down0 type veth peer name peer1");
            ip("addr add 198.51.100.1/24 dev up0");
            ip("addr add 2001:db8::1/64 dev up0 nodad");
            ip("addr add 198.51.100.2/24 dev down0");
            ip("link set up0 up");
            let chosen = host_addresses(&network(&[], &EXCLUDED), &tunnel("postern0").interface);
            let expected: [IpAddr; 2] = [
                "2001:db8::1".parse().expect("an address"),
                "198.51.100.1".parse().expect("an address"),
            ];
            assert_eq!(chosen.expect("listed"), expected);
        });
    }
}
