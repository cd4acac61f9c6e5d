//! The gateway's host: what the gateway needs of it, sets up on it and removes again.
//!
//! In the order of a start: [`capabilities`] makes the one privilege effective, [`limits`] raises
//! the number of open files, [`preflight`] reports what is missing, [`external_id`] identifies this
//! gateway, [`forwarding`] and [`masquerade`] prepare the way to the resources, [`interface`] sets
//! the addresses of the TUN, [`interfaces`] lists the addresses that clients can reach. Nothing
//! here handles packets.

pub mod capabilities;
pub mod external_id;
pub mod forwarding;
pub mod interface;
pub mod interfaces;
pub mod limits;
pub mod masquerade;
mod netlink;
#[cfg(test)]
mod netns;
pub mod preflight;
mod sysctl;

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 addresses of clients and gateways inside the tunnel (docs/protocol.md 6).
const TUNNEL_RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);

/// IPv6 addresses of clients and gateways inside the tunnel (docs/protocol.md 6).
const TUNNEL_RANGE_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);
