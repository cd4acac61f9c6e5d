//! The addresses that stand for names: four of each family, in a row, never given out twice.
//!
//! Refuses to run past the ranges that a gateway accepts, and leaves out the addresses on which
//! clients answer DNS queries. Source: docs/protocol.md 5.4.

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands for one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyIps {
    /// In a row.
    pub ipv4: [Ipv4Addr; PER_FAMILY],
    /// In a row.
    pub ipv6: [Ipv6Addr; PER_FAMILY],
}

impl ProxyIps {
    /// All eight, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.into_iter().map(IpAddr::from);
        ipv4.chain(self.ipv6.into_iter().map(IpAddr::from))
    }
}

/// A name with its proxy IPs, as gateways and (in generation 0) the portal are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Lower case, without a trailing dot.
    pub name: String,
    /// Eight, IPv4 first.
    pub proxy_ips: Vec<IpAddr>,
}

/// Hands out proxy IPs.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    next_ipv4: u32,
    next_ipv6: u128,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            next_ipv4: u32::from(IPV4_RANGE.network()) + 1,
            next_ipv6: u128::from(IPV6_RANGE.network()),
        }
    }
}

impl Pool {
    /// The next four of each family; `None` when a range is used up.
    pub(super) fn take(&mut self) -> Option<ProxyIps> {
        let first = |net: Ipv4Net| u128::from(u32::from(net.network()));
        let last = |net: Ipv4Net| u128::from(u32::from(net.broadcast()));
        let reserved = (first(IPV4_SENTINELS), last(IPV4_SENTINELS));
        let ipv4 = block(self.next_ipv4.into(), reserved, last(IPV4_RANGE))?;
        let reserved = (
            u128::from(IPV6_SENTINELS.network()),
            u128::from(IPV6_SENTINELS.broadcast()),
        );
        let ipv6 = block(self.next_ipv6, reserved, IPV6_RANGE.broadcast().into())?;
        let ipv4 = u32::try_from(ipv4).expect("the block ends inside the IPv4 range");
        self.next_ipv4 = ipv4 + PER_FAMILY as u32;
        self.next_ipv6 = ipv6 + PER_FAMILY as u128;
        Some(ProxyIps {
            ipv4: std::array::from_fn(|n| (ipv4 + n as u32).into()),
            ipv6: std::array::from_fn(|n| (ipv6 + n as u128).into()),
        })
    }
}

/// Where the next block begins that overlaps nothing reserved and ends by `last`.
fn block(next: u128, reserved: (u128, u128), last: u128) -> Option<u128> {
    let ends = |first| first + PER_FAMILY as u128 - 1;
    let overlaps = next <= reserved.1 && ends(next) >= reserved.0;
    let first = if overlaps { reserved.1 + 1 } else { next };
    (ends(first) <= last).then_some(first)
}

/// How many addresses of each family stand for one name.
pub const PER_FAMILY: usize = 4;
/// What a gateway accepts as proxy IPs.
pub const IPV4_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);
/// What a gateway accepts as proxy IPs.
pub const IPV6_RANGE: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0),
    107,
);
/// Where clients answer DNS queries.
pub const IPV4_SENTINELS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 111, 0), 24);
/// Where clients answer DNS queries.
pub const IPV6_SENTINELS: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 0),
    120,
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn begins_where_firezone_begins() {
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

    /// Both ranges to their ends: no address twice, none outside, none of the resolvers'.
    #[test]
    fn the_ranges_end_without_a_repetition() {
        let mut pool = Pool::default();
        let (mut last_ipv4, mut last_ipv6) = (None, None);
        let mut blocks = 0;
        while let Some(ips) = pool.take() {
            for ip in ips.ipv4 {
                assert!(IPV4_RANGE.contains(&ip) && !IPV4_SENTINELS.contains(&ip));
                assert!(last_ipv4 < Some(ip));
                last_ipv4 = Some(ip);
            }
            for ip in ips.ipv6 {
                assert!(IPV6_RANGE.contains(&ip) && !IPV6_SENTINELS.contains(&ip));
                assert!(last_ipv6 < Some(ip));
                last_ipv6 = Some(ip);
            }
            blocks += 1;
        }
        assert!(blocks > 500_000, "{blocks}");
        assert!(pool.take().is_none());
    }

    proptest! {
        /// Wherever a block would begin, it is in a row, and clear of what is reserved.
        #[test]
        fn blocks_are_clear_of_the_resolvers(offset in 0u32..600, count in 1usize..80) {
            let around = u32::from(IPV4_SENTINELS.network()) - 300;
            let sentinels = u128::from(IPV6_SENTINELS.network()) - 300;
            let mut pool = Pool {
                next_ipv4: around + offset,
                ..Pool::default()
            };
            let mut seen = BTreeSet::new();
            for _ in 0..count {
                let ips = pool.take().expect("room");
                for (n, ip) in ips.ipv4.into_iter().enumerate() {
                    prop_assert!(!IPV4_SENTINELS.contains(&ip));
                    prop_assert_eq!(u32::from(ip), u32::from(ips.ipv4[0]) + n as u32);
                }
                for ip in ips.iter() {
                    prop_assert!(seen.insert(ip));
                }
            }
            // The resolvers' IPv6 addresses lie beyond the range, where no pool gets.
            let ipv6 = block(
                sentinels + u128::from(offset),
                (sentinels + 300, sentinels + 300 + 255),
                u128::MAX,
            );
            let ipv6 = Ipv6Addr::from(ipv6.expect("room"));
            prop_assert!(!IPV6_SENTINELS.contains(&ipv6));
        }
    }
}
