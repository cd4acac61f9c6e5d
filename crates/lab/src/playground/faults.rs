//! Breaking addresses of the private network, each in one of three ways.
//!
//! The rules live in the resource's namespace and go with it. They are there before the first
//! connection, so that the kernel knows every connection from its beginning: one that it met
//! half-way would count as new.

use super::network::feed;
use super::{Playground, Role};
use anyhow::Result;
use std::net::IpAddr;

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// New connections are swallowed; those that were answered once go on.
    SilentToNew,
    /// Everything is swallowed.
    Silent,
    /// Everything is answered with ICMP "host unreachable" (ICMPv6 "address unreachable").
    Unreachable,
}

impl Fault {
    const ALL: [Self; 3] = [Self::SilentToNew, Self::Silent, Self::Unreachable];

    fn set(self) -> &'static str {
        match self {
            Self::SilentToNew => "closed",
            Self::Silent => "dead",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Neighbour discovery passes always: an address that nobody announces is answered for by the
/// router, with an ICMP error that a silent address must not bring about.
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

/// Lays the rules, with nothing broken.
pub(super) fn prepare(playground: &Playground) -> Result<()> {
    nft(playground, RULES)
}

/// Breaks an address of the private network.
///
/// # Errors
/// The kernel refuses, or the lab's name server was never started (it lays the rules).
pub fn inflict(playground: &Playground, address: IpAddr, fault: Fault) -> Result<()> {
    nft(playground, &element("add", fault, address))
}

/// Makes an address well again, whatever was wrong with it.
///
/// # Errors
/// Those of [`inflict`].
pub fn heal(playground: &Playground, address: IpAddr) -> Result<()> {
    // Only what is there can be deleted, so it is added first; all of it at once or not at all.
    let lines =
        Fault::ALL.map(|fault| element("add", fault, address) + &element("delete", fault, address));
    nft(playground, &lines.concat())
}

fn element(verb: &str, fault: Fault, address: IpAddr) -> String {
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
