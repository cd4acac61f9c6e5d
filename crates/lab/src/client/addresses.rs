//! The fixed addresses of the protocol. Source: docs/protocol.md 5.4 and 6.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of clients and gateways inside the tunnel.
pub const TUNNEL_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);
pub const TUNNEL_IPV6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);

/// The ranges from which a gateway accepts proxy IPs.
pub const PROXY_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);
pub const PROXY_IPV6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 0),
    107,
);

/// The ranges reserved for the DNS servers of clients.
pub const SENTINEL_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 111, 0), 24);
pub const SENTINEL_IPV6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 0),
    120,
);

/// The addresses on which this client answers DNS queries, as Firezone's clients do.
pub const STUB_IPV4: Ipv4Addr = Ipv4Addr::new(100, 100, 111, 1);
pub const STUB_IPV6: Ipv6Addr =
    Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 1);

/// The only port that `resolv.conf` can express.
pub const DNS_PORT: u16 = 53;

/// Whether `ip` is reserved for clients' DNS servers, and thus unusable as an upstream.
pub fn is_sentinel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SENTINEL_IPV4.contains(&ip),
        IpAddr::V6(ip) => SENTINEL_IPV6.contains(&ip),
    }
}
