//! The addresses, links, routes and rules of the playground.
//!
//! Addresses are from the documentation and private ranges (RFC 5737, RFC 3849, RFC 1918, RFC
//! 4193). The router masquerades IPv4, routes IPv6 untranslated, and lets nothing in that was not
//! asked for; its own addresses carry the portal and the relay.

use super::{Playground, Role};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

/// The client's address behind the router.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
/// The client's address behind the router.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 2);
/// The router's address on the internet; portal and relay listen on it.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The router's address on the internet; the relay listens on it.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);
/// The gateway's address on the internet.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The gateway's address on the internet.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// The web server's address in the private network.
pub const WEB_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 100);
/// The web server's address in the private network.
pub const WEB_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x100);
/// All addresses of the web server, the one above first; a name can move from one to another.
pub const WEBS_V4: [Ipv4Addr; 3] = [
    WEB_V4,
    Ipv4Addr::new(10, 20, 0, 101),
    Ipv4Addr::new(10, 20, 0, 102),
];
/// All addresses of the web server, the one above first; a name can move from one to another.
pub const WEBS_V6: [Ipv6Addr; 3] = [
    WEB_V6,
    Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x101),
    Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x102),
];
/// The name server's address in the private network.
pub const NAME_SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 53);
/// The name server's address in the private network.
pub const NAME_SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x53);
/// Where the client answers the name queries of applications (docs/protocol.md 5.4.
pub const STUB_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 111, 1);
/// The private network, as a resource.
pub const RESOURCE_NET_V4: &str = "10.20.0.0/24";
/// The private network, as a resource.
pub const RESOURCE_NET_V6: &str = "fd20::/64";
/// The interface of the gateway that faces the internet.
pub const GATEWAY_WAN: &str = "wan0";
/// The gateway's tunnel interface.
pub const TUNNEL_INTERFACE: &str = "postern0";
/// The gateway's address in the tunnel.
pub const GATEWAY_TUNNEL_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// The gateway's address in the tunnel.
pub const GATEWAY_TUNNEL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1);
/// The client's tunnel interface.
pub const CLIENT_INTERFACE: &str = "pclient0";
/// The client's address in the tunnel.
pub const CLIENT_TUNNEL_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
/// The client's address in the tunnel.
pub const CLIENT_TUNNEL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 0x102);

/// The most members of a crowd: what fits the third byte of their addresses.
pub const CROWD_MAX: u8 = 250;

/// Makes the namespaces and everything in them.
pub(super) fn build(playground: &Playground) -> Result<()> {
    let spaces = Role::ALL.map(|role| playground.namespace(role));
    let added: String = playground
        .roles()
        .map(|role| format!("netns add {}\n", playground.namespace(role)))
        .collect();
    ip_batch(None, &added)?;
    for role in playground.roles() {
        settle_kernel(playground, role)?;
    }
    let [client, router, gateway, resource] = &spaces;
    ip_batch(None, &links(client, router, gateway, resource))?;
    for (name, lines) in spaces.iter().zip(ADDRESSES) {
        ip_batch(Some(name), lines)?;
    }
    crowd(playground, router)?;
    feed(
        playground.command(Role::Router, "nft").args(["-f", "-"]),
        ROUTER_RULES,
    )
}

/// Every link is born between two of our namespaces, never on the machine's own network.
fn links(client: &str, router: &str, gateway: &str, resource: &str) -> String {
    format!(
        "link add eth0 netns {client} type veth peer name lan0 netns {router}\n\
         link add wan0 netns {router} type veth peer name wan0 netns {gateway}\n\
         link add lan0 netns {gateway} type veth peer name eth0 netns {resource}\n"
    )
}

/// Addresses and routes, in the order of [`Role::ALL`]. `nodad`: nobody else can have the address,
/// and duplicate detection would keep IPv6 silent for its first second (RFC 4862, section 5.4).
const ADDRESSES: [&str; 4] = [
    "link set lo up
     link set eth0 up
     addr add 192.168.50.2/24 dev eth0
     addr add fd50::2/64 dev eth0 nodad
     route add default via 192.168.50.1
     route add default via fd50::1",
    "link set lo up
     link set lan0 up
     link set wan0 up
     addr add 192.168.50.1/24 dev lan0
     addr add fd50::1/64 dev lan0 nodad
     addr add 203.0.113.1/24 dev wan0
     addr add 2001:db8:113::1/64 dev wan0 nodad",
    "link set lo up
     link set wan0 up
     link set lan0 up
     addr add 203.0.113.10/24 dev wan0
     addr add 2001:db8:113::10/64 dev wan0 nodad
     addr add 10.20.0.1/24 dev lan0
     addr add fd20::1/64 dev lan0 nodad
     route add fd50::/64 via 2001:db8:113::1
     route add fd51::/48 via 2001:db8:113::1",
    "link set lo up
     link set eth0 up
     addr add 10.20.0.53/24 dev eth0
     addr add 10.20.0.100/24 dev eth0
     addr add 10.20.0.101/24 dev eth0
     addr add 10.20.0.102/24 dev eth0
     addr add fd20::53/64 dev eth0 nodad
     addr add fd20::100/64 dev eth0 nodad
     addr add fd20::101/64 dev eth0 nodad
     addr add fd20::102/64 dev eth0 nodad",
];

