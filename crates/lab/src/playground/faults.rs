//! Breaks addresses of the private network, each in one of three ways.
//!
//! The rules are in the resource's namespace and vanish with it. They exist before the first
//! connection, so that conntrack sees every connection from its beginning: it would count one that
//! it meets half-way as new.

use super::network::feed;
use super::{Playground, Role};
use anyhow::Result;
use std::net::IpAddr;

/// A fault of an address in the private network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Drops new connections; keeps those that were answered once.
    SilentToNew,
    /// Drops all packets to the address.
    Silent,
    /// Answers all packets with ICMP "host unreachable" (ICMPv6 "address unreachable").
    Unreachable,
}

impl HostFault {
    const ALL: [Self; 3] = [Self::SilentToNew, Self::Silent, Self::Unreachable];

    fn set(self) -> &'static str {
        match self {
            Self::SilentToNew => "closed",
            Self::Silent => "dead",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Neighbour discovery always passes: for an address that is not announced the router sends an
/// ICMP error, which a silent address must not cause.
const RULES: &str = "
table inet faults {
    set closed_v4 { type ipv4_addr; }
    set closed_v6 { type ipv6_addr; }
    set dead_v4 { type ipv4_addr; }
    set dead_v6 { type ipv6_addr; }
    set unreachable_v4 { type ipv4_addr; }
    set unreachable_v6 { type ipv6_addr; }
    chain input {
        type filter hook input priority filter; policy accept;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ip daddr @dead_v4 drop
        ip6 daddr @dead_v6 drop
        ip daddr @unreachable_v4 reject with icmpx type host-unreachable
        ip6 daddr @unreachable_v6 reject with icmpx type host-unreachable
        ct state established,related accept
        ip daddr @closed_v4 drop
        ip6 daddr @closed_v6 drop
    }
}
";

/// Installs the rules with no address broken.
pub(super) fn prepare(playground: &Playground) -> Result<()> {
    nft(playground, RULES)
}

/// Breaks an address of the private network.
pub fn inflict(playground: &Playground, address: IpAddr, fault: HostFault) -> Result<()> {
    nft(playground, &element("add", fault, address))
}

/// Removes every fault of an address.
pub fn heal(playground: &Playground, address: IpAddr) -> Result<()> {
    // Only an existing element can be deleted, so it is added first, in one transaction.
    let lines = HostFault::ALL
        .map(|fault| element("add", fault, address) + &element("delete", fault, address));
    nft(playground, &lines.concat())
}

fn element(verb: &str, fault: HostFault, address: IpAddr) -> String {
    let family = match address {
        IpAddr::V4(_) => "v4",
        IpAddr::V6(_) => "v6",
    };
    let set = fault.set();
    format!("{verb} element inet faults {set}_{family} {{ {address} }}\n")
}

fn nft(playground: &Playground, lines: &str) -> Result<()> {
    let mut command = playground.command(Role::Resource, "nft");
    feed(command.args(["-f", "-"]), lines)
}
