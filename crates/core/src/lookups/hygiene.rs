//! Filters the addresses that a server returned: which of them can belong to a resource.

use crate::authorizations::ranges;
use crate::names::AddressFamily;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Sorted, without duplicates, at most [`MAX_ADDRESSES`], all of `family`; without addresses that
/// no resource behind a gateway can have. A name's authority must not be able to direct a client to
/// the gateway itself, to other clients, or to an address that cannot exist.
pub(super) fn usable(mut ips: Vec<IpAddr>, family: AddressFamily, nat64: bool) -> Vec<IpAddr> {
    ips.retain(|ip| AddressFamily::of(*ip) == family && is_usable(*ip, nat64));
    ips.sort_unstable();
    ips.dedup();
    ips.truncate(MAX_ADDRESSES);
    ips
}

fn is_usable(ip: IpAddr, nat64: bool) -> bool {
    let is_reserved = ranges::is_tunnel(ip) || ranges::is_proxy(ip) || ranges::is_group(ip);
    let is_possible = match ip {
        IpAddr::V4(ip) => is_usable_v4(ip),
        IpAddr::V6(ip) => is_usable_v6(ip, nat64),
    };
    is_possible && !is_reserved
}

/// "This network" (RFC 1122, 3.2.1.3) and loopback addresses mean the gateway itself;
/// link-local ones are never forwarded (RFC 3927, 7).
fn is_usable_v4(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    !(first == 0 || ip.is_loopback() || ip.is_link_local())
}

/// ::/96 holds the unspecified and the loopback address and no other valid one. IPv4-mapped
/// addresses do not occur on the wire. Link-local ones are never forwarded (RFC 4291, 2.5.6).
/// 64:ff9b::/96 is unreachable without a NAT64 on the path (docs/lessons.md 11), and with one it
/// leads to the embedded IPv4 address (RFC 6052).
fn is_usable_v6(ip: Ipv6Addr, nat64: bool) -> bool {
    let [.., high, low] = ip.segments();
    if ip.to_bits() >> 32 == NAT64_PREFIX.to_bits() >> 32 {
        let inside = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
        return nat64 && is_usable(inside.into(), nat64);
    }
    let is_ipv4_compatible = ip.to_bits() >> 32 == 0;
    !(is_ipv4_compatible || ip.to_ipv4_mapped().is_some() || ip.is_unicast_link_local())
}

/// More than any proxy address can use; bounds the memory that a hostile answer can occupy.
pub(super) const MAX_ADDRESSES: usize = 32;

const NAT64_PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        let parse = |text: &&str| text.parse().expect("an address");
        texts.iter().map(parse).collect()
    }

    #[test]
    fn addresses_that_no_resource_can_have_are_dropped() {
        let v4 = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.64.0.1",
            "100.95.255.255",
            "100.96.0.1",
            "100.127.0.1",
        ];
        assert_eq!(usable(ips(&v4), AddressFamily::V4, true), ips(&[]));
        let v6 = [
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "ff02::1",
            "fd00:2021:1111::1",
            "fd00:2021:1111:8000::1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::100.64.0.1",
            "64:ff9b::224.0.0.1",
        ];
        assert_eq!(usable(ips(&v6), AddressFamily::V6, true), ips(&[]));
    }

    #[test]
    fn the_remaining_addresses_are_sorted_unique_and_of_one_family() {
        let mixed = ips(&[
            "192.168.1.2",
            "10.0.0.1",
            "2001:db8::2",
            "10.0.0.1",
            "fd00::1",
        ]);
        let v4 = usable(mixed.clone(), AddressFamily::V4, false);
        assert_eq!(v4, ips(&["10.0.0.1", "192.168.1.2"]));
        let v6 = usable(mixed, AddressFamily::V6, false);
        assert_eq!(v6, ips(&["2001:db8::2", "fd00::1"]));
    }

    /// docs/lessons.md 11: DNS64 answers without a NAT64 are dropped.
    #[test]
    fn translated_addresses_count_only_where_there_is_a_nat64() {
        let both = ips(&["64:ff9b::192.0.2.1", "2001:db8::1"]);
        let without = usable(both.clone(), AddressFamily::V6, false);
        assert_eq!(without, ips(&["2001:db8::1"]));
        assert_eq!(usable(both, AddressFamily::V6, true).len(), 2);
    }

    #[test]
    fn an_overlong_answer_is_truncated() {
        let many = (1..=200).map(|host| Ipv4Addr::new(10, 0, 0, host).into());
        let kept = usable(many.rev().collect(), AddressFamily::V4, false);
        assert_eq!(kept.len(), MAX_ADDRESSES);
        assert_eq!(kept[0], IpAddr::from([10, 0, 0, 1]));
    }
}
