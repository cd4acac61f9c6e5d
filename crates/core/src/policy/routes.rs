//! Finds the networks that contain an address: an ordered table, one level for each prefix length
//! in use.

use crate::ids::ResourceId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The networks of a client's CIDR resources. Built once, never changed.
#[derive(Debug, Default)]
pub(super) struct Routes {
    v4: Vec<Level>,
    v6: Vec<Level>,
}

/// All networks of one family and one prefix length.
#[derive(Debug)]
struct Level {
    prefix_bits: u8,
    mask: u128,
    /// Network and owner, sorted, so that the owners of a network are adjacent.
    networks: Vec<(u128, ResourceId)>,
}

impl Routes {
    /// The networks that contain `ip`: prefix length and owner of each.
    pub(super) fn covering(&self, ip: IpAddr) -> impl Iterator<Item = (u8, ResourceId)> {
        let levels = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let bits = aligned(ip);
        levels.iter().flat_map(move |level| {
            let network = bits & level.mask;
            let first = level.networks.partition_point(|(own, _)| *own < network);
            level.networks[first..]
                .iter()
                .take_while(move |(own, _)| *own == network)
                .map(|(_, owner)| (level.prefix_bits, *owner))
        })
    }
}

impl FromIterator<(IpNet, ResourceId)> for Routes {
    fn from_iter<T: IntoIterator<Item = (IpNet, ResourceId)>>(networks: T) -> Self {
        let mut levels: [BTreeMap<u8, Vec<(u128, ResourceId)>>; 2] = Default::default();
        let [v4, v6] = &mut levels;
        for (network, owner) in networks {
            let family = if network.addr().is_ipv4() {
                &mut *v4
            } else {
                &mut *v6
            };
            let level = family.entry(network.prefix_len()).or_default();
            level.push((aligned(network.network()), owner));
        }
        let levels = levels.map(|family| {
            let levels = family.into_iter();
            levels
                .map(|(bits, networks)| Level::new(bits, networks))
                .collect()
        });
        let [v4, v6] = levels;
        Self { v4, v6 }
    }
}

impl Level {
    fn new(prefix_bits: u8, mut networks: Vec<(u128, ResourceId)>) -> Self {
        networks.sort_unstable();
        let host_bits = u128::BITS - u32::from(prefix_bits);
        Self {
            prefix_bits,
            mask: u128::MAX.checked_shl(host_bits).unwrap_or(0),
            networks,
        }
    }
}

/// The bits of an address, aligned to the top of a word, so that a mask fits both families.
fn aligned(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << (128 - 32),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn id(number: usize) -> ResourceId {
        ResourceId(Uuid::from_u128(number as u128))
    }

    fn routes(networks: &[&str]) -> Routes {
        let parse = |text: &&str| text.parse::<IpNet>().expect("a network");
        let numbered = networks.iter().map(parse).enumerate();
        numbered.map(|(number, net)| (net, id(number))).collect()
    }

    fn covering(routes: &Routes, ip: &str) -> Vec<(u8, ResourceId)> {
        routes.covering(ip.parse().expect("an address")).collect()
    }

    #[test]
    fn a_default_route_covers_its_family_only() {
        let routes = routes(&["0.0.0.0/0", "::/0"]);
        assert_eq!(covering(&routes, "203.0.113.9"), [(0, id(0))]);
        assert_eq!(covering(&routes, "2001:db8::9"), [(0, id(1))]);
    }

    #[test]
    fn host_bits_of_a_network_do_not_matter() {
        let routes = routes(&["10.20.0.9/16", "10.20.0.9/32"]);
        assert_eq!(covering(&routes, "10.20.255.255"), [(16, id(0))]);
        let both = [(16, id(0)), (32, id(1))];
        assert_eq!(covering(&routes, "10.20.0.9"), both);
    }

    proptest! {
        /// Few bits vary, so that networks nest and collide.
        #[test]
        fn finds_the_same_as_a_scan_of_all_networks(
            networks in proptest::collection::vec((any::<bool>(), 0u8..8, 0u8..=32), 0..20),
            is_v4 in any::<bool>(),
            last in 0u8..8,
        ) {
            let address = |is_v4, last| -> IpAddr {
                // The varying bits are within the first 32, where the prefixes end.
                if is_v4 {
                    [10, 0, 0, last].into()
                } else {
                    [0xfd00, u16::from(last), 0, 0, 0, 0, 0, 0].into()
                }
            };
            let networks: Vec<_> = networks
                .into_iter()
                .enumerate()
                .map(|(number, (is_v4, last, prefix))| {
                    (IpNet::new(address(is_v4, last), prefix).expect("at most 32"), id(number))
                })
                .collect();
            let ip = address(is_v4, last);
            let mut expected: Vec<_> = networks
                .iter()
                .filter(|(network, _)| network.contains(&ip))
                .map(|(network, owner)| (network.prefix_len(), *owner))
                .collect();
            expected.sort_unstable();
            let routes: Routes = networks.into_iter().collect();
            let mut found: Vec<_> = routes.covering(ip).collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
