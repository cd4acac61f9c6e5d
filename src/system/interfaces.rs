//! The addresses of this host that clients may reach us at.
//!
//! Left out are interfaces that are down or excluded, the tunnel's own, loopback unless its interface
//! is named, link-local and other addresses that nobody outside could use, and everything inside the
//! tunnel's ranges.

use super::{TUNNEL_RANGE_V4, TUNNEL_RANGE_V6};
use crate::config::{InterfaceName, NetworkConfig};
use if_addrs::Interface;
use ipnet::{Ipv4Net, Ipv6Net};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses to offer, best first: IPv6 before IPv4 (as their ICE priorities, protocol page, section
/// 3.3.2), and within a family public before private; equal ones in numeric order.
///
/// # Errors
///
/// When the system cannot list its interfaces.
pub fn host_addresses(network: &NetworkConfig, tunnel: &InterfaceName) -> io::Result<Vec<IpAddr>> {
    Ok(choose(&if_addrs::get_if_addrs()?, network, tunnel))
}

fn choose(
    interfaces: &[Interface],
    network: &NetworkConfig,
    tunnel: &InterfaceName,
) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| interface.is_oper_up() && interface.name != tunnel.as_str())
        .filter(|interface| is_wanted(interface, network))
        .map(Interface::ip)
        .filter(is_usable)
        .collect();
    chosen.sort_by_key(|ip| (ip.is_ipv4(), is_private(ip), *ip));
    chosen.dedup();
    chosen
}

fn is_wanted(interface: &Interface, network: &NetworkConfig) -> bool {
    // Aliases of old tools are called eth0:1 and belong to eth0.
    let name = interface.name.split(':').next().unwrap_or_default();
    let named = |pattern: &&crate::config::InterfacePattern| pattern.matches(name);
    let included = network.interfaces.iter().filter(named);
    if included.clone().any(|pattern| pattern.is_exact()) {
        return true;
    }
    let included = network.interfaces.is_empty() || included.count() > 0;
    let excluded = network
        .exclude_interfaces
        .iter()
        .any(|pattern| pattern.matches(name));
    included && !excluded && !interface.is_loopback()
}

fn is_usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let (network, length) = TUNNEL_RANGE_V4;
            let unusable = ip.is_unspecified() || ip.is_link_local() || ip.is_multicast();
            !unusable && !Ipv4Net::new_assert(network, length).contains(ip)
        }
        IpAddr::V6(ip) => {
            let (network, length) = TUNNEL_RANGE_V6;
            let unusable = ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast();
            !unusable && !Ipv6Net::new_assert(network, length).contains(ip)
        }
    }
}

/// Not reachable from everywhere: RFC 1918, RFC 6598, RFC 4193 and loopback.
fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
            ip.is_private() || ip.is_loopback() || shared.contains(ip)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || *ip == Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InterfacePattern;
    use crate::system::netns::{in_private_netns, ip, tunnel};
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: Ipv4Addr::UNSPECIFIED,
                prefixlen: 0,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: Ipv6Addr::UNSPECIFIED,
                prefixlen: 0,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn patterns(texts: &[&str]) -> Vec<InterfacePattern> {
        let pattern = |text: &&str| (*text).to_owned().try_into().expect("a pattern");
        texts.iter().map(pattern).collect()
    }

    fn network(interfaces: &[&str], exclude: &[&str]) -> NetworkConfig {
        NetworkConfig {
            udp_port: 0,
            interfaces: patterns(interfaces),
            exclude_interfaces: patterns(exclude),
            stun_servers: Vec::new(),
            receive_buffer_bytes: 0,
            send_buffer_bytes: 0,
        }
    }

    const EXCLUDED: [&str; 4] = ["lo", "docker*", "br-*", "veth*"];

    fn chosen(interfaces: &[Interface], network: &NetworkConfig) -> Vec<String> {
        let chosen = choose(interfaces, network, &tunnel("postern0").interface);
        chosen.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn public_addresses_come_before_private_ones_and_ipv6_before_ipv4() {
        let interfaces = [
            interface("eth0", "192.168.1.5"),
            interface("eth0", "198.51.100.7"),
            interface("eth0", "fd12::5"),
            interface("eth1", "2001:db8::7"),
            interface("eth1:0", "198.51.100.3"),
            interface("eth2", "198.51.100.3"),
        ];
        let expected = [
            "2001:db8::7",
            "fd12::5",
            "198.51.100.3",
            "198.51.100.7",
            "192.168.1.5",
        ];
        assert_eq!(chosen(&interfaces, &network(&[], &EXCLUDED)), expected);
        let reversed: Vec<Interface> = interfaces.iter().rev().cloned().collect();
        assert_eq!(chosen(&reversed, &network(&[], &EXCLUDED)), expected);
    }

    #[test]
    fn what_no_client_can_reach_is_left_out() {
        let mut down = interface("eth1", "198.51.100.9");
        down.oper_status = IfOperStatus::Unknown;
        let interfaces = [
            interface("lo", "127.0.0.1"),
            interface("dummy0", "127.0.0.2"),
            interface("docker0", "172.17.0.1"),
            interface("eth0", "fe80::1"),
            interface("eth0", "169.254.1.1"),
            interface("eth0", "100.64.0.9"),
            interface("eth0", "fd00:2021:1111::9"),
            interface("postern0", "198.51.100.8"),
            down,
        ];
        assert_eq!(chosen(&interfaces, &network(&[], &EXCLUDED)), [""; 0]);
    }

    #[test]
    fn a_name_beats_the_exclusion_and_a_pattern_does_not() {
        let interfaces = [
            interface("lo", "127.0.0.1"),
            interface("veth0", "198.51.100.1"),
            interface("eth0", "198.51.100.2"),
            interface("wlan0", "198.51.100.3"),
        ];
        let chosen = |include: &[&str]| chosen(&interfaces, &network(include, &EXCLUDED));
        assert_eq!(chosen(&["eth*"]), ["198.51.100.2"]);
        assert_eq!(chosen(&["veth0", "lo"]), ["198.51.100.1", "127.0.0.1"]);
        assert_eq!(chosen(&["*"]), ["198.51.100.2", "198.51.100.3"]);
        assert_eq!(chosen(&["none*"]), [""; 0]);
    }

    #[test]
    fn the_systems_own_list_is_understood() {
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