/// Each member of the crowd on a link of its own to the router: its address is 10.51.N.2, or
/// fd51:0:0:N::2.
fn crowd(playground: &Playground, router: &str) -> Result<()> {
    let (mut links, mut at_router) = (String::new(), String::new());
    for role in playground.members() {
        let Role::Member(number) = role else {
            continue;
        };
        let member = playground.namespace(role);
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            links,
            "link add eth0 netns {member} type veth peer name crowd{number} netns {router}"
        );
        let _infallible = write!(
            at_router,
            "link set crowd{number} up
             addr add 10.51.{number}.1/24 dev crowd{number}
             addr add fd51:0:0:{number:x}::1/64 dev crowd{number} nodad\n"
        );
    }
    ip_batch(None, &links)?;
    ip_batch(Some(router), &at_router)?;
    for role in playground.members() {
        let Role::Member(number) = role else {
            continue;
        };
        let lines = format!(
            "link set lo up
             link set eth0 up
             addr add 10.51.{number}.2/24 dev eth0
             addr add fd51:0:0:{number:x}::2/64 dev eth0 nodad
             route add default via 10.51.{number}.1
             route add default via fd51:0:0:{number:x}::1\n"
        );
        ip_batch(Some(&playground.namespace(role)), &lines)?;
    }
    Ok(())
}

/// A home router: masquerade for IPv4, and a firewall that lets out everything and in only answers.
const ROUTER_RULES: &str = r#"
table inet home_router {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan0" oifname "wan0" accept
        iifname "crowd*" oifname "wan0" accept
    }
}
table ip home_router_nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr { 192.168.50.0/24, 10.51.0.0/16 } oifname "wan0" masquerade
    }
}
"#;

/// The switches that must be set before a link exists, and the router's forwarding.
fn settle_kernel(playground: &Playground, role: Role) -> Result<()> {
    let mut switches = vec![("ipv6/conf/default/accept_dad", "0")];
    if role == Role::Router {
        switches.push(("ipv4/ip_forward", "1"));
        switches.push(("ipv6/conf/all/forwarding", "1"));
    }
    playground.enter(role, move || {
        for (key, value) in switches {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
        }
        Ok(())
    })
}

/// Runs lines of `ip` commands, in a namespace or (to make namespaces and links between them)
/// outside.
fn ip_batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    feed(command.args(["-batch", "-"]), lines)
}

/// Runs a command with `input` on its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}",
            command.get_program().to_string_lossy(),
            said.trim()
        );
    }
    Ok(())
}

/// What went through one interface since its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceBytes {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Reads the counters of an interface; `None` when there is no such interface.
///
/// # Errors
/// The namespace cannot be entered.
pub fn interface_bytes(
    playground: &Playground,
    role: Role,
    interface: &str,
) -> Result<Option<InterfaceBytes>> {
    let table = playground.enter(role, || {
        // Not /proc/net/dev: /proc/net belongs to the process, this thread's own is here.
        Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?)
    })?;
    Ok(table
        .lines()
        .find_map(|line| parse_counters(line, interface)))
}

/// One line of `/proc/net/dev`: name, eight receive columns, eight transmit columns.
fn parse_counters(line: &str, interface: &str) -> Option<InterfaceBytes> {
    let (name, columns) = line.split_once(':')?;
    if name.trim() != interface {
        return None;
    }
    let mut columns = columns.split_whitespace().map(str::parse);
    let received = columns.next()?.ok()?;
    let sent = columns.nth(7)?.ok()?;
    Some(InterfaceBytes { received, sent })
}

/// Whether packets from a place to `address` would leave by `interface`.
///
/// # Errors
/// `ip` cannot be run.
pub fn leads_to(
    playground: &Playground,
    role: Role,
    address: IpAddr,
    interface: &str,
) -> Result<bool> {
    let output = Command::new("ip")
        .args(["-n", &playground.namespace(role), "route", "get"])
        .arg(address.to_string())
        .output()?;
    let route = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(route.contains(&format!(" dev {interface} ")))
}

/// Whether an interface exists at a place and carries `address`.
///
/// # Errors
/// `ip` cannot be run.
pub fn carries(
    playground: &Playground,
    role: Role,
    interface: &str,
    address: IpAddr,
) -> Result<bool> {
    let output = Command::new("ip")
        .args([
            "-n",
            &playground.namespace(role),
            "-o",
            "addr",
            "show",
            "dev",
        ])
        .arg(interface)
        .output()?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(shown.contains(&format!(" {address}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_their_columns() {
        let line = "  wan0: 1500 10 0 0 0 0 0 0 64000 50 0 0 0 0 0 0";
        let expected = InterfaceBytes {
            received: 1500,
            sent: 64000,
        };
        assert_eq!(parse_counters(line, "wan0"), Some(expected));
        assert_eq!(parse_counters(line, "wan"), None);
        assert_eq!(parse_counters("Inter-| Receive | Transmit", "wan0"), None);
        assert_eq!(parse_counters("wan0: 1500 10", "wan0"), None);
    }
}
