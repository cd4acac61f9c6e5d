//! The pool of proxy IPs: each name gets four consecutive addresses of each family, once.
//!
//! Stays within the ranges that a gateway accepts, and skips the addresses on which clients answer
//! DNS queries. Source: docs/protocol.md 5.4.

use super::super::addresses::{PROXY_IPV4, PROXY_IPV6, SENTINEL_IPV4, SENTINEL_IPV6};
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The proxy IPs of one name, consecutive in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyIps {
    pub ipv4: [Ipv4Addr; PER_FAMILY],
    pub ipv6: [Ipv6Addr; PER_FAMILY],
}

impl ProxyIps {
    /// All eight addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.into_iter().map(IpAddr::from);
        ipv4.chain(self.ipv6.into_iter().map(IpAddr::from))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pool {
    next_ipv4: u32,
    next_ipv6: u128,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            next_ipv4: u32::from(PROXY_IPV4.network()) + 1,
            next_ipv6: u128::from(PROXY_IPV6.network()),
        }
    }
}

impl Pool {
    /// The next four of each family; `None` when a range is used up.
    pub(super) fn take(&mut self) -> Option<ProxyIps> {
        let first = |net: Ipv4Net| u128::from(u32::from(net.network()));
        let last = |net: Ipv4Net| u128::from(u32::from(net.broadcast()));
        let reserved = (first(SENTINEL_IPV4), last(SENTINEL_IPV4));
        let ipv4 = block(self.next_ipv4.into(), reserved, last(PROXY_IPV4))?;
        let reserved = (
            u128::from(SENTINEL_IPV6.network()),
            u128::from(SENTINEL_IPV6.broadcast()),
        );
        let ipv6 = block(self.next_ipv6, reserved, PROXY_IPV6.broadcast().into())?;
        let ipv4 = u32::try_from(ipv4).expect("the block ends inside the IPv4 range");
        self.next_ipv4 = ipv4 + PER_FAMILY as u32;
        self.next_ipv6 = ipv6 + PER_FAMILY as u128;
        Some(ProxyIps {
            ipv4: std::array::from_fn(|n| (ipv4 + n as u32).into()),
            ipv6: std::array::from_fn(|n| (ipv6 + n as u128).into()),
        })
    }
}

/// Start of the next block that avoids the reserved range and ends by `last`.
fn block(next: u128, reserved: (u128, u128), last: u128) -> Option<u128> {
    let ends = |first| first + PER_FAMILY as u128 - 1;
    let overlaps = next <= reserved.1 && ends(next) >= reserved.0;
    let first = if overlaps { reserved.1 + 1 } else { next };
    (ends(first) <= last).then_some(first)
}

/// Number of proxy IPs of each family for one name.
pub(super) const PER_FAMILY: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn begins_with_the_same_addresses_as_firezone() {
        let mut pool = Pool::default();
        let first: Vec<String> = pool
            .take()
            .expect("room")
            .iter()
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(
            first,
            [
                "100.96.0.1",
                "100.96.0.2",
                "100.96.0.3",
                "100.96.0.4",
                "fd00:2021:1111:8000::",
                "fd00:2021:1111:8000::1",
                "fd00:2021:1111:8000::2",
                "fd00:2021:1111:8000::3",
            ]
        );
        let second = pool.take().expect("room");
        assert_eq!(second.ipv4[0], Ipv4Addr::new(100, 96, 0, 5));
    }

    /// Both ranges to their ends: no address twice, none outside, none reserved.
    #[test]
    fn exhausts_the_ranges_without_a_repetition() {
        let mut pool = Pool::default();
        let (mut last_ipv4, mut last_ipv6) = (None, None);
        let mut blocks = 0;
        while let Some(ips) = pool.take() {
            for ip in ips.ipv4 {
                assert!(PROXY_IPV4.contains(&ip) && !SENTINEL_IPV4.contains(&ip));
                assert!(last_ipv4 < Some(ip));
                last_ipv4 = Some(ip);
            }
            for ip in ips.ipv6 {
                assert!(PROXY_IPV6.contains(&ip) && !SENTINEL_IPV6.contains(&ip));
                assert!(last_ipv6 < Some(ip));
                last_ipv6 = Some(ip);
            }
            blocks += 1;
        }
        assert!(blocks > 500_000, "{blocks}");
        assert!(pool.take().is_none());
    }

    proptest! {
        /// Blocks are consecutive and avoid the reserved range, wherever they begin.
        #[test]
        fn blocks_avoid_the_reserved_addresses(offset in 0u32..600, count in 1usize..80) {
            let around = u32::from(SENTINEL_IPV4.network()) - 300;
            let sentinels = u128::from(SENTINEL_IPV6.network()) - 300;
            let mut pool = Pool {
                next_ipv4: around + offset,
                ..Pool::default()
            };
            let mut seen = BTreeSet::new();
            for _ in 0..count {
                let ips = pool.take().expect("room");
                for (n, ip) in ips.ipv4.into_iter().enumerate() {
                    prop_assert!(!SENTINEL_IPV4.contains(&ip));
                    prop_assert_eq!(u32::from(ip), u32::from(ips.ipv4[0]) + n as u32);
                }
                for ip in ips.iter() {
                    prop_assert!(seen.insert(ip));
                }
            }
            // The reserved IPv6 addresses are outside the range, where no pool reaches.
            let ipv6 = block(
                sentinels + u128::from(offset),
                (sentinels + 300, sentinels + 300 + 255),
                u128::MAX,
            );
            let ipv6 = Ipv6Addr::from(ipv6.expect("room"));
            prop_assert!(!SENTINEL_IPV6.contains(&ipv6));
        }
    }
}
