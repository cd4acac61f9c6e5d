//! The special address ranges (docs/protocol.md 5.2 step 7, docs/protocol.md 5.4,
//! docs/protocol.md 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `ip` is in a range that the portal assigns clients and gateways from: 100.64.0.0/11 and
/// fd00:2021:1111::/107.
#[must_use]
pub fn is_tunnel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> (32 - 11) == TUNNEL_V4.to_bits() >> (32 - 11),
        IpAddr::V6(ip) => ip.to_bits() >> (128 - 107) == TUNNEL_V6.to_bits() >> (128 - 107),
    }
}

/// Whether `ip` is in a range that clients assign to the names of DNS resources: 100.96.0.0/11 and
/// fd00:2021:1111:8000::/107.
#[must_use]
pub fn is_proxy(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> (32 - 11) == PROXY_V4.to_bits() >> (32 - 11),
        IpAddr::V6(ip) => ip.to_bits() >> (128 - 107) == PROXY_V6.to_bits() >> (128 - 107),
    }
}

/// Whether `ip` is a multicast address or the limited broadcast address, which no router forwards
/// either (RFC 1812, 5.3.5.1).
#[must_use]
pub fn is_group(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

/// Whether an Internet resource opens `ip`. Private networks stay closed to it
/// (docs/lessons.md 35).
///
/// In addition to the list of docs/protocol.md 5.2 step 7, these are closed: 0.0.0.0/8 and ::/96,
/// which are unassigned, fec0::/10, which was private once, and the addresses in 64:ff9b::/96
/// (NAT64, RFC 6052) that embed a closed IPv4 address.
#[must_use]
pub fn is_internet(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_internet_v4(ip),
        IpAddr::V6(ip) => is_internet_v6(ip),
    }
}

fn is_internet_v4(ip: Ipv4Addr) -> bool {
    let is_shared = ip.to_bits() >> (32 - 10) == TUNNEL_V4.to_bits() >> (32 - 10);
    let [first, ..] = ip.octets();
    let is_reserved = first == 0 || first >= 224;
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared || is_reserved)
}

fn is_internet_v6(ip: Ipv6Addr) -> bool {
    let [.., high, low] = ip.segments();
    let embedded = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let is_embedded_only = ip.to_bits() >> 32 == 0;
    let is_site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
    if ip.to_bits() >> 32 == NAT64_PREFIX.to_bits() >> 32 {
        return is_internet_v4(embedded);
    }
    !(is_embedded_only
        || ip.to_ipv4_mapped().is_some()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || is_site_local
        || ip.is_multicast())
}

const TUNNEL_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const TUNNEL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0);
const PROXY_V4: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 0);
const PROXY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0);
const NAT64_PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ips: &[&str], is_in: fn(IpAddr) -> bool, expected: bool) {
        for text in ips {
            let ip = text.parse().expect("an address");
            assert_eq!(is_in(ip), expected, "{text}");
        }
    }

    #[test]
    fn tunnel_ranges_end_at_their_edges() {
        let inside = [
            "100.64.0.0",
            "100.95.255.255",
            "fd00:2021:1111::",
            "fd00:2021:1111::1f:ffff",
        ];
        let outside = [
            "100.63.255.255",
            "100.96.0.0",
            "fd00:2021:1111::20:0",
            "fd00:2021:1110:ffff:ffff:ffff:ffff:ffff",
        ];
        all(&inside, is_tunnel, true);
        all(&outside, is_tunnel, false);
    }

    #[test]
    fn proxy_ranges_end_at_their_edges() {
        let inside = [
            "100.96.0.0",
            "100.127.255.255",
            "fd00:2021:1111:8000::",
            "fd00:2021:1111:8000::1f:ffff",
        ];
        let outside = [
            "100.95.255.255",
            "100.128.0.0",
            "fd00:2021:1111:8000::20:0",
            "fd00:2021:1111:7fff:ffff:ffff:ffff:ffff",
        ];
        all(&inside, is_proxy, true);
        all(&outside, is_proxy, false);
    }

    /// docs/lessons.md 35: Several egress addresses, closed private networks, many clients.
    #[test]
    fn private_and_reserved_addresses_are_not_the_internet() {
        let closed = [
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.0",
            "100.127.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "::10.0.0.1",
            "::ffff:192.0.2.1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
        ];
        let open = [
            "1.0.0.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "203.0.113.1",
            "223.255.255.255",
            "2001:db8::1",
            "fbff::1",
            "64:ff9b::203.0.113.1",
        ];
        all(&closed, is_internet, false);
        all(&open, is_internet, true);
    }

    #[test]
    fn groups_are_multicast_and_limited_broadcast() {
        all(
            &[
                "224.0.0.0",
                "239.255.255.255",
                "255.255.255.255",
                "ff02::fb",
            ],
            is_group,
            true,
        );
        all(
            &["223.255.255.255", "240.0.0.0", "10.255.255.255", "fe80::1"],
            is_group,
            false,
        );
    }
}
