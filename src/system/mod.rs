//! The gateway's dealings with its host: what it needs, sets up and takes away again.
//!
//! In the order of a start: [`capabilities`] puts the one privilege to use, [`limits`] asks for
//! room, [`preflight`] names what is missing,
//! [`external_id`] says who we are, [`forwarding`] and [`masquerade`] open the way to the
//! resources, [`interface`] addresses the TUN, [`interfaces`] lists where clients can reach us.
//! Nothing here touches packets.

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

use std::net::{Ipv4Addr, Ipv6Addr};

/// Addresses of clients and gateways inside the tunnel, IPv4 (docs/protocol.md 6.
pub const TUNNEL_RANGE_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 11);

/// Addresses of clients and gateways inside the tunnel, IPv6 (docs/protocol.md 6.
pub const TUNNEL_RANGE_V6: (Ipv6Addr, u8) =
    (Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0), 107);
